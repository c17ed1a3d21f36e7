-- Why: what the ledger's other entries write about: sales and discounts of products, reservations, what
-- tills sold while they were cut off, files of stock.

-- A user's reservations are limited by an account too. At the end of the list: no row is rewritten.
ALTER TABLE accounts MODIFY COLUMN kind
  ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD') NOT NULL;
ALTER TABLE postings MODIFY COLUMN kind
  ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD') NOT NULL;

-- What a store has. None of the three columns ever changes: settling pays nothing for it.
ALTER TABLE accounts ADD KEY accounts_place (place_id, kind, owner_id);

-- One row per sale there ever was; the product names the one that governs it.
CREATE TABLE sales (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  product_id BIGINT UNSIGNED NOT NULL,
  starts_at DATETIME(3) NOT NULL,
  ends_at DATETIME(3) NOT NULL,
  price BIGINT NULL,
  limit_per_user INT UNSIGNED NULL,
  deleted_at DATETIME(3) NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  KEY sales_product (product_id, id),
  CONSTRAINT sales_window CHECK (starts_at < ends_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per discount there ever was, in hundredths of a percent; the product names the active one.
CREATE TABLE discounts (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  product_id BIGINT UNSIGNED NOT NULL,
  hundredths INT UNSIGNED NOT NULL,
  starts_at DATETIME(3) NOT NULL,
  ends_at DATETIME(3) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  KEY discounts_product (product_id, id),
  CONSTRAINT discounts_percentage CHECK (hundredths BETWEEN 1 AND 10000)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- A product has at most one sale and one discount because it names them.
ALTER TABLE products
  ADD COLUMN sale_id BIGINT UNSIGNED NULL,
  ADD COLUMN discount_id BIGINT UNSIGNED NULL;

ALTER TABLE locations MODIFY COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT;

-- What an order took besides its products' stock: a reservation's, or a store's that shares with online.
ALTER TABLE orders
  MODIFY COLUMN path ENUM('redis', 'lock', 'till') NOT NULL,
  ADD COLUMN reservation_id BIGINT UNSIGNED NULL,
  ADD COLUMN shares_online_stock TINYINT(1) NOT NULL DEFAULT 0;

-- The sale's limit that a line counts against.
ALTER TABLE order_products
  ADD COLUMN sale_id BIGINT UNSIGNED NULL,
  ADD COLUMN sale_limit INT UNSIGNED NULL;

-- A projection of `reservation_made` and what ended it. An id is a position, so the times follow from it.
-- The indexes serve a user's own list, a product's list, and `recover` and `verify`, which read what is PENDING.
CREATE TABLE reservations (
  id BIGINT UNSIGNED NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  product_id BIGINT UNSIGNED NOT NULL,
  location_id BIGINT UNSIGNED NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  ttl_ms BIGINT UNSIGNED NOT NULL,
  sale_id BIGINT UNSIGNED NULL,
  sale_limit INT UNSIGNED NULL,
  hold_limit INT UNSIGNED NOT NULL,
  status ENUM('PENDING', 'CONFIRMED', 'CANCELLED', 'EXPIRED') NOT NULL DEFAULT 'PENDING',
  order_id BIGINT UNSIGNED NULL,
  ended_at DATETIME(3) NULL,
  created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  expires_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, ((id >> 22) + ttl_ms) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  PRIMARY KEY (id),
  KEY reservations_user (user_id, id),
  KEY reservations_product (product_id, id),
  KEY reservations_status (status, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Sales that tills made while they were cut off, by their own key: SOLD is an order, OVERSOLD waits for a
-- person. The key is what makes a batch repeatable for as long as the row is there.
CREATE TABLE offline_sales (
  journal_id BIGINT UNSIGNED NOT NULL,
  store_id BIGINT UNSIGNED NOT NULL,
  sale_key VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  fingerprint BINARY(16) NOT NULL,
  sold_ms BIGINT NOT NULL,
  state ENUM('SOLD', 'OVERSOLD', 'RESOLVED') NOT NULL,
  note VARCHAR(255) NULL,
  resolved_by BIGINT UNSIGNED NULL,
  resolved_at DATETIME(3) NULL,
  PRIMARY KEY (journal_id),
  CONSTRAINT offline_sales_key UNIQUE KEY (store_id, sale_key),
  KEY offline_sales_state (store_id, state, journal_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
