//! Lost entries: entries that were accepted and that Redis has lost. The instance that accepted
//! them lists them, and so does `recover`.

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::journal::Entry;
use stock_domain::shard_state::Remembered;

/// Lists entries; returns the number of new ones.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool, shard: u64, lost: &[Remembered]) -> Result<u64, sqlx::Error> {
    let mut listed = 0;
    for entry in lost {
        let done = sqlx::query(
            "INSERT IGNORE INTO lost_entries (journal_id, shard, number) VALUES (?, ?, ?)",
        )
        .bind(entry.position.get())
        .bind(shard)
        .bind(entry.number)
        .execute(pool)
        .await?;
        listed += done.rows_affected();
    }
    Ok(listed)
}

/// Lists entries with their payloads.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list_entries(
    connection: &mut MySqlConnection,
    shard: u64,
    lost: &[Entry],
) -> Result<(), sqlx::Error> {
    for entry in lost {
        sqlx::query(
            "INSERT INTO lost_entries (journal_id, shard, number, payload) VALUES (?, ?, ?, ?) \
             ON DUPLICATE KEY UPDATE payload = VALUES(payload)",
        )
        .bind(entry.position.get())
        .bind(shard)
        .bind(entry.number)
        .bind(&*entry.payload)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Whether entries of a shard are listed whose numbers MySQL has not settled.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_listed(connection: &mut MySqlConnection, shard: u64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM lost_entries l JOIN shards s ON s.shard = l.shard \
         WHERE l.shard = ? AND (l.number IS NULL OR l.number > s.number))",
    )
    .bind(shard)
    .fetch_one(connection)
    .await
}

/// Takes entries off the list, because MySQL's journal has them.
///
/// # Errors
/// When MySQL does not answer.
pub async fn found(
    connection: &mut MySqlConnection,
    positions: &[Position],
) -> Result<(), sqlx::Error> {
    for position in positions {
        sqlx::query("DELETE FROM lost_entries WHERE journal_id = ?")
            .bind(position.get())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
