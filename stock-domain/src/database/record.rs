//! Record: what belongs to an entry, its journal row, its postings and its own tables.
//!
//! Idempotent by position: the callers leave out entries that are there already. Which tables are an
//! entry's own stands in the table of [`crate::journal`].

use sqlx::MySqlConnection;
use stock_common::id::{Position, ProductId};

use super::offline_sales::{self, OfflineState};
use super::{imports, journal, orders, products, reservations};
use crate::journal::{Entry, Kind};
use crate::order::{OfflineSale, Order, OrderReversed, OrderStatus};
use crate::product::ProductOpened;
use crate::reservation::{Reservation, ReservationEnded, ReservationStatus};
use crate::stock::StockImported;

/// Why an entry's own tables cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// MySQL did not answer, or refused the data.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// The body does not fit its kind.
    #[error("the body cannot be read: {0}")]
    Body(#[from] serde_json::Error),
}

impl RecordError {
    /// Whether it is the entry's fault, so that trying again cannot help.
    #[must_use]
    pub fn is_poison(&self) -> bool {
        match self {
            Self::Database(error) => super::is_data_error(error),
            Self::Body(_) => true,
        }
    }
}

/// Writes journal rows and postings.
///
/// # Errors
/// When MySQL does not answer, or an entry is there already.
pub async fn record_journal(
    connection: &mut MySqlConnection,
    entries: &[&Entry],
) -> Result<(), sqlx::Error> {
    journal::insert(connection, entries).await
}

/// The reverse of recording: removes the rows of entries that never take effect, and takes back what
/// they said about others. Entries without rows are passed over.
///
/// # Errors
/// [`RecordError`]; the caller rolls back.
pub async fn erase(connection: &mut MySqlConnection, entries: &[Entry]) -> Result<(), RecordError> {
    let mut standing = Vec::new();
    for entry in entries {
        match entry.kind {
            Kind::OrderPlaced => {
                let order = entry.body::<Order>()?;
                orders::delete(connection, entry.position).await?;
                offline_sales::delete(connection, entry.position).await?;
                if let Some(reservation) = order.reservation_id {
                    reservations::forget_order(connection, entry.position, reservation).await?;
                }
            }
            // The order that it took back stands again.
            Kind::OrderCancelled | Kind::OrderFailed => {
                standing.push(entry.body::<OrderReversed>()?.order_id);
            }
            // Only orders, their cancels and the reservations they took are ever recorded unsettled, and those stay.
            Kind::SaleOversold
            | Kind::ReservationMade
            | Kind::ReservationConfirmed
            | Kind::ReservationCancelled
            | Kind::ReservationExpired
            | Kind::ProductOpened
            | Kind::ProductSwitched
            | Kind::StockReceived
            | Kind::StockAdjusted
            | Kind::StockImported
            | Kind::SellingSwitched
            | Kind::EpochBegun => {}
        }
        journal::delete(connection, entry.position).await?;
    }
    orders::set_status(connection, &standing, OrderStatus::Success).await?;
    Ok(())
}

/// What even a dead letter says about others: the reservation that an order took is over, whatever becomes of the
/// order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn record_taken(
    connection: &mut MySqlConnection,
    entry: &Entry,
) -> Result<(), sqlx::Error> {
    let order = match entry.kind == Kind::OrderPlaced {
        true => entry.body::<Order>().ok(),
        false => None,
    };
    let taken = order.and_then(|order| order.reservation_id);
    let taken: Vec<_> = taken.into_iter().map(|id| (id, entry.position)).collect();
    reservations::set_ordered(connection, &taken).await
}

/// What a group of entries writes, by table.
#[derive(Default)]
struct Rows {
    placed: Vec<(Position, Order)>,
    cancelled: Vec<Position>,
    failed: Vec<Position>,
    offline: Vec<(Position, u64, OfflineSale, OfflineState)>,
    reserved: Vec<(Position, Reservation)>,
    ordered: Vec<(Position, Position)>,
    confirmed: Vec<Position>,
    returned: Vec<Position>,
    expired: Vec<Position>,
    opened: Vec<ProductId>,
    imported: Vec<(u64, u64, u64)>,
}

impl Rows {
    fn add(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        let ended = || {
            let ended = entry.body::<ReservationEnded>()?;
            Ok::<_, serde_json::Error>(ended.reservation_id)
        };
        match entry.kind {
            Kind::OrderPlaced => {
                let order = entry.body::<Order>()?;
                let reservation = order.reservation_id;
                self.ordered
                    .extend(reservation.map(|reservation| (reservation, entry.position)));
                self.offline
                    .extend(offline(entry, &order, OfflineState::Sold));
                self.placed.push((entry.position, order));
            }
            Kind::OrderCancelled => self.cancelled.push(entry.body::<OrderReversed>()?.order_id),
            Kind::OrderFailed => self.failed.push(entry.body::<OrderReversed>()?.order_id),
            Kind::SaleOversold => {
                let order = entry.body::<Order>()?;
                self.offline
                    .extend(offline(entry, &order, OfflineState::Oversold));
            }
            Kind::ReservationMade => self.reserved.push((entry.position, entry.body()?)),
            Kind::ReservationConfirmed => self.confirmed.push(ended()?),
            Kind::ReservationCancelled => self.returned.push(ended()?),
            Kind::ReservationExpired => self.expired.push(ended()?),
            Kind::StockImported => {
                let StockImported { import_id, lines } = entry.body()?;
                self.imported.push((import_id, lines.0, lines.1));
            }
            Kind::ProductOpened => self.opened.push(entry.body::<ProductOpened>()?.product_id),
            Kind::ProductSwitched
            | Kind::StockReceived
            | Kind::StockAdjusted
            | Kind::SellingSwitched
            | Kind::EpochBegun => {}
        }
        Ok(())
    }
}

fn offline(
    entry: &Entry,
    order: &Order,
    state: OfflineState,
) -> Option<(Position, u64, OfflineSale, OfflineState)> {
    let sale = order.offline.clone()?;
    Some((entry.position, order.store_id?, sale, state))
}

/// Writes the entries' own tables, grouped by table: what begins first, then what ends it, a sale's
/// confirmation before what takes it back.
///
/// # Errors
/// [`RecordError`]; some rows may have been written, the caller rolls back to its savepoint.
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
    products::set_opened(connection, &rows.opened).await?;
    imports::set_applied(connection, &rows.imported).await?;
    Ok(())
}
