-- Why: everyone who calls is somebody. A password is stored as its argon2id hash (PHC text), a refresh
-- token as SHA-256: whoever reads these tables can use neither. Users without a password exist (seeded
-- ones, tests); they can only be named by a token that was made with the key.

-- `tokens_from` rises with every demotion, deletion, change of password and logout everywhere, to the next
-- second or by one: tokens and sessions that carry a smaller one do not hold, nor do tokens that carry none
-- and were made before that second. Instances read by its index which users have one.
-- Addresses are compared byte by byte, as they are counted: to another collation e and é are one.
ALTER TABLE users
  MODIFY COLUMN email VARCHAR(254) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  ADD COLUMN password_hash VARCHAR(255) CHARACTER SET ascii NULL,
  ADD COLUMN store_id BIGINT UNSIGNED NULL,
  ADD COLUMN is_deleted TINYINT(1) NOT NULL DEFAULT 0,
  ADD COLUMN tokens_from BIGINT NOT NULL DEFAULT 0,
  ADD KEY users_tokens_from (tokens_from);

-- One row per refresh token. Each use makes another token of the same family; a used one that comes back
-- was stolen, and ends the family.
CREATE TABLE refresh_tokens (
  token_hash BINARY(32) NOT NULL,
  family BINARY(16) NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  used_at DATETIME(3) NULL,
  expires_at DATETIME(3) NOT NULL,
  PRIMARY KEY (token_hash),
  KEY refresh_tokens_family (family),
  KEY refresh_tokens_user (user_id),
  KEY refresh_tokens_expires (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What pages remember of a browser. The cookie holds the id, the table only its hash.
CREATE TABLE sessions (
  id_hash BINARY(32) NOT NULL,
  data VARCHAR(4000) NOT NULL,
  expires_at DATETIME(3) NOT NULL,
  PRIMARY KEY (id_hash),
  KEY sessions_expires (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What admins did, and who came in or failed to. Rows are only ever added.
CREATE TABLE audit_log (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  action VARCHAR(40) CHARACTER SET ascii NOT NULL,
  actor_id BIGINT UNSIGNED NULL,
  subject VARCHAR(254) NOT NULL,
  address VARCHAR(45) CHARACTER SET ascii NOT NULL,
  request_id VARCHAR(40) CHARACTER SET ascii NOT NULL,
  PRIMARY KEY (id),
  KEY audit_log_at (at),
  KEY audit_log_subject (subject, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
