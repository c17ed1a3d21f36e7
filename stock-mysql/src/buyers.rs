//! Buyers in MySQL: the shop's own names, and the numbers that follow from them.

use std::collections::HashMap;

use sqlx::{MySql, MySqlConnection, MySqlExecutor, QueryBuilder};
use stock_common::id::{Position, UserId};
use stock_domain::buyer::{Buyer, BuyerSeen};

use super::rows::{MultiRow, push_list};

static INSERT: MultiRow = MultiRow::new(
    "INSERT INTO buyers (id, user_id, name) VALUES",
    "(?, ?, ?)",
    "",
);

/// Inserts buyers, each with the entry that saw them.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    seen: &[(Position, BuyerSeen)],
) -> Result<(), sqlx::Error> {
    INSERT
        .execute(connection, seen, |query, (id, of)| {
            query
                .bind(id.get())
                .bind(of.user_id.0)
                .bind(of.name.as_str())
        })
        .await
}

/// A buyer as MySQL has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBuyer {
    /// The position of the entry that saw the buyer.
    pub id: u64,
    /// The number.
    pub user_id: u64,
    /// The name.
    pub name: String,
}

from_row!(StoredBuyer { id, user_id, name });

/// So many buyers who were seen after a position, in order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn seen_after(
    executor: impl MySqlExecutor<'_>,
    after: u64,
    limit: u32,
) -> Result<Vec<StoredBuyer>, sqlx::Error> {
    sqlx::query_as("SELECT id, user_id, name FROM buyers WHERE id > ? ORDER BY id LIMIT ?")
        .bind(after)
        .bind(limit)
        .fetch_all(executor)
        .await
}

/// Reads a name.
pub(crate) fn buyer_of(name: Option<String>) -> Option<Buyer> {
    name.and_then(|name| Buyer::try_from(name).ok())
}

/// The names of some buyers.
///
/// # Errors
/// When MySQL does not answer.
pub async fn names(
    executor: impl MySqlExecutor<'_>,
    users: &[UserId],
) -> Result<HashMap<UserId, String>, sqlx::Error> {
    let users: Vec<u64> = users.iter().map(|user| user.0).collect();
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query: QueryBuilder<MySql> =
        QueryBuilder::new("SELECT id, user_id, name FROM buyers WHERE user_id IN ");
    push_list(&mut query, &users);
    let rows: Vec<StoredBuyer> = query.build_query_as().fetch_all(executor).await?;
    let names = rows.into_iter().map(|of| (UserId(of.user_id), of.name));
    Ok(names.collect())
}
