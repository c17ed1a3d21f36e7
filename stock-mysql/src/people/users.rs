//! Users in MySQL, and the time from which the tokens of each are valid.

use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::UserId;
use stock_domain::user::{Email, Role, User};

use crate::error_number;

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

/// A user and the hash of the user's password. Without a hash nobody can log in as this user.
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

/// Finds a user by address, unless the user was deleted.
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

/// A user who is to be added.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// The address, which nobody else has.
    pub email: &'a Email,
    /// The name, at most 100 characters.
    pub name: &'a str,
    /// The role.
    pub role: Role,
    /// The hash of the password.
    pub password_hash: &'a str,
}

/// Adds a user; `None` when the address is taken, also by a deleted user.
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

/// Locks a user's row until the transaction ends, so that nobody ends the user's tokens between
/// what is read and what is written.
///
/// # Errors
/// When MySQL does not answer.
pub async fn lock(
    connection: &mut MySqlConnection,
    id: UserId,
) -> Result<Option<User>, sqlx::Error> {
    let row: Option<Row> =
        sqlx::query_as(AssertSqlSafe(format!("{COLUMNS} AND id = ? FOR UPDATE")))
            .bind(id.0)
            .fetch_optional(connection)
            .await?;
    Ok(row.and_then(parse).map(|(user, _)| user))
}

/// Why all tokens and sessions of a user end.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// The user asked for it.
    LogoutEverywhere,
    /// The user has a new password, with this hash.
    NewPassword(&'a str),
    /// The user has a new role, and a store if it is the role of a till.
    NewRole(Role, Option<u64>),
    /// The user is deleted; the user's orders stay.
    Deletion,
}

/// Ends all tokens and sessions that began before, and writes the change that ends them.
///
/// Returns the user as changed; `None` when there is no such user. The caller removes the refresh
/// tokens in the same transaction.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end_tokens(
    connection: &mut MySqlConnection,
    id: UserId,
    ending: Ending<'_>,
    now_seconds: i64,
) -> Result<Option<User>, sqlx::Error> {
    let Some(mut user) = lock(connection, id).await? else {
        return Ok(None);
    };
    user.tokens_from = (user.tokens_from + 1).max(now_seconds + 1);
    if let Ending::NewRole(role, store_id) = ending {
        (user.role, user.store_id) = (role, store_id);
    }
    let hash = match ending {
        Ending::NewPassword(hash) => Some(hash),
        Ending::LogoutEverywhere | Ending::NewRole(..) | Ending::Deletion => None,
    };
    let is_deleted = matches!(ending, Ending::Deletion);
    sqlx::query(
        "UPDATE users SET tokens_from = ?, role = ?, store_id = ?, is_deleted = ?, \
         password_hash = IF(is_deleted, NULL, COALESCE(?, password_hash)) WHERE id = ?",
    )
    .bind(user.tokens_from)
    .bind(user.role.as_str())
    .bind(user.store_id)
    .bind(is_deleted)
    .bind(hash)
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(Some(user))
}

/// The `tokens_from` of every user whose tokens were ended after `since`, in Unix seconds.
///
/// # Errors
/// When MySQL does not answer.
pub async fn tokens_from(pool: &MySqlPool, since: i64) -> Result<Vec<(u64, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT id, tokens_from FROM users WHERE tokens_from > ?")
        .bind(since)
        .fetch_all(pool)
        .await
}
