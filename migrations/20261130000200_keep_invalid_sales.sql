-- Why: goods that a till sold while it was cut off have left the shop, also when the sale cannot be read. And two
-- devices of a store count their sales from one.

-- A till's sale that cannot be taken, as it was sent, until a person has resolved it. The same text of the same device
-- is the same sale, however often it is sent: text_hash is its SHA-256. resolved_by is NULL of a sale that could be
-- read when it was sent again. The index serves a store's list and the count of what waits.
CREATE TABLE invalid_sales (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  store_id BIGINT UNSIGNED NOT NULL,
  device_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  sale_key VARCHAR(100) NULL,
  text TEXT NOT NULL,
  text_hash BINARY(32) NOT NULL,
  code VARCHAR(50) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  detail VARCHAR(500) NOT NULL,
  state ENUM('INVALID', 'RESOLVED') NOT NULL DEFAULT 'INVALID',
  note VARCHAR(255) NULL,
  resolved_by BIGINT UNSIGNED NULL,
  resolved_at DATETIME(3) NULL,
  received_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  CONSTRAINT invalid_sales_text UNIQUE KEY (store_id, device_id, text_hash),
  KEY invalid_sales_state (store_id, state, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The key of a sale is unique in its store and device; a till that names no device is the device ''. Store and key come
-- first: the version before looks for a sale by these two.
ALTER TABLE offline_sales
  ADD COLUMN device_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  DROP KEY offline_sales_key,
  ADD CONSTRAINT offline_sales_key UNIQUE KEY (store_id, sale_key, device_id);
