//! `seed`: writes users, products and stores to try things with, once.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sqlx::{MySqlConnection, MySqlPool};
use stock_common::config::Config;
use stock_common::id::{LocationId, ProductId, UserId};
use stock_domain::account::Account;
use stock_domain::product;
use stock_domain::stock::{self, StockChanged, Terms};
use stock_domain::verdict::{Refusal, Verdict};
use stock_mysql::account_queue::AccountQueue;
use stock_mysql::jobs;
use stock_mysql::rows::MultiRow;
use stock_redis::Ledger;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Failure, connect, output};
use crate::subscriber;

static USERS: MultiRow = MultiRow::new(
    "INSERT IGNORE INTO users (id, email, name, role, password_hash) VALUES",
    "(?, ?, ?, ?, ?)",
    "",
);
static STORES: MultiRow = MultiRow::new(
    "INSERT IGNORE INTO locations (id, name, latitude, longitude, shares_online_stock) VALUES",
    "(?, ?, ?, ?, ?)",
    "",
);
static PRODUCTS: MultiRow = MultiRow::new(
    "INSERT INTO products (name, description, price, min_stock_level, reorder_point) VALUES",
    "(?, ?, ?, 10, 100)",
    "",
);
/// Price of every product, as in the reference system.
const PRICE: i64 = 1_000;
/// Products inserted by one statement, and stocked at the same time.
const PRODUCTS_AT_ONCE: usize = 1_024;

/// The amounts to seed.
#[derive(Debug, Clone, Args)]
pub struct SeedArgs {
    /// Users `user1@example.com` …, user 1 an admin
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub users: u64,
    /// Products at a price of 1,000
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub products: u64,
    /// First stock of each
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000_000))]
    pub stock: i64,
}

pub(super) async fn run(config: &Config, args: &SeedArgs) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    // Without a password nobody can log in as these users; only `dev` sets well-known passwords.
    let done = seed(&pool, &ledger, args, None).await?;
    output::say(if done {
        "seeded"
    } else {
        "there are products already; nothing was seeded"
    });
    Ok(true)
}

/// Seeds a database once; `false` when it was seeded before.
///
/// Users get `password_hash` if it is given. A run that was killed can simply be run again. When
/// twice the number of products reaches the soft limit of the backlog, a subscriber applies entries
/// meanwhile.
///
/// # Errors
/// When Redis or MySQL does not answer.
pub async fn seed(
    pool: &MySqlPool,
    ledger: &Ledger,
    args: &SeedArgs,
    password_hash: Option<&str>,
) -> Result<bool, Failure> {
    let is_seeded = jobs::is_known(pool, "seed").await?;
    let (known,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM products")
        .fetch_one(pool)
        .await?;
    if is_seeded {
        return Ok(false);
    }
    let mut connection = pool.acquire().await?;
    insert_users(&mut connection, args.users, password_hash).await?;
    insert_stores(&mut connection).await?;
    insert_products(&mut connection, u64::try_from(known)? + 1..=args.products).await?;
    drop(connection);
    let stop = CancellationToken::new();
    let applying = (2 * args.products >= ledger.config().decide.lag_soft_entries).then(|| {
        let shared = subscriber::Shared {
            ledger: ledger.clone(),
            pool: pool.clone(),
            queue: AccountQueue::default(),
            wake_ups: Arc::default(),
            troubles: Arc::default(),
        };
        tokio::spawn(subscriber::run(shared, stop.clone()))
    });
    let stocked = stock_products(pool, ledger, args.stock).await;
    stop.cancel();
    if let Some(applying) = applying {
        applying.await?;
    }
    stocked?;
    sqlx::query("INSERT IGNORE INTO jobs (name) VALUES ('seed')")
        .execute(pool)
        .await?;
    Ok(true)
}

async fn insert_users(
    connection: &mut MySqlConnection,
    users: u64,
    password_hash: Option<&str>,
) -> Result<(), sqlx::Error> {
    let users: Vec<(u64, String, String)> = (1..=users)
        .map(|id| (id, format!("user{id}@example.com"), format!("user {id}")))
        .collect();
    USERS
        .execute(connection, &users, |query, (id, email, name)| {
            query
                .bind(*id)
                .bind(email)
                .bind(name)
                .bind(if *id == 1 { "admin" } else { "user" })
                .bind(password_hash)
        })
        .await
}

async fn insert_stores(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let stores = [
        (1_u64, "Gangnam", 37.497_9_f64, 127.027_6_f64, false),
        (2, "Hongdae", 37.556_3, 126.922_0, false),
        (3, "Busan", 35.157_7, 129.059_0, true),
    ];
    STORES
        .execute(
            connection,
            &stores,
            |query, (id, name, latitude, longitude, shares)| {
                query
                    .bind(*id)
                    .bind(*name)
                    .bind(*latitude)
                    .bind(*longitude)
                    .bind(*shares)
            },
        )
        .await
}

async fn insert_products(
    connection: &mut MySqlConnection,
    numbers: RangeInclusive<u64>,
) -> Result<(), sqlx::Error> {
    let bar = output::progress("seeding products");
    let (all, numbers) = (*numbers.end(), numbers.collect::<Vec<_>>());
    for part in numbers.chunks(PRODUCTS_AT_ONCE) {
        PRODUCTS
            .execute(connection, part, |query, number| {
                query
                    .bind(format!("product {number}"))
                    .bind(format!("Seeded product number {number}"))
                    .bind(PRICE)
            })
            .await?;
        output::advance(&bar, part.last().copied().unwrap_or_default(), all);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Opens the accounts of products that have none, and gives each its first stock.
async fn stock_products(pool: &MySqlPool, ledger: &Ledger, stock: i64) -> Result<(), Failure> {
    let ids: Vec<u64> = sqlx::query_scalar("SELECT id FROM products ORDER BY id")
        .fetch_all(pool)
        .await?;
    let bar = output::progress("stocking products");
    let mut running = JoinSet::new();
    for (done, id) in (0u64..).zip(&ids) {
        if running.len() >= PRODUCTS_AT_ONCE
            && let Some(stocked) = running.join_next().await
        {
            stocked??;
        }
        running.spawn(stock_one(ledger, *id, stock));
        output::advance(&bar, done, ids.len() as u64);
    }
    while let Some(stocked) = running.join_next().await {
        stocked??;
    }
    bar.finish_and_clear();
    Ok(())
}

fn stock_one(
    ledger: &Ledger,
    id: u64,
    quantity: i64,
) -> impl Future<Output = Result<(), Failure>> + Send + 'static {
    let ledger = ledger.clone();
    async move {
        let product_id = ProductId(id);
        let opened = accept(&ledger, || product::open(product_id, UserId(1))).await?;
        let is_new = match opened {
            Verdict::Accepted(_) => true,
            // An earlier run may have been killed after the opening posting.
            Verdict::Replayed(_) | Verdict::Refused(_) => {
                let account = Account::available(product_id, LocationId::ONLINE);
                let levels = ledger.levels(&[account]).await?;
                levels.get(&account).is_some_and(|level| level.seq == 1)
            }
        };
        if is_new && quantity > 0 {
            let reason = "seed".to_owned();
            let location_id = LocationId::ONLINE;
            let change = StockChanged {
                product_id,
                location_id,
                quantity,
                reason,
            };
            accept(&ledger, || {
                stock::receive(&change, &Terms::default(), UserId(1), None)
            })
            .await?;
        }
        Ok(())
    }
}

/// Decides a request, and waits a little while the backlog is full.
pub(super) async fn accept(
    ledger: &Ledger,
    request: impl Fn() -> Result<stock_domain::request::Request, stock_domain::journal::DraftError>,
) -> Result<Verdict, Failure> {
    for _ in 0..100 {
        match ledger.decide(request()?).await? {
            Verdict::Refused(Refusal::Backlog) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            verdict @ (Verdict::Accepted(_)
            | Verdict::Replayed(_)
            | Verdict::Refused(Refusal::StaleState { .. })) => return Ok(verdict),
            Verdict::Refused(refusal) => {
                return Err(format!("seeding was refused: {}", refusal.name()).into());
            }
        }
    }
    Err("mysql is too far behind".into())
}
