//! Answers to requests that MySQL decided, by their `Idempotency-Key`.
//!
//! The transaction that makes a change inserts the row first, and writes the answer into the row
//! before it commits. So a concurrent request with the same key waits for the lock of the row, and
//! then finds the answer. A crash leaves either both the change and its answer, or neither. The
//! answers to requests that the script decides are kept in Redis instead.

use sqlx::{Executor, MySqlConnection, MySqlExecutor, MySqlPool};
use stock_domain::journal::Idempotency;

use super::{error_number, journal};

/// Expired rows that one statement removes at most.
const FORGET_MAX: u64 = 5_000;
/// Attempts to insert the row of a key, or to read the row that was in its way.
const LOOKS_MAX: u32 = 3;

/// The first answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers of the answer, as the HTTP layer writes them.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

/// The state of a key as a request finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is free. After [`claim`] it belongs to this request.
    Fresh,
    /// The same request was answered before.
    Answered(Answer),
    /// Another request has used the key.
    Reused,
    /// The same request is still being worked on.
    InProgress,
}

struct Row {
    fingerprint: Vec<u8>,
    status: Option<u16>,
    headers: Option<String>,
    body: Option<Vec<u8>>,
    is_expired: bool,
}

from_row!(Row {
    fingerprint,
    status,
    headers,
    body,
    is_expired
});

impl Row {
    /// The state of the key for a request with this fingerprint.
    fn claim(self, fingerprint: &[u8]) -> Claim {
        if self.fingerprint != fingerprint {
            return Claim::Reused;
        }
        match self.status.zip(self.headers).zip(self.body) {
            Some(((status, headers), body)) => Claim::Answered(Answer {
                status,
                headers,
                body,
            }),
            None => Claim::InProgress,
        }
    }
}

async fn find(executor: impl MySqlExecutor<'_>, key: &[u8]) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT fingerprint, status, headers, body, expires_at < NOW(3) AS is_expired \
         FROM idempotent_requests WHERE key_hash = ?",
    )
    .bind(key)
    .fetch_optional(executor)
    .await
}

/// Reads the state of a key without claiming it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn look(
    executor: impl MySqlExecutor<'_>,
    known: &Idempotency,
) -> Result<Claim, sqlx::Error> {
    let (key, fingerprint) = hashes(known)?;
    let row = find(executor, &key).await?.filter(|row| !row.is_expired);
    Ok(row.map_or(Claim::Fresh, |row| row.claim(&fingerprint)))
}

fn hashes(known: &Idempotency) -> Result<(Vec<u8>, Vec<u8>), sqlx::Error> {
    let hash = |text: &str| {
        journal::hash_bytes(text)
            .ok_or_else(|| sqlx::Error::Protocol(format!("{text:?} is no hash of 16 bytes")))
    };
    Ok((hash(&known.key)?, hash(&known.fingerprint)?))
}

/// Claims a key in a transaction. The call waits a few seconds for another transaction that holds
/// the key (`innodb_lock_wait_timeout`).
///
/// # Errors
/// When MySQL does not answer.
pub async fn claim(
    connection: &mut MySqlConnection,
    known: &Idempotency,
) -> Result<Claim, sqlx::Error> {
    let (key, fingerprint) = hashes(known)?;
    for _ in 0..LOOKS_MAX {
        let inserted = sqlx::query(
            "INSERT INTO idempotent_requests (key_hash, fingerprint, user_id, expires_at) \
             VALUES (?, ?, ?, NOW(3) + INTERVAL 1 DAY)",
        )
        .bind(&key)
        .bind(&fingerprint)
        .bind(known.user.0)
        .execute(&mut *connection)
        .await;
        match inserted {
            Ok(_) => return Ok(Claim::Fresh),
            Err(error) => match error_number(&error) {
                Some(1062) => {}
                // The other request is slow (1205), or several requests waited for it and another
                // one came first (1213).
                Some(1205 | 1213) => return Ok(Claim::InProgress),
                _ => return Err(error),
            },
        }
        match find(&mut *connection, &key).await? {
            // The other request made no change, or its row was removed a moment ago.
            None => {}
            Some(row) if row.is_expired => {
                sqlx::query(
                    "DELETE FROM idempotent_requests WHERE key_hash = ? AND expires_at < NOW(3)",
                )
                .bind(&key)
                .execute(&mut *connection)
                .await?;
            }
            Some(row) => return Ok(row.claim(&fingerprint)),
        }
    }
    Ok(Claim::InProgress)
}

/// Sets the savepoint before the change.
///
/// # Errors
/// When MySQL does not answer.
pub async fn mark(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection.execute("SAVEPOINT the_change").await?;
    Ok(())
}

/// Rolls the change back and keeps the claim.
///
/// # Errors
/// When MySQL does not answer.
pub async fn undo(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection
        .execute("ROLLBACK TO SAVEPOINT the_change")
        .await?;
    Ok(())
}

/// Writes the answer of the request that claimed the key in this transaction. The answer is kept
/// for `remember_ms`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn answer(
    connection: &mut MySqlConnection,
    known: &Idempotency,
    answer: &Answer,
    remember_ms: u64,
) -> Result<(), sqlx::Error> {
    let (key, _) = hashes(known)?;
    sqlx::query(
        "UPDATE idempotent_requests SET status = ?, headers = ?, body = ?, \
         expires_at = NOW(3) + INTERVAL ? MICROSECOND WHERE key_hash = ?",
    )
    .bind(answer.status)
    .bind(&answer.headers)
    .bind(&answer.body)
    .bind(remember_ms.saturating_mul(1_000))
    .bind(&key)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes expired rows; returns their number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    let mut removed = 0;
    loop {
        let done = sqlx::query("DELETE FROM idempotent_requests WHERE expires_at < NOW(3) LIMIT ?")
            .bind(FORGET_MAX)
            .execute(pool)
            .await?;
        removed += done.rows_affected();
        if done.rows_affected() < FORGET_MAX {
            return Ok(removed);
        }
    }
}
