-- Why: the ledger in MySQL. The journal and its postings are the truth; accounts, shards and every
-- later table are projections that can be refilled from them. No foreign keys: these tables are
-- written in groups under the shard's row lock, which is what keeps them together.

-- One row per account, its state exactly at the watermark. The order of the ENUM is the order in
-- which rows are locked.
CREATE TABLE accounts (
  kind ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS') NOT NULL,
  owner_id BIGINT UNSIGNED NOT NULL,
  place_id BIGINT UNSIGNED NOT NULL,
  balance BIGINT NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  closed TINYINT(1) NOT NULL DEFAULT 0,
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (kind, owner_id, place_id),
  CONSTRAINT accounts_balance_not_negative CHECK (balance >= 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per entry. The unique key on (shard, number) makes a gap or a twin visible.
CREATE TABLE journal (
  id BIGINT UNSIGNED NOT NULL,
  shard SMALLINT UNSIGNED NOT NULL,
  number BIGINT UNSIGNED NOT NULL,
  kind VARCHAR(40) CHARACTER SET ascii NOT NULL,
  version SMALLINT UNSIGNED NOT NULL,
  actor_id BIGINT UNSIGNED NOT NULL,
  reference VARCHAR(191) NULL,
  payload LONGBLOB NOT NULL,
  key_hash BINARY(16) NULL,
  fingerprint BINARY(16) NULL,
  created_at DATETIME(3) NOT NULL,
  PRIMARY KEY (id),
  CONSTRAINT journal_number UNIQUE KEY (shard, number)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per signed change. The primary key is the account's own order; the index leads from an
-- entry to its postings. No CHECK: settle refuses a balance below zero before it gets here.
CREATE TABLE postings (
  kind ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS') NOT NULL,
  owner_id BIGINT UNSIGNED NOT NULL,
  place_id BIGINT UNSIGNED NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  journal_id BIGINT UNSIGNED NOT NULL,
  delta BIGINT NOT NULL,
  balance_after BIGINT NOT NULL,
  PRIMARY KEY (kind, owner_id, place_id, seq),
  KEY postings_journal (journal_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per shard: how far the journal is settled. Its lock is the fence between subscribers.
CREATE TABLE shards (
  shard SMALLINT UNSIGNED NOT NULL,
  watermark BIGINT UNSIGNED NOT NULL,
  number BIGINT UNSIGNED NOT NULL,
  selling TINYINT(1) NOT NULL DEFAULT 1,
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (shard)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The epoch that Redis must hold. A table of its own, because the synchronous path reads it in
-- share mode while the subscriber holds the shard's row.
CREATE TABLE epochs (
  shard SMALLINT UNSIGNED NOT NULL,
  epoch CHAR(32) CHARACTER SET ascii NOT NULL,
  PRIMARY KEY (shard)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Entries whose own tables could not be written; their postings are settled all the same.
CREATE TABLE dead_letters (
  journal_id BIGINT UNSIGNED NOT NULL,
  kind VARCHAR(40) CHARACTER SET ascii NOT NULL,
  reason VARCHAR(1000) NOT NULL,
  attempts INT UNSIGNED NOT NULL DEFAULT 1,
  state ENUM('OPEN', 'COMPENSATED', 'CANCELLED', 'KEPT', 'RESOLVED') NOT NULL DEFAULT 'OPEN',
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (journal_id),
  KEY dead_letters_state (state, created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Entries that an instance accepted and then did not find in the journal any more.
CREATE TABLE lost_entries (
  journal_id BIGINT UNSIGNED NOT NULL,
  shard SMALLINT UNSIGNED NOT NULL,
  found_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (journal_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What reconcile found to differ, and whether it was corrected.
CREATE TABLE drifts (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  kind VARCHAR(40) CHARACTER SET ascii NOT NULL,
  subject VARCHAR(191) NOT NULL,
  detail VARCHAR(1000) NOT NULL,
  corrected TINYINT(1) NOT NULL,
  found_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  KEY drifts_found (found_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per scheduled job: its lock makes one instance run it, its time tells when it last did.
CREATE TABLE jobs (
  name VARCHAR(60) CHARACTER SET ascii NOT NULL,
  last_success_at DATETIME(3) NULL,
  PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- How far verify has proved each account and the journal, so that it need not begin at zero.
CREATE TABLE proofs (
  subject VARCHAR(80) CHARACTER SET ascii NOT NULL,
  proved BIGINT UNSIGNED NOT NULL,
  balance BIGINT NOT NULL,
  PRIMARY KEY (subject)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
