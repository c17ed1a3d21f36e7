-- Why: an emergency stop must reach every instance also while a shard's Redis, which has the switch that its script
-- obeys, cannot be reached. One row says what an operator asked for last; instances look at it each second.
CREATE TABLE selling (
  id TINYINT UNSIGNED NOT NULL,
  is_open BOOLEAN NOT NULL,
  at_ms BIGINT UNSIGNED NOT NULL COMMENT 'when it was asked for, Unix ms: the later one counts',
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
