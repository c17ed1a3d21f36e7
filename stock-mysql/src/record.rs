//! Record: the rows that belong to an entry, which are its journal row, its postings and its own
//! tables.
//!
//! Callers leave out entries that are recorded already, so each position is recorded once. The
//! table of [`stock_domain::journal`] says which tables are an entry's own.

use sqlx::MySqlConnection;
use stock_common::id::{CouponId, Position, ProductId};
use stock_domain::branch::{Branch, BranchEnded, CROSS_SHARD_STATE, CodeMoved};
use stock_domain::buyer::BuyerSeen;
use stock_domain::checkout::{
    Checkout, CheckoutExtended, CheckoutStatus, PaymentOutcome, PaymentUnused,
};
use stock_domain::coupon::{CODE_STATE, CouponIssued, CouponOpened};
use stock_domain::hold::{self, HoldEnded};
use stock_domain::journal::{Entry, Kind};
use stock_domain::order::{OfflineSale, Order, OrderReversed, OrderStatus};
use stock_domain::points::{self, PointTransaction};
use stock_domain::product::ProductOpened;
use stock_domain::reservation::{Reservation, ReservationStatus};
use stock_domain::stock::StockImported;

use super::offline_sales::{self, OfflineState};
use super::order_changes::{self, StoredChange};
use super::payments::{self, StoredPayment};
use super::{
    branches, buyers, checkouts, coupon_issues, coupons, imports, journal, orders,
    point_transactions, products, reservations,
};

/// Why an entry's own tables cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// MySQL did not answer, or refused the data.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// The body does not fit the kind of the entry.
    #[error("the body cannot be read: {0}")]
    Body(#[from] serde_json::Error),
}

impl RecordError {
    /// Whether the entry is at fault, so that trying again cannot help.
    #[must_use]
    pub fn is_poison(&self) -> bool {
        match self {
            Self::Database(error) => super::is_data_error(error),
            Self::Body(_) => true,
        }
    }
}

/// The reverse of recording: removes the rows of entries that never take effect, and undoes what
/// they changed in other rows. Entries without rows are skipped.
///
/// # Errors
/// [`RecordError`]; the caller rolls back.
pub async fn erase(connection: &mut MySqlConnection, entries: &[Entry]) -> Result<(), RecordError> {
    let mut standing = Vec::new();
    // The last entry comes first: when it is gone, the effect of an earlier one holds again.
    for entry in entries.iter().rev() {
        match entry.kind {
            Kind::OrderPlaced => {
                let order = entry.body::<Order>()?;
                orders::delete(connection, entry.position).await?;
                offline_sales::delete(connection, entry.position).await?;
                if let Some(reservation) = order.reservation_id {
                    reservations::forget_order(connection, entry.position, reservation).await?;
                }
                if order.coupon.is_some() {
                    coupon_issues::set_free(connection, &[entry.position]).await?;
                }
            }
            Kind::OrderReduced => order_changes::delete(connection, entry.position).await?,
            // The order that the entry took back stands again.
            Kind::OrderCancelled | Kind::OrderFailed => {
                let order = entry.body::<OrderReversed>()?.order_id;
                order_changes::delete(connection, entry.position).await?;
                if sets_code_state(entry) {
                    coupon_issues::set_used(connection, &[order]).await?;
                }
                standing.push(order);
            }
            // Entries of these kinds have no other rows before they are settled. Besides orders,
            // only movements of points and reservations that an order took are recorded unsettled.
            Kind::PointsEarned
            | Kind::PointsUsed
            | Kind::PointsCancelled
            | Kind::SaleOversold
            | Kind::ReservationMade
            | Kind::ReservationConfirmed
            | Kind::ReservationCancelled
            | Kind::ReservationExpired
            | Kind::CheckoutOpened
            | Kind::CheckoutExtended
            | Kind::CheckoutCancelled
            | Kind::CheckoutExpired
            | Kind::PaymentUnused
            | Kind::ProductOpened
            | Kind::ProductSwitched
            | Kind::StockReceived
            | Kind::StockAdjusted
            | Kind::StockImported
            | Kind::StockMoved
            | Kind::CouponOpened
            | Kind::CouponIssued
            | Kind::BuyerSeen
            | Kind::SellingSwitched
            | Kind::BranchHeld
            | Kind::BranchConfirmed
            | Kind::BranchReleased
            | Kind::CrossShardAborted
            | Kind::EpochBegun => {}
        }
        if !entry.branches.is_empty() {
            branches::forget_entry(connection, entry.position).await?;
        }
        point_transactions::delete(connection, entry.position).await?;
        journal::delete(connection, entry.position).await?;
    }
    orders::set_status(connection, &standing, OrderStatus::Success).await?;
    Ok(())
}

/// Records what holds even for a dead letter, whatever becomes of its order: the reservation is
/// over, the checkout is paid, the coupon is used, and points have moved.
///
/// # Errors
/// When MySQL does not answer, or refuses the data.
pub async fn record_taken(
    connection: &mut MySqlConnection,
    entry: &Entry,
) -> Result<(), sqlx::Error> {
    let moved = points::transactions(entry).unwrap_or_default();
    point_transactions::insert(connection, &moved).await?;
    branches::set_entry(connection, &owned(entry)).await?;
    if entry.kind != Kind::OrderPlaced {
        return Ok(());
    }
    let Ok(order) = entry.body::<Order>() else {
        return Ok(());
    };
    let taken = order.reservation_id.map(|id| (id, entry.position));
    let taken: Vec<_> = taken.into_iter().collect();
    reservations::set_ordered(connection, &taken).await?;
    if let Some((bought, payment)) = paid(entry.position, &order) {
        checkouts::set_ordered(connection, &[bought]).await?;
        payments::insert(connection, &[payment]).await?;
    }
    match order.coupon.as_ref().filter(|_| sets_code_state(entry)) {
        None => Ok(()),
        Some(used) => {
            let (coupon, code) = (used.coupon_id, used.code.as_str());
            coupon_issues::set_used_by(connection, coupon, code, entry.position).await
        }
    }
}

/// The rows that a group of entries writes, by table.
#[derive(Default)]
pub struct Rows {
    /// Orders that were placed, each with its entry.
    pub placed: Vec<(Position, Order)>,
    /// Orders that were cancelled.
    pub cancelled: Vec<Position>,
    /// Parts of orders that were taken back.
    pub changes: Vec<StoredChange>,
    /// Orders that failed.
    pub failed: Vec<Position>,
    /// Offline sales: entry, store, sale and state.
    pub offline: Vec<(Position, u64, OfflineSale, OfflineState)>,
    /// Reservations that were made, each with its entry.
    pub reserved: Vec<(Position, Reservation)>,
    /// Reservations that an order took, each with that order.
    pub ordered: Vec<(Position, Position)>,
    /// Checkouts that were opened, each with its entry.
    pub checkouts: Vec<(Position, Checkout)>,
    /// Checkouts whose deadline was moved.
    pub extended: Vec<CheckoutExtended>,
    /// Checkouts that became orders: checkout, order, and whether it was paid late.
    pub bought: Vec<(Position, Position, bool)>,
    /// Checkouts that ended without an order, each with its status.
    pub given_back: Vec<(Position, CheckoutStatus)>,
    /// Payments, each with what became of it.
    pub payments: Vec<StoredPayment>,
    /// Reservations that were confirmed.
    pub confirmed: Vec<Position>,
    /// Reservations that were cancelled.
    pub returned: Vec<Position>,
    /// Reservations that expired.
    pub expired: Vec<Position>,
    /// Codes that were issued, each with its entry.
    pub issued: Vec<(Position, CouponIssued)>,
    /// Orders that used codes.
    pub used: Vec<Position>,
    /// Orders whose codes are free again.
    pub freed: Vec<Position>,
    /// Buyers who were seen, each with its entry.
    pub buyers: Vec<(Position, BuyerSeen)>,
    /// Movements of points.
    pub points: Vec<PointTransaction>,
    /// Products that were opened.
    pub opened: Vec<ProductId>,
    /// Coupons that were opened.
    pub coupons: Vec<CouponId>,
    /// Imports: the import, and the first and the last of the lines that were written.
    pub imported: Vec<(u64, u64, u64)>,
    /// Branches that are held, each with the cross-shard id of its entry.
    pub held: Vec<(Position, String)>,
    /// Branches of entries: branch, cross-shard id, entry.
    pub owned: Vec<(Position, String, Position)>,
    /// Branches that have ended.
    pub ended: Vec<branches::Ended>,
    /// Codes that a branch used, each with its order.
    pub codes: Vec<((CouponId, String), Position)>,
    /// Branches, each with the order that it was confirmed for.
    pub placed_by: Vec<(Position, Position)>,
}

impl Rows {
    /// Adds the rows that an entry writes.
    ///
    /// # Errors
    /// When the body does not fit the kind of the entry.
    pub fn add(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        let ended = || {
            let ended = entry.body::<HoldEnded>()?;
            Ok::<_, serde_json::Error>(ended.hold_id)
        };
        self.points.extend(points::transactions(entry)?);
        self.owned.extend(owned(entry));
        match entry.kind {
            Kind::OrderPlaced => self.add_order(entry)?,
            Kind::OrderCancelled | Kind::OrderReduced | Kind::OrderFailed => {
                self.add_reversal(entry)?;
            }
            Kind::SaleOversold => {
                let order = entry.body::<Order>()?;
                self.offline
                    .extend(offline(entry, &order, OfflineState::Oversold));
            }
            Kind::ReservationMade => self.reserved.push((entry.position, entry.body()?)),
            Kind::ReservationConfirmed => self.confirmed.push(ended()?),
            Kind::ReservationCancelled => self.returned.push(ended()?),
            Kind::ReservationExpired => self.expired.push(ended()?),
            Kind::CheckoutOpened => self.checkouts.push((entry.position, entry.body()?)),
            Kind::CheckoutExtended => self.extended.push(entry.body()?),
            Kind::CheckoutCancelled => {
                self.given_back.push((ended()?, CheckoutStatus::Cancelled));
            }
            Kind::CheckoutExpired => self.given_back.push((ended()?, CheckoutStatus::Expired)),
            Kind::PaymentUnused => self.add_unused(entry)?,
            Kind::StockImported => {
                let StockImported { import_id, lines } = entry.body()?;
                self.imported.push((import_id, lines.0, lines.1));
            }
            Kind::ProductOpened => self.opened.push(entry.body::<ProductOpened>()?.product_id),
            Kind::CouponOpened => {
                let opened = entry.body::<CouponOpened>()?;
                self.coupons.push(opened.coupon_id);
                let issued = opened.issued();
                self.issued.extend(issued.map(|of| (entry.position, of)));
            }
            Kind::CouponIssued => self.issued.push((entry.position, entry.body()?)),
            Kind::BuyerSeen => self.buyers.push((entry.position, entry.body()?)),
            Kind::BranchHeld | Kind::BranchConfirmed | Kind::BranchReleased => {
                self.add_branch(entry)?;
            }
            Kind::ProductSwitched
            | Kind::StockReceived
            | Kind::StockAdjusted
            | Kind::StockMoved
            | Kind::PointsEarned
            | Kind::PointsUsed
            | Kind::PointsCancelled
            | Kind::SellingSwitched
            | Kind::CrossShardAborted
            | Kind::EpochBegun => {}
        }
        Ok(())
    }

    fn add_order(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        let order = entry.body::<Order>()?;
        self.used
            .extend(sets_code_state(entry).then_some(entry.position));
        let reservation = order.reservation_id;
        self.ordered
            .extend(reservation.map(|reservation| (reservation, entry.position)));
        self.offline
            .extend(offline(entry, &order, OfflineState::Sold));
        if let Some((bought, payment)) = paid(entry.position, &order) {
            self.bought.push(bought);
            self.payments.push(payment);
        }
        self.placed.push((entry.position, order));
        Ok(())
    }

    fn add_reversal(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        let OrderReversed { order_id, step } = entry.body()?;
        self.freed
            .extend(sets_code_state(entry).then_some(order_id));
        self.changes.extend(step.map(|step| StoredChange {
            id: entry.position,
            order_id,
            step,
        }));
        let (is_failed, is_cancelled) = (
            entry.kind == Kind::OrderFailed,
            entry.kind == Kind::OrderCancelled,
        );
        self.failed.extend(is_failed.then_some(order_id));
        self.cancelled.extend(is_cancelled.then_some(order_id));
        Ok(())
    }

    fn add_unused(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        let unused: PaymentUnused = entry.body()?;
        let is_due = entry
            .transitions
            .iter()
            .any(|transition| transition.id == hold::state_id(unused.checkout_id));
        let due = (unused.checkout_id, CheckoutStatus::RefundDue);
        self.given_back.extend(is_due.then_some(due));
        self.payments.push(StoredPayment {
            id: entry.position,
            payment_id: unused.payment_id,
            checkout_id: unused.checkout_id,
            amount: unused.amount,
            outcome: unused.outcome,
        });
        Ok(())
    }

    fn add_branch(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        if entry.kind == Kind::BranchHeld {
            let cross_shard = entry.body::<Branch>()?.cross_shard;
            self.held.push((entry.position, cross_shard.to_string()));
            return Ok(());
        }
        let ended: BranchEnded = entry.body()?;
        match ended.code() {
            Some(CodeMoved::Used(code, order)) => self.codes.push((code, order)),
            Some(CodeMoved::Freed(order)) => self.freed.push(order),
            None => {}
        }
        self.placed_by.extend(ended.placed());
        self.ended.push(branches::Ended {
            id: ended.branch_id,
            commit: ended.entry_id,
        });
        Ok(())
    }
}

/// The checkout that became an order, and its payment.
fn paid(id: Position, order: &Order) -> Option<((Position, Position, bool), StoredPayment)> {
    let (checkout_id, paid) = order.checkout_id.zip(order.paid.as_ref())?;
    let payment = StoredPayment {
        id,
        payment_id: paid.payment_id.clone(),
        checkout_id,
        amount: order.total_amount,
        outcome: PaymentOutcome::Confirmed,
    };
    Some(((checkout_id, id, paid.is_late), payment))
}

/// The branches of an entry, each with the cross-shard id that they share, and with the entry.
pub fn owned(entry: &Entry) -> Vec<(Position, String, Position)> {
    let mut transitions = entry.transitions.iter();
    let cross_shard =
        transitions.find_map(|transition| transition.id.strip_prefix(CROSS_SHARD_STATE));
    let cross_shard = cross_shard.unwrap_or_default();
    let branches = entry.branches.iter();
    branches
        .map(|branch| (*branch, cross_shard.to_owned(), entry.position))
        .collect()
}

/// Whether an entry changes a code's state on its own shard. It does not if the coupon ended long
/// ago, or if the code lies on another shard: then a branch changes the state.
pub fn sets_code_state(entry: &Entry) -> bool {
    entry
        .transitions
        .iter()
        .any(|transition| transition.id.starts_with(CODE_STATE))
}

fn offline(
    entry: &Entry,
    order: &Order,
    state: OfflineState,
) -> Option<(Position, u64, OfflineSale, OfflineState)> {
    let sale = order.offline.clone()?;
    Some((entry.position, order.store_id?, sale, state))
}

/// Writes the entries' own tables, table by table. A row is inserted before it is ended, and a
/// confirmation is written before the cancel that takes it back.
///
/// # Errors
/// [`RecordError`]; some rows may have been written, so the caller rolls back to its savepoint.
pub async fn record_own(
    connection: &mut MySqlConnection,
    entries: &[&Entry],
) -> Result<(), RecordError> {
    let mut rows = Rows::default();
    for entry in entries {
        rows.add(entry)?;
    }
    orders::insert(connection, &rows.placed).await?;
    orders::set_status(connection, &rows.cancelled, OrderStatus::Cancel).await?;
    orders::set_status(connection, &rows.failed, OrderStatus::Fail).await?;
    order_changes::insert(connection, &rows.changes).await?;
    buyers::insert(connection, &rows.buyers).await?;
    offline_sales::insert(connection, &rows.offline).await?;
    reservations::insert(connection, &rows.reserved).await?;
    reservations::set_ordered(connection, &rows.ordered).await?;
    for (ended, status) in [
        (&rows.confirmed, ReservationStatus::Confirmed),
        (&rows.returned, ReservationStatus::Cancelled),
        (&rows.expired, ReservationStatus::Expired),
    ] {
        reservations::set_status(connection, ended, status).await?;
    }
    checkouts::insert(connection, &rows.checkouts).await?;
    checkouts::set_extended(connection, &rows.extended).await?;
    // A payment that was too late comes after the expiry.
    for status in [
        CheckoutStatus::Cancelled,
        CheckoutStatus::Expired,
        CheckoutStatus::RefundDue,
    ] {
        let ended = rows.given_back.iter().filter(|(_, of)| *of == status);
        let ended: Vec<Position> = ended.map(|(id, _)| *id).collect();
        checkouts::set_status(connection, &ended, status).await?;
    }
    checkouts::set_ordered(connection, &rows.bought).await?;
    payments::insert(connection, &rows.payments).await?;
    coupon_issues::insert(connection, &rows.issued).await?;
    coupon_issues::set_used(connection, &rows.used).await?;
    for ((coupon, code), order) in &rows.codes {
        coupon_issues::set_used_by(connection, *coupon, code, *order).await?;
    }
    coupon_issues::set_free(connection, &rows.freed).await?;
    point_transactions::insert(connection, &rows.points).await?;
    for (branch, order) in &rows.placed_by {
        point_transactions::set_order(connection, *branch, *order).await?;
    }
    products::set_opened(connection, &rows.opened).await?;
    coupons::set_opened(connection, &rows.coupons).await?;
    imports::set_applied(connection, &rows.imported).await?;
    branches::insert(connection, &rows.held).await?;
    branches::set_entry(connection, &rows.owned).await?;
    branches::end(connection, &rows.ended).await?;
    Ok(())
}
