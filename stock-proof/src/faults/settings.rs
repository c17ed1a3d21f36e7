//! Settings of the servers that are changed while buyers order.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cmd;
use sqlx::{AssertSqlSafe, Executor};
use stock_common::config::Durability::Always;

use super::alarms::{NAMED_WITHIN, Says, Sign, others_are_served};
use super::buyers::Buyers;
use super::checker::Allowed;
use super::history::Asked;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::until;

const UNSAFE: &str = "UNSAFE_REDIS";
/// Settings that break the promise of `always`: the setting, a wrong value and the right one.
const UNSAFE_SETTINGS: [(&str, &str, &str); 11] = [
    ("appendonly", "no", "yes"),
    ("appendfsync", "no", "always"),
    ("appendfsync", "everysec", "always"),
    ("no-appendfsync-on-rewrite", "yes", "no"),
    ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ("maxmemory-policy", "allkeys-lfu", "noeviction"),
    ("maxmemory-policy", "allkeys-random", "noeviction"),
    ("maxmemory-policy", "volatile-lru", "noeviction"),
    ("maxmemory-policy", "volatile-lfu", "noeviction"),
    ("maxmemory-policy", "volatile-random", "noeviction"),
    ("maxmemory-policy", "volatile-ttl", "noeviction"),
];

/// F26: settings that the promise needs are changed, and set right again.
pub async fn f26_unsafe_settings_are_named_and_stop_selling(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let slowest = redis_settings(plan).await?;
    forbidden_config(plan).await?;
    mysql_settings(plan).await?;
    Ok(Outcome::PassedWith(format!(
        "each was noticed within {slowest:.1?}"
    )))
}

async fn set(redis: &mut MultiplexedConnection, name: &str, value: &str) -> Result<(), Failure> {
    let done = cmd("CONFIG").arg("SET").arg(name).arg(value).to_owned();
    Ok(done.query_async(redis).await?)
}

/// Checks that nothing is accepted any more, and that the refusals say why.
async fn is_not_sold(buyers: &Buyers) -> Result<(), Failure> {
    let refused = async |more: u64| {
        let goal = buyers.refused(UNSAFE) + more;
        until("orders are refused", || async {
            buyers.refused(UNSAFE) >= goal
        })
        .await
    };
    // Answers to earlier decisions may still be on their way.
    refused(50).await?;
    let before = buyers.accepted();
    refused(100).await?;
    match buyers.accepted() - before {
        0 => Ok(()),
        sold => Err(format!("{sold} orders were accepted on an unsafe redis").into()),
    }
}

/// Makes a setting of Redis wrong for a while; returns how long it took to be named.
async fn is_noticed(
    world: &World,
    buyers: &Buyers,
    name: &'static str,
    wrong: &str,
    right: &str,
) -> Result<Duration, Failure> {
    let sign = Sign {
        readyz: Some(Says::Setting(name, "unready")),
        alert: "StockFlowUnsafeSetting",
    };
    let mut redis = world.redis_connection().await?;
    let since = Instant::now();
    set(&mut redis, name, wrong).await?;
    let took = world
        .named(sign, since)
        .await
        .map_err(|error| format!("{name} {wrong}: {error}"))?;
    is_not_sold(buyers)
        .await
        .map_err(|error| format!("{name} {wrong}: {error}"))?;
    let since = Instant::now();
    set(&mut redis, name, right).await?;
    world.accept(buyers, 50).await?;
    let back = since.elapsed();
    match back <= NAMED_WITHIN {
        true => Ok(took),
        false => Err(format!("{name} {right}: sold again only after {back:.1?}").into()),
    }
}

async fn redis_settings(plan: &Plan) -> Result<Duration, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(8);
    world.accept(&buyers, 200).await?;
    let mut slowest = Duration::ZERO;
    for (name, wrong, right) in UNSAFE_SETTINGS {
        slowest = slowest.max(is_noticed(&world, &buyers, name, wrong, right).await?);
    }
    world.check(buyers, Allowed::default()).await?;
    Ok(slowest)
}

/// Where `CONFIG` is not allowed, `INFO` shows the two settings that matter most.
async fn forbidden_config(plan: &Plan) -> Result<(), Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    let mut redis = world.redis_connection().await?;
    let user = ["on", ">word", "~*", "&*", "+@all", "-config"];
    let user = cmd("ACL").arg("SETUSER").arg("shop").arg(&user).to_owned();
    user.query_async::<()>(&mut redis).await?;
    let url = format!("redis://shop:word@{}/0", world.redis.address);
    world.via = world.via.with("STOCK_REDIS_URL", url);
    world.serve().await?;
    let buyers = world.buyers(8);
    world.accept(&buyers, 100).await?;
    for (name, wrong, right) in [
        ("appendonly", "no", "yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ] {
        is_noticed(&world, &buyers, name, wrong, right).await?;
    }
    world.check(buyers, Allowed::default()).await?;
    Ok(())
}

/// Settings of MySQL weaken settling and not selling: orders go on, and the setting is named.
async fn mysql_settings(plan: &Plan) -> Result<(), Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    let pool = world.shop.pool().await?;
    // A user that `read_only` does not exempt.
    for text in [
        "CREATE USER 'shop'@'%' IDENTIFIED BY 'word'",
        "GRANT ALL ON faults.* TO 'shop'@'%'",
    ] {
        pool.execute(text).await?;
    }
    let url = format!("mysql://shop:word@{}/faults", world.mysql.address);
    world.via = world.via.with("STOCK_DATABASE_URL", url);
    world.serve().await?;
    let buyers = world.buyers(8);
    world.accept(&buyers, 200).await?;
    for (name, wrong, right) in [
        ("read_only", "1", "0"),
        ("innodb_flush_log_at_trx_commit", "2", "1"),
    ] {
        let sign = Sign {
            readyz: Some(Says::Setting(name, "degraded")),
            alert: "StockFlowWeakSetting",
        };
        let set = |value: &str| AssertSqlSafe(format!("SET GLOBAL {name} = {value}"));
        let (first, since) = (buyers.asked(), Instant::now());
        pool.execute(set(wrong)).await?;
        world.named(sign, since).await?;
        world.accept(&buyers, 100).await?;
        others_are_served(&buyers, first, Asked::needs_mysql)?;
        pool.execute(set(right)).await?;
        world.until_ready_says("mysql", "ok").await?;
        world.accept(&buyers, 100).await?;
    }
    pool.close().await;
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(())
}
