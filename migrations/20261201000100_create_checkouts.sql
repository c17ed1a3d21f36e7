-- Checkouts: orders that are held at a frozen total. The columns before `status` never change. `expires_ms` is the deadline, which an
-- extension moves; `times_extended` counts the extensions of its owner or the shop, `payment_extended` is 1 when a payment whose
-- outcome was open moved it; `extended_at` is when MySQL was told so. `order_id` is the order that it became, `is_late` says that it was paid after its deadline.
CREATE TABLE checkouts (
  id BIGINT UNSIGNED NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  delivery_type ENUM('ONLINE', 'TODAY_DELIVERY', 'PICKUP') NOT NULL,
  store_id BIGINT UNSIGNED NULL,
  total_amount BIGINT NOT NULL,
  coupon_id BIGINT UNSIGNED NULL,
  coupon_code VARCHAR(50) CHARACTER SET ascii COLLATE ascii_bin NULL,
  coupon_discount_amount BIGINT NULL,
  used_points BIGINT NOT NULL,
  earned_points BIGINT NOT NULL,
  ttl_ms BIGINT UNSIGNED NOT NULL,
  hold_limit INT UNSIGNED NOT NULL,
  reference VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  status ENUM('OPEN', 'CONFIRMED', 'CANCELLED', 'EXPIRED', 'REFUND_DUE') NOT NULL DEFAULT 'OPEN',
  expires_ms BIGINT UNSIGNED NOT NULL,
  times_extended INT UNSIGNED NOT NULL DEFAULT 0,
  payment_extended TINYINT(1) NOT NULL DEFAULT 0,
  extended_at DATETIME(3) NULL,
  order_id BIGINT UNSIGNED NULL,
  is_late TINYINT(1) NOT NULL DEFAULT 0,
  ended_at DATETIME(3) NULL,
  created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  PRIMARY KEY (id),
  -- A buyer's list.
  KEY checkouts_user (user_id, id),
  -- The open ones, for the sweep of `recover` and for an admin's list.
  KEY checkouts_status (status, id),
  -- Whether a code is set aside.
  KEY checkouts_code (coupon_code, status)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The lines of checkouts, as `order_products` has those of orders.
CREATE TABLE checkout_lines (
  checkout_id BIGINT UNSIGNED NOT NULL,
  line SMALLINT UNSIGNED NOT NULL,
  product_id BIGINT UNSIGNED NOT NULL,
  product_name VARCHAR(100) NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  price BIGINT NOT NULL,
  unit_price BIGINT NOT NULL,
  sale_id BIGINT UNSIGNED NULL,
  sale_limit INT UNSIGNED NULL,
  PRIMARY KEY (checkout_id, line)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Payments and what became of each: a CONFIRMED one sold the checkout (its id is the order's), all others are to be refunded. The id
-- is the entry's. A payment whose amount was wrong may be confirmed later, by another row.
CREATE TABLE payments (
  id BIGINT UNSIGNED NOT NULL,
  payment_id VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  checkout_id BIGINT UNSIGNED NOT NULL,
  amount BIGINT NOT NULL,
  outcome ENUM('CONFIRMED', 'DUPLICATE', 'AMOUNT_MISMATCH', 'TOO_LATE', 'CANCELLED') NOT NULL,
  created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  PRIMARY KEY (id),
  KEY payments_checkout (checkout_id, payment_id),
  KEY payments_outcome (outcome, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The checkout that became an order.
ALTER TABLE orders ADD COLUMN checkout_id BIGINT UNSIGNED NULL;
