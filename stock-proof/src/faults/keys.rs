//! One key of Redis: deleted, or turned into another type, while buyers order.

use std::time::{Duration, Instant};

use serde_json::json;
use stock_common::config::Durability::Always;
use stock_redis::keys::HEAD_FIELDS;

use super::buyers::Buyers;
use super::checker::Allowed;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;

/// Orders that must be accepted after a loss, before the next one.
const AFTER: usize = 300;
/// Orders must go on within this time after the loss of a field that all of them need.
const FIELD_MAX: Duration = Duration::from_secs(5);
/// The share of the others' orders that must be served after a loss (I23).
const SERVED_MIN: f64 = 0.8;
/// The product in a sale with a limit per buyer.
const LIMITED: u64 = 5;

/// F25: a key of each type is lost. Its owners are refused until it is restored; the others go on.
pub async fn f25_a_lost_key_harms_its_owners_only(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let sale = begin_sale(&world).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    let of = |rest: String| format!("{}:{{0}}:{rest}", world.shop.prefix);
    let mut keys = vec![
        of("a:AVAILABLE:1:0".to_owned()),
        of("a:RESERVED:1:0".to_owned()),
        of(format!("b:ALLOWANCE:{sale}")),
        of("b:POINTS".to_owned()),
        of("b:HOLD".to_owned()),
        of("states".to_owned()),
        of("deadlines".to_owned()),
    ];
    for records in ["accepted", "refused"] {
        keys.extend([0, 1].map(|generation| of(format!("k:{records}:{generation}"))));
    }
    lose_fields(&world, &buyers).await?;
    let mut worst = f64::INFINITY;
    for (number, key) in keys.iter().enumerate() {
        let first = buyers.asked();
        lose(&world, key, number % 2 == 1).await?;
        world.accept(&buyers, AFTER).await?;
        let served = buyers.served_since(first, |asked| asked.was_refused("ACCOUNT_BROKEN"));
        worst = worst.min(served);
        if served < SERVED_MIN {
            let text = format!("I23: {key} was lost, and {served:.2} of the others were served");
            return Err(text.into());
        }
    }
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(Outcome::PassedWith(format!(
        "{} keys, of the others at least {worst:.2} were served",
        keys.len()
    )))
}

async fn begin_sale(world: &World) -> Result<u64, Failure> {
    let body = json!({
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z", "limitPerUser": 100_000,
    });
    let client = world.client()?;
    let path = format!("/api/products/{LIMITED}/sales");
    let made = client.post(&path).admin().json(&body).try_send().await?;
    let id = made.body.get("saleId").and_then(serde_json::Value::as_u64);
    id.ok_or_else(|| format!("no sale was made: {}", made.text).into())
}

/// Every order needs the fields of the epoch's hash: orders go on as soon as a lost field is
/// restored.
async fn lose_fields(world: &World, buyers: &Buyers) -> Result<(), Failure> {
    let head = format!("{}:{{0}}:epoch", world.shop.prefix);
    let mut redis = world.redis_connection().await?;
    for field in HEAD_FIELDS.iter().filter(|field| **field != "epoch") {
        let lose = redis::cmd("HDEL").arg(&head).arg(field).to_owned();
        lose.query_async::<i64>(&mut redis).await?;
        let since = Instant::now();
        world.accept(buyers, AFTER).await?;
        if since.elapsed() > FIELD_MAX {
            let text = format!(
                "{field} was lost, and orders went on after {:.1?}",
                since.elapsed()
            );
            return Err(text.into());
        }
    }
    Ok(())
}

/// Deletes a key; `spoils` leaves one of another type in its place.
async fn lose(world: &World, key: &str, spoils: bool) -> Result<(), Failure> {
    let mut redis = world.redis_connection().await?;
    let mut commands = redis::pipe();
    commands.atomic().cmd("UNLINK").arg(key);
    if spoils {
        commands.cmd("LPUSH").arg(key).arg("x");
    }
    let _: redis::Value = commands.query_async(&mut redis).await?;
    Ok(())
}
