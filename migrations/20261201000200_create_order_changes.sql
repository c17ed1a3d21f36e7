-- Steps in which parts of orders were taken back. The id is the entry's. `left_units` says how many units of each line are left
-- afterwards, in the order of the lines; the units of a step are the difference to the step before. The other amounts are the shares
-- of the order's benefits that went with the step. The last unit of an order cancels it.
CREATE TABLE order_changes (
  id BIGINT UNSIGNED NOT NULL,
  order_id BIGINT UNSIGNED NOT NULL,
  way ENUM('CANCELLED', 'RETURNED', 'WRITTEN_OFF') NOT NULL,
  location_id BIGINT UNSIGNED NULL,
  left_units VARCHAR(900) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  coupon_discount_amount BIGINT NOT NULL,
  used_points BIGINT NOT NULL,
  earned_points BIGINT NOT NULL,
  created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  PRIMARY KEY (id),
  KEY order_changes_order (order_id, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
