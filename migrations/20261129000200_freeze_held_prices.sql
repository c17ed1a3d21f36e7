-- Why: a reservation promises its price. The order that takes it is charged what a unit cost when it was made, whatever
-- sale is planned, running, over or deleted by then. NULL is a reservation of before, which is priced when it is ordered.
-- `sale_id` is the sale under which it was made, from now on also of a sale without a limit; `sale_limit` says whether
-- it counts.
ALTER TABLE reservations
  ADD COLUMN price BIGINT NULL,
  ADD COLUMN unit_price BIGINT NULL;
