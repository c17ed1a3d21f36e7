-- Why: a sale can be changed while it runs, and its product can be sold outside its window.

-- A buyer's ALLOWANCE is opened at `counted_from` and only counts what is taken; `limit_per_user` judges, and may change.
-- A sale of before opened its buyers' accounts at the limit: that is what they count from.
ALTER TABLE sales
  ADD COLUMN counted_from INT UNSIGNED NOT NULL DEFAULT 1000000,
  ADD COLUMN availability ENUM('SALE_ONLY', 'ALWAYS') NOT NULL DEFAULT 'SALE_ONLY';
UPDATE sales SET counted_from = limit_per_user WHERE limit_per_user IS NOT NULL;
