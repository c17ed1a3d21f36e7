//! Redis beside MySQL and the answers to buyers: each account's level, each thing's state, each
//! live hold.

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;
use redis::cmd;
use sqlx::MySqlPool;
use stock_common::id::Position;

use super::{Allowed, Seen};
use crate::Failure;

/// The books that every shop has. Each sale has another one.
const BOOKS: [&str; 5] = ["AVAILABLE", "RESERVED", "POINTS", "HOLD", "BUCKET"];
/// The field of a book, and the member of `deadlines`, that says that the key was not lost.
const SENTINEL: &str = ".";

/// I1, I3: the level of each product at each location is the units that were `received` there, less
/// those of orders and holds.
pub(super) async fn stocks(
    seen: &mut Seen,
    pool: &MySqlPool,
    received: impl Fn(u64, u64) -> i64,
) -> Result<(), Failure> {
    let mut taken: BTreeMap<(u64, u64), i64> = BTreeMap::new();
    for row in seen.rows.values().filter(|row| row.status == "SUCCESS") {
        let online = row.shares_online.then_some(0);
        for (product, quantity) in &row.lines {
            for place in [Some(row.place), online].into_iter().flatten() {
                *taken.entry((*product, place)).or_default() += quantity;
            }
        }
    }
    let mut held: BTreeMap<(u64, u64), i64> = BTreeMap::new();
    for hold in seen.holds.values() {
        let at = (hold.product, hold.place);
        let is_sold = hold.status == "CONFIRMED" && !hold.is_ordered;
        if is_sold || hold.status == "PENDING" {
            *taken.entry(at).or_default() += hold.quantity;
        }
        if hold.status == "PENDING" {
            *held.entry(at).or_default() += hold.quantity;
        }
    }
    let accounts: Vec<(String, u64, u64, i64)> = sqlx::query_as(
        "SELECT CAST(kind AS CHAR), owner_id, place_id, balance FROM accounts \
         WHERE kind IN ('AVAILABLE', 'RESERVED')",
    )
    .fetch_all(pool)
    .await?;
    for (kind, product, place, balance) in accounts {
        let at = (product, place);
        let of = |sums: &BTreeMap<(u64, u64), i64>| sums.get(&at).copied().unwrap_or(0);
        let expected = match kind.as_str() {
            "RESERVED" => of(&held),
            _ => received(product, place) - of(&taken),
        };
        seen.complain(balance == expected && balance >= 0, || {
            format!("I1/I3: {kind} of product {product} at {place} is {balance}, not {expected}")
        });
    }
    Ok(())
}

/// I2 and the states: for every account, order, hold and code Redis agrees with MySQL.
pub(super) async fn check(
    seen: &mut Seen,
    pool: &MySqlPool,
    redis: &mut MultiplexedConnection,
    prefix: &str,
    allowed: Allowed,
) -> Result<(), Failure> {
    let of = |rest: &str| format!("{prefix}:{{0}}:{rest}");
    levels(seen, pool, redis, of).await?;
    let states: BTreeMap<String, String> =
        cmd("HGETALL").arg(of("states")).query_async(redis).await?;
    let without_time = |(id, state): (String, String)| {
        let state = state.rsplit_once('@').map_or("", |(state, _)| state);
        (id, state.to_owned())
    };
    let states: BTreeMap<String, String> = states.into_iter().map(without_time).collect();
    orders_and_holds(seen, &states, allowed);
    codes(seen, pool, &states).await?;
    let members: BTreeSet<String> = cmd("ZRANGE")
        .arg(of("deadlines"))
        .arg(0)
        .arg(-1)
        .query_async(redis)
        .await?;
    let pending = seen
        .holds
        .iter()
        .filter(|(_, hold)| hold.status == "PENDING");
    let pending: BTreeSet<String> = pending.filter_map(|(id, _)| stream_id(id)).collect();
    let live = members.iter().filter(|member| *member != SENTINEL);
    let live: BTreeSet<String> = live
        .filter_map(|member| Some(member.split_once(' ')?.0.to_owned()))
        .collect();
    let differ = pending.symmetric_difference(&live).count();
    seen.complain(differ == 0, || {
        format!("I10: {differ} holds are live in one of redis and mysql only")
    });
    Ok(())
}

/// A position in the form that Redis has.
fn stream_id(id: &str) -> Option<String> {
    Some(Position::new(id.parse().ok()?).stream_id())
}

async fn levels(
    seen: &mut Seen,
    pool: &MySqlPool,
    redis: &mut MultiplexedConnection,
    of: impl Fn(&str) -> String,
) -> Result<(), Failure> {
    type Account = (String, u64, u64, i64, u64);
    let accounts: Vec<Account> =
        sqlx::query_as("SELECT CAST(kind AS CHAR), owner_id, place_id, balance, seq FROM accounts")
            .fetch_all(pool)
            .await?;
    let mut books: BTreeMap<String, BTreeMap<String, String>> = BOOKS
        .iter()
        .map(|name| ((*name).to_owned(), BTreeMap::new()))
        .collect();
    for (kind, owner, place, balance, seq) in accounts {
        let level = format!("{balance} {seq}");
        let (book, field) = match (kind.as_str(), place) {
            ("COUPON", _) | ("AVAILABLE" | "RESERVED", 0) => {
                let key = of(&format!("a:{kind}:{owner}:{place}"));
                let found: Option<String> = cmd("GET").arg(key).query_async(redis).await?;
                agree(
                    seen,
                    &format!("{kind}:{owner}:{place}"),
                    found.as_deref(),
                    &level,
                );
                continue;
            }
            ("ALLOWANCE", _) => (format!("ALLOWANCE:{owner}"), place.to_string()),
            _ => (kind, format!("{owner}:{place}")),
        };
        books.entry(book).or_default().insert(field, level);
    }
    for (book, known) in books {
        let key = of(&format!("b:{book}"));
        let mut found: BTreeMap<String, String> =
            cmd("HGETALL").arg(key).query_async(redis).await?;
        found.remove(SENTINEL);
        for (field, level) in known {
            let name = format!("{book}:{field}");
            agree(seen, &name, found.remove(&field).as_deref(), &level);
        }
        seen.complain(found.is_empty(), || {
            format!("I2: redis has accounts in {book} that mysql does not know: {found:?}")
        });
    }
    Ok(())
}

/// Compares a level. In Redis a flag may follow balance and sequence number.
fn agree(seen: &mut Seen, account: &str, found: Option<&str>, expected: &str) {
    let agrees = found.is_some_and(|found| {
        let rest = found.strip_prefix(expected);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    });
    seen.complain(agrees, || {
        format!("I2: {account} is {found:?} in redis and {expected:?} in mysql")
    });
}

fn orders_and_holds(seen: &mut Seen, states: &BTreeMap<String, String>, allowed: Allowed) {
    let mut complaints = Vec::new();
    let mut expect = |thing: String, state: Option<&str>| {
        let found = states.get(&thing).map(String::as_str);
        if found != state {
            complaints.push(format!("I10: {thing} is in state {found:?}, not {state:?}"));
        }
    };
    for (id, row) in &seen.rows {
        let state = match row.status.as_str() {
            "SUCCESS" => None,
            "CANCEL" => Some("CANCEL_REQUESTED"),
            other => Some(other),
        };
        expect(format!("order:{id}"), state);
    }
    for (id, hold) in &seen.holds {
        let Some(id) = stream_id(id) else { continue };
        let state = match hold.status.as_str() {
            "PENDING" => None,
            "CONFIRMED" if hold.is_ordered => Some("ORDERED"),
            other => Some(other),
        };
        expect(format!("hold:{id}"), state);
    }
    let ended = states.keys().filter_map(|id| id.strip_prefix("order:"));
    let unknown = ended.filter(|id| !seen.rows.contains_key(*id) && !seen.dead.contains(*id));
    let unknown = unknown.count();
    if unknown > 0 && !allowed.lost {
        complaints.push(format!("I10: {unknown} orders have a state and no row"));
    }
    seen.complaints.extend(complaints);
}

/// Checks that a code is used exactly when its row names an order.
async fn codes(
    seen: &mut Seen,
    pool: &MySqlPool,
    states: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let issues: Vec<(String, u64, u64, bool)> =
        sqlx::query_as("SELECT code, coupon_id, user_id, order_id IS NOT NULL FROM coupon_issues")
            .fetch_all(pool)
            .await?;
    for (code, coupon, user, is_used) in issues {
        let word = if is_used { "USED" } else { "FREE" };
        let (found, state) = (
            states.get(&format!("code:{code}")),
            format!("{word} {coupon} {user}"),
        );
        seen.complain(found == Some(&state), || {
            format!("I16: code {code} is in state {found:?}, not {state}")
        });
    }
    Ok(())
}
