//! The subscriber alone, settling a backlog, beside bare multi-row inserts of the same rows.

use std::time::{Duration, Instant};

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Executor, MySqlPool, Row};
use stock_domain::database::rows::MultiRow;

use crate::Failure;
use crate::shop::{Servers, Shop};

/// Entries whose rows are written again.
const RAW_ENTRIES: u64 = 200_000;
/// Entries of one transaction, as the subscriber's.
const TRANSACTION: usize = 1_024;

/// Entries that MySQL has settled.
///
/// # Errors
/// When MySQL does not answer.
pub async fn settled(pool: &MySqlPool) -> Result<u64, Failure> {
    Ok(sqlx::query_scalar("SELECT number FROM shards")
        .fetch_one(pool)
        .await?)
}

/// Entries per second that a subscriber process settles of a backlog, until it is gone.
///
/// # Errors
/// When it does not end, or there was no backlog.
pub async fn run(shop: &Shop, end: u64) -> Result<f64, Failure> {
    let pool = shop.pool().await?;
    let mut service = shop.serve("subscriber").await?;
    // From the first settled batch on: starting up is not draining.
    let (before, began) = loop {
        let now = settled(&pool).await?;
        if now > 0 {
            break (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut now = before;
    while now < end {
        if began.elapsed() > Duration::from_secs(300) {
            return Err(format!("the subscriber stays at {now} of {end}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        now = settled(&pool).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    service.stop().await?;
    pool.close().await;
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no last digit")]
    Ok((now - before) as f64 / seconds)
}

/// A table, and the statement that writes its rows.
struct Table {
    name: &'static str,
    key: &'static str,
    statement: MultiRow,
}

/// The columns of one row as bytes, which MySQL converts to each column's type.
type Columns = Vec<Option<Vec<u8>>>;

/// The four tables that an order's rows go to, with every column but those that MySQL fills itself.
const TABLES: [(&str, &str, &str, &str); 4] = [
    (
        "journal",
        "id",
        "id, shard, number, kind, version, actor_id, reference, payload, key_hash, fingerprint",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ),
    (
        "postings",
        "journal_id",
        "kind, owner_id, place_id, seq, journal_id, delta, balance_after",
        "(?, ?, ?, ?, ?, ?, ?)",
    ),
    (
        "orders",
        "id",
        "id, user_id, status, path, delivery_type, store_id, total_amount, updated_at",
        "(?, ?, ?, ?, ?, ?, ?, ?)",
    ),
    (
        "order_products",
        "order_id",
        "order_id, line, product_id, product_name, quantity, price, unit_price",
        "(?, ?, ?, ?, ?, ?, ?)",
    ),
];

/// Entries per second when their rows are only inserted: no locks, no checks, no balances.
///
/// # Errors
/// When MySQL does not answer.
pub async fn raw(servers: &Servers, shop: &Shop) -> Result<f64, Failure> {
    let from = shop.pool().await?;
    let copy = Shop::empty(servers, "raw_inserts").await?;
    let to = copy.pool().await?;
    // Entries with one posting and one line: as many rows in every table.
    let first: u64 = sqlx::query_scalar(
        "SELECT MIN(o.id) FROM orders o JOIN journal j ON j.id = o.id WHERE j.kind = 'order_placed'",
    )
    .fetch_one(&from)
    .await?;
    let mut rows = Vec::new();
    for (name, key, columns, values) in TABLES {
        let as_bytes: Vec<String> = columns
            .split(", ")
            .map(|column| format!("CAST({column} AS BINARY)"))
            .collect();
        let text = format!(
            "SELECT {} FROM {name} WHERE {key} >= {first} ORDER BY {key} LIMIT {RAW_ENTRIES}",
            as_bytes.join(", ")
        );
        let found = sqlx::query(AssertSqlSafe(text)).fetch_all(&from).await?;
        let found: Vec<Columns> = found.iter().map(columns_of).collect::<Result<_, _>>()?;
        let head = format!("INSERT INTO {name} ({columns}) VALUES").leak();
        let statement = MultiRow::new(head, values, "");
        to.execute(AssertSqlSafe(format!("TRUNCATE {name}")))
            .await?;
        rows.push((
            Table {
                name,
                key,
                statement,
            },
            found,
        ));
    }
    let began = Instant::now();
    let mut connection = to.acquire().await?;
    let entries = rows.iter().map(|(_, rows)| rows.len()).min().unwrap_or(0);
    for start in (0..entries).step_by(TRANSACTION) {
        connection.execute("BEGIN").await?;
        for (table, rows) in &rows {
            let part = rows.get(start..entries.min(start + TRANSACTION));
            let written = table.statement.execute(
                &mut connection,
                part.unwrap_or_default(),
                |mut query, row| {
                    for column in row {
                        query = query.bind(column.as_deref());
                    }
                    query
                },
            );
            written
                .await
                .map_err(|error| format!("{} by {}: {error}", table.name, table.key))?;
        }
        connection.execute("COMMIT").await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    from.close().await;
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no last digit")]
    Ok(entries as f64 / seconds)
}

fn columns_of(row: &MySqlRow) -> Result<Columns, sqlx::Error> {
    (0..row.len())
        .map(|column| row.try_get::<Option<Vec<u8>>, _>(column))
        .collect()
}
