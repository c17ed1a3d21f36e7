//! The shard map in MySQL: the number of shards, which is written when the database is new, and
//! changed by `rehome` alone.

use sqlx::{MySqlConnection, MySqlPool};
use stock_domain::shard_map::ShardMap;

/// Reads the map; `None` before the first epoch, and for a shop of release 0.1.0 with several
/// shards.
///
/// # Errors
/// When MySQL does not answer.
pub async fn load(pool: &MySqlPool) -> Result<Option<ShardMap>, sqlx::Error> {
    let shards: Option<u64> = sqlx::query_scalar("SELECT shards FROM shard_map")
        .fetch_optional(pool)
        .await?;
    Ok(shards.map(ShardMap::new))
}

/// Writes the number of shards of a new database, unless another process has, and returns the map
/// that holds. `None` for a shop of release 0.1.0 with several shards.
///
/// # Errors
/// When MySQL does not answer.
pub async fn write_down(pool: &MySqlPool, shards: u64) -> Result<Option<ShardMap>, sqlx::Error> {
    sqlx::query(
        "INSERT IGNORE INTO shard_map (id, shards) SELECT 1, ? FROM DUAL \
         WHERE NOT EXISTS (SELECT 1 FROM shards)",
    )
    .bind(shards)
    .execute(pool)
    .await?;
    load(pool).await
}

/// Replaces the map. Everything must be rebuilt with it before anything is sold.
///
/// # Errors
/// When MySQL does not answer.
pub async fn replace(connection: &mut MySqlConnection, map: ShardMap) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO shard_map (id, shards) VALUES (1, ?) \
         ON DUPLICATE KEY UPDATE shards = VALUES(shards)",
    )
    .bind(map.shards())
    .execute(connection)
    .await?;
    Ok(())
}

/// A change of the map that has begun and must be finished.
#[derive(Debug, Clone, Copy)]
pub struct Underway {
    /// Whether selling was open before, so that it is opened at the end.
    pub reopens: bool,
    /// Whether the ledger was verified after selling stopped, so that the shards are being rebuilt.
    pub is_verified: bool,
}

/// Reads the change that is under way, if there is one.
///
/// # Errors
/// When MySQL does not answer.
pub async fn underway(pool: &MySqlPool) -> Result<Option<Underway>, sqlx::Error> {
    let row: Option<(bool, bool)> =
        sqlx::query_as("SELECT reopens, is_verified FROM shard_map_changes")
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(reopens, is_verified)| Underway {
        reopens,
        is_verified,
    }))
}

/// Notes that a change begins; a change that is under way stays as it is.
///
/// # Errors
/// When MySQL does not answer.
pub async fn begin_change(pool: &MySqlPool, reopens: bool) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT IGNORE INTO shard_map_changes (id, reopens) VALUES (1, ?)")
        .bind(reopens)
        .execute(pool)
        .await?;
    Ok(())
}

/// Whether the shards are being rebuilt for another map.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_rebuilding(pool: &MySqlPool) -> Result<bool, sqlx::Error> {
    Ok(underway(pool).await?.is_some_and(|of| of.is_verified))
}

/// Notes that the ledger was verified. The shards are rebuilt from now on.
///
/// # Errors
/// When MySQL does not answer.
pub async fn note_verified(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE shard_map_changes SET is_verified = 1")
        .execute(pool)
        .await?;
    Ok(())
}

/// Notes that the change has ended.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end_change(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM shard_map_changes")
        .execute(pool)
        .await?;
    Ok(())
}

/// Whether an instance of release 0.1.0 has reported within the last five seconds.
///
/// # Errors
/// When MySQL does not answer.
pub async fn has_first_release(pool: &MySqlPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM instances WHERE seen_at > NOW(3) - INTERVAL 5 SECOND)",
    )
    .fetch_one(pool)
    .await
}

/// Number of products that release 0.1.0 divided and that still have a part with stock.
///
/// # Errors
/// When MySQL does not answer.
pub async fn divided(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(DISTINCT owner_id) FROM accounts WHERE kind = 'BUCKET' AND balance <> 0",
    )
    .fetch_one(pool)
    .await
}
