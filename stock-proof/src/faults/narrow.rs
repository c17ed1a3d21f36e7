//! A MySQL with narrow limits: it takes only small packets, or its connections are all taken.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor};
use stock_client::Client;
use stock_common::config::Durability::Always;
use stock_servers::proxy::Mode;

use super::alarms::{MYSQL_DOWN, others_are_served};
use super::checker::Allowed;
use super::crowd::asked;
use super::history::{Asked, History, told};
use super::world::{ROLES, STOCK, World};
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::until;

/// A service without servers must name them within this time (I24).
const NAMED_MAX: Duration = Duration::from_secs(10);

/// F31: statements fit MySQL's limits. A MySQL that takes no connections is waited for, and named.
pub async fn f31_statements_fit_a_narrow_mysql(plan: &Plan) -> Result<Outcome, Failure> {
    let packets = small_packets(plan).await?;
    let named = no_connections(plan).await?;
    let unresolved = no_names(plan).await?;
    Ok(Outcome::PassedWith(format!(
        "behind packets of 1 MiB {packets}; full of connections, named after {named:.1?}; names that nobody \
         resolves, named after {unresolved:.1?}"
    )))
}

/// A service starts while the names of its servers cannot be resolved: it lives, and names both.
/// Returns how soon.
async fn no_names(plan: &Plan) -> Result<Duration, Failure> {
    let world = World::closed(Always, plan.seed).await?;
    let lost = world
        .via
        .with(
            "STOCK_DATABASE_URL",
            "mysql://shop:word@nowhere.invalid/faults",
        )
        .with("STOCK_REDIS_URL", "redis://nowhere.invalid/0");
    let since = Instant::now();
    let mut service = lost.spawn(ROLES)?;
    until("it names both servers", || async {
        let ready = service.client.get("/readyz").try_send().await;
        ready.is_ok_and(|ready| {
            let is_down = |check| ready.body.pointer(check) == Some(&"down".into());
            ready.status == 503 && is_down("/checks/mysql") && is_down("/checks/redis")
        })
    })
    .await?;
    let took = since.elapsed();
    if took > NAMED_MAX {
        return Err(format!("/readyz named the servers after {took:.1?}").into());
    }
    let alive = service.client.get("/livez").try_send().await?;
    if alive.status != 200 {
        return Err(format!("/livez says {}", alive.text).into());
    }
    if !service.stop().await? {
        return Err("I21: a service without servers did not exit with 0".into());
    }
    Ok(took)
}

/// A backlog of orders whose rows are as large as possible, for a MySQL whose packets are limited
/// to 1 MiB.
async fn small_packets(plan: &Plan) -> Result<String, Failure> {
    const ORDERS: usize = 300;
    const LINES: u32 = 40;
    let mut world = World::closed(Always, plan.seed).await?;
    let pool = world.shop.pool().await?;
    pool.execute("SET GLOBAL max_allowed_packet = 1048576")
        .await?;
    pool.close().await;
    // No subscriber runs yet, so that the backlog comes at once.
    world.services.push(world.via.serve("http").await?);
    let client = world.client()?;
    let mut lines = Vec::new();
    for number in 0..LINES {
        lines.push((long_named(&client, number).await?, 1));
    }
    let mut history = History::default();
    for _ in 0..ORDERS {
        let mut order = asked(2, "/api/redis/orders", lines.clone());
        let call = client.post(order.path).user(order.user).json(&order.body());
        order.told = told(call.try_send().await);
        history.orders.push(order);
    }
    if history.accepted() < ORDERS {
        return Err(format!("only {} orders were accepted", history.accepted()).into());
    }
    world
        .services
        .push(world.via.spawn("subscriber,scheduler")?);
    let since = Instant::now();
    until("the backlog is settled", || async {
        let now = world.accepted_and_settled().await;
        now.is_ok_and(|(accepted, settled)| accepted == settled)
    })
    .await?;
    let took = since.elapsed();
    passed(world.check_history(history, Allowed::default()).await)?;
    Ok(format!(
        "{ORDERS} orders of {LINES} lines were settled within {took:.1?}"
    ))
}

/// A product whose name has as many bytes as possible.
async fn long_named(client: &Client, number: u32) -> Result<u64, Failure> {
    let name = format!("{number:02}{}", "\u{1f3ab}".repeat(98));
    let product = json!({ "name": name, "description": "", "price": 1_000, "status": "ACTIVE", "stock": STOCK });
    let call = client.post("/api/products").admin().json(&product);
    let made = call.try_send().await?;
    let id = made.body.get("id").and_then(Value::as_u64);
    id.ok_or_else(|| format!("no product was made: {}", made.text).into())
}

/// Another client has all connections of MySQL when the service loses its own. Returns how long it
/// took until this fault was named.
async fn no_connections(plan: &Plan) -> Result<Duration, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    // A connection of the administrator, for which MySQL has one more.
    let pool = world.shop.pool().await?;
    for text in [
        "CREATE USER 'shop'@'%' IDENTIFIED BY 'word'",
        "GRANT ALL ON faults.* TO 'shop'@'%'",
    ] {
        pool.execute(text).await?;
    }
    let url = |address: &str| format!("mysql://shop:word@{address}/faults");
    world.via = world
        .via
        .with("STOCK_DATABASE_URL", url(&world.mysql.address));
    world.serve().await?;
    let buyers = world.buyers(8);
    world.accept(&buyers, 200).await?;
    let first = buyers.asked();
    pool.execute("SET GLOBAL max_connections = 20").await?;
    world.mysql.set(Mode::Down);
    until("its connections are gone", || async {
        let text = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'shop'";
        let left: Result<i64, _> = sqlx::query_scalar(text).fetch_one(&pool).await;
        left.is_ok_and(|left| left == 0)
    })
    .await?;
    let direct = url(&format!("127.0.0.1:{}", world.servers.mysql.spec.port));
    let direct = format!("{direct}?ssl-mode=DISABLED");
    let mut taken = Vec::new();
    while let Ok(connection) = MySqlConnection::connect(&direct).await {
        taken.push(connection);
    }
    world.mysql.set(Mode::Pass);
    let since = Instant::now();
    let named = world.named(MYSQL_DOWN, since).await?;
    world.accept(&buyers, 300).await?;
    others_are_served(&buyers, first, Asked::needs_mysql)?;
    if world.readiness("mysql").await? != "down" {
        return Err("the service found a connection that there was not".into());
    }
    for connection in taken {
        connection.close().await?;
    }
    pool.execute("SET GLOBAL max_connections = 500").await?;
    pool.close().await;
    world.until_ready_says("mysql", "ok").await?;
    world.accept(&buyers, 100).await?;
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(named)
}
