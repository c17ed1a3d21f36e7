-- The shop's own names of its buyers. The id is the entry's that saw the buyer first. `user_id` is the number by which the ledger knows
-- the buyer; it follows from the name. A buyer may have been seen first more than once.
CREATE TABLE buyers (
  id BIGINT UNSIGNED NOT NULL,
  user_id BIGINT UNSIGNED NOT NULL,
  name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  created_at DATETIME(3) GENERATED ALWAYS AS
    (TIMESTAMPADD(MICROSECOND, (id >> 22) * 1000, TIMESTAMP'2025-01-01 00:00:00')) VIRTUAL,
  PRIMARY KEY (id),
  KEY buyers_user (user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
