//! Links that break, stall and dribble; a slow database; lost, doubled, stale and foreign messages.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, Executor};
use stock_common::config::Durability::Always;
use stock_servers::proxy::Mode;

use super::alarms::others_are_served;
use super::buyers::{Buyers, Habits};
use super::checker::Allowed;
use super::history::Asked;
use super::world::{PRODUCTS, ROLES, World};
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::{Seed, Shop};

/// F7: the link to Redis is cut before a request is sent, and after it, before the answer.
pub async fn f07_a_cut_link_to_redis_decides_an_order_once(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 200).await?;
    for mode in [
        Mode::CutBefore,
        Mode::CutAfter,
        Mode::CutBefore,
        Mode::CutAfter,
    ] {
        world.redis.set(mode);
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.redis.set(Mode::Pass);
        world.accept(&buyers, 200).await?;
    }
    if buyers.refused("OUTCOME_UNKNOWN") == 0 {
        return Err("no answer was ever unknown: the cut met nothing".into());
    }
    passed(world.check(buyers, Allowed::default()).await)
}

/// F8: half-open links, one-byte slices, a second of latency, 10 kB/s, to both servers.
pub async fn f08_half_open_and_slow_links_are_answered_in_time(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 200).await?;
    for mode in [
        Mode::HalfOpen,
        Mode::Slices,
        Mode::Latency(Duration::from_secs(1)),
        Mode::Bandwidth(10_000),
        Mode::Down,
    ] {
        for proxy in [&world.redis, &world.mysql] {
            proxy.set(mode);
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            proxy.set(Mode::Pass);
        }
        world.accept(&buyers, 100).await?;
    }
    passed(world.check(buyers, Allowed::default()).await)
}

/// F9: MySQL is slow, and rows are locked by another transaction. Sales go on, the lag rises, and
/// MySQL catches up.
pub async fn f09_a_slow_mysql_does_not_slow_sales(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(40);
    world.accept(&buyers, 200).await?;
    let first = buyers.asked();
    world.mysql.set(Mode::Latency(Duration::from_millis(50)));
    world.accept(&buyers, 200).await?;
    world.mysql.set(Mode::Pass);
    // Another transaction holds the accounts' rows for longer than a lock wait may take (5 s: error
    // 1205).
    let pool = world.shop.pool().await?;
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    transaction
        .execute("SELECT * FROM accounts WHERE kind = 'AVAILABLE' FOR UPDATE")
        .await?;
    world.accept(&buyers, 100).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.accept(&buyers, 100).await?;
    others_are_served(&buyers, first, Asked::needs_mysql)?;
    transaction.rollback().await?;
    drop(connection);
    pool.close().await;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F10: the subscriber's Pub/Sub connections are killed again and again. The journal is read
/// anyway.
pub async fn f10_killed_pubsub_connections_delay_nothing(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    let mut redis = world.redis_connection().await?;
    for _ in 0..10 {
        world.accept(&buyers, 60).await?;
        redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("pubsub")
            .query_async::<i64>(&mut redis)
            .await?;
    }
    others_are_served(&buyers, 0, |_| false)?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F11: three subscribers read the same journal, and stale and broken messages wake them up.
pub async fn f11_three_subscribers_settle_each_entry_once(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    world.serve().await?;
    let buyers = world.buyers(12);
    let mut redis = world.redis_connection().await?;
    let channel = format!("{}:{{0}}:levels@0", world.shop.prefix);
    let epoch: String = redis::cmd("HGET")
        .arg(format!("{}:{{0}}:epoch", world.shop.prefix))
        .arg("epoch")
        .query_async(&mut redis)
        .await?;
    let stale = [
        format!("{epoch} 1735689600000-0 0|AVAILABLE:1:0 0 1 0"),
        format!("{epoch} 1735689600000-0 0|AVAILABLE:1:0 999999999 2 1"),
        "nonsense".to_owned(),
        "|||".to_owned(),
        String::new(),
        format!("{epoch} 9 9|AVAILABLE:1:0 -5 x 7"),
    ];
    for round in 0..50 {
        for message in &stale {
            redis::cmd("PUBLISH")
                .arg(&channel)
                .arg(message)
                .query_async::<i64>(&mut redis)
                .await?;
        }
        if round % 10 == 0 {
            world.accept(&buyers, 60).await?;
        }
    }
    others_are_served(&buyers, 0, |_| false)?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F30: messages of strangers mislead nobody.
///
/// Another shop with the same prefix uses another database of the same Redis; channels belong to no
/// database. An instance of an earlier epoch says that everything is gone. Random bytes are
/// published.
pub async fn f30_messages_of_strangers_mislead_nobody(plan: &Plan) -> Result<Outcome, Failure> {
    const FOREIGN_STOCK: i64 = 5;
    const EARLIER: &str = "0123456789abcdef0123456789abcdef";
    let mut world = World::open(Always, plan.seed).await?;
    let (redis_url, servers) = (world.servers.redis.spec.url("1"), &world.servers);
    servers.mysql.create_database("foreign").await?;
    let foreign = Shop::at(&redis_url, &servers.mysql.spec.url("foreign"), "faults");
    foreign.command(&["migrate"]).await?;
    let how_much = Seed {
        products: PRODUCTS,
        stock: FOREIGN_STOCK,
    };
    foreign.stock(how_much).await?;
    let mut service = foreign.serve(ROLES).await?;
    let buyers = world.buyers(8);
    world.accept(&buyers, 200).await?;
    let first = buyers.asked();
    // The other shop sells out and takes stock in again.
    let strangers = Buyers::start(
        &[service.client.clone()],
        4,
        1..=PRODUCTS,
        Habits::ALL,
        plan.seed,
    );
    let mut redis = world.redis_connection().await?;
    for round in 0..20 {
        let inbound = json!({ "productId": 1 + round % PRODUCTS, "locationId": 0, "quantity": 5, "reason": "more" });
        let inbound = service
            .client
            .post("/api/products/stock/inbound")
            .admin()
            .json(&inbound);
        inbound.try_send().await?;
        let channel = |name: &str| format!("{}:{{0}}:{name}@0", world.shop.prefix);
        let mut told: Vec<(String, Vec<u8>)> = ["levels", "catalog", "selling", "beats"]
            .map(|name| (channel(name), rand::random::<[u8; 24]>().to_vec()))
            .into();
        for product in 1..=PRODUCTS {
            let earlier = format!("{EARLIER} 1735689600000-0 0|AVAILABLE:{product}:0 0 9000000 0");
            told.push((channel("levels"), earlier.into_bytes()));
        }
        for (channel, message) in told {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(channel).arg(message);
            publish.query_async::<i64>(&mut redis).await?;
        }
        world.accept(&buyers, 30).await?;
    }
    strangers.stop().await?;
    let ours = world.services.first().ok_or("no service")?;
    if ours.metric("stock_ignored_messages_total").await.is_none() {
        return Err("nobody counted what nobody understands".into());
    }
    let served = others_are_served(&buyers, first, |_| false)?;
    let misled = buyers.refused("INSUFFICIENT_STOCK");
    service.stop().await?;
    if misled > 0 {
        return Err(
            format!("{misled} orders were refused as sold out by another shop's levels").into(),
        );
    }
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(Outcome::PassedWith(format!("{served:.2} of orders served")))
}
