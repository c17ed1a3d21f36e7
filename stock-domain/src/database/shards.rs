//! Shards: how far a journal is settled, under which epoch, and who may settle it.

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::Position;

/// What MySQL knows of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// The shard, 0..=63.
    pub shard: u64,
    /// The last settled position.
    pub watermark: Position,
    /// The number of the entry there.
    pub number: u64,
    /// Whether selling is open.
    pub selling: bool,
    /// The epoch that Redis must hold.
    pub epoch: String,
}

type Row = (u64, u64, bool, String);

impl ShardState {
    fn from_row(shard: u64, (watermark, number, selling, epoch): Row) -> Self {
        Self {
            shard,
            watermark: Position::new(watermark),
            number,
            selling,
            epoch,
        }
    }
}

/// Reads a shard's state; `None` before the first epoch was written.
///
/// # Errors
/// When MySQL does not answer.
pub async fn load(pool: &MySqlPool, shard: u64) -> Result<Option<ShardState>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT s.watermark, s.number, s.selling, e.epoch FROM shards s \
         JOIN epochs e ON e.shard = s.shard WHERE s.shard = ?",
    )
    .bind(shard)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| ShardState::from_row(shard, row)))
}

/// Every shard that has begun.
///
/// # Errors
/// When MySQL does not answer.
pub async fn all(pool: &MySqlPool) -> Result<Vec<u64>, sqlx::Error> {
    sqlx::query_scalar("SELECT CAST(shard AS UNSIGNED) FROM shards ORDER BY shard")
        .fetch_all(pool)
        .await
}

/// Locks a shard's row until the transaction ends; `None` when another holds it.
///
/// # Errors
/// When MySQL does not answer, or there is no epoch yet.
pub async fn try_lock(
    connection: &mut MySqlConnection,
    shard: u64,
) -> Result<Option<ShardState>, sqlx::Error> {
    let locked: Result<(u64, u64, bool), sqlx::Error> = sqlx::query_as(
        "SELECT watermark, number, selling FROM shards WHERE shard = ? FOR UPDATE NOWAIT",
    )
    .bind(shard)
    .fetch_one(&mut *connection)
    .await;
    let (watermark, number, selling) = match locked {
        Ok(row) => row,
        Err(error) if super::is_passing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Read after the lock, so that it belongs to the same state.
    let epoch: String = sqlx::query_scalar("SELECT epoch FROM epochs WHERE shard = ?")
        .bind(shard)
        .fetch_one(connection)
        .await?;
    Ok(Some(ShardState::from_row(
        shard,
        (watermark, number, selling, epoch),
    )))
}

/// Moves the watermark; the caller holds the row's lock.
///
/// # Errors
/// When MySQL does not answer.
pub async fn advance(
    connection: &mut MySqlConnection,
    state: &ShardState,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE shards SET watermark = ?, number = ?, selling = ?, updated_at = NOW(3) \
         WHERE shard = ?",
    )
    .bind(state.watermark.get())
    .bind(state.number)
    .bind(state.selling)
    .bind(state.shard)
    .execute(connection)
    .await?;
    Ok(())
}

/// Reads the epoch's row in share mode: it cannot change until the transaction ends.
///
/// # Errors
/// When MySQL does not answer.
pub async fn share_epoch(
    connection: &mut MySqlConnection,
    shard: u64,
) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT epoch FROM epochs WHERE shard = ? LOCK IN SHARE MODE")
        .bind(shard)
        .fetch_one(connection)
        .await
}

/// Lists entries that were accepted and are not in the journal any more; returns how many were new.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list_lost(
    pool: &MySqlPool,
    shard: u64,
    lost: &[Position],
) -> Result<u64, sqlx::Error> {
    let mut listed = 0;
    for position in lost {
        let done = sqlx::query("INSERT IGNORE INTO lost_entries (journal_id, shard) VALUES (?, ?)")
            .bind(position.get())
            .bind(shard)
            .execute(pool)
            .await?;
        listed += done.rows_affected();
    }
    Ok(listed)
}
