-- The shard map is a fixed function of the number of shards, which is written down here; one row. It has no row before the first
-- epoch. The tables `layouts`, `slots`, `buckets`, `instances`, `witnesses` and `masters` and the column `shards.layout` are the
-- first release's: this program reads none of them, and a later migration drops them, so that both may run side by side.
CREATE TABLE shard_map (
  id TINYINT UNSIGNED NOT NULL DEFAULT 1,
  shards SMALLINT UNSIGNED NOT NULL,
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- A shop on one shard stays as it is. One on several lies elsewhere by the fixed map: `stock-online rehome` moves it.
INSERT INTO shard_map (id, shards) SELECT 1, 1 FROM DUAL
WHERE EXISTS (SELECT 1 FROM shards) AND NOT EXISTS (SELECT 1 FROM layouts WHERE shards > 1);

-- A change of the number of shards that was begun and is not finished; one row, or none. `reopens`: selling was open before.
-- `is_verified`: the ledger was verified behind the stop, and the shards are being rebuilt.
CREATE TABLE shard_map_changes (
  id TINYINT UNSIGNED NOT NULL DEFAULT 1,
  reopens TINYINT(1) NOT NULL,
  is_verified TINYINT(1) NOT NULL DEFAULT 0,
  PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
