-- Why: other systems follow the stock without asking for it. A webhook is a place in the journal that moves on
-- when its receiver has taken what lies before it: nothing is left out, however long the receiver is away.

-- `sent_number` is the journal's number up to which all was delivered. The lease lets one instance send.
CREATE TABLE webhooks (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  url VARCHAR(2000) NOT NULL,
  events VARCHAR(255) CHARACTER SET ascii NOT NULL,
  secret VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  state ENUM('ACTIVE', 'PAUSED', 'DISABLED') NOT NULL DEFAULT 'ACTIVE',
  sent_number BIGINT UNSIGNED NOT NULL,
  leased_until DATETIME(3) NULL,
  lease CHAR(32) CHARACTER SET ascii NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per batch: which entries it tells of, how often it was tried, and what came back. What it says follows
-- from the journal. A stretch of the journal is one batch, whoever makes it.
CREATE TABLE webhook_deliveries (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  webhook_id BIGINT UNSIGNED NOT NULL,
  first_number BIGINT UNSIGNED NOT NULL,
  last_number BIGINT UNSIGNED NOT NULL,
  state ENUM('PENDING', 'DELIVERED', 'FAILED') NOT NULL DEFAULT 'PENDING',
  attempts INT UNSIGNED NOT NULL DEFAULT 0,
  next_attempt_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  last_status SMALLINT UNSIGNED NULL,
  last_error VARCHAR(255) NULL,
  is_resent TINYINT(1) NOT NULL DEFAULT 0,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  ended_at DATETIME(3) NULL,
  PRIMARY KEY (id),
  CONSTRAINT webhook_deliveries_first UNIQUE KEY (webhook_id, first_number),
  KEY webhook_deliveries_state (webhook_id, state, id),
  KEY webhook_deliveries_waiting (state),
  KEY webhook_deliveries_resent (webhook_id, is_resent),
  KEY webhook_deliveries_created (created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
