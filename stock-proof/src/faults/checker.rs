//! The invariants of a shop, checked from outside: its own SQL and Redis reads are compared with
//! the history of the buyers' answers. The names of the invariants are those of `docs/faults.md`.
//!
//! [`sums`] compares tables of MySQL with each other, [`benefits`] points and coupons with the
//! history, [`levels`] Redis with both.

mod benefits;
mod levels;
mod sums;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::MySqlPool;

use super::history::{Asked, History, Told};
use crate::Failure;
use crate::shop::Shop;

/// Differences that are allowed after a fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Redis has lost entries that it had not written to its disk: accepted orders may be gone, if
    /// they are listed as lost.
    pub lost: bool,
    /// Dead letters may be there, whose orders have no row.
    pub dead_letters: bool,
}

/// A row of `orders` with its lines.
#[derive(Debug)]
struct Row {
    user: u64,
    status: String,
    total: i64,
    /// The location whose stock it took: 0 online, else a store.
    place: u64,
    /// Whether it could take the online stock as well.
    shares_online: bool,
    lines: BTreeMap<u64, i64>,
}

impl Row {
    /// Whether the row is the order that was asked for.
    fn is_of(&self, asked: &Asked) -> bool {
        let lines: BTreeMap<u64, i64> = asked.lines.iter().copied().collect();
        self.user == asked.user && self.total == asked.total() && self.lines == lines
    }
}

/// A row of `reservations`.
#[derive(Debug)]
struct Hold {
    product: u64,
    place: u64,
    quantity: i64,
    status: String,
    is_ordered: bool,
}

/// The data that all checks share, read once.
struct Seen {
    rows: BTreeMap<String, Row>,
    holds: BTreeMap<String, Hold>,
    lost: BTreeSet<String>,
    dead: BTreeSet<String>,
    complaints: Vec<String>,
}

impl Seen {
    fn complain(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.complaints.push(text());
        }
    }
}

/// Checks everything; returns the complaints.
///
/// # Errors
/// When a server does not answer.
pub async fn check(
    shop: &Shop,
    history: &History,
    stock: i64,
    allowed: Allowed,
) -> Result<Vec<String>, Failure> {
    let pool = shop.pool().await?;
    let mut redis = redis::Client::open(shop.redis_url.as_str())?
        .get_multiplexed_async_connection()
        .await?;
    let mut seen = told(&pool, history, allowed).await?;
    sums::check(&mut seen, &pool).await?;
    let received = |product, place| match place {
        0 => stock,
        _ => history
            .received
            .get(&(product, place))
            .copied()
            .unwrap_or(0),
    };
    levels::stocks(&mut seen, &pool, received).await?;
    levels::check(&mut seen, &pool, &mut redis, &shop.prefix, allowed).await?;
    pool.close().await;
    Ok(seen.complaints)
}

/// Returns the differences that `verify` or `reconcile` reports; none when all is well.
///
/// # Errors
/// When the command cannot be run.
pub async fn differences(shop: &Shop, command: &[&str]) -> Result<Vec<Value>, Failure> {
    let Err(error) = shop.command(&[command, &["--json"]].concat()).await else {
        return Ok(Vec::new());
    };
    let text = error.to_string();
    let report = text.find('{').and_then(|at| {
        let json = text.get(at..)?;
        let mut read = serde_json::Deserializer::from_str(json).into_iter::<Value>();
        let report = read.next()?.ok()?;
        report.get("differences")?.as_array().cloned()
    });
    match report {
        Some(found) if !found.is_empty() => Ok(found),
        Some(_) | None => Err(text.into()),
    }
}

/// Checks that MySQL agrees with the buyers' answers, on any number of shards; returns the
/// complaints.
///
/// # Errors
/// When MySQL does not answer.
pub async fn check_told(
    pool: &MySqlPool,
    history: &History,
    allowed: Allowed,
) -> Result<Vec<String>, Failure> {
    Ok(told(pool, history, allowed).await?.complaints)
}

async fn told(pool: &MySqlPool, history: &History, allowed: Allowed) -> Result<Seen, Failure> {
    let mut seen = Seen {
        rows: rows(pool).await?,
        holds: holds(pool).await?,
        lost: ids(pool, "SELECT journal_id FROM lost_entries").await?,
        dead: ids(pool, "SELECT journal_id FROM dead_letters").await?,
        // After a loss of Redis, a version that goes back or an order that is not found is no
        // complaint.
        complaints: match allowed.lost {
            true => Vec::new(),
            false => history.complaints.clone(),
        },
    };
    orders(&mut seen, history, allowed);
    reservations(&mut seen, history, allowed);
    benefits::check(&mut seen, pool, history, allowed).await?;
    Ok(seen)
}

async fn ids(pool: &MySqlPool, text: &'static str) -> Result<BTreeSet<String>, Failure> {
    let found: Vec<u64> = sqlx::query_scalar(text).fetch_all(pool).await?;
    Ok(found.into_iter().map(|id| id.to_string()).collect())
}

async fn rows(pool: &MySqlPool) -> Result<BTreeMap<String, Row>, Failure> {
    type Order = (u64, u64, String, i64, u64, bool);
    let orders: Vec<Order> = sqlx::query_as(
        "SELECT id, user_id, CAST(status AS CHAR), total_amount, CAST(COALESCE(store_id, 0) AS UNSIGNED), \
         shares_online_stock FROM orders",
    )
    .fetch_all(pool)
    .await?;
    let row = |(id, user, status, total, place, shares_online): Order| {
        let row = Row {
            user,
            status,
            total,
            place,
            shares_online,
            lines: BTreeMap::new(),
        };
        (id.to_string(), row)
    };
    let mut rows: BTreeMap<String, Row> = orders.into_iter().map(row).collect();
    let lines: Vec<(u64, u64, u32)> =
        sqlx::query_as("SELECT order_id, product_id, quantity FROM order_products")
            .fetch_all(pool)
            .await?;
    for (order, product, quantity) in lines {
        let row = rows
            .get_mut(&order.to_string())
            .ok_or_else(|| format!("I9: a line of order {order}, which is not there"))?;
        row.lines.insert(product, quantity.into());
    }
    Ok(rows)
}

async fn holds(pool: &MySqlPool) -> Result<BTreeMap<String, Hold>, Failure> {
    type Row = (u64, u64, u64, u32, String, bool);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, product_id, location_id, quantity, CAST(status AS CHAR), order_id IS NOT NULL \
         FROM reservations",
    )
    .fetch_all(pool)
    .await?;
    let hold = |(id, product, place, quantity, status, is_ordered): Row| {
        let quantity = quantity.into();
        let hold = Hold {
            product,
            place,
            quantity,
            status,
            is_ordered,
        };
        (id.to_string(), hold)
    };
    Ok(rows.into_iter().map(hold).collect())
}

/// I10: a reservation that was made is stored, and has ended as its user was told.
fn reservations(seen: &mut Seen, history: &History, allowed: Allowed) {
    let (mut known, mut unknown) = (BTreeSet::new(), 0);
    for asked in &history.holds {
        let Told::Accepted(id) = &asked.told else {
            unknown += usize::from(asked.told == Told::Unknown);
            continue;
        };
        let is_new = known.insert(id.clone());
        seen.complain(is_new, || format!("I10: reservation {id} was given twice"));
        let of_hold = |hold: &Hold| (hold.status.clone(), hold.is_ordered);
        let Some((status, is_ordered)) = seen.holds.get(id).map(of_hold) else {
            let is_listed = allowed.lost && seen.lost.contains(id);
            seen.complain(is_listed, || {
                format!("I10: reservation {id} was made, is not stored and not listed")
            });
            continue;
        };
        let expected: &[&str] = match &asked.ended {
            Some((_, Told::Unknown)) => continue,
            Some(("confirm" | "order", Told::Accepted(_))) => &["CONFIRMED"],
            Some((_, Told::Accepted(_))) => &["CANCELLED"],
            // A later order of its user may have taken it without naming it.
            Some((_, Told::Refused(_))) | None if is_ordered => &["CONFIRMED"],
            Some((_, Told::Refused(_))) | None => &["PENDING", "EXPIRED"],
        };
        let fits = allowed.lost || expected.contains(&status.as_str());
        seen.complain(fits, || {
            format!(
                "I10: reservation {id} is {status}, its end was told {:?}",
                asked.ended
            )
        });
    }
    let surplus = seen.holds.keys().filter(|id| !known.contains(*id)).count();
    seen.complain(surplus <= unknown, || {
        format!("I10: {surplus} reservations that nobody was told of, {unknown} unknown")
    });
}

/// I4, I5, I6, I7, I9, I19: the orders are those that buyers were told.
fn orders(seen: &mut Seen, history: &History, allowed: Allowed) {
    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut unknown = Vec::new();
    for asked in &history.orders {
        let Told::Accepted(id) = &asked.told else {
            unknown.extend((asked.told == Told::Unknown).then_some(asked));
            continue;
        };
        if let Some(key) = &asked.key {
            let first = *by_key.entry(key).or_insert(id);
            seen.complain(first == id, || {
                format!("I7: key {key} was answered with {first} and {id}")
            });
        } else {
            let is_new = !known.contains(id);
            seen.complain(is_new, || format!("I4: id {id} was given twice"));
        }
        known.insert(id.clone());
        accepted(seen, asked, id, allowed);
    }
    let mut nobodys = Vec::new();
    for (id, row) in seen.rows.iter().filter(|(id, _)| !known.contains(*id)) {
        // An order that nobody was told of must belong to a request that had no answer. Each such
        // request counts once.
        match unknown.iter().position(|asked| row.is_of(asked)) {
            Some(at) => drop(unknown.swap_remove(at)),
            None => nobodys.push(format!("I5/I6: nobody asked for order {id}")),
        }
    }
    seen.complaints.extend(nobodys);
}

fn accepted(seen: &mut Seen, asked: &Asked, id: &str, allowed: Allowed) {
    let Some(row) = seen.rows.get(id) else {
        let is_listed = (allowed.lost && seen.lost.contains(id))
            || (allowed.dead_letters && seen.dead.contains(id));
        seen.complain(is_listed, || {
            format!("I4: order {id} was accepted, is not stored and not listed")
        });
        return;
    };
    let is_same = row.is_of(asked);
    let (status, cancelled) = (row.status.clone(), asked.cancelled.as_ref());
    seen.complain(is_same, || format!("I4/I9: order {id} is stored otherwise"));
    let fits = match cancelled {
        Some(Told::Accepted(_)) => status == "CANCEL" || allowed.lost,
        Some(Told::Refused(_)) | None => status == "SUCCESS" || allowed.dead_letters,
        Some(Told::Unknown) => true,
    };
    seen.complain(fits, || {
        format!("I4: order {id} is {status}, cancel was told {cancelled:?}")
    });
}
