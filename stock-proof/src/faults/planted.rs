//! Differences that are planted: `verify --full` names each of them, and never anything else.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Executor, MySqlPool};
use stock_common::config::Durability::Always;
use stock_common::id::Position;

use super::buyers::{Buyers, Habits};
use super::checker::{Allowed, differences};
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;

/// The product that nobody buys while its data are changed.
const QUIET: u64 = 5;
/// Runs of `verify` on a shop in which nothing is wrong.
const PROOFS: u32 = 10;
const PROOFS_LONG: u32 = 200;
/// Buyers at full speed would add entries faster than [`PROOFS_LONG`] runs of `verify` read them.
const PACED: Habits = Habits {
    pause: Duration::from_millis(20),
    ..Habits::ALL
};

/// Changes in tables, and how each is undone. They concern the quiet product: an order that stands,
/// one that was cancelled, a live hold; and a code that was used.
const IN_TABLES: [(&str, &str, &str); 18] = [
    (
        "the status of an order",
        "UPDATE orders SET status = 'CANCEL' WHERE id = :order",
        "UPDATE orders SET status = 'SUCCESS' WHERE id = :order",
    ),
    (
        "the status of a cancelled order",
        "UPDATE orders SET status = 'SUCCESS' WHERE id = :cancelled",
        "UPDATE orders SET status = 'CANCEL' WHERE id = :cancelled",
    ),
    (
        "the total of an order",
        "UPDATE orders SET total_amount = total_amount + 1 WHERE id = :order",
        "UPDATE orders SET total_amount = total_amount - 1 WHERE id = :order",
    ),
    (
        "the buyer of an order",
        "UPDATE orders SET user_id = user_id + 1 WHERE id = :order",
        "UPDATE orders SET user_id = user_id - 1 WHERE id = :order",
    ),
    (
        "the quantity of a line",
        "UPDATE order_products SET quantity = quantity + 1 WHERE order_id = :order AND line = 1",
        "UPDATE order_products SET quantity = quantity - 1 WHERE order_id = :order AND line = 1",
    ),
    (
        "a line without an order",
        "INSERT INTO order_products (order_id, line, product_id, product_name, quantity, price, unit_price) VALUES (1, 1, 5, 'x', 1, 1, 1)",
        "DELETE FROM order_products WHERE order_id = 1",
    ),
    (
        "the delta of a posting",
        "UPDATE postings SET delta = delta + 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0 AND seq = 7",
        "UPDATE postings SET delta = delta - 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0 AND seq = 7",
    ),
    (
        "the balance behind a posting",
        "UPDATE postings SET balance_after = balance_after + 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0 AND seq = 7",
        "UPDATE postings SET balance_after = balance_after - 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0 AND seq = 7",
    ),
    (
        "the entry of a posting",
        "UPDATE postings SET journal_id = journal_id + 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0 AND seq = 7",
        "UPDATE postings SET journal_id = journal_id - 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0 AND seq = 7",
    ),
    (
        "a posting without an account",
        "INSERT INTO postings (kind, owner_id, place_id, seq, journal_id, delta, balance_after) VALUES ('AVAILABLE', 999999, 0, 1, :order, 1, 1)",
        "DELETE FROM postings WHERE owner_id = 999999",
    ),
    (
        "the balance of an account",
        "UPDATE accounts SET balance = balance + 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0",
        "UPDATE accounts SET balance = balance - 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0",
    ),
    (
        "the seq of an account",
        "UPDATE accounts SET seq = seq + 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0",
        "UPDATE accounts SET seq = seq - 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0",
    ),
    (
        "an account that is closed",
        "UPDATE accounts SET closed = 1 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0",
        "UPDATE accounts SET closed = 0 WHERE kind = 'AVAILABLE' AND owner_id = 5 AND place_id = 0",
    ),
    (
        "the status of a hold",
        "UPDATE reservations SET status = 'CANCELLED' WHERE id = :hold",
        "UPDATE reservations SET status = 'PENDING' WHERE id = :hold",
    ),
    (
        "the quantity of a hold",
        "UPDATE reservations SET quantity = quantity + 1 WHERE id = :hold",
        "UPDATE reservations SET quantity = quantity - 1 WHERE id = :hold",
    ),
    (
        "the order that used a code",
        "UPDATE coupon_issues SET order_id = order_id + 1 WHERE id = :issue",
        "UPDATE coupon_issues SET order_id = order_id - 1 WHERE id = :issue",
    ),
    (
        "the owner of a code",
        "UPDATE coupon_issues SET user_id = user_id + 1 WHERE id = :issue",
        "UPDATE coupon_issues SET user_id = user_id - 1 WHERE id = :issue",
    ),
    (
        "the kind of an entry",
        "UPDATE journal SET kind = 'order_cancelled' WHERE id = :order",
        "UPDATE journal SET kind = 'order_placed' WHERE id = :order",
    ),
];

/// A change, and its undoing.
struct Plant {
    name: &'static str,
    change: Change,
    undo: Change,
}

enum Change {
    Sql(String),
    Redis(Vec<String>),
}

/// F33: `verify --full` under load names each planted difference, and finds nothing when there is
/// none.
pub async fn f33_verify_names_each_planted_difference(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    // Without `apply`, `reconcile` leaves a planted difference until it was named.
    world.via = world.via.with("STOCK_RECONCILE_APPLY", "false");
    world.serve().await?;
    let client = world.client()?;
    let past = Buyers::start(
        std::slice::from_ref(&client),
        8,
        [QUIET],
        Habits::ALL,
        plan.seed,
    );
    world.accept(&past, 300).await?;
    let mut history = past.stop().await?;
    let seed = plan.seed.wrapping_add(1_000);
    let buyers = Buyers::start(std::slice::from_ref(&client), 4, 1..QUIET, PACED, seed);
    world.accept(&buyers, 100).await?;
    let mut missed = Vec::new();
    let plants = plants(&world).await?;
    let count = plants.len();
    for plant in plants {
        if !is_named(&world, &plant).await? {
            missed.push(plant.name);
        }
    }
    let proofs = if plan.is_long { PROOFS_LONG } else { PROOFS };
    for _ in 0..proofs {
        world.accept(&buyers, 10).await?;
        world.shop.command(&["verify", "--full"]).await?;
    }
    history.append(buyers.stop().await?);
    passed(world.check_history(history, Allowed::default()).await)?;
    match missed.is_empty() {
        true => Ok(Outcome::PassedWith(format!(
            "{count} differences named; 0 false alarms in {proofs} proofs under load"
        ))),
        false => Err(format!("I26: verify --full does not name: {}", missed.join(", ")).into()),
    }
}

/// Plants a difference, verifies, and undoes it. Returns whether it was named.
async fn is_named(world: &World, plant: &Plant) -> Result<bool, Failure> {
    let pool = world.shop.pool().await?;
    let mut redis = world.redis_connection().await?;
    apply(&plant.change, &pool, &mut redis)
        .await
        .map_err(|error| format!("{}: {error}", plant.name))?;
    let named = !differences(&world.shop, &["verify", "--full"])
        .await?
        .is_empty();
    apply(&plant.undo, &pool, &mut redis)
        .await
        .map_err(|error| format!("undoing {}: {error}", plant.name))?;
    pool.close().await;
    Ok(named)
}

async fn apply(
    change: &Change,
    pool: &MySqlPool,
    redis: &mut MultiplexedConnection,
) -> Result<(), Failure> {
    match change {
        Change::Sql(text) => {
            let done = pool.execute(AssertSqlSafe(text.clone())).await?;
            if done.rows_affected() == 0 {
                return Err(format!("nothing was changed by {text}").into());
            }
        }
        Change::Redis(words) => {
            let mut command = redis::Cmd::new();
            for word in words {
                command.arg(word);
            }
            let _: redis::Value = command.query_async(redis).await?;
        }
    }
    Ok(())
}

/// Plants of each kind, in rows and fields that the load does not change any more.
async fn plants(world: &World) -> Result<Vec<Plant>, Failure> {
    let pool = world.shop.pool().await?;
    let one = async |text: String| -> Result<u64, Failure> {
        Ok(sqlx::query_scalar(AssertSqlSafe(text))
            .fetch_one(&pool)
            .await?)
    };
    let order = |status: &str| {
        format!(
            "SELECT o.id FROM orders o JOIN order_products l ON l.order_id = o.id WHERE l.product_id = {QUIET} \
             AND o.status = '{status}' AND o.coupon_code IS NULL ORDER BY o.id LIMIT 1"
        )
    };
    let (stands, cancelled) = (one(order("SUCCESS")).await?, one(order("CANCEL")).await?);
    let hold = one(format!(
        "SELECT id FROM reservations WHERE product_id = {QUIET} AND status = 'PENDING' LIMIT 1"
    ))
    .await?;
    let issue = one(
        "SELECT id FROM coupon_issues WHERE order_id IS NOT NULL ORDER BY id LIMIT 1".to_owned(),
    )
    .await?;
    let ids = [
        (":order", stands),
        (":cancelled", cancelled),
        (":hold", hold),
        (":issue", issue),
    ];
    let mut plants: Vec<Plant> = in_tables(&ids).collect();
    plants.extend(in_redis(world, stands, cancelled, hold).await?);
    pool.close().await;
    Ok(plants)
}

fn in_tables(ids: &[(&str, u64)]) -> impl Iterator<Item = Plant> {
    IN_TABLES.into_iter().map(|(name, change, undo)| {
        let filled = |text: &str| {
            let fill = |text: String, (name, id): &(&str, u64)| text.replace(name, &id.to_string());
            Change::Sql(ids.iter().fold(text.to_owned(), fill))
        };
        Plant {
            name,
            change: filled(change),
            undo: filled(undo),
        }
    })
}

async fn in_redis(
    world: &World,
    stands: u64,
    cancelled: u64,
    hold: u64,
) -> Result<Vec<Plant>, Failure> {
    let mut redis = world.redis_connection().await?;
    let of = |rest: &str| format!("{}:{{0}}:{rest}", world.shop.prefix);
    let words =
        |words: &[&str]| Change::Redis(words.iter().map(|word| (*word).to_owned()).collect());
    let level = of(&format!("a:AVAILABLE:{QUIET}:0"));
    let known: String = redis::cmd("GET")
        .arg(&level)
        .query_async(&mut redis)
        .await?;
    let mut numbers = known.split(' ');
    let balance: i64 = numbers.next().unwrap_or_default().parse()?;
    let seq: u64 = numbers.next().unwrap_or_default().parse()?;
    let states = of("states");
    let (order, gone) = (format!("order:{stands}"), format!("order:{cancelled}"));
    let state: String = redis::cmd("HGET")
        .arg(&states)
        .arg(&gone)
        .query_async(&mut redis)
        .await?;
    let deadlines = of("deadlines");
    let id = Position::new(hold).stream_id();
    let live: Vec<(String, String)> = redis::cmd("ZRANGE")
        .arg(&deadlines)
        .arg(0)
        .arg(-1)
        .arg("WITHSCORES")
        .query_async(&mut redis)
        .await?;
    let mut live = live.into_iter();
    let member = live.find(|(member, _)| member.starts_with(&format!("{id} ")));
    let (member, score) = member.ok_or("the hold has no deadline")?;
    let back = words(&["SET", &level, &known]);
    let plants = [
        (
            "a level",
            words(&["SET", &level, &format!("{} {seq} 0", balance + 1)]),
            back,
        ),
        (
            "the seq of a level",
            words(&["SET", &level, &format!("{balance} {} 0", seq + 1)]),
            words(&["SET", &level, &known]),
        ),
        (
            "the flag of a level",
            words(&["SET", &level, &format!("{balance} {seq} 1")]),
            words(&["SET", &level, &known]),
        ),
        (
            "a state of an order that stands",
            words(&["HSET", &states, &order, &state]),
            words(&["HDEL", &states, &order]),
        ),
        (
            "no state of a cancelled order",
            words(&["HDEL", &states, &gone]),
            words(&["HSET", &states, &gone, &state]),
        ),
        (
            "no deadline of a live hold",
            words(&["ZREM", &deadlines, &member]),
            words(&["ZADD", &deadlines, &score, &member]),
        ),
    ];
    let plant = |(name, change, undo)| Plant { name, change, undo };
    Ok(plants.into_iter().map(plant).collect())
}
