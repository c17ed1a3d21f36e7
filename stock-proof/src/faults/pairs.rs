//! Two faults at once: the pairs that hurt most.

use std::time::{Duration, Instant};

use stock_common::config::Durability::{Always, Everysec};
use stock_servers::proxy::Mode;

use super::alarms::{FENCED, others_are_served};
use super::buyers::{Buyers, Habits};
use super::checker::Allowed;
use super::singles::Single;
use super::world::{PRODUCTS, ROLES, STOCK, World};
use super::{Outcome, Plan, passed, storage};
use crate::Failure;
use crate::shop::{Seed, Shop, until};

/// How long MySQL is away in these pairs.
const OUTAGE: Duration = Duration::from_secs(4);
/// Orders must go on within this time after a link was reset, because MySQL need not be asked for
/// that.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// F24: the rules for each fault alone hold for both, and nothing is fenced for longer than the
/// longer one lasts.
pub async fn f24_two_faults_at_once_harm_no_more_than_each(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut report = Vec::new();
    for mysql in [Single::MysqlKilled, Single::MysqlStopped] {
        let again = mysql_and_reset_link(plan, mysql).await?;
        report.push(format!(
            "{mysql:?} and reset links: orders again after {again:.1?}"
        ));
    }
    let served = mysql_and_instance(plan).await?;
    report.push(format!(
        "MySQL and an instance killed: {served:.2} of orders served"
    ));
    let (sells, fenced) = (
        redis_that_loses_nothing(plan).await?,
        redis_that_may_lose(plan).await?,
    );
    report.push(format!(
        "Redis killed while MySQL is away: orders after {sells:.1?} (always), {fenced:.1?} after MySQL is back \
         (everysec)"
    ));
    let rounds = redis_and_migration(plan).await?;
    report.push(format!(
        "Redis restarted {rounds} times while migrations ran"
    ));
    report.push(match storage::full_disk_and_failover(plan).await? {
        Some(again) if again > AGAIN_WITHIN => {
            return Err(format!("no orders for {again:.1?} behind a failover").into());
        }
        Some(again) => format!("a full disk and a failover: orders again after {again:.1?}"),
        None => "a full disk and a failover: mounting is not allowed here".to_owned(),
    });
    Ok(Outcome::PassedWith(report.join("; ")))
}

/// Links to Redis break again and again while MySQL is away. Returns the longest time until orders
/// went on.
async fn mysql_and_reset_link(plan: &Plan, mysql: Single) -> Result<Duration, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let buyers = world.buyers_with(8, Habits::REDIS_ONLY);
    world.accept(&buyers, 200).await?;
    let begun = mysql.begin(&mut world).await?;
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < OUTAGE {
        for reset in [Single::RedisLinksReset, Single::RedisLink(Mode::Down)] {
            let cut = reset.begin(&mut world).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            reset.end(cut, &mut world).await?;
            let since = Instant::now();
            world.accept(&buyers, 50).await?;
            longest = longest.max(since.elapsed());
        }
    }
    if longest > AGAIN_WITHIN {
        return Err(format!("{mysql:?}: no orders for {longest:.1?} behind a reset link").into());
    }
    mysql.end(begun, &mut world).await?;
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(longest)
}

/// MySQL is killed, then one of two instances. The other instance sells on.
async fn mysql_and_instance(plan: &Plan) -> Result<f64, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers_with(4, Habits::REDIS_ONLY);
    world.serve().await?;
    let second = world.services.last().ok_or("no second service")?;
    let others = Buyers::start(
        std::slice::from_ref(&second.client),
        4,
        1..=PRODUCTS,
        Habits::REDIS_ONLY,
        plan.seed.wrapping_add(1_000),
    );
    world.accept(&others, 200).await?;
    let mysql = Single::MysqlKilled.begin(&mut world).await?;
    world.accept(&buyers, 100).await?;
    let first = others.asked();
    let instance = Single::ServiceKilled.begin(&mut world).await?;
    world.accept(&others, 300).await?;
    tokio::time::sleep(OUTAGE).await;
    world.accept(&others, 100).await?;
    let served = others_are_served(&others, first, |_| false)?;
    Single::MysqlKilled.end(mysql, &mut world).await?;
    Single::ServiceKilled.end(instance, &mut world).await?;
    world.accept(&buyers, 50).await?;
    let mut both = buyers.stop().await?;
    both.append(others.stop().await?);
    passed(world.check_history(both, Allowed::default()).await)?;
    Ok(served)
}

/// Redis is killed while MySQL is away, and both come back. Returns how soon orders go on. A lone
/// Redis that syncs each write has lost nothing, so an instance that knows it goes on before MySQL
/// is back.
async fn redis_that_loses_nothing(plan: &Plan) -> Result<Duration, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let buyers = world.buyers_with(4, Habits::REDIS_ONLY);
    world.accept(&buyers, 200).await?;
    let mysql = Single::MysqlKilled.begin(&mut world).await?;
    let redis = Single::RedisKilled.begin(&mut world).await?;
    Single::RedisKilled.end(redis, &mut world).await?;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    Single::MysqlKilled.end(mysql, &mut world).await?;
    world.accept(&buyers, 50).await?;
    let took = since.elapsed();
    // Afterwards MySQL must confirm that Redis: a new instance asks MySQL.
    until("a new instance is let in", || async {
        world.shop.command(&["verify"]).await.is_ok()
    })
    .await?;
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(took)
}

/// Any other Redis must be confirmed by MySQL: it is fenced as long as MySQL is away, and no
/// longer. Returns how soon orders go on when MySQL is back. Nothing is lost, because everything
/// was on disk when Redis was killed.
async fn redis_that_may_lose(plan: &Plan) -> Result<Duration, Failure> {
    const ON_DISK: Duration = Duration::from_millis(2_500);
    let mut world = World::open(Everysec, plan.seed).await?;
    world.serve().await?;
    let before = world.buyers(8);
    world.accept(&before, 200).await?;
    let mut history = before.stop().await?;
    world.well().await?;
    tokio::time::sleep(ON_DISK).await;
    let mysql = Single::MysqlKilled.begin(&mut world).await?;
    let redis = Single::RedisKilled.begin(&mut world).await?;
    Single::RedisKilled.end(redis, &mut world).await?;
    world.named(FENCED, Instant::now()).await?;
    world.seed = world.seed.wrapping_add(1_000);
    let buyers = world.buyers_with(4, Habits::REDIS_ONLY);
    until("orders are refused", || async {
        buyers.refused("FENCED") > 20
    })
    .await?;
    Single::MysqlKilled.end(mysql, &mut world).await?;
    let since = Instant::now();
    world.accept(&buyers, 50).await?;
    let took = since.elapsed();
    history.append(buyers.stop().await?);
    passed(world.check_history(history, Allowed::default()).await)?;
    Ok(took)
}

/// Redis is killed and started again, at another moment of each migration. Running the migration
/// again finishes it.
async fn redis_and_migration(plan: &Plan) -> Result<u32, Failure> {
    const ROUNDS: u32 = 4;
    let mut world = World::closed(Always, plan.seed).await?;
    for round in 0..ROUNDS {
        let name = format!("late{round}");
        world.servers.mysql.create_database(&name).await?;
        let late = Shop::at(
            &world.servers.redis.spec.url("0"),
            &world.servers.mysql.spec.url(&name),
            &name,
        );
        let migration = late.clone();
        let first = tokio::spawn(async move { migration.command(&["migrate"]).await });
        tokio::time::sleep(Duration::from_millis(150 * u64::from(round))).await;
        world.servers.redis.kill().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.servers.redis.restart().await?;
        if let Err(error) = first.await? {
            tracing::debug!(%error, "a migration that met a redis that was away");
        }
        late.command(&["migrate"]).await?;
        let how_much = Seed {
            products: PRODUCTS,
            stock: STOCK,
        };
        late.stock(how_much).await?;
        let mut service = late.serve(ROLES).await?;
        let order = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
        let order = order.try_send().await?;
        if order.status != 201 {
            return Err(format!("behind a migration that was cut off: {}", order.text).into());
        }
        service.stop().await?;
        late.command(&["verify", "--full"]).await?;
    }
    Ok(ROUNDS)
}
