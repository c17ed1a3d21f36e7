//! Everything runs out: a few units, a thousand buyers of each product, all ways to buy, under
//! another fault.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use stock_client::Client;
use stock_common::config::Durability::Always;
use stock_online::cli::output::say;
use tokio_util::sync::CancellationToken;

use super::checker::Allowed;
use super::crowd::{BUYERS, LIMITED, STORES, Shared, TILL_PRODUCT, asked, locked, rush};
use super::history::{History, Told, told};
use super::singles::Single;
use super::world::{PRODUCTS, World};
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::until;

/// Units of each product, of the first-come coupon, and of each store.
const UNITS: i64 = 50;
/// Limit of each buyer for the product in the sale.
const LIMIT: u64 = 2;
/// How long the other fault lasts.
const LASTS: Duration = Duration::from_secs(3);
/// How often the levels are read.
const EVERY: Duration = Duration::from_millis(50);
/// A unit that comes back after it was said to be gone must be sold within this time.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// F36: nothing is sold twice, and nothing remains that nobody can buy.
pub async fn f36_scarce_goods_are_sold_once_and_wholly(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::stocked(Always, plan.seed, UNITS).await?;
    world.serve().await?;
    world.serve().await?;
    let history = Shared::default();
    let coupon = set_up(&world.client()?, &history).await?;
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let fault = Single::draw(&mut rng)?;
    say(&format!("  beside {fault:?}"));
    let clients: Vec<Client> = world.services.iter().map(|s| s.client.clone()).collect();
    let stop = CancellationToken::new();
    let watch = tokio::spawn(watch(
        world.shop.redis_url.clone(),
        world.shop.prefix.clone(),
        Arc::clone(&history),
        stop.clone(),
    ));
    let begun = fault.begin(&mut world).await?;
    let crowd = {
        let history = Arc::clone(&history);
        let seed = plan.seed;
        tokio::spawn(async move { rush(&clients, coupon, seed, &history).await })
    };
    tokio::time::sleep(LASTS).await;
    fault.end(begun, &mut world).await?;
    crowd.await??;
    world.well().await?;
    all_holds_are_over(&world).await?;
    let left = sell_out(&world, &history).await?;
    stop.cancel();
    let looks = watch.await??;
    let history = std::mem::take(&mut *locked(&history));
    let codes = format!("{:?}", history.codes);
    passed(world.check_history(history, Allowed::default()).await)?;
    Ok(Outcome::PassedWith(format!(
        "{left} units were left behind the rush and sold, {looks} looks at all levels; {codes}"
    )))
}

/// Makes a sale with a limit, a scarce coupon, and stock at two stores; returns the coupon.
async fn set_up(client: &Client, history: &Shared) -> Result<u64, Failure> {
    let sale = json!({ "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
        "limitPerUser": LIMIT });
    made(client, &format!("/api/products/{LIMITED}/sales"), &sale).await?;
    for (store, _) in STORES {
        let stock = json!({ "productId": TILL_PRODUCT, "locationId": store, "quantity": UNITS,
            "reason": "opening" });
        made(client, "/api/products/stock/inbound", &stock).await?;
        locked(history)
            .received
            .insert((TILL_PRODUCT, store), UNITS);
    }
    let coupon = json!({ "name": "few", "discountAmount": super::buyers::COUPON, "count": UNITS });
    let made = made(client, "/api/coupons", &coupon).await?;
    made.get("id")
        .and_then(Value::as_u64)
        .ok_or_else(|| "a coupon without an id".into())
}

async fn made(client: &Client, path: &str, body: &Value) -> Result<Value, Failure> {
    let answer = client.post(path).admin().json(body).try_send().await?;
    match answer.status {
        201 => Ok(answer.body),
        _ => Err(format!("{path}: {}", answer.text).into()),
    }
}

/// Reads all levels again and again, and notes complaints. Returns how often it read them.
async fn watch(
    url: String,
    prefix: String,
    history: Shared,
    stop: CancellationToken,
) -> Result<u32, Failure> {
    let mut looks = 0;
    while !stop.is_cancelled() {
        let client = redis::Client::open(url.as_str())?;
        // Redis may be away for a while, if the other fault is of that kind.
        if let Ok(mut redis) = client.get_multiplexed_async_connection().await {
            while !stop.is_cancelled() && look(&mut redis, &prefix, &history).await.is_ok() {
                looks += 1;
                tokio::time::sleep(EVERY).await;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(looks)
}

/// Reads all levels once. Sold, held and free units are never more than there were, and the
/// reserved units are those of the live holds. The buyers' history is read first, so that events in
/// between can only lower the sum.
async fn look(
    redis: &mut MultiplexedConnection,
    prefix: &str,
    history: &Shared,
) -> Result<(), Failure> {
    let sold = sold(&locked(history));
    let of = |rest: String| format!("{prefix}:{{0}}:{rest}");
    let mut read = redis::pipe();
    read.atomic();
    for product in 1..=PRODUCTS {
        read.cmd("GET").arg(of(format!("a:AVAILABLE:{product}:0")));
        read.cmd("GET").arg(of(format!("a:RESERVED:{product}:0")));
    }
    read.cmd("ZRANGE")
        .arg(of("deadlines".to_owned()))
        .arg(0)
        .arg(-1);
    let mut values: Vec<redis::Value> = read.query_async(redis).await?;
    let members: Vec<String> = redis::from_redis_value(values.pop().ok_or("no answer")?)?;
    let live = held(&members);
    let mut complaints = Vec::new();
    for (product, levels) in (1..=PRODUCTS).zip(values.chunks(2)) {
        let mut balances = levels.iter().map(|level| {
            let text: String = redis::from_redis_value(level.clone())?;
            let balance = text.split(' ').next().unwrap_or_default().parse::<i64>()?;
            Ok::<i64, Failure>(balance)
        });
        // A key may be lost, if the other fault is of that kind; it comes back.
        let (Some(Ok(left)), Some(Ok(reserved))) = (balances.next(), balances.next()) else {
            continue;
        };
        let of = |sums: &BTreeMap<u64, i64>| sums.get(&product).copied().unwrap_or(0);
        let all = of(&sold) + reserved + left;
        if left < 0 || reserved < 0 || all > UNITS {
            complaints.push(format!(
                "I3: of product {product} {left} are left, {reserved} held and {} sold",
                of(&sold)
            ));
        }
        if members.len() > 1 && reserved != of(&live) {
            let text = format!(
                "I1: of product {product} {reserved} are reserved, {} held",
                of(&live)
            );
            complaints.push(text);
        }
    }
    locked(history)
        .complaints
        .extend(complaints.into_iter().take(3));
    Ok(())
}

/// Sums the units of each product that are certainly sold online: nobody has asked to cancel them.
fn sold(history: &History) -> BTreeMap<u64, i64> {
    let mut sold = BTreeMap::new();
    let standing = history.orders.iter().filter(|asked| {
        // The tills of the first store sell its own stock.
        matches!(asked.told, Told::Accepted(_))
            && asked.cancelled.is_none()
            && asked.path != STORES[0].1
    });
    for (product, quantity) in standing.flat_map(|asked| &asked.lines) {
        *sold.entry(*product).or_default() += quantity;
    }
    sold
}

/// Sums the units of each product that live holds hold online. The words of a member are position,
/// user, product, location, units, sale and limit.
fn held(members: &[String]) -> BTreeMap<u64, i64> {
    let mut held = BTreeMap::new();
    for member in members {
        let mut words = member.split(' ').skip(2);
        let numbers = [words.next(), words.next(), words.next()];
        if let [Some(product), Some("0"), Some(units)] = numbers
            && let (Ok(product), Ok(units)) = (product.parse(), units.parse::<i64>())
        {
            *held.entry(product).or_default() += units;
        }
    }
    held
}

async fn all_holds_are_over(world: &World) -> Result<(), Failure> {
    let redis = world.redis_connection().await?;
    let key = format!("{}:{{0}}:deadlines", world.shop.prefix);
    until("all holds are over", || async {
        let count = redis::cmd("ZCARD").arg(&key).to_owned();
        let count: Result<i64, _> = count.query_async(&mut redis.clone()).await;
        // Only the sentinel stays.
        count.is_ok_and(|count| count == 1)
    })
    .await
}

/// Buys the rest of each product, unit by unit: as many as there are, and not one more. Then a unit
/// that a cancel gives back is sold again.
async fn sell_out(world: &World, history: &Shared) -> Result<i64, Failure> {
    let client = world.client()?;
    let (mut user, mut all) = (2 + BUYERS, 0);
    for product in 1..=PRODUCTS {
        let path = format!("/api/products/stock/available?productId={product}&locationId=0");
        let level = client.get(&path).user(2).try_send().await?;
        let left = level
            .body
            .pointer("/items/0/available")
            .and_then(Value::as_i64);
        let left = left.ok_or_else(|| format!("no level: {}", level.text))?;
        let mut last = None;
        for _ in 0..left {
            user += 1;
            match buy(&client, user, product, history).await? {
                Told::Accepted(id) => last = Some((user, id)),
                other @ (Told::Refused(_) | Told::Unknown) => {
                    return Err(format!(
                        "I27: {left} of product {product} are left, and: {other:?}"
                    )
                    .into());
                }
            }
        }
        all += left;
        user += 1;
        let gone = buy(&client, user, product, history).await?;
        if gone != Told::Refused("INSUFFICIENT_STOCK".to_owned()) {
            return Err(format!("of product {product} nothing is left, and: {gone:?}").into());
        }
        if let Some((buyer, id)) = last {
            comes_back(&client, product, user, buyer, &id, history).await?;
        }
    }
    Ok(all)
}

/// A unit that is given back is sold to the buyer who was told a moment ago that it is gone.
async fn comes_back(
    client: &Client,
    product: u64,
    user: u64,
    buyer: u64,
    id: &str,
    history: &Shared,
) -> Result<(), Failure> {
    let path = format!("/api/redis/orders/{id}/cancel");
    let cancelled = told(
        client
            .patch(&path)
            .user(buyer)
            .json(&json!({}))
            .try_send()
            .await,
    );
    note_cancel(history, id, cancelled);
    let since = Instant::now();
    loop {
        if let Told::Accepted(_) = buy(client, user, product, history).await? {
            return Ok(());
        }
        if since.elapsed() > BACK_WITHIN {
            return Err(format!(
                "I27: a unit of product {product} is back, and still said to be gone"
            )
            .into());
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn note_cancel(history: &Shared, id: &str, cancelled: Told) {
    let of_it = |told: &Told| matches!(told, Told::Accepted(known) if known == id);
    let mut all = locked(history);
    if let Some(asked) = all.orders.iter_mut().find(|asked| of_it(&asked.told)) {
        asked.cancelled = Some(cancelled);
    }
}

async fn buy(client: &Client, user: u64, product: u64, history: &Shared) -> Result<Told, Failure> {
    let mut order = asked(user, "/api/redis/orders", vec![(product, 1)]);
    let call = client.post(order.path).user(user).json(&order.body());
    order.told = told(call.try_send().await);
    let told = order.told.clone();
    locked(history).orders.push(order);
    Ok(told)
}
