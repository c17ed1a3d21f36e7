-- What a row's other columns already say is computed when it is read, not sent and stored once more:
-- the subscriber writes four rows for each order, and each parameter less is time of the server's.
-- An id is a position: its milliseconds since 2025-01-01 stand above its lowest 22 bits.

ALTER TABLE journal
  DROP COLUMN created_at,
  ADD COLUMN created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL;

ALTER TABLE orders
  DROP COLUMN created_at,
  ADD COLUMN created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL;

ALTER TABLE order_products
  DROP COLUMN sub_total,
  ADD COLUMN sub_total BIGINT GENERATED ALWAYS AS (unit_price * quantity) VIRTUAL;
