//! Coupons: how fast they are drawn beside one-line orders, over HTTP.
//!
//! Each draw has another pair of buyer and work, so that each is accepted; the campaign counts
//! down.

use serde_json::json;
use sqlx::{MySql, QueryBuilder};
use stock_online::cli::output::say;

use super::orders::{REDIS_FIRST, verify};
use super::wrk::{BUYERS, Load};
use super::{Run, median};
use crate::Failure;
use crate::shop::{Seed, Service, Shop, until};

/// One less than the first work's id: seven digits, as `load.lua` needs them.
const WORKS_FROM: u64 = 1_000_000;
/// Number of works. With every buyer they make twenty million draws.
const WORKS: u64 = 200_000;

const ORDERS: &str = "Redis first, one line, subscriber held, beside draws";
const DRAWS: &str = "coupon drawn, subscriber held";

/// Measures it.
///
/// # Errors
/// When a draw is not accepted or `verify` fails.
pub async fn run(run: &mut Run<'_>) -> Result<(), Failure> {
    let seed = Seed {
        products: 10,
        stock: 900_000_000,
    };
    let shop = Shop::open(run.servers, "coupons", seed).await?;
    let shop = shop
        .with("STOCK_LAG_SOFT_ENTRIES", "90000000")
        .with("STOCK_LAG_HARD_ENTRIES", "100000000");
    make_works(&shop).await?;
    let mut service = shop.serve("http").await?;
    let coupon = make_campaign(&service).await?;
    let (mut orders, mut draws) = (Vec::new(), Vec::new());
    let mut first = WORKS_FROM;
    for round in 0..=run.options.rounds {
        let seconds = if round == 0 { 2 } else { run.options.seconds };
        let ordered = Load::orders(REDIS_FIRST, 1).seconds(seconds);
        let ordered = ordered.run(&service.client).await?.accepted()?;
        let drawn = Load::draws(coupon, first).seconds(seconds);
        let drawn = drawn.run(&service.client).await?;
        // Requests that were under way at the end may have been drawn too.
        first += drawn.requests() / BUYERS + 10;
        if round > 0 {
            orders.push(ordered);
            draws.push(drawn.accepted()?);
        }
    }
    service.stop().await?;
    say(&format!(
        "{} works of {WORKS} were used",
        first - WORKS_FROM
    ));
    let ratios = draws.iter().zip(&orders);
    let ratio = median(ratios.map(|(drawn, ordered)| drawn / ordered).collect());
    run.note(ORDERS, median(orders), None, "");
    run.note(DRAWS, median(draws), Some((ORDERS, ratio)), "≥ 0.80");
    verify(&shop).await?;
    Ok(())
}

async fn make_works(shop: &Shop) -> Result<(), Failure> {
    let pool = shop.pool().await?;
    let ids: Vec<u64> = (WORKS_FROM + 1..=WORKS_FROM + WORKS).collect();
    for part in ids.chunks(5_000) {
        let mut insert: QueryBuilder<MySql> = QueryBuilder::new("INSERT INTO works (id, title) ");
        insert.push_values(part, |mut row, id| {
            row.push_bind(id).push_bind(format!("work {id}"));
        });
        insert.build().execute(&pool).await?;
    }
    Ok(())
}

async fn make_campaign(service: &Service) -> Result<u64, Failure> {
    let campaign = json!({ "name": "opening", "discountRate": 10, "count": 1_000_000_000 });
    let made = service.client.post("/api/coupons").admin().json(&campaign);
    let made = made.try_send().await?;
    let id = made.body.get("id").and_then(serde_json::Value::as_u64);
    let id = id.ok_or_else(|| format!("no coupon was made: {}", made.text))?;
    until("the coupon can be drawn", || async {
        let path = format!("/api/coupons/{id}/issue");
        let drawn = service.client.post(&path).user(1).json(&json!({}));
        let drawn = drawn.try_send().await;
        drawn.is_ok_and(|answer| [201, 409].contains(&answer.status))
    })
    .await?;
    Ok(id)
}
