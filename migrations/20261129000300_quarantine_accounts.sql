-- Why: an account whose postings do not chain stopped the whole shard. Its postings are now kept aside,
-- everybody else's are settled, and nothing is taken from it until somebody ends the quarantine.

-- One row per account that is, or was, under quarantine. A release may number its postings anew: up to released_upto
-- Redis' journal says other sequence numbers and balances of the account than MySQL. NULL while the quarantine lasts.
CREATE TABLE quarantined_accounts (
  kind ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD', 'BUCKET') NOT NULL,
  owner_id BIGINT UNSIGNED NOT NULL,
  place_id BIGINT UNSIGNED NOT NULL,
  shard SMALLINT UNSIGNED NOT NULL,
  -- The entry whose posting did not follow, and why.
  journal_id BIGINT UNSIGNED NOT NULL,
  reason VARCHAR(1000) NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  released_upto BIGINT UNSIGNED NULL,
  PRIMARY KEY (kind, owner_id, place_id),
  KEY quarantined_accounts_shard (shard)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Postings of these accounts, as Redis decided them; the entries themselves are recorded and settled.
-- An entry has at most an opening posting and one more of the same account: seq tells them apart.
CREATE TABLE quarantined_postings (
  journal_id BIGINT UNSIGNED NOT NULL,
  kind ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD', 'BUCKET') NOT NULL,
  owner_id BIGINT UNSIGNED NOT NULL,
  place_id BIGINT UNSIGNED NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  delta BIGINT NOT NULL,
  balance_after BIGINT NOT NULL,
  PRIMARY KEY (journal_id, kind, owner_id, place_id, seq),
  KEY quarantined_postings_account (kind, owner_id, place_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
