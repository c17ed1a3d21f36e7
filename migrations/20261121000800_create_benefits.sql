-- Why: coupons and points. What is left of a coupon, and what a user has of points, are accounts; these tables
-- say what a coupon is worth, who drew which code, and why points moved.

-- Campaign items, as titles that a campaign's coupons are drawn for.
CREATE TABLE works (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  title VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  is_deleted TINYINT(1) NOT NULL DEFAULT 0,
  -- NULL once it is deleted: its title may be used again.
  live_title VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin GENERATED ALWAYS AS (IF(is_deleted = 0, title, NULL)) VIRTUAL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  CONSTRAINT works_title UNIQUE KEY (live_title),
  KEY works_updated (updated_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- A coupon never changes once it is there. With a user it is theirs, under its own code; without one it is a
-- campaign's, and everybody draws a code of their own, as many as `count` says (NULL: as many as are wanted).
-- `opened` says that the ledger knows it. The key of the request that created it is unique.
CREATE TABLE coupons (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  name VARCHAR(100) NOT NULL,
  discount_amount BIGINT NULL,
  discount_hundredths INT UNSIGNED NULL,
  count BIGINT NULL,
  valid_from DATETIME(3) NULL,
  valid_to DATETIME(3) NULL,
  code VARCHAR(50) CHARACTER SET ascii COLLATE ascii_bin NULL,
  user_id BIGINT UNSIGNED NULL,
  opened TINYINT(1) NOT NULL DEFAULT 0,
  key_hash BINARY(16) NULL,
  fingerprint BINARY(16) NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  CONSTRAINT coupons_key UNIQUE KEY (key_hash),
  CONSTRAINT coupons_code UNIQUE KEY (code),
  KEY coupons_opened (opened, id),
  CONSTRAINT coupons_benefit CHECK ((discount_amount IS NULL) <> (discount_hundredths IS NULL)),
  CONSTRAINT coupons_user CHECK ((code IS NULL) = (user_id IS NULL)),
  CONSTRAINT coupons_window CHECK (valid_from < valid_to)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per code in somebody's hands: a projection of `coupon_issued`, and of the `coupon_opened` of a personal
-- coupon. `order_id` is the order that used it last and was not taken back. A code may come again after its
-- coupon is long over, so its index is not unique.
CREATE TABLE coupon_issues (
  id BIGINT UNSIGNED NOT NULL,
  coupon_id BIGINT UNSIGNED NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  work_id BIGINT UNSIGNED NULL,
  code VARCHAR(50) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  order_id BIGINT UNSIGNED NULL,
  is_used TINYINT(1) GENERATED ALWAYS AS (order_id IS NOT NULL) VIRTUAL,
  created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  PRIMARY KEY (id),
  KEY coupon_issues_code (code),
  KEY coupon_issues_user (user_id, id),
  KEY coupon_issues_coupon (coupon_id, id),
  KEY coupon_issues_order (order_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per posting of a POINTS account, with the reason: the key is the posting's. `id` is the entry.
CREATE TABLE point_transactions (
  user_id BIGINT UNSIGNED NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  type ENUM('EARN', 'USED', 'CANCELED') NOT NULL,
  delta BIGINT NOT NULL,
  amount BIGINT GENERATED ALWAYS AS (ABS(delta)) VIRTUAL,
  balance_snapshot BIGINT NOT NULL,
  description VARCHAR(255) NOT NULL,
  order_id BIGINT UNSIGNED NULL,
  cancels_id BIGINT UNSIGNED NULL,
  created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  PRIMARY KEY (user_id, seq),
  KEY point_transactions_id (id),
  KEY point_transactions_cancels (cancels_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What a user's points did on a day of the configured time zone. Written again, it says the same.
CREATE TABLE daily_point_reports (
  user_id BIGINT UNSIGNED NOT NULL,
  report_date DATE NOT NULL,
  earn_amount BIGINT NOT NULL,
  use_amount BIGINT NOT NULL,
  cancel_amount BIGINT NOT NULL,
  net_amount BIGINT NOT NULL,
  -- The positions between which the day's entries lie: the time zone may be set anew later.
  first_id BIGINT UNSIGNED NOT NULL,
  end_id BIGINT UNSIGNED NOT NULL,
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (user_id, report_date),
  KEY daily_point_reports_date (report_date)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What an order used and earned besides. NULL where there is nothing: most rows grow by no byte.
ALTER TABLE orders
  ADD COLUMN coupon_id BIGINT UNSIGNED NULL,
  ADD COLUMN coupon_code VARCHAR(50) CHARACTER SET ascii COLLATE ascii_bin NULL,
  ADD COLUMN coupon_discount_amount BIGINT NULL,
  ADD COLUMN used_points BIGINT NULL,
  ADD COLUMN earned_points BIGINT NULL;
