//! Shards: how far each journal is settled, under which epoch, and the row lock that decides who
//! settles it.

use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::shard_state::ShardState;

type Row = (u64, u64, bool, String, bool);

fn state_of_row(
    shard: u64,
    (watermark, number, selling, epoch, has_quarantine): Row,
) -> ShardState {
    ShardState {
        shard,
        watermark: Position::new(watermark),
        number,
        selling,
        epoch,
        has_quarantine,
    }
}

/// Whether accounts of the shard in row `e` are under quarantine.
const HAS_QUARANTINE: &str = "EXISTS (SELECT 1 FROM quarantined_accounts q WHERE q.shard = e.shard AND q.released_upto IS NULL)";

/// Reads a shard's state; `None` before the first epoch was written.
///
/// # Errors
/// When MySQL does not answer.
pub async fn load(pool: &MySqlPool, shard: u64) -> Result<Option<ShardState>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT s.watermark, s.number, s.selling, e.epoch, {HAS_QUARANTINE} FROM shards s \
         JOIN epochs e ON e.shard = s.shard WHERE s.shard = ?",
    )))
    .bind(shard)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| state_of_row(shard, row)))
}

/// Locks a shard's row until the transaction ends; `None` when another transaction holds it.
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
    // Read after the lock, so that the epoch belongs to the same state.
    let (epoch, has_quarantine): (String, bool) = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT e.epoch, {HAS_QUARANTINE} FROM epochs e WHERE e.shard = ?"
    )))
    .bind(shard)
    .fetch_one(connection)
    .await?;
    let row = (watermark, number, selling, epoch, has_quarantine);
    Ok(Some(state_of_row(shard, row)))
}

/// Moves the watermark; the caller holds the lock of the row.
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

/// Reads the epoch's row in share mode, so that the epoch cannot change until the transaction ends.
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

/// Number of settled entries, over all shards.
///
/// # Errors
/// When MySQL does not answer.
pub async fn settled(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar("SELECT CAST(COALESCE(SUM(number), 0) AS UNSIGNED) FROM shards")
        .fetch_one(pool)
        .await
}

/// The states of all shards that ever existed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn all(pool: &MySqlPool) -> Result<Vec<ShardState>, sqlx::Error> {
    let states = all_since(pool).await?;
    Ok(states.into_iter().map(|(state, _)| state).collect())
}

/// The same, each with the time at which the shard was last settled, as MySQL prints it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn all_since(pool: &MySqlPool) -> Result<Vec<(ShardState, String)>, sqlx::Error> {
    type Row = (u64, u64, u64, bool, String, bool, String);
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT s.shard, s.watermark, s.number, s.selling, e.epoch, {HAS_QUARANTINE}, \
         CAST(s.updated_at AS CHAR) FROM shards s JOIN epochs e ON e.shard = s.shard \
         ORDER BY s.shard",
    )))
    .fetch_all(pool)
    .await?;
    let state = |(shard, watermark, number, selling, epoch, has_quarantine, since): Row| {
        let row = (watermark, number, selling, epoch, has_quarantine);
        (state_of_row(shard, row), since)
    };
    Ok(rows.into_iter().map(state).collect())
}

/// Copies the selling switch of shard 0 to a shard that comes back.
///
/// # Errors
/// When MySQL does not answer.
pub async fn follow_switch(pool: &MySqlPool, shard: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE shards s JOIN shards f ON f.shard = 0 SET s.selling = f.selling WHERE s.shard = ?",
    )
    .bind(shard)
    .execute(pool)
    .await?;
    Ok(())
}
