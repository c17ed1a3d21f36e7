//! The second look at things that ended, in the buckets where the two sides of [`super::tally`] do
//! not add up. It compares exactly what rows say with what entries say.
//!
//! The rows are read first and the journal after them, so the entry that each row comes from is
//! there. The rows must state every end that an entry stated before they were read. So nothing that
//! moves meanwhile counts as a difference.

use std::collections::{BTreeMap, HashSet};

use sqlx::{AssertSqlSafe, MySqlPool};
use stock_common::id::Position;
use stock_domain::journal::{Entry, EntryError};
use stock_domain::order::OrderStatus;
use stock_domain::reservation::ReservationStatus;
use stock_mysql::record::Rows;
use stock_mysql::{archives, shards};

use super::late::state_of;
use super::rows::{BRANCHES, CHECKOUTS, ORDERS, RESERVATIONS, Table};
use super::tally::{Thing, bucket};
use super::{Difference, VerifyError};

/// Most buckets that are looked at. The others are looked at when these are right.
const BUCKETS_MAX: usize = 64;
/// Rows and entries read at once.
const PAGE: u32 = 5_000;

/// The kinds of entries that end something.
const ENDS: &str = "'order_cancelled', 'order_failed', 'reservation_confirmed', \
     'reservation_cancelled', 'reservation_expired', 'checkout_cancelled', 'checkout_expired', \
     'checkout_extended', 'payment_unused', 'branch_confirmed', 'branch_released'";

type Said = BTreeMap<(Thing, Position), String>;

/// Names the ends that only one side states, of the things in these buckets.
pub(super) async fn differing(
    pool: &MySqlPool,
    left: &[usize],
) -> Result<Vec<Difference>, VerifyError> {
    let wanted: HashSet<usize> = left.iter().take(BUCKETS_MAX).copied().collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut settled = BTreeMap::new();
    for state in shards::all(pool).await? {
        let archived = archives::reached(pool, state.shard).await?;
        settled.insert(state.shard, (archived.position, state.watermark));
    }
    let is_counted = |id: &Position| {
        let of = settled.get(&id.shard());
        of.is_some_and(|(archived, _)| id > archived)
    };
    let mut rows = Said::new();
    let mut taken = HashSet::new();
    for (thing, table) in [
        (Thing::Order, &ORDERS),
        (Thing::Reservation, &RESERVATIONS),
        (Thing::Checkout, &CHECKOUTS),
        (Thing::Deadline, &CHECKOUTS),
        (Thing::Branch, &BRANCHES),
    ] {
        ended(pool, thing, table, &wanted, &mut rows, &mut taken).await?;
    }
    rows.retain(|(_, id), _| is_counted(id));
    let mut entries = Said::new();
    // The ends that were stated by entries settled before the rows were read.
    let mut before = Said::new();
    let mut at = Position::ZERO;
    loop {
        let page = ends(pool, at).await?;
        let Some(last) = page.last().map(|(position, _)| *position) else {
            break;
        };
        at = last;
        for (position, entry) in page {
            let is_before = settled
                .get(&position.shard())
                .is_some_and(|(_, watermark)| position <= *watermark);
            for (of, state) in said(entry) {
                if wanted.contains(&bucket(of.0, of.1)) && is_counted(&of.1) {
                    if is_before {
                        before.insert(of, state.clone());
                    }
                    entries.insert(of, state);
                }
            }
        }
    }
    let mut found = Vec::new();
    for ((thing, id), state) in &rows {
        let said = entries.get(&(*thing, *id));
        let was = before.get(&(*thing, *id));
        if said != Some(state) && was != Some(state) {
            let text = format!("is {state}, and its entries say {said:?}");
            found.push(Difference::new(thing.table(), id, text));
        }
    }
    let there = there(pool, before.keys().filter(|of| !rows.contains_key(of))).await?;
    for ((thing, id), state) in &before {
        let of = (*thing, *id);
        if !rows.contains_key(&of) && there.contains(&of) && !taken.contains(&of) {
            let text = format!("has not ended, and an entry says {state}");
            found.push(Difference::new(thing.table(), id, text));
        }
    }
    Ok(found)
}

/// Reads the rows that say that they have ended. Holds that name the order that took them go
/// into `taken`.
async fn ended(
    pool: &MySqlPool,
    thing: Thing,
    table: &Table,
    wanted: &HashSet<usize>,
    rows: &mut Said,
    taken: &mut HashSet<(Thing, Position)>,
) -> Result<(), sqlx::Error> {
    let condition = match thing {
        Thing::Order => "status <> 'SUCCESS'",
        Thing::Reservation => "status <> 'PENDING'",
        Thing::Checkout => "status <> 'OPEN'",
        Thing::Deadline => "extended_at IS NOT NULL",
        Thing::Branch => "state <> 'HELD'",
    };
    let mut at = Position::ZERO;
    loop {
        let page = table.page(pool, condition, at, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        at = last.at;
        for row in page {
            let of = (thing, row.at);
            if !wanted.contains(&bucket(thing, row.at)) {
                continue;
            }
            if thing.is_hold() && row.late(1).is_some() {
                taken.insert(of);
            } else {
                rows.insert(of, state_of(thing, &row));
            }
        }
    }
}

/// Returns those of the given things that have a row. The order or the reservation of a dead letter
/// has none.
async fn there(
    pool: &MySqlPool,
    of: impl Iterator<Item = &(Thing, Position)>,
) -> Result<HashSet<(Thing, Position)>, sqlx::Error> {
    let mut there = HashSet::new();
    for &(thing, id) in of {
        let text = format!("SELECT id FROM {} WHERE id = {id}", thing.table());
        let row: Option<u64> = sqlx::query_scalar(AssertSqlSafe(text))
            .fetch_optional(pool)
            .await?;
        there.extend(row.map(|_| (thing, id)));
    }
    Ok(there)
}

/// Entries after a position that end something, in order.
async fn ends(
    pool: &MySqlPool,
    after: Position,
) -> Result<Vec<(Position, Result<Entry, EntryError>)>, sqlx::Error> {
    let text = format!(
        "SELECT id, number, payload FROM journal FORCE INDEX (PRIMARY) WHERE id > ? \
         AND kind IN ({ENDS}) ORDER BY id LIMIT ?"
    );
    let rows: Vec<(u64, u64, Vec<u8>)> = sqlx::query_as(AssertSqlSafe(text))
        .bind(after.get())
        .bind(PAGE)
        .fetch_all(pool)
        .await?;
    let entry = |(id, number, payload)| {
        let position = Position::new(id);
        (
            position,
            Entry::restore(position, number, payload, Vec::new()),
        )
    };
    Ok(rows.into_iter().map(entry).collect())
}

/// The things that an entry says have ended, each with its state.
fn said(entry: Result<Entry, EntryError>) -> Vec<((Thing, Position), String)> {
    let mut rows = Rows::default();
    let Ok(entry) = entry else {
        return Vec::new();
    };
    if rows.add(&entry).is_err() {
        return Vec::new();
    }
    let order =
        |(id, status): (Position, OrderStatus)| ((Thing::Order, id), status.as_str().to_owned());
    let hold = |(id, status): (Position, ReservationStatus)| {
        ((Thing::Reservation, id), status.as_str().to_owned())
    };
    let cancelled = rows.cancelled.iter().map(|id| (*id, OrderStatus::Cancel));
    let failed = rows.failed.iter().map(|id| (*id, OrderStatus::Fail));
    let confirmed = rows
        .confirmed
        .iter()
        .map(|id| (*id, ReservationStatus::Confirmed));
    let returned = rows
        .returned
        .iter()
        .map(|id| (*id, ReservationStatus::Cancelled));
    let expired = rows
        .expired
        .iter()
        .map(|id| (*id, ReservationStatus::Expired));
    let branches = rows.ended.iter().map(|of| {
        let state = match of.commit {
            Some(entry) => format!("CONFIRMED {entry}"),
            None => "RELEASED ".to_owned(),
        };
        ((Thing::Branch, of.id), state)
    });
    let given_back = rows.given_back.iter().map(|(id, status)| {
        let state = status.as_str().to_owned();
        ((Thing::Checkout, *id), state)
    });
    let moved = rows.extended.iter().map(|of| {
        let state = of.extended.state();
        ((Thing::Deadline, of.checkout_id), state)
    });
    let orders = cancelled.chain(failed).map(order);
    let holds = confirmed.chain(returned).chain(expired).map(hold);
    orders
        .chain(holds)
        .chain(given_back)
        .chain(moved)
        .chain(branches)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ENDS;
    use stock_domain::journal::Kind;

    #[test]
    fn what_ends_something_is_of_a_kind_that_there_is() {
        for name in ENDS.split(", ") {
            let name = name.trim_matches('\'');
            assert!(Kind::parse(name).is_some(), "{name}");
        }
    }
}
