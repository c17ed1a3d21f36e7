//! The subscriber alone, settling a backlog, beside bare multi-row inserts of the same rows.

use std::time::{Duration, Instant};

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Executor, MySqlPool, Row};
use stock_common::id::{ProductId, SaleId};
use stock_domain::account::Book;
use stock_domain::request::Request;
use stock_domain::verdict::Verdict;
use stock_mysql::rows::MultiRow;
use stock_redis::Ledger;

use super::engine::{bytes_per_field, limited, one_unit};
use super::{Run, orders};
use crate::Failure;
use crate::shop::{Seed, Servers, Shop};

/// Entries that wait for the subscriber: half a minute of work or less.
const BACKLOG: u64 = 1_000_000;
/// Orders under way at the same time while the backlog grows.
const CALLERS: u64 = 1_024;
/// Accounts that are compared.
const ACCOUNTS: u64 = 1_000_000;
const PRODUCTS: u64 = 10;
const BUYERS: u64 = 100;
/// Entries whose rows are inserted again.
const RAW_ENTRIES: u64 = 200_000;
/// Entries of one transaction, as many as the subscriber takes.
const TRANSACTION: usize = 1_024;

/// Entries that MySQL has settled.
///
/// # Errors
/// When MySQL does not answer.
async fn settled(pool: &MySqlPool) -> Result<u64, Failure> {
    Ok(sqlx::query_scalar("SELECT number FROM shards")
        .fetch_one(pool)
        .await?)
}

/// Measures both on its own shop.
///
/// # Errors
/// When a server does not answer or `verify` fails.
pub async fn measure(run: &mut Run<'_>) -> Result<(), Failure> {
    let seed = Seed {
        products: PRODUCTS,
        stock: 900_000_000,
    };
    let shop = Shop::open(run.servers, "drain", seed).await?;
    let ledger = shop.ledger(run.durability).await?;
    let end = fill(&ledger, BACKLOG).await?;
    let rate = drain(&shop, end).await?;
    let raw = raw(run.servers, &shop).await?;
    run.note("bare multi-row inserts of an order's rows", raw, None, "");
    let what = format!("subscriber alone, draining {end} entries");
    let of = Some(("bare inserts", rate / raw));
    run.note(&what, rate, of, "≥ 50,000");
    let seconds = orders::verify(&shop).await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no last digit")]
    let proved = end as f64 / seconds;
    run.note("verify --full, entries compared", proved, None, "≥ 50,000");
    reconcile(run, &shop, &ledger).await
}

/// Compares the copies of a million accounts: the allowances of a million buyers in a sale.
async fn reconcile(run: &mut Run<'_>, shop: &Shop, ledger: &Ledger) -> Result<(), Failure> {
    let book = Book::Allowances(SaleId(1));
    ledger.begin_book(book, ProductId(1)).await?;
    let end = accept_all(ledger, ACCOUNTS, |order| {
        let base = one_unit(1 + order % BUYERS, 1 + order % PRODUCTS)?;
        Ok(limited(&base, order))
    });
    let end = end.await?;
    let bytes = bytes_per_field(ledger, &ledger.keys().book(book)).await?;
    let what = "Redis' memory of a buyer in a sale with a limit";
    run.note_unit(what, bytes, "bytes", "≤ 60");
    drain(shop, end).await?;
    let began = Instant::now();
    shop.command(&["reconcile"]).await?;
    let what = format!("reconcile of {ACCOUNTS} accounts and a few");
    run.note_unit(&what, began.elapsed().as_secs_f64(), "s", "≤ 60");
    Ok(())
}

/// Orders one unit of any product for any buyer, so many times, while nobody settles. Returns the
/// number of the last entry.
async fn fill(ledger: &Ledger, orders: u64) -> Result<u64, Failure> {
    let any = |order| one_unit(1 + order % BUYERS, 1 + order % PRODUCTS);
    accept_all(ledger, orders, any).await
}

/// Decides so many requests; returns the number of the last entry.
async fn accept_all(
    ledger: &Ledger,
    requests: u64,
    build: impl Fn(u64) -> Result<Request, Failure> + Copy + Send + 'static,
) -> Result<u64, Failure> {
    let filling: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut last = 0;
                for number in (caller..requests).step_by(usize::try_from(CALLERS)?) {
                    match ledger.decide(build(number)?).await? {
                        Verdict::Accepted(accepted) => last = accepted.number,
                        Verdict::Replayed(_) | Verdict::Refused(_) => {
                            return Err("an order was not accepted".into());
                        }
                    }
                }
                Ok::<_, Failure>(last)
            })
        })
        .collect();
    let mut last = 0;
    for task in filling {
        last = last.max(task.await??);
    }
    Ok(last)
}

/// Entries per second that a subscriber process settles, until the backlog is gone.
///
/// # Errors
/// When the backlog does not end.
async fn drain(shop: &Shop, end: u64) -> Result<f64, Failure> {
    let pool = shop.pool().await?;
    let mut service = shop.serve("subscriber").await?;
    // Measured from the first settled batch: starting up is not draining.
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

/// The four tables for an order's rows, with every column except those that MySQL fills itself.
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
async fn raw(servers: &Servers, shop: &Shop) -> Result<f64, Failure> {
    let from = shop.pool().await?;
    let copy = Shop::empty(servers, "raw_inserts").await?;
    let to = copy.pool().await?;
    // Only entries with one posting and one line, so that every table has as many rows.
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
