//! Service keys in MySQL, by the hashes of their secrets.

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlExecutor};
use stock_common::id::UserId;
use stock_domain::service_key::Scopes;

/// SHA-256 of a secret.
pub type SecretHash = [u8; 32];

/// A service key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceKey {
    /// Its number.
    pub id: u64,
    /// The name that its admin gave it.
    pub name: String,
    /// The hash of its secret.
    pub hash: Vec<u8>,
    /// The names of what it may do.
    pub scopes: String,
    /// The admin who made it.
    pub created_by: u64,
    /// When it was made.
    pub created_at: NaiveDateTime,
    /// When it ends, if it ends.
    pub expires_at: Option<NaiveDateTime>,
}

from_row!(ServiceKey {
    id,
    name,
    hash,
    scopes,
    created_by,
    created_at,
    expires_at
});

const SELECT: &str =
    "SELECT id, name, hash, scopes, created_by, created_at, expires_at FROM service_keys";

/// A key that is to be made.
#[derive(Debug)]
pub struct NewServiceKey<'a> {
    /// Its name.
    pub name: &'a str,
    /// The hash of its secret.
    pub hash: &'a SecretHash,
    /// Its rights.
    pub scopes: Scopes,
    /// The admin who makes it.
    pub created_by: UserId,
    /// When it ends, if it ends.
    pub expires_at: Option<NaiveDateTime>,
}

/// Inserts a key and returns it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(
    connection: &mut MySqlConnection,
    key: NewServiceKey<'_>,
) -> Result<ServiceKey, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO service_keys (name, hash, scopes, created_by, expires_at) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(key.name)
    .bind(key.hash.as_slice())
    .bind(key.scopes.to_string())
    .bind(key.created_by.0)
    .bind(key.expires_at)
    .execute(&mut *connection)
    .await?;
    sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE id = ?")))
        .bind(done.last_insert_id())
        .fetch_one(connection)
        .await
}

/// The key of a secret.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    executor: impl MySqlExecutor<'_>,
    hash: &SecretHash,
) -> Result<Option<ServiceKey>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE hash = ?")))
        .bind(hash.as_slice())
        .fetch_optional(executor)
        .await
}

/// So many keys, the newest first, below a number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    executor: impl MySqlExecutor<'_>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<ServiceKey>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "{SELECT} WHERE id < ? ORDER BY id DESC LIMIT ?"
    )))
    .bind(before.unwrap_or(u64::MAX))
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// The number of keys, and the number of the latest one. A key that was made or taken back since
/// changes them.
///
/// # Errors
/// When MySQL does not answer.
pub async fn version(executor: impl MySqlExecutor<'_>) -> Result<(i64, u64), sqlx::Error> {
    sqlx::query_as("SELECT COUNT(*), CAST(COALESCE(MAX(id), 0) AS UNSIGNED) FROM service_keys")
        .fetch_one(executor)
        .await
}

/// Takes a key back, and returns the hash of its secret; `None` if there is no such key.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(
    connection: &mut MySqlConnection,
    id: u64,
) -> Result<Option<SecretHash>, sqlx::Error> {
    let hash: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT hash FROM service_keys WHERE id = ? FOR UPDATE")
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
    let Some(hash) = hash.and_then(|hash| hash.try_into().ok()) else {
        return Ok(None);
    };
    sqlx::query("DELETE FROM service_keys WHERE id = ?")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(Some(hash))
}
