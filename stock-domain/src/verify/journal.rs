//! Part one: entries against their postings, their orders and reservations.

use std::collections::{HashMap, HashSet};

use sqlx::MySqlPool;
use stock_common::id::Position;

use super::{Difference, Progress, Proved, Report, VerifyError, proved, remember, unreadable};
use crate::branch::{BranchEnded, CodeMoved};
use crate::coupon::CouponIssued;
use crate::database::coupon_issues::{self, StoredIssue};
use crate::database::orders::StoredOrder;
use crate::database::record::has_code_mark;
use crate::database::reservations::StoredReservation;
use crate::database::shards::ShardState;
use crate::database::{archives, journal, offline_sales, orders, point_transactions, reservations};
use crate::journal::{Entry, Kind};
use crate::order::{OfflineSale, Order, OrderReversed, OrderStatus};
use crate::points::{self, PointTransaction};
use crate::reservation::{Reservation, ReservationEnded, ReservationStatus};

/// Entries compared at once.
const SLICE: u32 = 1_000;
const SUBJECT: &str = "journal:";

/// Compares the settled entries that were not proved before.
pub(super) async fn verify(
    pool: &MySqlPool,
    state: &ShardState,
    full: bool,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), VerifyError> {
    let subject = format!("{SUBJECT}{}", state.shard);
    let archived = archives::reached(pool, state.shard).await?;
    if let Some(left) = archives::left_behind(pool, state.shard, archived.number).await? {
        let text = format!("entry {left} was archived, and is still there");
        report.add([Difference::new("journal", state.shard, text)]);
    }
    let proved = match full {
        true => 0,
        false => proved_number(pool, state.shard).await?,
    };
    let start = proved.max(archived.number);
    let mut done = start.min(state.number);
    let mut last = match journal::position_of(pool, state.shard, done).await? {
        Some(position) => position,
        None => archived.position,
    };
    while done < state.number {
        let end = state.number.min(done + u64::from(SLICE));
        let page =
            journal::page(&mut *pool.acquire().await?, state.shard, (done, end), SLICE).await?;
        if page.is_empty() {
            let text = format!("entries {}..={end} are missing", done + 1);
            report.add([Difference::new("journal", state.shard, text)]);
            return Ok(());
        }
        let before = report.differences.len();
        let slice = Slice {
            shard: state.shard,
            after: last,
            first_number: done + 1,
        };
        let found = slice.verify(pool, &page).await?;
        report.add(found);
        let numbers = page.iter().flatten().map(|entry| entry.number);
        let reached = numbers.max().unwrap_or(done);
        if reached <= done {
            return Ok(());
        }
        report.entries += page.len() as u64;
        last = page
            .iter()
            .flatten()
            .map(|entry| entry.position)
            .max()
            .unwrap_or(last);
        done = reached;
        progress(done - start, state.number - start);
        if report.differences.len() == before && report.differences.is_empty() {
            let upto = Proved {
                upto: done,
                balance: 0,
            };
            remember(pool, &[(subject.clone(), upto)]).await?;
        }
    }
    Ok(())
}

/// The number up to which a shard's entries were proved.
///
/// # Errors
/// When MySQL does not answer.
pub(crate) async fn proved_number(pool: &MySqlPool, shard: u64) -> Result<u64, sqlx::Error> {
    let subject = format!("{SUBJECT}{shard}");
    let known = proved(pool, std::slice::from_ref(&subject)).await?;
    Ok(known.get(&subject).map_or(0, |known| known.upto))
}

/// A run of entries of a shard behind a position.
struct Slice {
    shard: u64,
    after: Position,
    first_number: u64,
}

impl Slice {
    async fn verify(
        &self,
        pool: &MySqlPool,
        page: &[Result<Entry, crate::journal::EntryError>],
    ) -> Result<Vec<Difference>, VerifyError> {
        let mut found: Vec<Difference> = page
            .iter()
            .filter_map(|entry| entry.as_ref().err())
            .map(unreadable)
            .collect();
        let entries: Vec<&Entry> = page.iter().flatten().collect();
        found.extend(self.order_of(&entries));
        found.extend(entries.iter().filter_map(|entry| postings_of(entry)));
        if let Some(last) = entries.last() {
            let first = Position::new(self.after.get() + 1);
            let mut stored = orders::between(pool, first, last.position).await?;
            stored.retain(|row| row.id.shard() == self.shard);
            let dead = dead_between(pool, first, last.position).await?;
            found.extend(orders_of(&entries, &stored, &dead));
            found.extend(reversals_of(pool, &entries).await?);
            let mut stored = reservations::between(pool, first, last.position).await?;
            stored.retain(|row| row.id.shard() == self.shard);
            found.extend(reservations_of(&entries, &stored, &dead));
            found.extend(ends_of(pool, &entries).await?);
            found.extend(oversold_of(pool, &entries, &dead).await?);
            let mut stored = coupon_issues::between(pool, first, last.position).await?;
            stored.retain(|row| row.id.shard() == self.shard);
            found.extend(issues_of(&entries, &stored, &dead));
            found.extend(codes_of(pool, &entries).await?);
            let mut stored = point_transactions::between(pool, first, last.position).await?;
            stored.retain(|row| row.id.shard() == self.shard);
            found.extend(points_of(&entries, &stored));
        }
        Ok(found)
    }

    /// Numbers are dense, positions rise.
    fn order_of(&self, entries: &[&Entry]) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut last = self.after;
        for (expected, entry) in (self.first_number..).zip(entries) {
            if entry.number != expected || entry.position <= last {
                let text = format!("number {} where {expected} should be", entry.number);
                found.push(Difference::new("journal", entry.position, text));
                break;
            }
            last = entry.position;
        }
        found
    }
}

/// An entry has exactly the postings that its payload asks for.
fn postings_of(entry: &Entry) -> Option<Difference> {
    let asked = match entry.asked() {
        Ok(asked) => asked,
        Err(error) => return Some(unreadable(&error)),
    };
    let mut left = entry.postings.clone();
    for posting in &asked {
        if posting.delta != 0 {
            let own = left
                .iter()
                .position(|p| p.account == posting.account && p.delta == posting.delta);
            match own {
                Some(at) => drop(left.swap_remove(at)),
                None => {
                    let text =
                        format!("posting {} {:+} is missing", posting.account, posting.delta);
                    return Some(Difference::new("journal", entry.position, text));
                }
            }
        }
        left.retain(|p| {
            let is_opening = p.account == posting.account && p.seq == 1;
            !(is_opening && posting.open == Some(p.delta))
        });
    }
    (!left.is_empty()).then(|| {
        Difference::new(
            "journal",
            entry.position,
            format!("postings too many: {left:?}"),
        )
    })
}

async fn dead_between(
    pool: &MySqlPool,
    first: Position,
    last: Position,
) -> Result<HashSet<Position>, sqlx::Error> {
    let ids: Vec<u64> = sqlx::query_scalar(
        "SELECT journal_id FROM dead_letters WHERE journal_id BETWEEN ? AND ? \
         AND state <> 'RESOLVED'",
    )
    .bind(first.get())
    .bind(last.get())
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(Position::new).collect())
}

/// Each order that was placed is there as it was placed, and no other.
fn orders_of(
    entries: &[&Entry],
    stored: &[StoredOrder],
    dead: &HashSet<Position>,
) -> Vec<Difference> {
    let mut stored: HashMap<Position, &StoredOrder> =
        stored.iter().map(|order| (order.id, order)).collect();
    let mut found = Vec::new();
    for entry in entries
        .iter()
        .filter(|entry| entry.kind == Kind::OrderPlaced)
    {
        let (subject, row) = (entry.position, stored.remove(&entry.position));
        match (row, entry.body::<Order>()) {
            (Some(row), Ok(order)) if row.order == order => {}
            (Some(row), Ok(order)) => {
                let text = format!("order is {:?}, entry says {order:?}", row.order);
                found.push(Difference::new("orders", subject, text));
            }
            (None, _) if dead.contains(&subject) => {}
            (None, _) => found.push(Difference::new("orders", subject, "is missing".to_owned())),
            (Some(_), Err(error)) => {
                found.push(Difference::new("orders", subject, error.to_string()));
            }
        }
    }
    let extra = stored
        .into_keys()
        .map(|id| Difference::new("orders", id, "has no entry that placed it".to_owned()));
    found.extend(extra);
    found
}

/// Each reservation that was made is there as it was made, and no other.
fn reservations_of(
    entries: &[&Entry],
    stored: &[StoredReservation],
    dead: &HashSet<Position>,
) -> Vec<Difference> {
    let mut stored: HashMap<Position, &StoredReservation> =
        stored.iter().map(|row| (row.id, row)).collect();
    let mut found = Vec::new();
    let made = entries
        .iter()
        .filter(|entry| entry.kind == Kind::ReservationMade);
    for entry in made {
        let (subject, row) = (entry.position, stored.remove(&entry.position));
        let is_right = match (row, entry.body::<Reservation>()) {
            (Some(row), Ok(reservation)) => row.reservation == reservation,
            (Some(_), Err(_)) => false,
            (None, _) => dead.contains(&subject),
        };
        if !is_right {
            let text = format!("is {row:?}, not what its entry says");
            found.push(Difference::new("reservations", subject, text));
        }
    }
    let extra = stored
        .into_keys()
        .map(|id| Difference::new("reservations", id, "has no entry that made it".to_owned()));
    found.extend(extra);
    found
}

/// Each sale for which there was no stock waits for its person, or has found them.
async fn oversold_of(
    pool: &MySqlPool,
    entries: &[&Entry],
    dead: &HashSet<Position>,
) -> Result<Vec<Difference>, sqlx::Error> {
    let told: Vec<&&Entry> = entries
        .iter()
        .filter(|entry| entry.kind == Kind::SaleOversold && !dead.contains(&entry.position))
        .collect();
    let ids: Vec<Position> = told.iter().map(|entry| entry.position).collect();
    let stored: HashMap<Position, OfflineSale> = offline_sales::of_orders(pool, &ids)
        .await?
        .into_iter()
        .map(|stored| (stored.id, stored.sale))
        .collect();
    let wrong = told.into_iter().filter_map(|entry| {
        let sale = entry.body::<Order>().ok().and_then(|order| order.offline);
        let row = stored.get(&entry.position);
        let text = format!("is {row:?}, not what its entry says");
        (row != sale.as_ref()).then(|| Difference::new("offline_sales", entry.position, text))
    });
    Ok(wrong.collect())
}

/// Each reservation that has ended says so: confirmed ones may have been taken back since.
async fn ends_of(pool: &MySqlPool, entries: &[&Entry]) -> Result<Vec<Difference>, sqlx::Error> {
    use ReservationStatus::{Cancelled, Confirmed, Expired};
    let mut expected: Vec<(Position, &[ReservationStatus])> = Vec::new();
    for entry in entries {
        let ended = entry.body::<ReservationEnded>().ok();
        let ended = ended.map(|ended| ended.reservation_id);
        expected.extend(match entry.kind {
            Kind::OrderPlaced => {
                let order = entry.body::<Order>().ok();
                let taken = order.and_then(|order| order.reservation_id);
                taken.map(|id| (id, &[Confirmed][..]))
            }
            Kind::ReservationConfirmed => ended.map(|id| (id, &[Confirmed, Cancelled][..])),
            Kind::ReservationCancelled => ended.map(|id| (id, &[Cancelled][..])),
            Kind::ReservationExpired => ended.map(|id| (id, &[Expired][..])),
            Kind::OrderCancelled
            | Kind::OrderFailed
            | Kind::SaleOversold
            | Kind::ReservationMade
            | Kind::ProductOpened
            | Kind::ProductSwitched
            | Kind::StockReceived
            | Kind::StockAdjusted
            | Kind::StockImported
            | Kind::StockMoved
            | Kind::CouponOpened
            | Kind::CouponIssued
            | Kind::PointsEarned
            | Kind::PointsUsed
            | Kind::PointsCancelled
            | Kind::SellingSwitched
            | Kind::BranchHeld
            | Kind::BranchConfirmed
            | Kind::BranchReleased
            | Kind::AcrossAborted
            | Kind::EpochBegun => None,
        });
    }
    let ids: Vec<Position> = expected.iter().map(|(id, _)| *id).collect();
    let stored = reservations::of_ids(pool, &ids).await?;
    let wrong = expected.into_iter().filter_map(|(id, expected)| {
        // A dead letter has no row, and needs none.
        let status = stored.get(&id)?;
        let text = format!("is {status:?}, its end says {expected:?}");
        (!expected.contains(status)).then(|| Difference::new("reservations", id, text))
    });
    Ok(wrong.collect())
}

/// Each order that was taken back says so.
async fn reversals_of(
    pool: &MySqlPool,
    entries: &[&Entry],
) -> Result<Vec<Difference>, sqlx::Error> {
    let mut found = Vec::new();
    for entry in entries {
        let expected = if entry.kind == Kind::OrderCancelled {
            OrderStatus::Cancel
        } else if entry.kind == Kind::OrderFailed {
            OrderStatus::Fail
        } else {
            continue;
        };
        let Ok(reversed) = entry.body::<OrderReversed>() else {
            continue;
        };
        let status: Option<String> =
            sqlx::query_scalar("SELECT CAST(status AS CHAR) FROM orders WHERE id = ?")
                .bind(reversed.order_id.get())
                .fetch_optional(pool)
                .await?;
        // A dead letter has no row, and needs none.
        if status
            .as_deref()
            .is_some_and(|status| status != expected.as_str())
        {
            let text = format!("is {status:?}, but entry {} took it back", entry.position);
            found.push(Difference::new("orders", reversed.order_id, text));
        }
    }
    Ok(found)
}

/// Each code that was handed out is there as it was, and no other.
fn issues_of(
    entries: &[&Entry],
    stored: &[StoredIssue],
    dead: &HashSet<Position>,
) -> Vec<Difference> {
    let mut stored: HashMap<Position, &StoredIssue> =
        stored.iter().map(|row| (row.id, row)).collect();
    let mut found = Vec::new();
    for entry in entries {
        let Some(issued) = CouponIssued::of(entry) else {
            continue;
        };
        let subject = entry.position;
        match stored.remove(&subject) {
            Some(row) if row.issued == issued => {}
            None if dead.contains(&subject) => {}
            row => {
                let text = format!("is {row:?}, entry says {issued:?}");
                found.push(Difference::new("coupon_issues", subject, text));
            }
        }
    }
    let extra = stored.into_keys().map(|id| {
        Difference::new(
            "coupon_issues",
            id,
            "has no entry that issued it".to_owned(),
        )
    });
    found.extend(extra);
    found
}

fn is_reversal(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::OrderCancelled | Kind::OrderFailed)
}

/// Each code that an order used, or whose use was taken back, says so: its order is the last that used it, if
/// that stands.
async fn codes_of(pool: &MySqlPool, entries: &[&Entry]) -> Result<Vec<Difference>, sqlx::Error> {
    let mut used = HashMap::new();
    let mut freed = HashSet::new();
    for entry in entries {
        if entry.kind == Kind::OrderPlaced {
            let order = entry.body::<Order>().ok();
            // A code on another shard is that one's branch to tell of.
            let coupon = order.and_then(|order| order.coupon);
            if let Some(coupon) = coupon.filter(|_| has_code_mark(entry)) {
                used.insert((coupon.coupon_id, coupon.code), entry.position);
            }
        } else if entry.kind == Kind::BranchConfirmed {
            let ended = entry.body::<BranchEnded>().ok();
            let code = ended.as_ref().and_then(BranchEnded::code);
            match code {
                Some(CodeMoved::Used(code, order)) => {
                    used.insert(code, order);
                }
                Some(CodeMoved::Freed(order)) => {
                    freed.insert(order);
                }
                None => {}
            }
        } else if is_reversal(entry) && has_code_mark(entry) {
            let reversed = entry.body::<OrderReversed>().ok();
            freed.extend(reversed.map(|reversed| reversed.order_id));
        }
    }
    let codes: Vec<String> = used.keys().map(|(_, code)| code.clone()).collect();
    let stored = coupon_issues::orders_of(pool, &codes).await?;
    let mut found = Vec::new();
    for (code, order) in used {
        // A later order may have used it since, after this one was taken back.
        let is_right = match stored.get(&code) {
            Some(by) if freed.contains(&order) => *by > order,
            Some(by) => *by >= order,
            None => true,
        };
        let was_lost = !stored.contains_key(&code)
            && !freed.contains(&order)
            && !is_taken_back(pool, order).await?;
        if !is_right || was_lost {
            let text = format!("order {order} used it, it says {:?}", stored.get(&code));
            found.push(Difference::new("coupon_issues", code.1, text));
        }
    }
    Ok(found)
}

/// Whether an order was taken back, or is a dead letter, which says nothing.
async fn is_taken_back(pool: &MySqlPool, order: Position) -> Result<bool, sqlx::Error> {
    let status: Option<String> =
        sqlx::query_scalar("SELECT CAST(status AS CHAR) FROM orders WHERE id = ?")
            .bind(order.get())
            .fetch_optional(pool)
            .await?;
    Ok(status.is_none_or(|status| status != OrderStatus::Success.as_str()))
}

/// Each movement of points is there with its reason, and no other.
fn points_of(entries: &[&Entry], stored: &[PointTransaction]) -> Vec<Difference> {
    let key = |of: &PointTransaction| (of.id, of.user_id, of.seq);
    let mut stored: HashMap<_, &PointTransaction> =
        stored.iter().map(|row| (key(row), row)).collect();
    let mut found = Vec::new();
    for entry in entries {
        for mut moved in points::transactions(entry).unwrap_or_default() {
            let row = stored.remove(&key(&moved));
            // The order that a branch was held for is known when it is confirmed.
            if entry.kind == Kind::BranchHeld && moved.order_id.is_none() {
                moved.order_id = row.and_then(|row| row.order_id);
            }
            if row != Some(&moved) {
                let text = format!("is {row:?}, entry says {moved:?}");
                found.push(Difference::new("point_transactions", entry.position, text));
            }
        }
    }
    let extra = stored.into_keys().map(|(id, ..)| {
        let text = "has no entry that moved it".to_owned();
        Difference::new("point_transactions", id, text)
    });
    found.extend(extra);
    found
}
