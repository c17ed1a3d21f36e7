-- The shop's own name for an order.
ALTER TABLE orders ADD COLUMN reference VARCHAR(100) NULL, ALGORITHM = INSTANT;
-- A client may name its requests.
ALTER TABLE audit_log MODIFY request_id VARCHAR(64) CHARACTER SET ascii NOT NULL;
