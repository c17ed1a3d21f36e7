//! Movements: the postings of a product's stock, newest first, and their sums per day.
//!
//! Postings are stored by account and `seq`, not by entry. Both rise together, so a binary search
//! finds the `seq` at a position, and orders do not pay for another index.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDate;
use serde_json::Value;
use sqlx::{MySql, MySqlPool, QueryBuilder};
use stock_common::id::{LocationId, Position, ProductId, Span, UserId};
use stock_domain::account::{Account, AccountKind};
use stock_domain::journal::Kind;
use stock_domain::posting::Posted;

use super::rows::push_list;

/// A posting and its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// The position of the entry.
    pub position: Position,
    /// The posting.
    pub posted: Posted,
    /// The kind of the entry; for a branch, the kind of the entry that the branch belongs to.
    pub cause: String,
    /// The reference of the entry.
    pub reference: Option<String>,
    /// The user who caused the entry, or [`UserId::ENGINE`].
    pub actor: UserId,
    /// The reason that a person gave.
    pub reason: Option<String>,
}

/// The start of a page of movements: an entry, and how many of its postings were given already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovementCursor {
    /// The position of the entry.
    pub position: Position,
    /// Number of the entry's postings that were given already.
    pub given: usize,
}

/// An account of a product's stock.
#[derive(Debug, Clone, Copy)]
struct StockAccount {
    account: Account,
    /// The `seq` of the last archived posting; 0 when none was archived.
    archived: u64,
    /// The `seq` of the last posting.
    last: u64,
}

async fn accounts(
    pool: &MySqlPool,
    product: ProductId,
    location: Option<LocationId>,
) -> Result<Vec<StockAccount>, sqlx::Error> {
    let rows: Vec<(String, u64, u64, u64)> = sqlx::query_as(
        "SELECT CAST(kind AS CHAR), place_id, seq, CAST(COALESCE((SELECT l.seq \
         FROM archived_levels l WHERE l.kind = a.kind AND l.owner_id = a.owner_id \
         AND l.place_id = a.place_id), 0) AS UNSIGNED) FROM accounts a \
         WHERE kind IN ('AVAILABLE', 'RESERVED') AND owner_id = ? \
         AND (? OR place_id = ?)",
    )
    .bind(product.0)
    .bind(location.is_none())
    .bind(location.map_or(0, |location| location.0))
    .fetch_all(pool)
    .await?;
    let account = |(kind, location, last, archived): (String, u64, u64, u64)| {
        let kind = AccountKind::parse(&kind)?;
        let owner = product.0;
        Some(StockAccount {
            account: Account {
                kind,
                owner,
                location,
            },
            archived,
            last,
        })
    };
    Ok(rows.into_iter().filter_map(account).collect())
}

/// The last `seq` of an account whose entry lies at or before `position`. Archived postings are not
/// looked at: the result is never below the last archived `seq`.
async fn seq_at(
    pool: &MySqlPool,
    of: StockAccount,
    position: Position,
) -> Result<u64, sqlx::Error> {
    let (account, mut low, mut high) = (of.account, of.archived, of.last);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let id: Option<u64> = sqlx::query_scalar(
            "SELECT journal_id FROM postings WHERE kind = ? AND owner_id = ? AND place_id = ? \
             AND seq = ?",
        )
        .bind(account.kind.as_str())
        .bind(account.owner)
        .bind(account.location)
        .bind(middle)
        .fetch_optional(pool)
        .await?;
        if id.is_some_and(|id| id <= position.get()) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// The position up to which movements of a product's stock were archived; `None` when none were.
/// The last archived movement may lie before this position.
///
/// # Errors
/// When MySQL does not answer.
pub async fn archived_until(
    pool: &MySqlPool,
    product: ProductId,
    location: Option<LocationId>,
) -> Result<Option<Position>, sqlx::Error> {
    let id: Option<u64> = sqlx::query_scalar(
        "SELECT MAX(position) FROM archives WHERE EXISTS (SELECT 1 FROM archived_levels \
         WHERE kind IN ('AVAILABLE', 'RESERVED') AND owner_id = ? \
         AND (? OR place_id = ?))",
    )
    .bind(product.0)
    .bind(location.is_none())
    .bind(location.map_or(0, |location| location.0))
    .fetch_one(pool)
    .await?;
    Ok(id.map(Position::new))
}

/// A product's movements, newest first, at one location or at all locations.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    product: ProductId,
    location: Option<LocationId>,
    from: Option<MovementCursor>,
    limit: usize,
) -> Result<Vec<Movement>, sqlx::Error> {
    type Row = (u64, u64, i64, i64);
    let skip = from.map_or(0, |from| from.given);
    let mut found: Vec<(Position, Posted)> = Vec::new();
    for of in accounts(pool, product, location).await? {
        let account = of.account;
        let last = match from {
            Some(from) => seq_at(pool, of, from.position).await?,
            None => of.last,
        };
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT journal_id, seq, delta, balance_after FROM postings \
             WHERE kind = ? AND owner_id = ? AND place_id = ? AND seq <= ? \
             ORDER BY seq DESC LIMIT ?",
        )
        .bind(account.kind.as_str())
        .bind(account.owner)
        .bind(account.location)
        .bind(last)
        .bind((limit + skip) as u64)
        .fetch_all(pool)
        .await?;
        found.extend(rows.into_iter().map(|(id, seq, delta, balance_after)| {
            let posted = Posted {
                account,
                seq,
                delta,
                balance_after,
            };
            (Position::new(id), posted)
        }));
    }
    found.sort_unstable_by_key(|(position, posted)| {
        (Reverse(*position), posted.account, Reverse(posted.seq))
    });
    let page: Vec<(Position, Posted)> = found.into_iter().skip(skip).take(limit).collect();
    with_causes(pool, page).await
}

async fn with_causes(
    pool: &MySqlPool,
    page: Vec<(Position, Posted)>,
) -> Result<Vec<Movement>, sqlx::Error> {
    type Row = (u64, String, u64, Option<String>, Vec<u8>);
    if page.is_empty() {
        return Ok(Vec::new());
    }
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(
        "SELECT id, kind, actor_id, reference, payload FROM journal WHERE id IN ",
    );
    let ids: Vec<_> = page.iter().map(|(position, _)| position.get()).collect();
    push_list(&mut query, &ids);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    let causes: HashMap<u64, Row> = rows.into_iter().map(|row| (row.0, row)).collect();
    Ok(page
        .into_iter()
        .filter_map(|(position, posted)| {
            let (_, cause, actor, reference, payload) = causes.get(&position.get())?.clone();
            let payload: Value = serde_json::from_slice(&payload).unwrap_or_default();
            let reason = payload.pointer("/body/reason").and_then(Value::as_str);
            // A branch shows the kind of the entry that it belongs to.
            let of = payload.pointer("/body/of").and_then(Value::as_str);
            let cause = match of {
                Some(of) if cause.starts_with("branch_") => of.to_owned(),
                Some(_) | None => cause,
            };
            Some(Movement {
                position,
                posted,
                cause,
                reference,
                actor: UserId(actor),
                reason: reason.map(str::to_owned),
            })
        })
        .collect())
}

/// The movements of a product's stock on one day, in units. Each sum is ≥ 0, except `adjusted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DayStatistics {
    /// Units that came in.
    pub received: i64,
    /// Units that left with an order or a confirmed reservation.
    pub sold: i64,
    /// Units that came back from orders, and from reservations that were confirmed.
    pub cancelled: i64,
    /// Units that were set aside by a reservation or a checkout.
    pub reserved: i64,
    /// Units set aside that were given back by a cancel or by expiry.
    pub released: i64,
    /// Units that were corrected by hand or by an import; the sum of both directions.
    pub adjusted: i64,
}

impl DayStatistics {
    /// Adds the sum of postings of one kind of account that one kind of entry caused.
    fn add(&mut self, account: AccountKind, cause: Kind, sum: i64) {
        let is_available = account != AccountKind::Reserved;
        match cause {
            Kind::OrderPlaced | Kind::ReservationConfirmed => self.sold -= sum,
            Kind::OrderCancelled | Kind::OrderReduced | Kind::OrderFailed => self.cancelled += sum,
            Kind::ReservationMade | Kind::CheckoutOpened if is_available => self.reserved -= sum,
            Kind::ReservationExpired | Kind::CheckoutCancelled | Kind::CheckoutExpired
                if is_available =>
            {
                self.released += sum;
            }
            // Units that leave RESERVED were only reserved. Further units that reach AVAILABLE were
            // sold.
            Kind::ReservationCancelled if is_available => self.cancelled += sum,
            Kind::ReservationCancelled => {
                self.cancelled += sum;
                self.released -= sum;
            }
            Kind::StockReceived => self.received += sum,
            Kind::StockAdjusted | Kind::StockImported => self.adjusted += sum,
            Kind::ReservationMade
            | Kind::ReservationExpired
            | Kind::CheckoutOpened
            | Kind::CheckoutExtended
            | Kind::CheckoutCancelled
            | Kind::CheckoutExpired
            | Kind::PaymentUnused
            | Kind::SaleOversold
            | Kind::ProductOpened
            | Kind::ProductSwitched
            | Kind::StockMoved
            | Kind::CouponOpened
            | Kind::CouponIssued
            | Kind::BuyerSeen
            | Kind::PointsEarned
            | Kind::PointsUsed
            | Kind::PointsCancelled
            | Kind::SellingSwitched
            | Kind::BranchHeld
            | Kind::BranchConfirmed
            | Kind::BranchReleased
            | Kind::CrossShardAborted
            | Kind::EpochBegun => {}
        }
    }
}

/// The movements of a product's stock per day (UTC) after one position and up to another.
///
/// # Errors
/// When MySQL does not answer.
pub async fn statistics(
    pool: &MySqlPool,
    product: ProductId,
    location: Option<LocationId>,
    Span { after, upto }: Span,
) -> Result<BTreeMap<NaiveDate, DayStatistics>, sqlx::Error> {
    let mut days: BTreeMap<NaiveDate, DayStatistics> = BTreeMap::new();
    for of in accounts(pool, product, location).await? {
        let account = of.account;
        let from = seq_at(pool, of, after).await?;
        let to = seq_at(pool, of, upto).await?;
        let rows: Vec<(NaiveDate, String, i64)> = sqlx::query_as(
            // A branch counts as the entry that it belongs to.
            "SELECT DATE(j.created_at) AS day, IF(j.kind IN ('branch_held', 'branch_confirmed', \
             'branch_released'), JSON_UNQUOTE(JSON_EXTRACT(CONVERT(j.payload USING utf8mb4), \
             '$.body.of')), j.kind) AS cause, CAST(SUM(p.delta) AS SIGNED) \
             FROM postings p JOIN journal j ON j.id = p.journal_id \
             WHERE p.kind = ? AND p.owner_id = ? AND p.place_id = ? AND p.seq > ? AND p.seq <= ? \
             GROUP BY day, cause",
        )
        .bind(account.kind.as_str())
        .bind(account.owner)
        .bind(account.location)
        .bind(from)
        .bind(to)
        .fetch_all(pool)
        .await?;
        for (day, cause, sum) in rows {
            if let Some(cause) = Kind::parse(&cause) {
                days.entry(day).or_default().add(account.kind, cause, sum);
            }
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::DayStatistics;
    use stock_domain::account::AccountKind::{Available, Reserved};
    use stock_domain::journal::Kind;

    #[test]
    fn what_was_set_aside_is_sold_once_and_a_forced_cancel_returns_what_was_sold() {
        let mut day = DayStatistics::default();
        for (account, cause, sum) in [
            (Available, Kind::StockReceived, 100),
            (Available, Kind::OrderPlaced, -10),
            (Available, Kind::ReservationMade, -30),
            (Reserved, Kind::ReservationMade, 30),
            (Reserved, Kind::ReservationConfirmed, -20),
            (Available, Kind::ReservationCancelled, 25),
            (Reserved, Kind::ReservationCancelled, -5),
            (Available, Kind::ReservationExpired, 5),
            (Reserved, Kind::ReservationExpired, -5),
            (Available, Kind::OrderCancelled, 1),
        ] {
            day.add(account, cause, sum);
        }
        let expected = DayStatistics {
            received: 100,
            sold: 30,
            cancelled: 21,
            reserved: 30,
            released: 10,
            adjusted: 0,
        };
        assert_eq!(day, expected);
    }
}
