//! Record: what belongs to an entry, its journal row, its postings and its own tables.
//!
//! Idempotent by position: the callers leave out entries that are there already. Which tables are an
//! entry's own stands in the table of [`crate::journal`].

use sqlx::MySqlConnection;

use super::{journal, orders, products};
use crate::journal::{Entry, Kind};
use crate::order::{Order, OrderReversed, OrderStatus};
use crate::product::ProductOpened;

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
            Kind::OrderPlaced => orders::delete(connection, entry.position).await?,
            // The order that it took back stands again.
            Kind::OrderCancelled | Kind::OrderFailed => {
                standing.push(entry.body::<OrderReversed>()?.order_id);
            }
            // Only orders and cancels are ever recorded without being settled.
            Kind::ProductOpened
            | Kind::ProductSwitched
            | Kind::StockReceived
            | Kind::StockAdjusted
            | Kind::SellingSwitched
            | Kind::EpochBegun => {}
        }
        journal::delete(connection, entry.position).await?;
    }
    orders::set_status(connection, &standing, OrderStatus::Success).await?;
    Ok(())
}

/// Writes the entries' own tables, grouped by table.
///
/// # Errors
/// [`RecordError`]; some rows may have been written, the caller rolls back to its savepoint.
pub async fn record_own(
    connection: &mut MySqlConnection,
    entries: &[&Entry],
) -> Result<(), RecordError> {
    let mut placed = Vec::with_capacity(entries.len());
    let mut cancelled = Vec::new();
    let mut failed = Vec::new();
    let mut opened = Vec::new();
    for entry in entries {
        match entry.kind {
            Kind::OrderPlaced => placed.push((entry.position, entry.body::<Order>()?)),
            Kind::OrderCancelled => cancelled.push(entry.body::<OrderReversed>()?.order_id),
            Kind::OrderFailed => failed.push(entry.body::<OrderReversed>()?.order_id),
            Kind::ProductOpened => opened.push(entry.body::<ProductOpened>()?.product_id),
            Kind::ProductSwitched
            | Kind::StockReceived
            | Kind::StockAdjusted
            | Kind::SellingSwitched
            | Kind::EpochBegun => {}
        }
    }
    orders::insert(connection, &placed).await?;
    orders::set_status(connection, &cancelled, OrderStatus::Cancel).await?;
    orders::set_status(connection, &failed, OrderStatus::Fail).await?;
    products::set_opened(connection, &opened).await?;
    Ok(())
}
