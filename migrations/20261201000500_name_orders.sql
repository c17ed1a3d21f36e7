-- The shop's own name for an order.
ALTER TABLE orders ADD COLUMN reference VARCHAR(100) NULL, ALGORITHM = INSTANT;
