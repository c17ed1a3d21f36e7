//! Troubles of operators: poison, clocks, wrong orders of starting, jobs that overlap, changed
//! passwords, overload.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Executor;
use stock_client::Client;
use stock_common::config::Durability::{Always, Everysec};
use stock_servers::proxy::Mode;

use super::alarms::{MYSQL_DOWN, others_are_served};
use super::buyers::{Buyers, Habits};
use super::checker::Allowed;
use super::history::Asked;
use super::world::{PRODUCTS, ROLES, World};
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::bench::wrk::Load;
use crate::shop::until;

/// F12: orders that do not fit their table become dead letters; all others are stored.
pub async fn f12_orders_that_a_table_refuses_become_dead_letters(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 200).await?;
    let pool = world.shop.pool().await?;
    pool.execute("ALTER TABLE order_products MODIFY product_name VARCHAR(20) NOT NULL")
        .await?;
    let client = world.client()?;
    let product = json!({ "name": "a name that the table has no room for", "description": "",
        "price": 1_000, "status": "ACTIVE", "stock": super::world::STOCK });
    let made = client
        .post("/api/products")
        .admin()
        .json(&product)
        .try_send()
        .await?;
    let id = made.body.get("id").and_then(serde_json::Value::as_u64);
    let id = id.ok_or_else(|| format!("no product was made: {}", made.text))?;
    let mut poisoned = 0;
    while poisoned < 3 {
        let order = client.order("/api/redis/orders", 2, &[(id, 2)]);
        poisoned += u32::from(order.try_send().await?.status == 201);
    }
    world.accept(&buyers, 200).await?;
    until("they are set aside, and their stock is back", || async {
        let text = "SELECT COUNT(*) FROM dead_letters WHERE state = 'COMPENSATED'";
        let found: Result<i64, _> = sqlx::query_scalar(text).fetch_one(&pool).await;
        found.is_ok_and(|found| found == 3)
    })
    .await?;
    others_are_served(&buyers, 0, |_| false)?;
    pool.execute("ALTER TABLE order_products MODIFY product_name VARCHAR(100) NOT NULL")
        .await?;
    pool.close().await;
    let allowed = Allowed {
        lost: false,
        dead_letters: true,
    };
    passed(world.check(buyers, allowed).await)
}

/// F13: the service's clock jumps an hour ahead, an hour back, and to the right time again.
pub async fn f13_a_jumping_clock_changes_no_verdict(plan: &Plan) -> Result<Outcome, Failure> {
    const LIBRARIES: [&str; 3] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];
    let Some(library) = LIBRARIES
        .into_iter()
        .find(|file| std::path::Path::new(file).exists())
    else {
        return Ok(Outcome::Skipped("libfaketime is not installed".to_owned()));
    };
    let mut world = World::closed(Always, plan.seed).await?;
    let clock = world.servers.folder.path().join("clock");
    std::fs::write(&clock, "+0s")?;
    world.via = world
        .via
        .with("LD_PRELOAD", library)
        .with("FAKETIME_TIMESTAMP_FILE", clock.display())
        .with("FAKETIME_NO_CACHE", "1")
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    world.serve().await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 200).await?;
    for jump in ["+3500s", "-3500s", "+0s"] {
        let before = buyers.accepted();
        std::fs::write(&clock, jump)?;
        if jump.starts_with('-') {
            // The tokens are not valid yet at that time: 401, and nothing else may happen.
            until("tokens of the future are refused", || async {
                buyers.refused("UNAUTHORIZED") > 20
            })
            .await?;
        } else {
            until("orders go on", || async {
                buyers.accepted() > before + 100
            })
            .await?;
        }
    }
    passed(world.check(buyers, Allowed::default()).await)
}

/// F18: services start before their servers, migrate at the same time, and go on when the schema is
/// ahead of them.
pub async fn f18_services_start_in_any_order(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    let pool = world.shop.pool().await?;
    world.redis.set(Mode::Down);
    world.mysql.set(Mode::Down);
    let early = [world.via.spawn(ROLES)?, world.via.spawn(ROLES)?];
    let [first, second] = early;
    world.services = vec![first, second];
    until("it answers, not ready", || async {
        let ready = match world.client() {
            Ok(client) => client.get("/readyz").try_send().await,
            Err(error) => Err(error),
        };
        ready.is_ok_and(|answer| answer.status == 503)
    })
    .await?;
    let order = world
        .client()?
        .order("/api/redis/orders", 2, &[(1, 1)])
        .try_send()
        .await?;
    if order.status != 503 {
        return Err(format!("without servers an order answers {}", order.text).into());
    }
    world.mysql.set(Mode::Pass);
    world.redis.set(Mode::Pass);
    for service in &world.services {
        until("both become ready", || service.client.is_ready()).await?;
    }
    let buyers = world.buyers(12);
    world.accept(&buyers, 200).await?;
    // A later version has migrated. A program of this version starts on that schema, and is ready.
    pool.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99999999999999, 'from the future', 1, '', 0)",
    )
    .await?;
    let mut late = world.via.spawn(ROLES)?;
    until("it is ready on the newer schema", || async {
        let ready = late.client.get("/readyz").try_send().await;
        ready.is_ok_and(|answer| {
            let checks = answer.body.get("checks");
            let schema = checks.and_then(|checks| checks.get("schema"));
            answer.status == 200 && schema == Some(&"ahead".into())
        })
    })
    .await?;
    late.stop().await?;
    pool.close().await;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F19: `reconcile` and `verify` run over each other in a storm of sales, and change nothing.
pub async fn f19_reconcile_and_verify_change_nothing_in_a_storm(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    world.via = world.via.with("STOCK_RECONCILE_CRON", "* * * * * *");
    world.serve().await?;
    world.serve().await?;
    let buyers = world.buyers(24);
    for _ in 0..5 {
        let runs = [
            &["reconcile", "--apply"][..],
            &["reconcile", "--apply"],
            &["verify"],
            &["verify", "--full"],
        ];
        let [a, b, c, d] = runs.map(|arguments| world.shop.command(arguments));
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        for done in [a, b, c, d] {
            // One reconciles at a time; the other waits.
            done?;
        }
        world.accept(&buyers, 100).await?;
    }
    others_are_served(&buyers, 0, |_| false)?;
    let pool = world.shop.pool().await?;
    let drifts: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM drifts")
        .fetch_one(&pool)
        .await?;
    if drifts > 0 {
        return Err(format!("I14: reconcile found {drifts} differences in a healthy shop").into());
    }
    let stale = "SELECT COUNT(*) FROM jobs WHERE name = 'reconcile' \
         AND last_success_at > NOW(3) - INTERVAL 30 SECOND";
    until("the schedule still ticks", || async {
        let found: Result<i64, _> = sqlx::query_scalar(stale).fetch_one(&pool).await;
        found.is_ok_and(|found| found == 1)
    })
    .await?;
    pool.close().await;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F21: MySQL's password changes at runtime, Redis demands one, and the token key is another.
pub async fn f21_changed_credentials_are_survived(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    let pool = world.shop.pool().await?;
    for text in [
        "CREATE USER 'shop'@'%' IDENTIFIED BY 'before'",
        "GRANT ALL ON faults.* TO 'shop'@'%'",
    ] {
        pool.execute(text).await?;
    }
    let url = format!("mysql://shop:before@{}/faults", world.mysql.address);
    world.via = world.via.with("STOCK_DATABASE_URL", url);
    world.serve().await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 200).await?;
    let first = buyers.asked();
    pool.execute("ALTER USER 'shop'@'%' IDENTIFIED BY 'after'")
        .await?;
    world.mysql.set(Mode::Down);
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.mysql.set(Mode::Pass);
    // Selling goes on. The service reports that it is degraded, and does not end.
    world.named(MYSQL_DOWN, Instant::now()).await?;
    world.accept(&buyers, 100).await?;
    others_are_served(&buyers, first, Asked::needs_mysql)?;
    pool.execute("ALTER USER 'shop'@'%' IDENTIFIED BY 'before'")
        .await?;
    pool.close().await;
    let mut redis = world.redis_connection().await?;
    let require = |password: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("requirepass").arg(password);
        command
    };
    require("secret").query_async::<()>(&mut redis).await?;
    world.redis.set(Mode::Down);
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.redis.set(Mode::Pass);
    until("nothing is sold without the password", || async {
        buyers.refused("FENCED") > 20
    })
    .await?;
    require("").query_async::<()>(&mut redis).await?;
    world.accept(&buyers, 100).await?;
    let other = world.via.with(
        "STOCK_JWT_SECRET",
        "another secret, also long enough for HS256",
    );
    let mut rotated = other.spawn(ROLES)?;
    let client = rotated.client.clone();
    until("tokens of the old key are refused", || async {
        let order = client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .try_send()
            .await;
        order.is_ok_and(|answer| answer.status == 401)
    })
    .await?;
    rotated.stop().await?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F22: forty times the connections, then the usual number: the goodput stays, memory is bounded.
///
/// The usual speed is measured on another shop on the same machine, which saw no flood; the two are
/// asked in turn. A machine that others use too is a third slower at times, for both shops. With a
/// queue that is too small for the flood, refusals are quick and say when to come again, and all is
/// well a moment later.
pub async fn f22_an_overload_is_refused_quickly(plan: &Plan) -> Result<Outcome, Failure> {
    const MEMORY_MAX: u64 = 300_000_000;
    const REFUSAL_MAX: Duration = Duration::from_secs(1);
    /// After this time the service must be as quick as the other one.
    const BACK_WITHIN: Duration = Duration::from_secs(5);
    const TURNS: usize = 7;
    let mut world = World::open(Everysec, plan.seed).await?;
    let other = World::open(Everysec, plan.seed).await?;
    let seconds = if plan.is_long { 30 } else { 6 };
    let usual = Load::orders("/api/redis/orders", 1);
    let flood = usual.clone().connections(5_120).seconds(seconds);
    let (client, calm) = (world.client()?, other.client()?);
    let goodput_of = async |client: &Client, seconds| {
        let loaded = usual.clone().seconds(seconds).run(client).await?;
        loaded.accepted()
    };
    goodput_of(&calm, 5).await?;
    goodput_of(&client, 5).await?;
    let peak = goodput_of(&client, 5).await?;
    let flooded = flood.run(&client).await?;
    let goodput = flooded.accepted()?;
    let used = world.first()?.memory_bytes("VmHWM").unwrap_or(u64::MAX);
    let over = Instant::now();
    while over.elapsed() < BACK_WITHIN {
        goodput_of(&client, 1).await?;
    }
    let mut turns = Vec::with_capacity(TURNS);
    for _ in 0..TURNS {
        let (back, usual) = (goodput_of(&client, 1).await?, goodput_of(&calm, 1).await?);
        turns.push((back / usual, usual));
    }
    turns.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let (back, _) = *turns.get(TURNS / 2).ok_or("no turns")?;
    // The machine may have been quicker before the flood than it is now.
    let now = turns.iter().map(|turn| turn.1).sum::<f64>() / TURNS as f64;
    let peak = peak.min(now);

    let narrow = world.via.with("STOCK_QUEUE_REQUESTS_MAX", 512);
    let small = narrow.serve("http").await?;
    let buyers = Buyers::start(
        std::slice::from_ref(&small.client),
        8,
        1..=PRODUCTS,
        Habits::ALL,
        plan.seed,
    );
    let refused = flood.run(&small.client).await?.refused;
    let began = Instant::now();
    usual
        .clone()
        .seconds(1)
        .run(&small.client)
        .await?
        .accepted()?;
    let recovered = began.elapsed();
    let history = buyers.stop().await?;
    let (slowest, which) = &history.slowest_503;
    let report = format!(
        "peak {peak:.0}/s; 5,120 connections: {goodput:.0}/s, p99 {} ms, {} MB; then {back:.2} of a \
         shop without a flood; with a queue of 512: {refused} refused, the slowest 503 after {slowest:.0?} ({which}), none {recovered:.0?} later",
        flooded.p99_us / 1_000,
        used / 1_000_000,
    );
    let is_good = goodput >= 0.8 * peak && back >= 0.9 && used <= MEMORY_MAX;
    let is_quick = refused > 0 && *slowest <= REFUSAL_MAX;
    if !is_good || !is_quick || !history.complaints.is_empty() {
        return Err(format!("{report} {:?}", history.complaints).into());
    }
    drop(small);
    // The flood has no history, so only `verify` checks the ledger.
    world.well().await?;
    world.shop.command(&["verify", "--full"]).await?;
    Ok(Outcome::PassedWith(report))
}
