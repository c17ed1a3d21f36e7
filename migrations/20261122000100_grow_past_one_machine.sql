-- Several shards and several instances: where everything lies, who is there, what an entry holds on other
-- shards, and what instances remember of entries that Redis lost.

-- The shard whose journal moves the account.
ALTER TABLE accounts ADD COLUMN shard SMALLINT UNSIGNED NOT NULL DEFAULT 0;

-- How often something was taken away from the shard: a batch routed before is refused.
ALTER TABLE shards ADD COLUMN layout BIGINT UNSIGNED NOT NULL DEFAULT 0;

-- How many shards there are; one row. Without it there is one.
CREATE TABLE layouts (
  id TINYINT UNSIGNED NOT NULL DEFAULT 1,
  shards SMALLINT UNSIGNED NOT NULL,
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Where each slot is, once the number of shards was changed; before that the jump hash says it.
CREATE TABLE slots (
  slot SMALLINT UNSIGNED NOT NULL,
  shard SMALLINT UNSIGNED NOT NULL,
  moving_to SMALLINT UNSIGNED NULL,
  -- The shards that had it within a day before moved_at, a bit for each.
  previous BIGINT UNSIGNED NOT NULL DEFAULT 0,
  moved_at DATETIME(3) NULL,
  PRIMARY KEY (slot)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What an entry takes and gives on another shard: held at position id, then confirmed (for the entry commit_id) or
-- released. Each of the two tables is written by the subscriber of one shard: this one by the branch's.
CREATE TABLE branches (
  id BIGINT UNSIGNED NOT NULL,
  across VARCHAR(40) CHARACTER SET ascii NOT NULL,
  state ENUM('HELD', 'CONFIRMED', 'RELEASED') NOT NULL DEFAULT 'HELD',
  commit_id BIGINT UNSIGNED NULL,
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  KEY branches_state (state, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Which entry relies on which branches: written by the entry's shard.
CREATE TABLE entry_branches (
  branch_id BIGINT UNSIGNED NOT NULL,
  across VARCHAR(40) CHARACTER SET ascii NOT NULL,
  entry_id BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (entry_id, branch_id),
  KEY entry_branches_branch (branch_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- All that it takes to enter a lost entry again.
ALTER TABLE lost_entries
  ADD COLUMN number BIGINT UNSIGNED NULL,
  ADD COLUMN postings LONGTEXT NULL,
  ADD COLUMN payload LONGBLOB NULL;

-- Who is there.
CREATE TABLE instances (
  id CHAR(32) CHARACTER SET ascii NOT NULL,
  seen_at DATETIME(3) NOT NULL,
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What each instance accepted last on a shard, as it said when it met a server ('*': while it meets none).
CREATE TABLE witnesses (
  shard SMALLINT UNSIGNED NOT NULL,
  instance CHAR(32) CHARACTER SET ascii NOT NULL,
  server VARCHAR(64) CHARACTER SET ascii NOT NULL,
  last_id BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (shard, instance)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The Redis server that was proved last to have all of a shard.
CREATE TABLE masters (
  shard SMALLINT UNSIGNED NOT NULL,
  server VARCHAR(64) CHARACTER SET ascii NOT NULL,
  PRIMARY KEY (shard)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- How far each webhook has told of each shard's journal.
CREATE TABLE webhook_cursors (
  webhook_id BIGINT UNSIGNED NOT NULL,
  shard SMALLINT UNSIGNED NOT NULL,
  sent_number BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (webhook_id, shard)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
INSERT INTO webhook_cursors (webhook_id, shard, sent_number) SELECT id, 0, sent_number FROM webhooks;
ALTER TABLE webhooks DROP COLUMN sent_number;
ALTER TABLE webhook_deliveries
  ADD COLUMN shard SMALLINT UNSIGNED NOT NULL DEFAULT 0 AFTER webhook_id,
  DROP KEY webhook_deliveries_first,
  ADD CONSTRAINT webhook_deliveries_first UNIQUE KEY (webhook_id, shard, first_number);
