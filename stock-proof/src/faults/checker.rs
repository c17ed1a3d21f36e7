//! The invariants of a shop, checked from outside: its own SQL and Redis reads against the history of
//! what buyers were told. The letters are those of `docs/faults.md`.

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;
use sqlx::MySqlPool;

use super::buyers::{Asked, History, Told};
use crate::Failure;
use crate::shop::Shop;

/// What may differ after a fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Redis has lost what it had not written: accepted orders may be gone, if they are listed.
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
    lines: BTreeMap<u64, i64>,
}

/// A row of `reservations`.
#[derive(Debug)]
struct Hold {
    product: u64,
    quantity: i64,
    status: String,
    is_ordered: bool,
}

/// Everything that the checks read, once.
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

/// Checks everything; returns what does not hold.
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
    ledger(&mut seen, &pool).await?;
    stocks(&mut seen, &pool, &mut redis, &shop.prefix, stock).await?;
    pool.close().await;
    Ok(seen.complaints)
}

/// Checks that MySQL has what buyers were told, however many shards there are; returns what does not hold.
///
/// # Errors
/// When MySQL does not answer.
pub async fn check_told(pool: &MySqlPool, history: &History) -> Result<Vec<String>, Failure> {
    Ok(told(pool, history, Allowed::default()).await?.complaints)
}

async fn told(pool: &MySqlPool, history: &History, allowed: Allowed) -> Result<Seen, Failure> {
    let mut seen = Seen {
        rows: rows(pool).await?,
        holds: holds(pool).await?,
        lost: ids(pool, "SELECT journal_id FROM lost_entries").await?,
        dead: ids(pool, "SELECT journal_id FROM dead_letters").await?,
        // A level that was lost with Redis goes back, and an order with it.
        complaints: match allowed.lost {
            true => Vec::new(),
            false => history.complaints.clone(),
        },
    };
    orders(&mut seen, history, allowed);
    reservations(&mut seen, history, allowed);
    benefits(&mut seen, pool, history, allowed).await?;
    Ok(seen)
}

async fn ids(pool: &MySqlPool, text: &'static str) -> Result<BTreeSet<String>, Failure> {
    let found: Vec<u64> = sqlx::query_scalar(text).fetch_all(pool).await?;
    Ok(found.into_iter().map(|id| id.to_string()).collect())
}

async fn rows(pool: &MySqlPool) -> Result<BTreeMap<String, Row>, Failure> {
    let orders: Vec<(u64, u64, String, i64)> =
        sqlx::query_as("SELECT id, user_id, CAST(status AS CHAR), total_amount FROM orders")
            .fetch_all(pool)
            .await?;
    let mut rows: BTreeMap<String, Row> = orders
        .into_iter()
        .map(|(id, user, status, total)| {
            let lines = BTreeMap::new();
            let row = Row {
                user,
                status,
                total,
                lines,
            };
            (id.to_string(), row)
        })
        .collect();
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
    type Row = (u64, u64, u32, String, bool);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, product_id, quantity, CAST(status AS CHAR), order_id IS NOT NULL \
         FROM reservations",
    )
    .fetch_all(pool)
    .await?;
    let hold = |(id, product, quantity, status, is_ordered): Row| {
        let quantity = quantity.into();
        let hold = Hold {
            product,
            quantity,
            status,
            is_ordered,
        };
        (id.to_string(), hold)
    };
    Ok(rows.into_iter().map(hold).collect())
}

/// I10: a reservation that was made is there, and has ended as its user was told.
fn reservations(seen: &mut Seen, history: &History, allowed: Allowed) {
    let (mut known, mut unknown) = (BTreeSet::new(), 0);
    for asked in &history.holds {
        let Told::Accepted(id) = &asked.told else {
            unknown += usize::from(asked.told == Told::Unknown);
            continue;
        };
        let is_new = known.insert(id.clone());
        seen.complain(is_new, || format!("I10: reservation {id} was given twice"));
        let Some(status) = seen.holds.get(id).map(|hold| hold.status.clone()) else {
            let is_listed = allowed.lost && seen.lost.contains(id);
            seen.complain(is_listed, || {
                format!("I10: reservation {id} was made, is not stored and not listed")
            });
            continue;
        };
        let expected: &[&str] = match &asked.ended {
            Some((_, Told::Unknown)) => continue,
            Some(("confirm", Told::Accepted(_))) => &["CONFIRMED"],
            Some((_, Told::Accepted(_))) => &["CANCELLED"],
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

/// I4, I5, I6, I7, I9, I19: orders are what buyers were told.
fn orders(seen: &mut Seen, history: &History, allowed: Allowed) {
    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut unknown = 0;
    for asked in &history.orders {
        let Told::Accepted(id) = &asked.told else {
            unknown += usize::from(asked.told == Told::Unknown);
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
    let surplus = seen.rows.keys().filter(|id| !known.contains(*id)).count();
    seen.complain(surplus <= unknown, || {
        format!("I5/I6: {surplus} orders that nobody was told of, {unknown} unknown")
    });
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
    let lines: BTreeMap<u64, i64> = asked.lines.iter().copied().collect();
    let is_same = row.user == asked.user && row.total == asked.total() && row.lines == lines;
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

/// I11, I12, I13: the journal is dense, each account's postings chain from the first on, and each names
/// an entry.
async fn ledger(seen: &mut Seen, pool: &MySqlPool) -> Result<(), Failure> {
    const CHECKS: [(&str, &str); 6] = [
        (
            "I11: numbers missing in the journal",
            "SELECT CAST(MAX(number) - MIN(number) + 1 - COUNT(*) AS SIGNED) FROM journal",
        ),
        (
            "I11: entries whose position does not rise with their number",
            "SELECT COUNT(*) FROM (SELECT id, LAG(id) OVER (ORDER BY number) AS earlier FROM journal) AS j \
             WHERE id <= earlier",
        ),
        (
            "I11: entries above the watermark after everything was applied",
            "SELECT COUNT(*) FROM journal WHERE number > (SELECT number FROM shards)",
        ),
        (
            "I12: postings that do not follow the one before",
            "SELECT COUNT(*) FROM (SELECT seq, delta, balance_after, \
             COALESCE(LAG(seq) OVER w, 0) AS before_seq, \
             COALESCE(LAG(balance_after) OVER w, 0) AS before_balance \
             FROM postings WINDOW w AS (PARTITION BY kind, owner_id, place_id ORDER BY seq)) AS p \
             WHERE seq <> before_seq + 1 OR balance_after <> before_balance + delta OR balance_after < 0",
        ),
        (
            "I13: accounts that are not the sum of their postings",
            "SELECT COUNT(*) FROM accounts a JOIN (SELECT kind, owner_id, place_id, SUM(delta) AS total, \
             MAX(seq) AS seq FROM postings GROUP BY kind, owner_id, place_id) AS p \
             ON p.kind = a.kind AND p.owner_id = a.owner_id AND p.place_id = a.place_id \
             WHERE a.balance <> p.total OR a.seq <> p.seq",
        ),
        (
            "I13: postings without an entry",
            "SELECT COUNT(*) FROM postings p LEFT JOIN journal j ON j.id = p.journal_id WHERE j.id IS NULL",
        ),
    ];
    for (what, text) in CHECKS {
        let found: i64 = sqlx::query_scalar(text).fetch_one(pool).await?;
        seen.complain(found == 0, || format!("{what}: {found}"));
    }
    Ok(())
}

/// I16: points that were given are there, a code was used by at most one order that stands, and what users have
/// of points is what moved them.
async fn benefits(
    seen: &mut Seen,
    pool: &MySqlPool,
    history: &History,
    allowed: Allowed,
) -> Result<(), Failure> {
    const CHECKS: [(&str, &str); 4] = [
        (
            "I16: codes that several standing orders used",
            "SELECT COUNT(*) FROM (SELECT coupon_code FROM orders WHERE coupon_code IS NOT NULL \
             AND status = 'SUCCESS' GROUP BY coupon_code HAVING COUNT(*) > 1) AS twice",
        ),
        (
            "I16: codes that do not name the order that used them",
            "SELECT COUNT(*) FROM orders o JOIN coupon_issues i ON i.code = o.coupon_code \
             AND i.coupon_id = o.coupon_id WHERE o.status = 'SUCCESS' AND NOT i.order_id <=> o.id",
        ),
        (
            "I16: codes that name an order that does not stand",
            "SELECT COUNT(*) FROM coupon_issues i JOIN orders o ON o.id = i.order_id \
             WHERE o.status <> 'SUCCESS'",
        ),
        (
            "I16: balances of points that are not the sum of what moved them",
            "SELECT COUNT(*) FROM accounts a LEFT JOIN (SELECT user_id, SUM(delta) AS total \
             FROM point_transactions GROUP BY user_id) AS t ON t.user_id = a.owner_id \
             WHERE a.kind = 'POINTS' AND a.balance <> COALESCE(t.total, 0)",
        ),
    ];
    for (what, text) in CHECKS {
        let found: i64 = sqlx::query_scalar(text).fetch_one(pool).await?;
        seen.complain(found == 0, || format!("{what}: {found}"));
    }
    let rows: Vec<(u64, u64, i64)> =
        // What an order over several shards held and gave back names no order, and nobody asked for it.
        sqlx::query_as(
            "SELECT t.id, t.user_id, t.delta FROM point_transactions t JOIN journal j ON j.id = t.id \
             WHERE t.order_id IS NULL AND j.kind NOT IN ('branch_held', 'branch_confirmed', 'branch_released')",
        )
            .fetch_all(pool)
            .await?;
    let mut stored: BTreeMap<String, (u64, i64)> = rows
        .into_iter()
        .map(|(id, user, delta)| (id.to_string(), (user, delta)))
        .collect();
    let mut unknown = 0;
    for asked in &history.benefits {
        let Told::Accepted(id) = &asked.told else {
            unknown += usize::from(asked.told == Told::Unknown);
            continue;
        };
        let is_there = stored.remove(id) == Some((asked.user, asked.delta));
        let is_listed = allowed.lost && seen.lost.contains(id);
        seen.complain(is_there || is_listed, || {
            format!(
                "I16: {} points of movement {id} are not stored as told",
                asked.delta
            )
        });
    }
    let surplus = stored.len();
    seen.complain(surplus <= unknown, || {
        format!("I16: {surplus} movements that nobody was told of, {unknown} unknown")
    });
    Ok(())
}

/// I1, I2, I3: Redis, MySQL and the orders agree about every product's stock.
async fn stocks(
    seen: &mut Seen,
    pool: &MySqlPool,
    redis: &mut MultiplexedConnection,
    prefix: &str,
    opened: i64,
) -> Result<(), Failure> {
    let accounts: Vec<(u64, i64, u64)> = sqlx::query_as(
        "SELECT owner_id, balance, seq FROM accounts WHERE kind = 'AVAILABLE' AND place_id = 0",
    )
    .fetch_all(pool)
    .await?;
    let mut sold: BTreeMap<u64, i64> = BTreeMap::new();
    for row in seen.rows.values().filter(|row| row.status == "SUCCESS") {
        for (product, quantity) in &row.lines {
            *sold.entry(*product).or_default() += quantity;
        }
    }
    let mut held: BTreeMap<u64, i64> = BTreeMap::new();
    for hold in seen.holds.values() {
        let is_sold = hold.status == "CONFIRMED" && !hold.is_ordered;
        if is_sold || hold.status == "PENDING" {
            *sold.entry(hold.product).or_default() += hold.quantity;
        }
        if hold.status == "PENDING" {
            *held.entry(hold.product).or_default() += hold.quantity;
        }
    }
    let reserved: Vec<(u64, i64)> = sqlx::query_as(
        "SELECT owner_id, balance FROM accounts WHERE kind = 'RESERVED' AND place_id = 0",
    )
    .fetch_all(pool)
    .await?;
    for (product, balance) in reserved {
        let live = held.get(&product).copied().unwrap_or(0);
        seen.complain(live == balance, || {
            format!("I1/I10: product {product} has {balance} reserved, live holds are {live}")
        });
    }
    for (product, balance, seq) in accounts {
        let level: Option<String> = redis::cmd("GET")
            .arg(format!("{prefix}:{{0}}:a:AVAILABLE:{product}:0"))
            .query_async(redis)
            .await?;
        let expected = format!("{balance} {seq} ");
        let agrees = level.as_ref().is_some_and(|l| l.starts_with(&expected));
        seen.complain(agrees, || {
            format!("I2: product {product} is {level:?} in redis and {expected:?} in mysql")
        });
        let left = opened - sold.get(&product).copied().unwrap_or(0);
        seen.complain(left == balance && balance >= 0, || {
            format!("I1/I3: product {product} has {balance} left, but {left} were not sold")
        });
    }
    Ok(())
}
