-- What each run of verify and of reconcile found, so that an operator sees when the ledger was last proved.
-- Only the newest rows are kept.
CREATE TABLE ledger_checks (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  kind ENUM('verify', 'reconcile') NOT NULL,
  ended_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  took_ms BIGINT UNSIGNED NOT NULL,
  -- How much did not agree, and how much of it was put right at once.
  differences INT UNSIGNED NOT NULL,
  corrected INT UNSIGNED NOT NULL,
  -- What the run said, as JSON.
  report MEDIUMTEXT NOT NULL,
  PRIMARY KEY (id),
  -- The latest of a kind.
  KEY ledger_checks_kind (kind, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
