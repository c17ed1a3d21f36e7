//! `ALLOWANCE` accounts of forgotten sales, as of their last postings. `verify` reads them.

use sqlx::MySqlPool;
use stock_common::id::{SaleId, UserId};
use stock_domain::account::{Account, Level};

fn parse((sale, user, balance, seq): (u64, u64, i64, u64)) -> (Account, Level) {
    let level = Level {
        balance,
        seq,
        ..Level::default()
    };
    (Account::allowance(SaleId(sale), UserId(user)), level)
}

/// Reads up to `limit` accounts of forgotten sales after `after`, in order, for `verify`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn page(
    pool: &MySqlPool,
    after: Option<Account>,
    limit: u32,
) -> Result<Vec<(Account, Level)>, sqlx::Error> {
    let after = after.map_or((0, 0), |after| (after.owner, after.location));
    let rows: Vec<(u64, u64, i64, u64)> = sqlx::query_as(
        "SELECT sale_id, user_id, balance, seq FROM archived_allowances WHERE sale_id >= ? \
         AND (sale_id > ? OR user_id > ?) ORDER BY sale_id, user_id LIMIT ?",
    )
    .bind(after.0)
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(parse).collect())
}

/// The level of an account of a forgotten sale.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(pool: &MySqlPool, account: Account) -> Result<Option<Level>, sqlx::Error> {
    let row: Option<(u64, u64, i64, u64)> = sqlx::query_as(
        "SELECT sale_id, user_id, balance, seq FROM archived_allowances WHERE sale_id = ? \
         AND user_id = ?",
    )
    .bind(account.owner)
    .bind(account.location)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| parse(row).1))
}
