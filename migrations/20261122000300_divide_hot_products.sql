-- Buckets: the online stock of a hot product, divided over slots of several shards.

ALTER TABLE accounts MODIFY COLUMN kind
  ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD', 'BUCKET') NOT NULL;
ALTER TABLE postings MODIFY COLUMN kind
  ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD', 'BUCKET') NOT NULL;

-- The account BUCKET:<product>:<slot> lies in that slot. One that is not open is emptied into the others.
CREATE TABLE buckets (
  product_id BIGINT UNSIGNED NOT NULL,
  slot SMALLINT UNSIGNED NOT NULL,
  is_open TINYINT(1) NOT NULL DEFAULT 1,
  closed_at DATETIME(3) NULL,
  PRIMARY KEY (product_id, slot)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
ALTER TABLE archived_levels MODIFY COLUMN kind
  ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD', 'BUCKET') NOT NULL;
