-- Why: a file of stock is judged as a whole before anything moves, and then written in parts that a crash may
-- interrupt anywhere. What was judged waits here.

-- One row per file. The key of the request that brought it is unique, so that a repeated one finds it.
CREATE TABLE imports (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  key_hash BINARY(16) NULL,
  fingerprint BINARY(16) NULL,
  actor_id BIGINT UNSIGNED NOT NULL,
  state ENUM('STAGING', 'APPLYING', 'DONE') NOT NULL DEFAULT 'STAGING',
  total BIGINT UNSIGNED NOT NULL DEFAULT 0,
  applied BIGINT UNSIGNED NOT NULL DEFAULT 0,
  failed BIGINT UNSIGNED NOT NULL DEFAULT 0,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  finished_at DATETIME(3) NULL,
  PRIMARY KEY (id),
  CONSTRAINT imports_key UNIQUE KEY (key_hash),
  KEY imports_state (state)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per line that changes something. `stock_imported` entries move lines to APPLIED, in the transaction
-- that records them: what is STAGED still has to be written, however often somebody begins again. Applied lines
-- go when the file is done. The second index finds a product that stands there twice.
CREATE TABLE import_rows (
  import_id BIGINT UNSIGNED NOT NULL,
  line BIGINT UNSIGNED NOT NULL,
  product_id BIGINT UNSIGNED NOT NULL,
  location_id BIGINT UNSIGNED NOT NULL,
  delta BIGINT NOT NULL,
  state ENUM('STAGED', 'APPLIED', 'FAILED') NOT NULL DEFAULT 'STAGED',
  note VARCHAR(255) NULL,
  PRIMARY KEY (import_id, line),
  KEY import_rows_account (import_id, product_id, location_id),
  KEY import_rows_state (import_id, state, line)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
