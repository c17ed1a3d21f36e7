//! Dead letters: entries whose own tables could not be written.
//!
//! Only an entry's own tables can refuse its data; its journal row and its postings are always
//! settled. A compensation takes back an order among the dead letters. It sets the state of the
//! order, so that a concurrent cancel and the compensation never both give the stock back.

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::journal::{Entry, EntryError, Kind};
use stock_domain::order::OrderStatus;
use stock_domain::shard_state::ShardState;

use super::record::{self, RecordError};
use super::{coupon_issues, journal, orders, point_transactions};

/// Why a retry could not write the tables of an entry.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// There is no such dead letter, or the journal does not have its entry.
    #[error("its entry is not in the journal, or was archived")]
    Missing,
    /// The entry in the journal cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The engine is about to take the order back.
    #[error("its compensation is under way")]
    Open,
    /// The tables refused the entry again.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A dead letter as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The position of the entry.
    pub position: Position,
    /// The name of the entry's kind.
    pub kind: String,
    /// Why its tables could not be written.
    pub reason: String,
    /// Number of attempts.
    pub attempts: u32,
    /// `OPEN`, `COMPENSATED` (by the engine), `CANCELLED` (the buyer's cancel came first), `KEPT`
    /// (for a person) or `RESOLVED` (the tables were written after all).
    pub state: String,
    /// When the dead letter was made, UTC.
    pub created_at: NaiveDateTime,
}

/// Inserts a dead letter, in the transaction that settles the entry. An order waits for its
/// compensation; any other entry is kept for a person.
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

/// Number of the shard's dead letters of the last minute that share the most frequent reason, or 0
/// when they are not most of the entries.
///
/// The entries are counted from the first of these dead letters to the last entry of `state`, which
/// is the shard's state after the batch that is being settled.
///
/// # Errors
/// When MySQL does not answer.
pub async fn alike_if_most(
    connection: &mut MySqlConnection,
    state: &ShardState,
) -> Result<u64, sqlx::Error> {
    // Reasons are compared up to their first quote, because the text between quotes differs from
    // row to row.
    let found: Option<(u64, u64)> = sqlx::query_as(
        "SELECT CAST(COUNT(*) AS UNSIGNED), MIN(j.number) FROM dead_letters d \
         JOIN journal j ON j.id = d.journal_id \
         WHERE d.created_at > NOW(3) - INTERVAL 1 MINUTE AND j.shard = ? \
         GROUP BY SUBSTRING_INDEX(d.reason, CHAR(39 USING utf8mb4), 1) ORDER BY 1 DESC LIMIT 1",
    )
    .bind(state.shard)
    .fetch_optional(connection)
    .await?;
    let (alike, first) = found.unwrap_or_default();
    let entries = (state.number + 1).saturating_sub(first);
    Ok(if 2 * alike > entries { alike } else { 0 })
}

type Row = (u64, String, String, u32, String, NaiveDateTime);

impl From<Row> for DeadLetter {
    fn from((id, kind, reason, attempts, state, created_at): Row) -> Self {
        Self {
            position: Position::new(id),
            kind,
            reason,
            attempts,
            state,
            created_at,
        }
    }
}

const SELECT: &str =
    "SELECT journal_id, kind, reason, attempts, CAST(state AS CHAR), created_at FROM dead_letters";

/// Lists dead letters in a state, or all that are not resolved, oldest first, at most 1,000.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool, state: Option<&str>) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "{SELECT} WHERE state = ? OR (? = '' AND state <> 'RESOLVED') ORDER BY journal_id LIMIT 1000",
    )))
    .bind(state.unwrap_or_default())
    .bind(state.unwrap_or_default())
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(DeadLetter::from).collect())
}

/// A page of all dead letters, resolved ones included, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn page(
    pool: &MySqlPool,
    before: Option<Position>,
    limit: u32,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "{SELECT} WHERE journal_id < ? ORDER BY journal_id DESC LIMIT ?",
    )))
    .bind(before.map_or(u64::MAX, Position::get))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(DeadLetter::from).collect())
}

/// The dead letter of an entry.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(pool: &MySqlPool, position: Position) -> Result<Option<DeadLetter>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE journal_id = ?")))
        .bind(position.get())
        .fetch_optional(pool)
        .await?;
    Ok(row.map(DeadLetter::from))
}

/// Writes an entry's own tables again; nothing is sold again. An order that was taken back
/// meanwhile is stored as taken back.
///
/// The dead letter stays locked from the reading of its state to the writing of the tables. Of two
/// concurrent retries one writes, and both succeed.
///
/// # Errors
/// [`RetryError`] when the tables cannot be written; the dead letter then stays as it was.
pub async fn retry(pool: &MySqlPool, position: Position) -> Result<(), RetryError> {
    let mut transaction = pool.begin().await?;
    let state: Option<String> = sqlx::query_scalar(
        "SELECT CAST(state AS CHAR) FROM dead_letters WHERE journal_id = ? FOR UPDATE",
    )
    .bind(position.get())
    .fetch_optional(&mut *transaction)
    .await?;
    let status = match state.as_deref() {
        None => return Err(RetryError::Missing),
        Some("RESOLVED") => return Ok(()),
        Some("OPEN") => return Err(RetryError::Open),
        Some("COMPENSATED") => Some(OrderStatus::Fail),
        Some("CANCELLED") => Some(OrderStatus::Cancel),
        Some(_kept) => None,
    };
    let entry = journal::find(&mut transaction, position).await?;
    let entry = entry.ok_or(RetryError::Missing)??;
    // The movements of points were recorded already, and `record_own` inserts them again.
    point_transactions::delete(&mut transaction, position).await?;
    record::record_own(&mut transaction, &[&entry]).await?;
    if let Some(status) = status {
        orders::set_status(&mut transaction, &[position], status).await?;
        coupon_issues::set_free(&mut transaction, &[position]).await?;
    }
    sqlx::query(
        "UPDATE dead_letters SET state = 'RESOLVED', updated_at = NOW(3) WHERE journal_id = ?",
    )
    .bind(position.get())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// The state of an entry's dead letter.
///
/// # Errors
/// When MySQL does not answer.
pub async fn state(pool: &MySqlPool, position: Position) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT CAST(state AS CHAR) FROM dead_letters WHERE journal_id = ?")
        .bind(position.get())
        .fetch_optional(pool)
        .await
}

/// Sets the state of a dead letter.
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

/// The first dead letter of a shard that waits for a compensation or a person.
///
/// # Errors
/// When MySQL does not answer.
pub async fn oldest_unresolved(
    pool: &MySqlPool,
    shard: u64,
) -> Result<Option<Position>, sqlx::Error> {
    let id: Option<u64> = sqlx::query_scalar(
        "SELECT MIN(journal_id) FROM dead_letters WHERE state IN ('OPEN', 'KEPT') \
         AND (journal_id >> 16) & 63 = ?",
    )
    .bind(shard)
    .fetch_one(pool)
    .await?;
    Ok(id.map(Position::new))
}

/// Number of dead letters that wait for a compensation or a person.
///
/// # Errors
/// When MySQL does not answer.
pub async fn unresolved(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM dead_letters WHERE state IN ('OPEN', 'KEPT')")
        .fetch_one(pool)
        .await
}

/// Number of dead letters of the last ten minutes, including those that were taken back since.
///
/// # Errors
/// When MySQL does not answer.
pub async fn new_ones(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    let text = "SELECT COUNT(*) FROM dead_letters WHERE created_at > NOW(3) - INTERVAL 10 MINUTE";
    sqlx::query_scalar(text).fetch_one(pool).await
}
