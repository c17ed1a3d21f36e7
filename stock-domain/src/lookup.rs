//! Lookup: an order wherever it is at the moment, in the journal, in MySQL, with its mark laid over.
//!
//! An order can be read the moment its 201 is out: first from the journal by its id, then from MySQL,
//! then the mark decides what is newer. With MySQL away an order that the journal still has is shown
//! from there; with Redis away a stored one is shown from MySQL.

use sqlx::MySqlPool;
use stock_common::id::Position;

use crate::database::{dead_letters, journal, orders};
use crate::journal::{Entry, EntryError, Kind};
use crate::ledger::{Ledger, ReadError};
use crate::order::{self, Order, OrderStatus};

/// An order and where it stands.
#[derive(Debug, Clone)]
pub struct Located {
    /// The order's id.
    pub id: Position,
    /// The order.
    pub order: Order,
    /// Where it stands, the mark included.
    pub status: OrderStatus,
    /// Its own entry, when MySQL does not have the order.
    pub entry: Option<Entry>,
}

/// Why an order cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Neither side has it, and one of them did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Neither side has it, and Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is there and cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// It is there and its body cannot be read.
    #[error("the order in entry {0} cannot be read: {1}")]
    Body(Position, serde_json::Error),
}

/// Finds an order; `None` when there is none with this id.
///
/// # Errors
/// [`LookupError`] when it may exist and cannot be read now.
pub async fn find(
    pool: &MySqlPool,
    ledger: &Ledger,
    id: Position,
) -> Result<Option<Located>, LookupError> {
    let in_journal = ledger.find(id).await;
    let stored = orders::find(pool, id).await;
    let mark = ledger.mark(&order::mark_id(id)).await.ok().flatten();
    if let Ok(Some(stored)) = stored {
        let status = stored.status.with_mark(mark.as_deref());
        return Ok(Some(Located {
            id,
            order: stored.order,
            status,
            entry: None,
        }));
    }
    let (entry, unread) = match in_journal {
        Ok(Some(entry)) => (Some(entry), None),
        // Settled and trimmed between the two reads, or a dead letter: the journal in MySQL has it.
        other @ (Ok(None) | Err(_)) => {
            let mut connection = pool.acquire().await?;
            let found = journal::find(&mut connection, id).await?.transpose()?;
            (found, other.err())
        }
    };
    match (entry, stored) {
        (Some(entry), stored) if entry.kind == Kind::OrderPlaced => {
            let order = entry.body().map_err(|error| LookupError::Body(id, error))?;
            let dead = match stored {
                Ok(_) => dead_letters::state(pool, id).await?,
                Err(_) => None,
            };
            let status = match dead.as_deref() {
                Some("COMPENSATED") => OrderStatus::Fail,
                Some("CANCELLED") => OrderStatus::Cancel,
                _ => OrderStatus::OrderPending.with_mark(mark.as_deref()),
            };
            Ok(Some(Located {
                id,
                order,
                status,
                entry: Some(entry),
            }))
        }
        (Some(_), _) => Ok(None),
        // MySQL says that there is none; only the journal could have known better.
        (None, Ok(_)) => match unread {
            None => Ok(None),
            Some(error) => Err(error.into()),
        },
        (None, Err(error)) => Err(error.into()),
    }
}

/// Finds the entry at a position, in the journal or in MySQL.
///
/// # Errors
/// [`LookupError`] when it may exist and cannot be read now.
pub async fn entry(
    pool: &MySqlPool,
    ledger: &Ledger,
    position: Position,
) -> Result<Option<Entry>, LookupError> {
    if let Ok(Some(entry)) = ledger.find(position).await {
        return Ok(Some(entry));
    }
    let mut connection = pool.acquire().await?;
    Ok(journal::find(&mut connection, position)
        .await?
        .transpose()?)
}
