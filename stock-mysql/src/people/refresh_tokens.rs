//! Refresh tokens in MySQL, by their hashes. Each use replaces the token; a used token that comes
//! back ends its family.

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::UserId;
use stock_domain::user::User;

use super::users;

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// The result of redeeming a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// The token was valid and is used now; its successor is stored.
    Good(User),
    /// The token was used before, so its family is ended.
    Reused(UserId),
    /// The token was never given, is too old, or its family has ended.
    Unknown,
}

/// Stores a token of a family; the caller holds the user's row.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(
    connection: &mut MySqlConnection,
    user: UserId,
    family: [u8; 16],
    token: &TokenHash,
    seconds: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO refresh_tokens (token_hash, family, user_id, expires_at) \
         VALUES (?, ?, ?, NOW(3) + INTERVAL ? SECOND)",
    )
    .bind(token.as_slice())
    .bind(family.as_slice())
    .bind(user.0)
    .bind(seconds)
    .execute(connection)
    .await?;
    Ok(())
}

/// Begins a family for a user who logged in; `false` when the user's tokens were ended since `user`
/// was read.
///
/// # Errors
/// When MySQL does not answer.
pub async fn begin(
    pool: &MySqlPool,
    user: &User,
    family: [u8; 16],
    token: &TokenHash,
    seconds: i64,
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let now = users::lock(&mut transaction, user.id).await?;
    if now.is_none_or(|now| now.tokens_from != user.tokens_from) {
        return Ok(false);
    }
    insert(&mut transaction, user.id, family, token, seconds).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Uses a token and stores its successor, in one transaction. The user's row is locked first, as by
/// everything that ends tokens. Of two concurrent uses one succeeds, and the other counts as a
/// reuse.
///
/// # Errors
/// When MySQL does not answer; nothing was changed.
pub async fn redeem(
    pool: &MySqlPool,
    token: &TokenHash,
    successor: &TokenHash,
    seconds: i64,
) -> Result<Redeemed, sqlx::Error> {
    let owner: Option<u64> =
        sqlx::query_scalar("SELECT user_id FROM refresh_tokens WHERE token_hash = ?")
            .bind(token.as_slice())
            .fetch_optional(pool)
            .await?;
    let Some(owner) = owner.map(UserId) else {
        return Ok(Redeemed::Unknown);
    };
    let mut transaction = pool.begin().await?;
    let Some(user) = users::lock(&mut transaction, owner).await? else {
        return Ok(Redeemed::Unknown);
    };
    let row: Option<(Vec<u8>, bool, bool)> = sqlx::query_as(
        "SELECT family, used_at IS NOT NULL, expires_at <= NOW(3) FROM refresh_tokens \
         WHERE token_hash = ? FOR UPDATE",
    )
    .bind(token.as_slice())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((family, is_used, is_expired)) = row else {
        return Ok(Redeemed::Unknown);
    };
    if is_used {
        sqlx::query("DELETE FROM refresh_tokens WHERE family = ?")
            .bind(&family)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        return Ok(Redeemed::Reused(owner));
    }
    let Some(family) = family.first_chunk::<16>().copied().filter(|_| !is_expired) else {
        return Ok(Redeemed::Unknown);
    };
    sqlx::query("UPDATE refresh_tokens SET used_at = NOW(3) WHERE token_hash = ?")
        .bind(token.as_slice())
        .execute(&mut *transaction)
        .await?;
    insert(&mut transaction, owner, family, successor, seconds).await?;
    transaction.commit().await?;
    Ok(Redeemed::Good(user))
}

/// Ends every family of a user.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete_of(connection: &mut MySqlConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM refresh_tokens WHERE user_id = ?")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes expired tokens, which can no longer be used or reveal a theft; returns their number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM refresh_tokens WHERE expires_at < NOW(3)")
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}
