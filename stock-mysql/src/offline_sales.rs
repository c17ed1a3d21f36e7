//! Sales that tills made while they were cut off, by the tills' own keys.

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlExecutor, MySqlPool, QueryBuilder};
use stock_common::id::{Position, UserId};
use stock_domain::order::OfflineSale;

use super::journal::hash_bytes;
use super::rows::{MultiRow, push_list};

/// What became of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfflineState {
    /// It is an order.
    Sold,
    /// There was no stock: a person has to resolve it.
    Oversold,
    /// A person has.
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

    /// The state of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Sold, Self::Oversold, Self::Resolved]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// A sale as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOfflineSale {
    /// The entry that tells it: an order's id if it was sold.
    pub id: Position,
    /// The sale.
    pub sale: OfflineSale,
    /// What became of it.
    pub state: OfflineState,
    /// What a person wrote who resolved it.
    pub note: Option<String>,
}

/// Inserts sales: entry, store, sale, state.
///
/// # Errors
/// When MySQL does not answer, or a store's key is there already.
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
    (store, device): (u64, &str),
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

/// The sales that some orders are.
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

/// Lists a store's sales in a state, newest first, older than `before`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    store: u64,
    state: OfflineState,
    (before, limit): (Option<Position>, u32),
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

/// The first oversold sale of a shard that nobody has resolved.
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
    (by, note): (UserId, &str),
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
