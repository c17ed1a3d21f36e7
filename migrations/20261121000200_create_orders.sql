-- Why: orders as shops read them. Both tables are projections of `order_placed` entries: an order's
-- id is the position of its entry.

-- The index serves a user's own list, newest first. `updated_at` is set when the order is taken back.
CREATE TABLE orders (
  id BIGINT UNSIGNED NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  status ENUM('SUCCESS', 'FAIL', 'CANCEL') NOT NULL,
  path ENUM('redis', 'lock') NOT NULL,
  delivery_type ENUM('ONLINE', 'TODAY_DELIVERY', 'PICKUP') NOT NULL,
  store_id BIGINT UNSIGNED NULL,
  total_amount BIGINT NOT NULL,
  created_at DATETIME(3) NOT NULL,
  updated_at DATETIME(3) NULL,
  PRIMARY KEY (id),
  KEY orders_user (user_id, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

CREATE TABLE order_products (
  order_id BIGINT UNSIGNED NOT NULL,
  line SMALLINT UNSIGNED NOT NULL,
  product_id BIGINT UNSIGNED NOT NULL,
  product_name VARCHAR(100) NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  price BIGINT NOT NULL,
  unit_price BIGINT NOT NULL,
  sub_total BIGINT NOT NULL,
  PRIMARY KEY (order_id, line)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
