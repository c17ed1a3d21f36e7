//! Orders that their table refuses, and postings that somebody has changed by hand.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor};
use stock_common::config::Durability::Always;

use super::alarms::{DEAD_LETTERS, QUARANTINED, others_are_served};
use super::buyers::{Buyers, Habits};
use super::checker::Allowed;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::until;

/// The good orders must be settled, and the bad ones named, within this time.
const WITHIN: Duration = Duration::from_secs(10);
/// Orders that a constraint refuses, among so many good ones.
const BAD: usize = 14;
const GOOD: usize = 1_000;
/// The buyer who places the bad orders.
const BAD_BUYER: u64 = 60;
/// The product whose postings are spoilt.
const SPOILT: u64 = 5;
const SPOILT_ROWS: &str = "kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0";

/// F32: a burst of orders that their table refuses, and postings that are changed by hand.
pub async fn f32_spoilt_rows_stop_their_owners_only(plan: &Plan) -> Result<Outcome, Failure> {
    let burst = burst(plan).await?;
    let rows = spoilt_rows(plan).await?;
    Ok(Outcome::PassedWith(format!("{burst}; {rows}")))
}

/// Waits until MySQL has settled what Redis has accepted by now; returns how long that took.
async fn settles(world: &World) -> Result<Duration, Failure> {
    let (since, goal) = (Instant::now(), world.accepted_and_settled().await?.0);
    until("the good ones are settled", || async {
        let now = world.accepted_and_settled().await;
        now.is_ok_and(|(_, settled)| settled >= goal)
    })
    .await?;
    match since.elapsed() {
        took if took <= WITHIN => Ok(took),
        took => Err(format!("the good ones were settled only after {took:.1?}").into()),
    }
}

async fn burst(plan: &Plan) -> Result<String, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 200).await?;
    let pool = world.shop.pool().await?;
    let constraint =
        format!("ALTER TABLE orders ADD CONSTRAINT not_of_one CHECK (user_id <> {BAD_BUYER})");
    pool.execute(AssertSqlSafe(constraint)).await?;
    let (client, first) = (world.client()?, buyers.asked());
    for _ in 0..BAD {
        world.accept(&buyers, GOOD / BAD).await?;
        let order = client.order("/api/redis/orders", BAD_BUYER, &[(1, 2)]);
        let order = order.try_send().await?;
        if order.status != 201 {
            return Err(format!("a bad order was not accepted: {}", order.text).into());
        }
    }
    let since = Instant::now();
    let settled = settles(&world).await?;
    let named = world.named(DEAD_LETTERS, since).await?;
    until(
        "the bad ones are set aside, and their stock is back",
        || async {
            let text = "SELECT COUNT(*) FROM dead_letters WHERE state = 'COMPENSATED'";
            let found: Result<usize, _> = sqlx::query_scalar::<_, i64>(text)
                .fetch_one(&pool)
                .await
                .map(|found| usize::try_from(found).unwrap_or(0));
            found.is_ok_and(|found| found == BAD)
        },
    )
    .await?;
    let served = others_are_served(&buyers, first, |_| false)?;
    pool.execute("ALTER TABLE orders DROP CONSTRAINT not_of_one")
        .await?;
    pool.close().await;
    let allowed = Allowed {
        lost: false,
        dead_letters: true,
    };
    passed(world.check(buyers, allowed).await)?;
    Ok(format!(
        "{BAD} bad orders: {served:.2} of orders served, the good ones settled within {settled:.1?}, named after {named:.1?}"
    ))
}

/// A stray posting with the number of a later one. Then four changes, one after the other: a
/// posting is changed or deleted, and the last posting is changed or deleted.
async fn spoilt_rows(plan: &Plan) -> Result<String, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let client = std::slice::from_ref(&world.first()?.client).to_vec();
    let seed = plan.seed;
    let others = Buyers::start(&client, 8, 1..SPOILT, Habits::ALL, seed);
    let victims = Buyers::start(&client, 4, [SPOILT], Habits::ALL, seed.wrapping_add(1_000));
    world.accept(&others, 200).await?;
    world.accept(&victims, 100).await?;
    let stray = stray(&world, &others, &victims).await?;
    let mut history = victims.stop().await?;
    settles(&world).await?;
    for spoil in SPOILS {
        is_left_alone(&world, spoil).await?;
    }
    history.append(others.stop().await?);
    passed(world.check_history(history, Allowed::default()).await)?;
    Ok(format!(
        "a stray posting: {stray}; {} spoilt ones were named and left",
        SPOILS.len()
    ))
}

/// A stray posting puts its account under quarantine. Nobody else notices, and a repair ends it.
async fn stray(world: &World, others: &Buyers, victims: &Buyers) -> Result<String, Failure> {
    let pool = world.shop.pool().await?;
    let (first, since) = (others.asked(), Instant::now());
    let text = format!(
        "INSERT INTO postings (kind, owner_id, place_id, seq, journal_id, delta, balance_after) \
         SELECT kind, owner_id, place_id, MAX(seq) + 200, MAX(journal_id), 1, 1 FROM postings WHERE {SPOILT_ROWS} \
         GROUP BY kind, owner_id, place_id"
    );
    pool.execute(AssertSqlSafe(text)).await?;
    let count = async || -> i64 {
        let text = "SELECT COUNT(*) FROM quarantined_accounts WHERE released_upto IS NULL";
        let found = sqlx::query_scalar(text).fetch_one(&pool).await;
        found.unwrap_or(0)
    };
    until("the account is under quarantine", || async {
        count().await == 1
    })
    .await?;
    let named = world.named(QUARANTINED, Instant::now()).await?;
    let settled = settles(world).await?;
    let refused = victims.refused("ACCOUNT_BROKEN");
    until("its buyers are refused", || async {
        victims.refused("ACCOUNT_BROKEN") > refused + 20
    })
    .await?;
    world.accept(others, 200).await?;
    let served = others_are_served(others, first, |_| false)?;
    if world.shop.command(&["verify"]).await.is_ok() {
        return Err("verify says that all is well beside a quarantine".into());
    }
    let lasted = since.elapsed();
    // `reconcile` ends it if the evidence is enough; otherwise a person does.
    if let Err(error) = world.shop.command(&["reconcile", "--apply"]).await {
        tracing::debug!(%error, "reconcile beside a quarantine");
    }
    let account = format!("AVAILABLE:{SPOILT}:0");
    let release = ["quarantine", "release", &account];
    until("the quarantine is over", || async {
        if count().await == 0 {
            return true;
        }
        // It may be too early, or the service's own schedule may be quicker.
        if let Err(error) = world.shop.command(&release).await {
            tracing::debug!(%error, "a release beside a quarantine");
        }
        false
    })
    .await?;
    world.accept(victims, 50).await?;
    pool.close().await;
    Ok(format!(
        "{served:.2} of the others served, settled within {settled:.1?}, named after {named:.1?}, over after {lasted:.1?}"
    ))
}

/// The ways to spoil a posting, and to undo that.
const SPOILS: [Spoil; 4] = [
    Spoil {
        name: "a posting that is changed",
        seq: "7",
        change: "UPDATE postings SET delta = delta + 1, balance_after = balance_after + 1 WHERE ",
        undo: "UPDATE postings SET delta = delta - 1, balance_after = balance_after - 1 WHERE ",
    },
    Spoil {
        name: "the last posting, changed",
        seq: "last",
        change: "UPDATE postings SET balance_after = balance_after + 3 WHERE ",
        undo: "UPDATE postings SET balance_after = balance_after - 3 WHERE ",
    },
    Spoil {
        name: "a posting that is deleted",
        seq: "7",
        change: "UPDATE postings SET owner_id = 999999 WHERE ",
        undo: "UPDATE postings SET owner_id = 5 WHERE ",
    },
    Spoil {
        name: "the last posting, deleted",
        seq: "last",
        change: "UPDATE postings SET owner_id = 999999 WHERE ",
        undo: "UPDATE postings SET owner_id = 5 WHERE ",
    },
];

struct Spoil {
    name: &'static str,
    /// The sequence number of the posting, or `last`.
    seq: &'static str,
    change: &'static str,
    undo: &'static str,
}

/// I25: a spoilt posting is named, and no repair moves a level or drops an order for it.
async fn is_left_alone(world: &World, spoil: Spoil) -> Result<(), Failure> {
    let pool = world.shop.pool().await?;
    let last: u64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT seq FROM accounts WHERE {SPOILT_ROWS}"
    )))
    .fetch_one(&pool)
    .await?;
    let seq = spoil.seq.parse().unwrap_or(last);
    let owners = format!(
        "kind = 'AVAILABLE' AND owner_id IN ({SPOILT}, 999999) AND place_id = 0 AND seq = {seq}"
    );
    let before = copies(world).await?;
    let run = |text: &str| AssertSqlSafe(format!("{text}{owners}"));
    pool.execute(run(spoil.change)).await?;
    let named = world.shop.command(&["verify", "--full"]).await.is_err();
    for repair in [&["reconcile", "--apply"][..], &["recover"]] {
        // Both may refuse. Only their effects count.
        if let Err(error) = world.shop.command(repair).await {
            tracing::debug!(%error, "a repair that refuses");
        }
    }
    let after = copies(world).await?;
    pool.execute(run(spoil.undo)).await?;
    pool.close().await;
    if !named {
        return Err(format!("I26: verify --full does not name {}", spoil.name).into());
    }
    match before == after {
        true => Ok(()),
        false => Err(format!("I25: {} moved {before:?} to {after:?}", spoil.name).into()),
    }
}

/// The level of the account in Redis, its balance in MySQL, and the number of orders of its
/// product.
async fn copies(world: &World) -> Result<(String, i64, i64), Failure> {
    let mut redis = world.redis_connection().await?;
    let key = format!("{}:{{0}}:a:AVAILABLE:{SPOILT}:0", world.shop.prefix);
    let level: String = redis::cmd("GET").arg(key).query_async(&mut redis).await?;
    let pool = world.shop.pool().await?;
    let balance = format!("SELECT balance FROM accounts WHERE {SPOILT_ROWS}");
    let balance = sqlx::query_scalar(AssertSqlSafe(balance))
        .fetch_one(&pool)
        .await?;
    let orders =
        format!("SELECT COUNT(DISTINCT order_id) FROM order_products WHERE product_id = {SPOILT}");
    let orders = sqlx::query_scalar(AssertSqlSafe(orders))
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    Ok((level, balance, orders))
}
