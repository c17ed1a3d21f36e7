//! `seed`: users, products and stores to try things with, once.

use std::time::Duration;

use clap::Args;
use sqlx::MySqlPool;
use stock_common::config::Config;
use stock_common::id::{LocationId, UserId};
use stock_common::money::Money;
use stock_domain::catalog::ProductStatus;
use stock_domain::database::products::{self, ProductFields};
use stock_domain::database::rows::MultiRow;
use stock_domain::ledger::Ledger;
use stock_domain::product;
use stock_domain::stock::{self, StockChanged};
use stock_domain::verdict::{Refusal, Verdict};

use super::{Failure, connect, output};

static USERS: MultiRow = MultiRow::new(
    "INSERT IGNORE INTO users (id, email, name, role) VALUES",
    "(?, ?, ?, ?)",
    "",
);
static STORES: MultiRow = MultiRow::new(
    "INSERT IGNORE INTO locations (id, name, latitude, longitude, shares_online_stock) VALUES",
    "(?, ?, ?, ?, ?)",
    "",
);
/// Every product costs this, as in the reference system.
const PRICE: i64 = 1_000;

/// How much of everything.
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
    let done = seed(&pool, &ledger, args).await?;
    output::say(if done {
        "seeded"
    } else {
        "there are products already; nothing was seeded"
    });
    Ok(true)
}

/// Seeds a database without products; `false` when there are some. Killed in the middle, running it
/// again is right.
///
/// # Errors
/// When Redis or MySQL does not answer.
pub async fn seed(pool: &MySqlPool, ledger: &Ledger, args: &SeedArgs) -> Result<bool, Failure> {
    let is_seeded: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM jobs WHERE name = 'seed')")
            .fetch_one(pool)
            .await?;
    let (known,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM products")
        .fetch_one(pool)
        .await?;
    if is_seeded {
        return Ok(false);
    }
    let mut connection = pool.acquire().await?;
    let users: Vec<(u64, String, String)> = (1..=args.users)
        .map(|id| (id, format!("user{id}@example.com"), format!("user {id}")))
        .collect();
    USERS
        .execute(&mut connection, &users, |query, (id, email, name)| {
            query
                .bind(*id)
                .bind(email)
                .bind(name)
                .bind(if *id == 1 { "admin" } else { "user" })
        })
        .await?;
    let stores = [
        (1_u64, "Gangnam", 37.497_9_f64, 127.027_6_f64, false),
        (2, "Hongdae", 37.556_3, 126.922_0, false),
        (3, "Busan", 35.157_7, 129.059_0, true),
    ];
    STORES
        .execute(
            &mut connection,
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
        .await?;
    drop(connection);
    let bar = output::progress("seeding products");
    for number in u64::try_from(known)? + 1..=args.products {
        let fields = ProductFields {
            name: format!("product {number}"),
            description: format!("Seeded product number {number}"),
            price: Money::new(PRICE)?,
            status: ProductStatus::Active,
            min_stock_level: 10,
            reorder_point: 100,
        };
        products::insert(pool, &fields, None).await?;
        output::advance(&bar, number, args.products);
    }
    stock_products(pool, ledger, args.stock).await?;
    bar.finish_and_clear();
    sqlx::query("INSERT IGNORE INTO jobs (name) VALUES ('seed')")
        .execute(pool)
        .await?;
    Ok(true)
}

/// Opens the accounts of products that have none, and gives each its first stock.
async fn stock_products(pool: &MySqlPool, ledger: &Ledger, stock: i64) -> Result<(), Failure> {
    let ids: Vec<u64> = sqlx::query_scalar("SELECT id FROM products ORDER BY id")
        .fetch_all(pool)
        .await?;
    let bar = output::progress("stocking products");
    for (done, part) in (0u64..).zip(ids.chunks(200)) {
        let each = part.iter().map(|id| stock_one(ledger, *id, stock));
        for result in futures_join(each).await {
            result?;
        }
        output::advance(&bar, done * 200, ids.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

async fn futures_join<F>(each: impl Iterator<Item = F>) -> Vec<Result<(), Failure>>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let running: Vec<_> = each.map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(running.len());
    for task in running {
        results.push(task.await.unwrap_or_else(|error| Err(error.into())));
    }
    results
}

fn stock_one(
    ledger: &Ledger,
    id: u64,
    quantity: i64,
) -> impl Future<Output = Result<(), Failure>> + Send + 'static {
    let ledger = ledger.clone();
    async move {
        let product_id = stock_common::id::ProductId(id);
        let opened = decide(&ledger, || product::open(product_id, UserId(1))).await?;
        let is_new = matches!(opened, Verdict::Accepted(_));
        if is_new && quantity > 0 {
            let reason = "seed".to_owned();
            let location_id = LocationId::ONLINE;
            let change = StockChanged {
                product_id,
                location_id,
                quantity,
                reason,
            };
            decide(&ledger, || stock::receive(&change, UserId(1), None)).await?;
        }
        Ok(())
    }
}

/// Decides, waiting a little when the service is full.
async fn decide(
    ledger: &Ledger,
    request: impl Fn() -> Result<stock_domain::ledger::Request, stock_domain::journal::DraftError>,
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
