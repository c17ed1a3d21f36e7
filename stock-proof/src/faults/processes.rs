//! Processes that are killed, paused and asked to end.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stock_common::config::Durability::{Always, Everysec};

use super::alarms::{MYSQL_DOWN, others_are_served};
use super::buyers::{Buyers, Habits};
use super::checker::Allowed;
use super::history::Asked;
use super::world::{PRODUCTS, ROLES, World};
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::until;

const LOST: Allowed = Allowed {
    lost: true,
    dead_letters: false,
};

/// F1: `kill -9` of the service in mid-load. Another service takes over the orders that it had
/// accepted.
pub async fn f01_kill_9_of_the_service_loses_no_accepted_order(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 400).await?;
    world.kill_service().await?;
    world.accept(&buyers, 400).await?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F2: `kill -9` of Redis. With `always` nothing is lost; with `everysec` every loss is listed.
pub async fn f02_kill_9_of_redis_loses_nothing_that_is_not_listed(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    for durability in [Always, Everysec] {
        let mut world = World::open(durability, plan.seed).await?;
        let buyers = world.buyers(12);
        world.accept(&buyers, 400).await?;
        world.servers.redis.kill().await;
        world.servers.redis.restart().await?;
        until(
            "redis is proved, or known to have lost something",
            || async {
                let epoch = world.readiness("epoch").await;
                epoch.is_ok_and(|epoch| epoch == "ok" || epoch == "fenced")
            },
        )
        .await?;
        let is_lossless = durability == Always;
        if world.readiness("epoch").await? == "fenced" {
            if is_lossless {
                // A moment of restart is not a loss.
                world.until_ready_says("epoch", "ok").await?;
            } else {
                world.recover().await?;
            }
        }
        world.accept(&buyers, 200).await?;
        let allowed = if is_lossless {
            Allowed::default()
        } else {
            LOST
        };
        world.check(buyers, allowed).await?;
    }
    Ok(Outcome::Passed)
}

/// F3: `kill -9` of MySQL in mid-batch. Selling goes on up to the backlog limit, then 503.
pub async fn f03_kill_9_of_mysql_stops_selling_at_the_backlog_limit_only(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    world.via = world
        .via
        .with("STOCK_LAG_SOFT_ENTRIES", 1_000)
        .with("STOCK_LAG_HARD_ENTRIES", 2_000)
        .with("STOCK_LAG_RESERVE_ENTRIES", 500);
    world.serve().await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    let (first, since) = (buyers.asked(), Instant::now());
    world.servers.mysql.kill().await;
    world.accept(&buyers, 300).await?;
    others_are_served(&buyers, first, Asked::needs_mysql)?;
    world.named(MYSQL_DOWN, since).await?;
    let ready = world.client()?.get("/readyz").try_send().await?;
    if ready.status != 200 || ready.body.get("status") != Some(&"degraded".into()) {
        return Err(format!("with mysql down /readyz says {}", ready.text).into());
    }
    until("the backlog limit is reached", || async {
        buyers.refused("BACKLOG") > 0
    })
    .await?;
    world.servers.mysql.restart().await?;
    world.accept(&buyers, 200).await?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F16: many connections do not make memory grow without end. After a `kill -9`, as by the kernel's
/// OOM killer, a new service starts clean.
pub async fn f16_many_connections_do_not_exhaust_memory(plan: &Plan) -> Result<Outcome, Failure> {
    const BYTES_MAX: u64 = 300_000_000;
    let mut world = World::closed(Everysec, plan.seed).await?;
    world.via = world.via.with("STOCK_QUEUE_REQUESTS_MAX", 512);
    world.serve().await?;
    let buyers = world.buyers(1_500);
    world.accept(&buyers, 5_000).await?;
    let used = world.first()?.memory_bytes("VmHWM").unwrap_or(u64::MAX);
    if used > BYTES_MAX {
        return Err(format!("the service grew to {used} bytes").into());
    }
    world.kill_service().await?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F17: each process is stopped for longer than MySQL lets a transaction sleep. A process that
/// wakes up does no harm.
pub async fn f17_a_stopped_process_does_no_harm_when_it_wakes(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    const ASLEEP: Duration = Duration::from_secs(4);
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    // One of the two holds the shard's row, so each of them sleeps once.
    for _ in 0..2 {
        world.signal_service(Signal::STOP)?;
        tokio::time::sleep(ASLEEP).await;
        world.signal_service(Signal::CONT)?;
        world.accept(&buyers, 100).await?;
        world.services.rotate_left(1);
    }
    for is_redis in [true, false] {
        let server = match is_redis {
            true => &world.servers.redis,
            false => &world.servers.mysql,
        };
        server.signal(Signal::STOP);
        tokio::time::sleep(ASLEEP).await;
        server.signal(Signal::CONT);
        world.accept(&buyers, 100).await?;
    }
    // A script runs for seconds; Redis answers BUSY to all other clients.
    let mut redis = world.redis_connection().await?;
    redis.set_response_timeout(Duration::from_secs(30));
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("busy-reply-threshold")
        .arg(200)
        .query_async::<()>(&mut redis)
        .await?;
    redis::cmd("EVAL")
        .arg(
            "local t = redis.call('TIME')[1] + 3 while redis.call('TIME')[1] + 0 < t do end return 1",
        )
        .arg(0)
        .query_async::<i64>(&mut redis)
        .await?;
    world.accept(&buyers, 100).await?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// F20: SIGTERM under load ends with 0 in time and loses nothing. A second SIGTERM ends at once.
pub async fn f20_sigterm_under_load_ends_in_time(plan: &Plan) -> Result<Outcome, Failure> {
    const DEADLINE: Duration = Duration::from_secs(10);
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 400).await?;
    let began = Instant::now();
    if !world.first()?.stop().await? {
        return Err("I21: SIGTERM under load did not end with 0".into());
    }
    if began.elapsed() > DEADLINE {
        return Err(format!("I21: SIGTERM took {:?}", began.elapsed()).into());
    }
    world.services.clear();
    // An impatient operator sends two signals. The journal has the accepted orders.
    let mut second = world.via.serve(ROLES).await?;
    let more = Buyers::start(
        std::slice::from_ref(&second.client),
        6,
        1..=PRODUCTS,
        Habits::ALL,
        plan.seed.wrapping_add(1_000),
    );
    world.accept(&more, 100).await?;
    second.signal(Signal::TERM)?;
    if let Err(error) = second.signal(Signal::TERM) {
        tracing::debug!(%error, "it was quick");
    }
    tokio::time::timeout(DEADLINE, second.child.wait()).await??;
    let mut both = buyers.stop().await?;
    both.append(more.stop().await?);
    passed(world.check_history(both, Allowed::default()).await)
}
