-- Why: what each buyer may still have in a sale was kept for ever, in Redis and here. When a sale is over
-- for a week, or was deleted a day ago, its accounts leave Redis and move into a table of their own. Their
-- postings stay, and are archived with the journal.

-- From forgotten_at on an order that is taken back gives nothing back to the limit. The accounts move when
-- all entries that speak of them are settled.
ALTER TABLE sales ADD COLUMN forgotten_at DATETIME(3) NULL;
ALTER TABLE sales ADD COLUMN allowances_archived_at DATETIME(3) NULL;

-- An account ALLOWANCE:<sale>:<user> as it stood at its last posting.
CREATE TABLE archived_allowances (
  sale_id BIGINT UNSIGNED NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  balance BIGINT NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (sale_id, user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
