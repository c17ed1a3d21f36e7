//! Differences that somebody has planted: each is named by `verify --full`, and nothing else ever is.

use redis::aio::MultiplexedConnection;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, MySqlPool};
use stock_common::config::Durability::Always;
use stock_common::id::Position;

use super::buyers::{Buyers, Habits};
use super::checker::Allowed;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::Shop;

/// The product that nobody buys while it is planted in.
const QUIET: u64 = 5;
/// Proofs of a shop in which nothing is wrong.
const PROOFS: u32 = 10;
const PROOFS_LONG: u32 = 200;

/// A change, and what takes it back.
struct Plant {
    name: &'static str,
    change: Change,
    undo: Change,
}

enum Change {
    Sql(String),
    Redis(Vec<String>),
}

/// F33: `verify --full` under load names each planted difference, and finds nothing when there is none.
pub async fn f33(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    // What is planted must stay until it was named.
    world.via = world.via.with("STOCK_RECONCILE_APPLY", "false");
    world.serve().await?;
    let client = world.client()?;
    let past = Buyers::start(&[client.clone()], 8, [QUIET], Habits::ALL, plan.seed);
    world.accept(&past, 300).await?;
    let mut history = past.stop().await?;
    let seed = plan.seed.wrapping_add(1_000);
    let buyers = Buyers::start(&[client], 4, 1..QUIET, Habits::ALL, seed);
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

/// Plants, proves, and takes it back.
async fn is_named(world: &World, plant: &Plant) -> Result<bool, Failure> {
    let pool = world.shop.pool().await?;
    let mut redis = world.redis_connection().await?;
    apply(&plant.change, &pool, &mut redis)
        .await
        .map_err(|error| format!("{}: {error}", plant.name))?;
    let named = proves(&world.shop).await?.is_some_and(|report| {
        let found = report.get("differences").and_then(Value::as_array);
        report.get("ok") == Some(&false.into()) && found.is_some_and(|found| !found.is_empty())
    });
    apply(&plant.undo, &pool, &mut redis)
        .await
        .map_err(|error| format!("undoing {}: {error}", plant.name))?;
    pool.close().await;
    Ok(named)
}

/// What `verify --full --json` says; nothing where it says that all is well.
async fn proves(shop: &Shop) -> Result<Option<Value>, Failure> {
    match shop.command(&["verify", "--full", "--json"]).await {
        Ok(_) => Ok(None),
        Err(error) => {
            let text = error.to_string();
            let json = text.find('{').and_then(|at| {
                let mut read = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
                read.next()?.ok()
            });
            json.map(Some)
                .ok_or_else(|| format!("verify did not report: {text}").into())
        }
    }
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

/// A handful of each kind, in rows and fields that no load changes any more.
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
    let mut plants = in_tables(stands, cancelled, hold, issue);
    plants.extend(in_redis(world, stands, cancelled, hold).await?);
    pool.close().await;
    Ok(plants)
}

fn in_tables(stands: u64, cancelled: u64, hold: u64, issue: u64) -> Vec<Plant> {
    let quiet = format!("kind = 'AVAILABLE' AND owner_id = {QUIET} AND place_id = 0");
    let middle = format!("{quiet} AND seq = 7");
    let add = |table: &str, column: &str, rows: &str| {
        let by = |sign: char| {
            Change::Sql(format!(
                "UPDATE {table} SET {column} = {column} {sign} 1 WHERE {rows}"
            ))
        };
        (by('+'), by('-'))
    };
    let set = |table: &str, column: &str, (wrong, right): (&str, &str), rows: String| {
        let to = |value: &str| {
            Change::Sql(format!(
                "UPDATE {table} SET {column} = {value} WHERE {rows}"
            ))
        };
        (to(wrong), to(right))
    };
    let put = |table: &str, columns: &str, values: String, rows: String| {
        let insert = format!("INSERT INTO {table} ({columns}) VALUES ({values})");
        (
            Change::Sql(insert),
            Change::Sql(format!("DELETE FROM {table} WHERE {rows}")),
        )
    };
    let (of, of_cancelled) = (format!("id = {stands}"), format!("id = {cancelled}"));
    let posting = "kind, owner_id, place_id, seq, journal_id, delta, balance_after";
    let line = "order_id, line, product_id, product_name, quantity, price, unit_price";
    let named = [
        (
            "the status of an order",
            set("orders", "status", ("'CANCEL'", "'SUCCESS'"), of.clone()),
        ),
        (
            "the status of a cancelled order",
            set("orders", "status", ("'SUCCESS'", "'CANCEL'"), of_cancelled),
        ),
        ("the total of an order", add("orders", "total_amount", &of)),
        ("the buyer of an order", add("orders", "user_id", &of)),
        (
            "the quantity of a line",
            add(
                "order_products",
                "quantity",
                &format!("order_id = {stands} AND line = 1"),
            ),
        ),
        (
            "a line without an order",
            put(
                "order_products",
                line,
                format!("1, 1, {QUIET}, 'x', 1, 1, 1"),
                "order_id = 1".to_owned(),
            ),
        ),
        ("the delta of a posting", add("postings", "delta", &middle)),
        (
            "the balance behind a posting",
            add("postings", "balance_after", &middle),
        ),
        (
            "the entry of a posting",
            add("postings", "journal_id", &middle),
        ),
        (
            "a posting without an account",
            put(
                "postings",
                posting,
                format!("'AVAILABLE', 999999, 0, 1, {stands}, 1, 1"),
                "owner_id = 999999".to_owned(),
            ),
        ),
        (
            "the balance of an account",
            add("accounts", "balance", &quiet),
        ),
        ("the seq of an account", add("accounts", "seq", &quiet)),
        (
            "an account that is closed",
            set("accounts", "closed", ("1", "0"), quiet.clone()),
        ),
        (
            "the status of a hold",
            set(
                "reservations",
                "status",
                ("'CANCELLED'", "'PENDING'"),
                format!("id = {hold}"),
            ),
        ),
        (
            "the quantity of a hold",
            add("reservations", "quantity", &format!("id = {hold}")),
        ),
        (
            "the order that used a code",
            add("coupon_issues", "order_id", &format!("id = {issue}")),
        ),
        (
            "the owner of a code",
            add("coupon_issues", "user_id", &format!("id = {issue}")),
        ),
        (
            "the kind of an entry",
            set(
                "journal",
                "kind",
                ("'order_cancelled'", "'order_placed'"),
                of,
            ),
        ),
    ];
    let plant = |(name, (change, undo))| Plant { name, change, undo };
    named.into_iter().map(plant).collect()
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
