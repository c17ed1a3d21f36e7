-- Why: who buys what where. Prices and names live here; what is left of a product is an account.

CREATE TABLE users (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  email VARCHAR(254) NOT NULL,
  name VARCHAR(100) NOT NULL,
  role ENUM('user', 'store', 'admin') NOT NULL DEFAULT 'user',
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  CONSTRAINT users_email UNIQUE KEY (email)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Soft delete: an order of the past still names its product. `opened` says that the accounts exist.
-- `revision` rises with every change and is the ETag. The key of the request that created a product
-- is unique, so that a repeated request finds it instead of making a second one.
-- The index on updated_at serves the catalog's refresh, which reads changed rows only.
CREATE TABLE products (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  name VARCHAR(100) NOT NULL,
  description VARCHAR(255) NOT NULL DEFAULT '',
  price BIGINT NOT NULL,
  status ENUM('ACTIVE', 'SOLD_OUT', 'END_OF_SALE', 'INACTIVE') NOT NULL DEFAULT 'ACTIVE',
  min_stock_level BIGINT NOT NULL DEFAULT 0,
  reorder_point BIGINT NOT NULL DEFAULT 0,
  opened TINYINT(1) NOT NULL DEFAULT 0,
  is_deleted TINYINT(1) NOT NULL DEFAULT 0,
  deleted_at DATETIME(3) NULL,
  revision BIGINT UNSIGNED NOT NULL DEFAULT 1,
  key_hash BINARY(16) NULL,
  fingerprint BINARY(16) NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  CONSTRAINT products_key UNIQUE KEY (key_hash),
  KEY products_updated (updated_at),
  CONSTRAINT products_price_not_negative CHECK (price >= 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Places that hold stock; 0, the online warehouse, needs no row.
CREATE TABLE locations (
  id BIGINT UNSIGNED NOT NULL,
  name VARCHAR(100) NOT NULL,
  latitude DOUBLE NOT NULL,
  longitude DOUBLE NOT NULL,
  shares_online_stock TINYINT(1) NOT NULL DEFAULT 0,
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
