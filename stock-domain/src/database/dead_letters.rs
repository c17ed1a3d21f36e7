//! Dead letters: entries whose own tables could not be written.
//!
//! Only an entry's own tables can be poison; its journal row and postings are always settled. An order
//! among them is taken back by a compensation under the order's mark, so that a cancel racing it and
//! the compensation never both give the stock back.

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::Position;

use crate::journal::{Entry, Kind};

/// A dead letter as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The entry.
    pub position: Position,
    /// Its kind's name.
    pub kind: String,
    /// Why its tables could not be written.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// `OPEN`, `COMPENSATED` (by the engine), `CANCELLED` (its buyer was quicker), `KEPT` (for a
    /// person) or `RESOLVED` (its tables were written after all).
    pub state: String,
}

/// Lays an entry aside, in the transaction that settles it. An order waits for its compensation;
/// anything else is left for a person.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(
    connection: &mut MySqlConnection,
    entry: &Entry,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let reason: String = reason.chars().take(1_000).collect();
    let state = if entry.kind == Kind::OrderPlaced {
        "OPEN"
    } else {
        "KEPT"
    };
    sqlx::query(
        "INSERT INTO dead_letters (journal_id, kind, reason, state) VALUES (?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE reason = VALUES(reason), attempts = attempts + 1, \
         updated_at = NOW(3)",
    )
    .bind(entry.position.get())
    .bind(entry.kind.as_str())
    .bind(reason)
    .bind(state)
    .execute(connection)
    .await?;
    Ok(())
}

/// How many were laid aside within the last minute.
///
/// # Errors
/// When MySQL does not answer.
pub async fn recent(connection: &mut MySqlConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM dead_letters WHERE created_at > NOW(3) - INTERVAL 1 MINUTE",
    )
    .fetch_one(connection)
    .await
}

/// Lists dead letters in a state, or all that are not resolved, oldest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool, state: Option<&str>) -> Result<Vec<DeadLetter>, sqlx::Error> {
    type Row = (u64, String, String, u32, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT journal_id, kind, reason, attempts, CAST(state AS CHAR) FROM dead_letters \
         WHERE state = ? OR (? = '' AND state <> 'RESOLVED') ORDER BY journal_id LIMIT 1000",
    )
    .bind(state.unwrap_or_default())
    .bind(state.unwrap_or_default())
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, kind, reason, attempts, state)| DeadLetter {
            position: Position::new(id),
            kind,
            reason,
            attempts,
            state,
        })
        .collect())
}

/// Finds the dead letter of an entry.
///
/// # Errors
/// When MySQL does not answer.
pub async fn state(pool: &MySqlPool, position: Position) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT CAST(state AS CHAR) FROM dead_letters WHERE journal_id = ?")
        .bind(position.get())
        .fetch_optional(pool)
        .await
}

/// Moves a dead letter to another state.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_state(
    pool: &MySqlPool,
    position: Position,
    state: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE dead_letters SET state = ?, updated_at = NOW(3) WHERE journal_id = ?")
        .bind(state)
        .bind(position.get())
        .execute(pool)
        .await?;
    Ok(())
}

/// How many wait for a compensation or a person.
///
/// # Errors
/// When MySQL does not answer.
pub async fn unresolved(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM dead_letters WHERE state IN ('OPEN', 'KEPT')")
        .fetch_one(pool)
        .await
}
