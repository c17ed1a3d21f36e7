-- Keys of the shop's own back ends. Only the hash of a secret is stored. `scopes` are names separated by spaces. A key that was taken
-- back has no row; the audit log tells of it.
CREATE TABLE service_keys (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  name VARCHAR(100) NOT NULL,
  hash BINARY(32) NOT NULL,
  scopes VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  created_by BIGINT UNSIGNED NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  expires_at DATETIME(3) NULL,
  PRIMARY KEY (id),
  UNIQUE KEY service_keys_hash (hash)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
