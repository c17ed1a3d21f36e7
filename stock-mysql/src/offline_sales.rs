//! Offline sales: sales that tills made while they were cut off, by the tills' own keys.

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlExecutor, MySqlPool, QueryBuilder};
use stock_common::id::{Position, UserId};
use stock_domain::order::OfflineSale;

use super::journal::hash_bytes;
use super::rows::{MultiRow, push_list};

/// The state of an offline sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfflineState {
    /// The sale is an order.
    Sold,
    /// There was no stock: a person has to resolve the sale.
    Oversold,
    /// A person has resolved the sale.
    Resolved,
}

impl OfflineState {
    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sold => "SOLD",
            Self::Oversold => "OVERSOLD",
            Self::Resolved => "RESOLVED",
        }
    }

    /// The state that has this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Sold, Self::Oversold, Self::Resolved]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// An offline sale as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOfflineSale {
    /// The position of the entry that holds the sale; the order's id if the sale is an order.
    pub id: Position,
    /// The sale.
    pub sale: OfflineSale,
    /// The state of the sale.
    pub state: OfflineState,
    /// The note of the person who resolved the sale.
    pub note: Option<String>,
}

/// Inserts sales: entry, store, sale and state.
///
/// # Errors
/// When MySQL does not answer, or the store has a sale with the same key already.
pub async fn insert(
    connection: &mut MySqlConnection,
    sales: &[(Position, u64, OfflineSale, OfflineState)],
) -> Result<(), sqlx::Error> {
    static INSERT: MultiRow = MultiRow::new(
        "INSERT INTO offline_sales (journal_id, store_id, sale_key, device_id, fingerprint, sold_ms, \
         state) VALUES",
        "(?, ?, ?, ?, ?, ?, ?)",
        "",
    );
    INSERT
        .execute(connection, sales, |query, (id, store, sale, state)| {
            query
                .bind(id.get())
                .bind(*store)
                .bind(sale.key.as_str())
                .bind(sale.device_id.as_str())
                .bind(hash_bytes(&sale.fingerprint))
                .bind(sale.sold_ms)
                .bind(state.as_str())
        })
        .await
}

type Row = (u64, String, String, Vec<u8>, i64, String, Option<String>);

fn parse(
    (id, key, device_id, fingerprint, sold_ms, state, note): Row,
) -> Option<StoredOfflineSale> {
    Some(StoredOfflineSale {
        id: Position::new(id),
        sale: OfflineSale {
            key,
            device_id,
            fingerprint: hex::encode(&fingerprint),
            sold_ms,
        },
        state: OfflineState::parse(&state)?,
        note,
    })
}

const COLUMNS: &str = "SELECT journal_id, sale_key, device_id, fingerprint, sold_ms, \
     CAST(state AS CHAR), note FROM offline_sales";

/// Finds the sales of a store's device by their keys; unknown ones are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    pool: &MySqlPool,
    store: u64,
    device: &str,
    keys: &[&str],
) -> Result<Vec<StoredOfflineSale>, sqlx::Error> {
    let mut found = Vec::new();
    for part in keys.chunks(500) {
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(COLUMNS);
        query.push(" WHERE store_id = ").push_bind(store);
        query.push(" AND device_id = ").push_bind(device);
        query.push(" AND sale_key IN ");
        push_list(&mut query, part);
        let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
        found.extend(rows.into_iter().filter_map(parse));
    }
    Ok(found)
}

/// The offline sales that became these orders.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_orders(
    pool: &MySqlPool,
    orders: &[Position],
) -> Result<Vec<StoredOfflineSale>, sqlx::Error> {
    let mut found = Vec::new();
    for part in orders.chunks(500) {
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(COLUMNS);
        query.push(" WHERE journal_id IN ");
        let ids: Vec<_> = part.iter().map(|id| id.get()).collect();
        push_list(&mut query, &ids);
        let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
        found.extend(rows.into_iter().filter_map(parse));
    }
    Ok(found)
}

/// Lists a store's sales in a state, newest first, with ids below `before`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    store: u64,
    state: OfflineState,
    before: Option<Position>,
    limit: u32,
) -> Result<Vec<StoredOfflineSale>, sqlx::Error> {
    let text = format!(
        "{COLUMNS} WHERE store_id = ? AND state = ? AND journal_id < ? \
         ORDER BY journal_id DESC LIMIT ?"
    );
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(store)
        .bind(state.as_str())
        .bind(before.map_or(u64::MAX, Position::get))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// The first oversold sale of a shard that is not resolved.
///
/// # Errors
/// When MySQL does not answer.
pub async fn oldest_unresolved(
    pool: &MySqlPool,
    shard: u64,
) -> Result<Option<Position>, sqlx::Error> {
    let id: Option<u64> = sqlx::query_scalar(
        "SELECT MIN(journal_id) FROM offline_sales WHERE state = 'OVERSOLD' \
         AND (journal_id >> 16) & 63 = ?",
    )
    .bind(shard)
    .fetch_one(pool)
    .await?;
    Ok(id.map(Position::new))
}

/// Notes that a person has resolved an oversold sale; `false` when there is none to resolve.
///
/// # Errors
/// When MySQL does not answer.
pub async fn resolve(
    executor: impl MySqlExecutor<'_>,
    store: u64,
    id: Position,
    by: UserId,
    note: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE offline_sales SET state = 'RESOLVED', note = ?, resolved_by = ?, \
         resolved_at = NOW(3) WHERE journal_id = ? AND store_id = ? AND state = 'OVERSOLD'",
    )
    .bind(note)
    .bind(by.0)
    .bind(id.get())
    .bind(store)
    .execute(executor)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes a sale.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(connection: &mut MySqlConnection, id: Position) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM offline_sales WHERE journal_id = ?")
        .bind(id.get())
        .execute(connection)
        .await?;
    Ok(())
}
