-- Why: the journal grows for ever. Whole months of it are written to files and removed; what these tables keep is
-- where the rest begins, so that it can still be proved.

-- One row per file: the stretch of a shard's journal that it holds. Written when the file is complete, and before
-- the first row of the journal is removed: an archive that was killed is finished by the next one.
CREATE TABLE archives (
  shard SMALLINT UNSIGNED NOT NULL,
  first_number BIGINT UNSIGNED NOT NULL,
  last_number BIGINT UNSIGNED NOT NULL,
  -- The last entry that was removed from the journal; below `first_number` until the first one was.
  number BIGINT UNSIGNED NOT NULL,
  position BIGINT UNSIGNED NOT NULL,
  month CHAR(7) CHARACTER SET ascii NOT NULL,
  file VARCHAR(100) CHARACTER SET ascii NOT NULL,
  entries BIGINT UNSIGNED NOT NULL,
  -- SHA-256 of the file, as `sha256sum` prints it.
  checksum CHAR(64) CHARACTER SET ascii NOT NULL,
  written_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (shard, first_number)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- One row per account of which postings were removed: the last of them, from which the others chain.
CREATE TABLE archived_levels (
  kind ENUM('AVAILABLE', 'RESERVED', 'ALLOWANCE', 'COUPON', 'POINTS', 'HOLD') NOT NULL,
  owner_id BIGINT UNSIGNED NOT NULL,
  place_id BIGINT UNSIGNED NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  balance_after BIGINT NOT NULL,
  PRIMARY KEY (kind, owner_id, place_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
