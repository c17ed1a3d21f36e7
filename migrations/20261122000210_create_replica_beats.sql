-- Why: how far a replica follows. An instance raises the number on the primary and looks for it on each replica: one
-- that shows it has everything that was committed before. No clocks of two machines are compared.
CREATE TABLE replica_beats (
  id TINYINT UNSIGNED NOT NULL,
  beat BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

INSERT INTO replica_beats (id, beat) VALUES (1, 0);
