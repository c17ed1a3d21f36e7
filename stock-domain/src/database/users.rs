//! Users in MySQL: who they are, and from when on their tokens hold.

use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::UserId;

use super::error_number;
use crate::user::{Email, Role, User};

const COLUMNS: &str = "SELECT id, email, name, CAST(role AS CHAR), store_id, tokens_from, \
     password_hash FROM users WHERE is_deleted = 0";

type Row = (
    u64,
    String,
    String,
    String,
    Option<u64>,
    i64,
    Option<String>,
);

/// A user and the hash of their password; without a hash nobody can log in as them.
pub type WithHash = (User, Option<String>);

fn parse((id, email, name, role, store_id, tokens_from, hash): Row) -> Option<WithHash> {
    let user = User {
        id: UserId(id),
        email,
        name,
        role: role.parse().ok()?,
        store_id,
        tokens_from,
    };
    Some((user, hash))
}

/// Finds a user who was not deleted.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(pool: &MySqlPool, id: UserId) -> Result<Option<WithHash>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{COLUMNS} AND id = ?")))
        .bind(id.0)
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(parse))
}

/// Finds a user who was not deleted by their address.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find_by_email(
    pool: &MySqlPool,
    email: &Email,
) -> Result<Option<WithHash>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{COLUMNS} AND email = ?")))
        .bind(email.as_str())
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(parse))
}

/// Lists users, by id.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool, after: u64, limit: u32) -> Result<Vec<User>, sqlx::Error> {
    let text = format!("{COLUMNS} AND id > ? ORDER BY id LIMIT ?");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let parsed = rows.into_iter().filter_map(parse);
    Ok(parsed.map(|(user, _)| user).collect())
}

/// Who somebody is going to be.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// Their address, not used by anybody.
    pub email: &'a Email,
    /// What they are called, at most 100 characters.
    pub name: &'a str,
    /// What they may do.
    pub role: Role,
    /// Their password's hash.
    pub password_hash: &'a str,
}

/// Adds a user; `None` when the address is taken, also by a deleted one.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(pool: &MySqlPool, user: &NewUser<'_>) -> Result<Option<UserId>, sqlx::Error> {
    let done =
        sqlx::query("INSERT INTO users (email, name, role, password_hash) VALUES (?, ?, ?, ?)")
            .bind(user.email.as_str())
            .bind(user.name)
            .bind(user.role.as_str())
            .bind(user.password_hash)
            .execute(pool)
            .await;
    match done {
        Ok(done) => Ok(Some(UserId(done.last_insert_id()))),
        Err(error) if error_number(&error) == Some(1062) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives a user another role; their tokens and sessions of before `tokens_from` end. `false` when there
/// is no such user.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_role(
    connection: &mut MySqlConnection,
    id: UserId,
    (role, store_id): (Role, Option<u64>),
    tokens_from: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE users SET role = ?, store_id = ?, tokens_from = GREATEST(tokens_from, ?) \
         WHERE id = ? AND is_deleted = 0",
    )
    .bind(role.as_str())
    .bind(store_id)
    .bind(tokens_from)
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Gives a user another password; as [`set_role`] for what began before.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_password(
    connection: &mut MySqlConnection,
    id: UserId,
    password_hash: &str,
    tokens_from: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE users SET password_hash = ?, tokens_from = GREATEST(tokens_from, ?) WHERE id = ?",
    )
    .bind(password_hash)
    .bind(tokens_from)
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a user's tokens and sessions of before `tokens_from`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end_tokens(
    connection: &mut MySqlConnection,
    id: UserId,
    tokens_from: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET tokens_from = GREATEST(tokens_from, ?) WHERE id = ?")
        .bind(tokens_from)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes a user: their orders stay, they are nobody any more. `false` when there is no such user.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(
    connection: &mut MySqlConnection,
    id: UserId,
    tokens_from: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE users SET is_deleted = 1, password_hash = NULL, \
         tokens_from = GREATEST(tokens_from, ?) WHERE id = ? AND is_deleted = 0",
    )
    .bind(tokens_from)
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// From when on tokens hold, of every user of whom some do not that began after `since`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn tokens_from(pool: &MySqlPool, since: i64) -> Result<Vec<(u64, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT id, tokens_from FROM users WHERE tokens_from > ?")
        .bind(since)
        .fetch_all(pool)
        .await
}
