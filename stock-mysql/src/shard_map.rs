//! The number of shards in MySQL: written down when the database is new, and changed by `rehome` alone.

use sqlx::{MySqlConnection, MySqlPool};
use stock_domain::shard_map::ShardMap;

/// Reads the map; `None` before the first epoch, and of a shop of the first release with several shards.
///
/// # Errors
/// When MySQL does not answer.
pub async fn load(pool: &MySqlPool) -> Result<Option<ShardMap>, sqlx::Error> {
    let shards: Option<u64> = sqlx::query_scalar("SELECT shards FROM shard_map")
        .fetch_optional(pool)
        .await?;
    Ok(shards.map(ShardMap::new))
}

/// Writes down the number of shards of a new database, unless another process did; returns the map that counts. `None` of
/// a shop of the first release with several shards.
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

/// Replaces the map; everything must be rebuilt by it before anybody sells.
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

/// A change of the map that was begun and is to be finished.
#[derive(Debug, Clone, Copy)]
pub struct Underway {
    /// Whether selling was open before, and is opened at the end.
    pub reopens: bool,
    /// Whether the ledger was verified behind the stop: the shards are being rebuilt.
    pub is_verified: bool,
}

/// Reads whether a change was begun.
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

/// Notes that a change begins; one that was begun stays as it is.
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

/// Notes that the ledger was verified, and that the shards are rebuilt from now on.
///
/// # Errors
/// When MySQL does not answer.
pub async fn note_verified(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE shard_map_changes SET is_verified = 1")
        .execute(pool)
        .await?;
    Ok(())
}

/// Notes that it has ended.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end_change(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM shard_map_changes")
        .execute(pool)
        .await?;
    Ok(())
}

/// Whether an instance of the first release said within the last seconds that it is there.
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

/// How many products the first release divided whose parts are not empty.
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
