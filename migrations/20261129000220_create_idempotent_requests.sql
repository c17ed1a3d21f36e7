-- Why: what is decided in MySQL honours an Idempotency-Key too. The row is written in the transaction that makes the
-- change, so that there is an answer to give again exactly if the change was made. `expires_at` is a day later for
-- what was done, ten minutes for what was refused; the index serves the job that removes what has expired.
CREATE TABLE idempotent_requests (
  key_hash BINARY(16) NOT NULL,
  fingerprint BINARY(16) NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  status SMALLINT UNSIGNED NULL,
  headers TEXT NULL,
  body MEDIUMBLOB NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  expires_at DATETIME(3) NOT NULL,
  PRIMARY KEY (key_hash),
  KEY idempotent_requests_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
