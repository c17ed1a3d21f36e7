//! The campaign that `dev` adds to a seeded database.

use sqlx::MySqlPool;
use stock_common::id::{LocationId, ProductId, UserId};
use stock_domain::account::Account;
use stock_domain::coupon::{self, Benefit};
use stock_domain::discount::Percentage;
use stock_domain::stock::{self, StockChanged, Terms};
use stock_mysql::coupons::{self, CouponFields};
use stock_mysql::{error_number, jobs, works};
use stock_redis::Ledger;

use super::Failure;
use super::seed::{SeedArgs, accept};

/// The campaign items, the store stock and the coupon that `dev` adds, so that every page and every
/// call has something to show.
const WORKS: [&str; 3] = ["First edition", "Sketch book", "Poster"];
const COUPON: &str = "Opening";
const COUPON_PERCENT: u32 = 10;
const COUPON_CODES: i64 = 1_000;
/// Units of a product that each store holds, and the number of products of which it does.
const STORE_STOCK: i64 = 1_000;
const STORE_PRODUCTS: u64 = 10;

/// Adds to a seeded database, once, a campaign with its items, stores that hold stock and share the
/// online stock, and `user0@example.com`. `false` when it was added before.
///
/// # Errors
/// When Redis or MySQL does not answer.
pub(super) async fn begin(
    pool: &MySqlPool,
    ledger: &Ledger,
    args: &SeedArgs,
    password_hash: &str,
) -> Result<bool, Failure> {
    if jobs::is_known(pool, "seed_campaign").await? {
        return Ok(false);
    }
    for title in WORKS {
        // A run that was killed may have made it.
        match works::insert(pool, title).await {
            Err(error) if error_number(&error) == Some(1062) => {}
            made => drop(made?),
        }
    }
    sqlx::query(
        "INSERT IGNORE INTO users (email, name, role, password_hash) \
         VALUES ('user0@example.com', 'user 0', 'user', ?)",
    )
    .bind(password_hash)
    .execute(pool)
    .await?;
    sqlx::query("UPDATE locations SET shares_online_stock = 1 WHERE id <= 3")
        .execute(pool)
        .await?;
    if args.stock >= STORE_STOCK {
        for product in 1..=args.products.min(STORE_PRODUCTS) {
            for store in 1..=3 {
                stock_store(ledger, ProductId(product), LocationId(store)).await?;
            }
        }
    }
    if coupons::list(pool, true, None, 1).await?.is_empty() {
        let fields = CouponFields {
            name: COUPON.to_owned(),
            benefit: Benefit::Rate(Percentage::from_hundredths(COUPON_PERCENT * 100)?),
            count: Some(COUPON_CODES),
            window_ms: (0, 0),
            personal: None,
        };
        let id = coupons::insert(pool, &fields, None).await?;
        let made = coupons::find(pool, id).await?.ok_or("no coupon")?;
        accept(ledger, || coupon::open(&made, UserId(1))).await?;
    }
    sqlx::query("INSERT IGNORE INTO jobs (name) VALUES ('seed_campaign')")
        .execute(pool)
        .await?;
    Ok(true)
}

/// Gives a store its first stock of a product, unless an earlier run has.
async fn stock_store(
    ledger: &Ledger,
    product: ProductId,
    store: LocationId,
) -> Result<(), Failure> {
    let account = Account::available(product, store);
    if ledger.levels(&[account]).await?.contains_key(&account) {
        return Ok(());
    }
    let change = StockChanged {
        product_id: product,
        location_id: store,
        quantity: STORE_STOCK,
        reason: "seed".to_owned(),
    };
    let receive = || stock::receive(&change, &Terms::default(), UserId(1), None);
    accept(ledger, receive).await?;
    Ok(())
}
