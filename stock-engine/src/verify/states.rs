//! Verifies the states in Redis against the rows that say what became of each thing.
//!
//! Each state must be what MySQL, or an entry that is not settled, says. [`super::kept`] checks
//! that no state is missing.

use std::collections::HashMap;

use redis::cmd;
use sqlx::{AssertSqlSafe, MySql, MySqlPool, QueryBuilder};
use stock_common::id::Position;
use stock_domain::checkout::{CheckoutStatus, Course, payment_state_id};
use stock_domain::coupon::{CODE_STATE, CodeState, ISSUED, OPEN, code_state_id};
use stock_domain::order::{offline_state, offline_state_id, parse_offline_state_id};
use stock_mysql::rows::push_list;
use stock_mysql::{dead_letters, offline_sales, shards};
use stock_redis::keys::SENTINEL;
use stock_redis::scan::Scan;
use stock_redis::{Ledger, ReadError, Shard};

use super::late::{find, value};
use super::round::Due;
use super::tail::Unsettled;
use super::{Difference, VerifyError};

const PAGE: usize = 1_000;

/// The states according to MySQL: a state or none. MySQL says nothing about a thing that is absent
/// here.
pub(super) type Says = HashMap<String, Option<String>>;

/// Compares a shard's states.
pub(super) async fn differing(
    pool: &MySqlPool,
    shard: &Shard,
    due: Due,
) -> Result<Vec<Difference>, VerifyError> {
    let states = shard.keys().states();
    let (mut found, mut scan) = (Vec::new(), Scan::hash(&states));
    while let Some(states) = scan.page_on::<Vec<(String, String)>>(shard).await? {
        let states = states.into_iter().filter(|(id, _)| due.has(id));
        found.extend(page(pool, shard, &states.collect::<Vec<_>>()).await?);
    }
    Ok(found)
}

async fn page(
    pool: &MySqlPool,
    shard: &Shard,
    states: &[(String, String)],
) -> Result<Vec<Difference>, VerifyError> {
    let wrong = |id: &str, text: String| Difference::new("states", id, text);
    let states = states.iter().filter(|(id, _)| id != SENTINEL);
    let ids: Vec<&str> = states.clone().map(|(id, _)| id.as_str()).collect();
    let says = says(pool, &ids).await?;
    let now = shard.redis_now_ms().saturating_add(60_000);
    let (mut found, mut suspects) = (Vec::new(), Vec::new());
    for (id, value) in states {
        let Some((state, since)) = value.rsplit_once('@') else {
            found.push(wrong(id, format!("is {value:?}, which is no state")));
            continue;
        };
        if !since.parse::<u64>().is_ok_and(|since| since <= now) {
            found.push(wrong(id, format!("is {value:?}, which has no time")));
        }
        if let Some(expected) = says.get(id)
            && expected.as_deref() != Some(state)
        {
            suspects.push((id, state, expected));
        }
    }
    if suspects.is_empty() {
        return Ok(found);
    }
    let state = shards::load(pool, shard.keys().shard()).await?;
    let state = state.ok_or(VerifyError::NoEpoch)?;
    let unsettled = Unsettled::read(shard, &state).await?.unwrap_or_default();
    for (id, state, expected) in suspects {
        if unsettled.states.get(id).map(String::as_str) != Some(state) {
            found.push(wrong(id, format!("is {state:?}, mysql says {expected:?}")));
        }
    }
    Ok(found)
}

/// Names the missing states of things that still exist: of products, coupons and codes. MySQL's
/// rows name these even when their entries are archived.
pub(super) async fn missing(
    pool: &MySqlPool,
    ledger: &Ledger,
) -> Result<Vec<Difference>, VerifyError> {
    const LIVE: &str = "(c.valid_to IS NULL OR c.valid_to > NOW(3) - INTERVAL 23 HOUR)";
    let mut found = Vec::new();
    for (id, rows) in [
        (
            "p.id",
            "CONCAT('opened:', p.id), NULL FROM products p WHERE p.opened = 1".to_owned(),
        ),
        (
            "c.id",
            format!(
                "CONCAT('coupon:', c.id), NULL FROM coupons c WHERE c.opened = 1 \
                 AND c.user_id IS NULL AND {LIVE}"
            ),
        ),
        (
            "i.id",
            format!(
                "CONCAT('code:', i.code), IF(c.user_id IS NULL, CONCAT('issued:', i.coupon_id, \
                 ':', i.user_id, ':', COALESCE(i.work_id, 0)), NULL) FROM coupon_issues i \
                 JOIN coupons c ON c.id = i.coupon_id WHERE {LIVE}"
            ),
        ),
    ] {
        let mut at = 0_u64;
        loop {
            let text = format!("SELECT {id}, {rows} AND {id} > ? ORDER BY {id} LIMIT {PAGE}");
            let page: Vec<(u64, String, Option<String>)> = sqlx::query_as(AssertSqlSafe(text))
                .bind(at)
                .fetch_all(pool)
                .await?;
            let Some((last, ..)) = page.last() else {
                break;
            };
            at = *last;
            let ids = page
                .into_iter()
                .flat_map(|(_, id, other)| [Some(id), other]);
            found.extend(lacking(ledger, ids.flatten().collect()).await?);
        }
    }
    Ok(found)
}

/// Returns a difference for each of the given states that no shard has.
async fn lacking(ledger: &Ledger, ids: Vec<String>) -> Result<Vec<Difference>, VerifyError> {
    let mut left = ids;
    for shard in ledger.shards() {
        if left.is_empty() {
            break;
        }
        let mut link = shard.link()?;
        let states: Vec<Option<String>> = cmd("HMGET")
            .arg(shard.keys().states())
            .arg(&left)
            .query_async(&mut link.read)
            .await
            .map_err(ReadError::from)?;
        let both = left.into_iter().zip(states);
        left = both
            .filter(|(_, state)| state.is_none())
            .map(|(id, _)| id)
            .collect();
    }
    let left = left.into_iter();
    Ok(left
        .map(|id| Difference::new("states", id, "is not there".to_owned()))
        .collect())
}

/// Reads the states of things from MySQL.
pub(super) async fn says(pool: &MySqlPool, ids: &[&str]) -> Result<Says, sqlx::Error> {
    let mut of: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    for id in ids {
        let (kind, rest) = id.split_once(':').unwrap_or((id, ""));
        of.entry(kind).or_default().push((id, rest));
    }
    let of = |kind: &str| of.get(kind).map_or(&[][..], Vec::as_slice);
    let mut says = Says::new();
    orders(pool, of("order"), &mut says).await?;
    holds(pool, of("hold"), &mut says).await?;
    extended(pool, of("extended"), &mut says).await?;
    payments(pool, of("payment"), &mut says).await?;
    for (kind, table, column, value_of, state) in [
        ("point", "point_transactions", "cancels_id", "1", "CANCELED"),
        ("opened", "products", "id", "opened", "OPEN"),
        ("coupon", "coupons", "id", "opened", OPEN),
    ] {
        let numbers = of(kind).iter().filter_map(|(_, rest)| rest.parse().ok());
        let stored = find(pool, table, column, value_of, numbers).await?;
        for (id, rest) in of(kind) {
            let at = Position::new(rest.parse().unwrap_or_default());
            let is = value(&stored, at, 0) == Some("1");
            says.insert((*id).to_owned(), is.then(|| state.to_owned()));
        }
    }
    // A dead letter has no row, so the states that it set cannot be looked up.
    let has_letters = dead_letters::unresolved(pool).await? > 0;
    let mut rows = Says::new();
    codes(pool, of("code"), &mut rows).await?;
    issued(pool, of("issued"), &mut rows).await?;
    tills(pool, &[of("till"), of("device")].concat(), &mut rows).await?;
    rows.retain(|_, state| state.is_some() || !has_letters);
    says.extend(rows);
    Ok(says)
}

async fn orders(
    pool: &MySqlPool,
    ids: &[(&str, &str)],
    says: &mut Says,
) -> Result<(), sqlx::Error> {
    let numbers = || ids.iter().filter_map(|(_, rest)| rest.parse::<u64>().ok());
    let left = "(SELECT CONCAT('LEFT ', c.left_units) FROM order_changes c \
         WHERE c.order_id = orders.id ORDER BY c.id DESC LIMIT 1)";
    let columns = format!("status, {left}");
    let orders = find(pool, "orders", "id", &columns, numbers()).await?;
    let lacking = numbers().filter(|id| !orders.contains_key(&Position::new(*id)));
    let letters = find(pool, "dead_letters", "journal_id", "state", lacking).await?;
    for (id, rest) in ids {
        let at = Position::new(rest.parse().unwrap_or_default());
        let is = value(&orders, at, 0).or_else(|| value(&letters, at, 0));
        let state = match is {
            Some("CANCEL" | "CANCELLED") => Some("CANCEL_REQUESTED"),
            Some("FAIL" | "COMPENSATED") => Some("FAIL"),
            _ => value(&orders, at, 1),
        };
        // An order is taken back in Redis and in the journal before its dead letter says so.
        if is != Some("OPEN") {
            says.insert((*id).to_owned(), state.map(str::to_owned));
        }
    }
    Ok(())
}

async fn holds(pool: &MySqlPool, ids: &[(&str, &str)], says: &mut Says) -> Result<(), sqlx::Error> {
    let at = |rest: &str| Position::from_stream_id(rest).unwrap_or_default();
    let numbers = || ids.iter().map(|(_, rest)| at(rest).get());
    let rows = find(pool, "reservations", "id", "status, order_id", numbers()).await?;
    let columns = "status, order_id, is_late";
    let checkouts = find(pool, "checkouts", "id", columns, numbers()).await?;
    let is_lacking = |id: &u64| {
        let id = Position::new(*id);
        !rows.contains_key(&id) && !checkouts.contains_key(&id)
    };
    let lacking = numbers().filter(is_lacking);
    let letters = find(pool, "dead_letters", "journal_id", "state", lacking).await?;
    for (id, rest) in ids {
        let at = at(rest);
        if let Some(status) = value(&checkouts, at, 0).and_then(CheckoutStatus::parse) {
            let order = value(&checkouts, at, 1).and_then(|order| order.parse().ok());
            let course = Course {
                status,
                order_id: order,
                is_late: value(&checkouts, at, 2) == Some("1"),
            };
            says.insert((*id).to_owned(), course.state());
            continue;
        }
        if letters.contains_key(&at) {
            continue;
        }
        let state = match (value(&rows, at, 0), value(&rows, at, 1)) {
            (Some("CONFIRMED"), Some(_order)) => Some("ORDERED"),
            (None | Some("PENDING"), _) => None,
            (state, _) => state,
        };
        says.insert((*id).to_owned(), state.map(str::to_owned));
    }
    Ok(())
}

/// How far deadlines were moved. The row of a checkout that is no longer open may be behind.
async fn extended(
    pool: &MySqlPool,
    ids: &[(&str, &str)],
    says: &mut Says,
) -> Result<(), sqlx::Error> {
    let at = |rest: &str| Position::from_stream_id(rest).unwrap_or_default();
    let numbers = ids.iter().map(|(_, rest)| at(rest).get());
    let columns = "CONCAT(times_extended, ' ', payment_extended, ' ', expires_ms)";
    let rows = find(pool, "checkouts", "id", columns, numbers).await?;
    for (id, rest) in ids {
        if let Some(state) = value(&rows, at(rest), 0) {
            says.insert((*id).to_owned(), Some(state.to_owned()));
        }
    }
    Ok(())
}

/// The outcomes of payments; the last row of a payment counts.
async fn payments(
    pool: &MySqlPool,
    ids: &[(&str, &str)],
    says: &mut Says,
) -> Result<(), sqlx::Error> {
    says.extend(ids.iter().map(|(id, _)| ((*id).to_owned(), None)));
    let checkout = |rest: &str| Position::from_stream_id(rest.split(':').next()?);
    let mut checkouts: Vec<u64> = ids
        .iter()
        .filter_map(|(_, rest)| checkout(rest).map(Position::get))
        .collect();
    checkouts.sort_unstable();
    checkouts.dedup();
    for part in checkouts.chunks(500) {
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "SELECT checkout_id, payment_id, CAST(outcome AS CHAR) FROM payments \
             WHERE checkout_id IN ",
        );
        push_list(&mut query, part);
        query.push(" ORDER BY id");
        let rows: Vec<(u64, String, String)> = query.build_query_as().fetch_all(pool).await?;
        for (checkout, payment, outcome) in rows {
            let id = payment_state_id(Position::new(checkout), &payment);
            if let Some(state) = says.get_mut(&id) {
                *state = Some(outcome);
            }
        }
    }
    Ok(())
}

async fn codes(pool: &MySqlPool, ids: &[(&str, &str)], says: &mut Says) -> Result<(), sqlx::Error> {
    says.extend(ids.iter().map(|(id, _)| ((*id).to_owned(), None)));
    let codes: Vec<&str> = ids.iter().map(|(_, code)| *code).collect();
    for part in codes.chunks(500) {
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "SELECT i.code, CONCAT(IF(i.order_id IS NOT NULL, 'USED ', IF(EXISTS (SELECT 1 FROM \
             checkouts c WHERE c.coupon_code = i.code AND c.coupon_id = i.coupon_id \
             AND c.status = 'OPEN'), 'HELD ', 'FREE ')), i.coupon_id, ' ', i.user_id) \
             FROM coupon_issues i WHERE i.code IN ",
        );
        push_list(&mut query, part);
        // A code may be issued again when its coupon is long over: the later row counts.
        query.push(" ORDER BY i.id");
        let rows: Vec<(String, String)> = query.build_query_as().fetch_all(pool).await?;
        let rows = rows.into_iter();
        says.extend(rows.map(|(code, state)| (code_state_id(&code), Some(state))));
    }
    Ok(())
}

async fn issued(
    pool: &MySqlPool,
    ids: &[(&str, &str)],
    says: &mut Says,
) -> Result<(), sqlx::Error> {
    says.extend(ids.iter().map(|(id, _)| ((*id).to_owned(), None)));
    let user = |rest: &str| rest.split(':').nth(1)?.parse::<u64>().ok();
    let mut users: Vec<u64> = ids.iter().filter_map(|(_, rest)| user(rest)).collect();
    users.sort_unstable();
    users.dedup();
    for part in users.chunks(500) {
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "SELECT CONCAT('issued:', coupon_id, ':', user_id, ':', COALESCE(work_id, 0)) \
             FROM coupon_issues WHERE user_id IN ",
        );
        push_list(&mut query, part);
        let rows: Vec<String> = query.build_query_scalar().fetch_all(pool).await?;
        for id in rows {
            if let Some(state) = says.get_mut(&id) {
                *state = Some(ISSUED.to_owned());
            }
        }
    }
    Ok(())
}

async fn tills(pool: &MySqlPool, ids: &[(&str, &str)], says: &mut Says) -> Result<(), sqlx::Error> {
    says.extend(ids.iter().map(|(id, _)| ((*id).to_owned(), None)));
    let mut devices: HashMap<(u64, &str), Vec<&str>> = HashMap::new();
    for (id, _) in ids {
        if let Some((store, device, key)) = parse_offline_state_id(id) {
            devices.entry((store, device)).or_default().push(key);
        }
    }
    for ((store, device), keys) in devices {
        for of in offline_sales::find(pool, store, device, &keys).await? {
            let state = match of.state.as_str() {
                "SOLD" => "SOLD",
                _ => "OVERSOLD",
            };
            let state = offline_state(state, &of.sale.fingerprint);
            says.insert(offline_state_id(store, device, &of.sale.key), Some(state));
        }
    }
    Ok(())
}

/// The coupon of a code's state, of a draw's state or of a coupon's own state.
pub(super) fn coupon_of(id: &str, state: &str) -> Option<u64> {
    if id.starts_with(CODE_STATE) {
        return Some(CodeState::parse(state)?.coupon_id.0);
    }
    let rest = id
        .strip_prefix("issued:")
        .or_else(|| id.strip_prefix("coupon:"))?;
    rest.split(':').next()?.parse().ok()
}
