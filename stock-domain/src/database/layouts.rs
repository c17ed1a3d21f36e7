//! The layout in MySQL: how many shards there are, and where each slot is.

use sqlx::{MySqlConnection, MySqlPool};

use super::buckets;
use crate::layout::{Layout, SLOTS, jump};

/// Reads the layout; of a database that says nothing, one shard.
///
/// # Errors
/// When MySQL does not answer.
pub async fn load(pool: &MySqlPool) -> Result<Layout, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let layout = read(&mut transaction).await?;
    transaction.commit().await?;
    Ok(layout)
}

/// The same in a transaction.
///
/// # Errors
/// When MySQL does not answer.
pub async fn read(connection: &mut MySqlConnection) -> Result<Layout, sqlx::Error> {
    // A slot is taken from its shard before that shard's version rises, so the versions are read first.
    let versions: Vec<(u64, u64)> = sqlx::query_as("SELECT shard, layout FROM shards")
        .fetch_all(&mut *connection)
        .await?;
    let shards: Option<u64> = sqlx::query_scalar("SELECT shards FROM layouts")
        .fetch_optional(&mut *connection)
        .await?;
    let mut layout = Layout::new(shards.unwrap_or(1));
    for (shard, version) in versions {
        let at = usize::try_from(shard).unwrap_or(usize::MAX);
        if let Some(known) = layout.versions.get_mut(at) {
            *known = version;
        }
    }
    let slots: Vec<(u16, u64, bool, u64)> = sqlx::query_as(
        "SELECT slot, shard, moving_to IS NOT NULL, \
         CAST(IF(moved_at > NOW(3) - INTERVAL 1 DAY, previous, 0) AS UNSIGNED) FROM slots",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (slot, shard, is_moving, previous) in slots {
        layout.place(slot, shard, is_moving, previous);
    }
    layout.buckets = buckets::load(connection).await?;
    Ok(layout)
}

/// Divides a new database; does nothing to one that is divided already. Returns how many shards it has.
///
/// # Errors
/// When MySQL does not answer.
pub async fn divide(pool: &MySqlPool, shards: u64) -> Result<u64, sqlx::Error> {
    let is_new: i64 = sqlx::query_scalar("SELECT COUNT(*) = 0 FROM shards")
        .fetch_one(pool)
        .await?;
    let shards = if is_new == 1 { shards } else { 1 };
    sqlx::query("INSERT IGNORE INTO layouts (id, shards) VALUES (1, ?)")
        .bind(shards)
        .execute(pool)
        .await?;
    sqlx::query_scalar("SELECT shards FROM layouts")
        .fetch_one(pool)
        .await
}

/// Sets the number of shards, each slot staying where it is.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_shards(pool: &MySqlPool, shards: u64) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let now: Option<u64> = sqlx::query_scalar("SELECT shards FROM layouts FOR UPDATE")
        .fetch_optional(&mut *transaction)
        .await?;
    let now = now.unwrap_or(1);
    for slot in 0..SLOTS {
        sqlx::query("INSERT IGNORE INTO slots (slot, shard) VALUES (?, ?)")
            .bind(slot)
            .bind(jump(slot, now))
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query(
        "INSERT INTO layouts (id, shards) VALUES (1, ?) \
         ON DUPLICATE KEY UPDATE shards = VALUES(shards)",
    )
    .bind(shards)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Says that slots are moving: nothing in it is decided from the moment the shard's new version is in Redis.
/// Returns that version.
///
/// # Errors
/// When MySQL does not answer.
pub async fn begin_move(
    pool: &MySqlPool,
    slots: &[u16],
    (from, to): (u64, u64),
) -> Result<u64, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for slot in slots {
        sqlx::query("UPDATE slots SET moving_to = ? WHERE slot = ?")
            .bind(to)
            .bind(slot)
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query("UPDATE shards SET layout = layout + 1 WHERE shard = ?")
        .bind(from)
        .execute(&mut *transaction)
        .await?;
    let version: u64 = sqlx::query_scalar("SELECT layout FROM shards WHERE shard = ?")
        .bind(from)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(version)
}

/// Says that slots which a killed run has left moving stay where they are.
///
/// # Errors
/// When MySQL does not answer.
pub async fn stay(pool: &MySqlPool, slots: &[u16]) -> Result<(), sqlx::Error> {
    for slot in slots {
        sqlx::query("UPDATE slots SET moving_to = NULL WHERE slot = ?")
            .bind(slot)
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Says that slots are on another shard from now on.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end_move(
    connection: &mut MySqlConnection,
    slots: &[u16],
    (from, to): (u64, u64),
) -> Result<(), sqlx::Error> {
    for slot in slots {
        sqlx::query(
            "UPDATE slots SET shard = ?, moving_to = NULL, \
             previous = IF(moved_at > NOW(3) - INTERVAL 1 DAY, previous, 0) | (1 << ?), \
             moved_at = NOW(3) WHERE slot = ?",
        )
        .bind(to)
        .bind(from)
        .bind(slot)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
