//! Lookup: finds an order, a reservation or a checkout in the journal or in MySQL, and applies its
//! state.
//!
//! An order and a reservation can be read as soon as their 201 is sent. The journal is asked first,
//! by id, then MySQL. Then the state in Redis is applied, because it may be newer than the entry: a
//! cancel, or an end. While MySQL is away, entries that the journal still has
//! are shown from there. While Redis is away, a stored order is shown from MySQL.

mod holds;

use std::time::Duration;

use sqlx::MySqlPool;
use stock_common::id::{Position, SaleId};
use stock_domain::account::Book;
use stock_domain::coupon::{self, CodeState};
use stock_domain::journal::{Entry, EntryError, Kind};
use stock_domain::order::{self, Order, OrderStatus, Reversed, Units};
use stock_domain::sale::Allowance;
use stock_mysql::order_changes::{self, StoredChange};
use stock_mysql::{dead_letters, journal, orders, sales, shards};
use stock_redis::{Ledger, ReadError, epoch};

pub use self::holds::{
    LocatedCheckout, LocatedReservation, checkout, own_hold, payment, reservation,
};

/// Pause before MySQL is asked again how far it is: the first one, and the longest one.
const CATCH_UP_EVERY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// An order and its status.
#[derive(Debug, Clone)]
pub struct Located {
    /// The order's id.
    pub id: Position,
    /// The order.
    pub order: Order,
    /// Its status, with the state in Redis applied.
    pub status: OrderStatus,
    /// The order's own entry, when MySQL does not have the order.
    pub entry: Option<Entry>,
    /// Whether the state of its coupon's code still names this coupon and user.
    pub has_code: bool,
    /// The units that are left, if a part was taken back.
    pub left: Option<Units>,
    /// Whether its state in Redis says so; the state may be forgotten by now.
    pub has_state: bool,
    /// The steps in which parts of it were taken back, as far as MySQL has them.
    pub changes: Vec<StoredChange>,
}

impl Located {
    /// The data that is needed to take the order back. `forgotten` comes from [`forgotten_sales`].
    #[must_use]
    pub const fn reversed<'a>(&'a self, forgotten: &'a [SaleId]) -> Reversed<'a> {
        Reversed {
            id: self.id,
            order: &self.order,
            has_code: self.has_code,
            forgotten,
            left: self.left.as_ref(),
            has_state: self.has_state,
        }
    }
}

/// Whether the state of an order's coupon code still names this coupon and user.
///
/// # Errors
/// When Redis does not answer.
pub async fn has_code(ledger: &Ledger, order: &Order) -> Result<bool, ReadError> {
    match &order.coupon {
        None => Ok(false),
        Some(used) => {
            let state = ledger.state(&coupon::code_state_id(&used.code)).await?;
            let state = state.as_deref().and_then(CodeState::parse);
            // After its state is forgotten, the same code may be issued again to somebody else.
            Ok(state.is_some_and(|of| of.is_of(used.coupon_id, order.user_id)))
        }
    }
}

/// The sales among an order's lines whose limits are forgotten. If Redis has a sale's book, the
/// sale is kept. If Redis lacks the book, it may be lost, so MySQL is asked.
///
/// # Errors
/// When Redis does not answer, or MySQL where it is asked.
pub async fn forgotten_sales(
    pool: &MySqlPool,
    ledger: &Ledger,
    order: &Order,
) -> Result<Vec<SaleId>, LookupError> {
    let mut forgotten = Vec::new();
    for line in &order.lines {
        let Some(Allowance { sale_id, .. }) = line.allowance else {
            continue;
        };
        let book = Book::Allowances(sale_id);
        if !ledger.has_book(book, line.product_id).await? && !sales::is_kept(pool, sale_id).await? {
            forgotten.push(sale_id);
        }
    }
    Ok(forgotten)
}

/// Why an order cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Redis' journal does not have it, and MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// MySQL does not have it, and Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The entry is there and cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry is there and its body cannot be read.
    #[error("what entry {0} says cannot be read: {1}")]
    Body(Position, serde_json::Error),
}

/// Finds an order; `None` when there is none with this id.
///
/// # Errors
/// [`LookupError`] when the order may exist and cannot be read now.
pub async fn find(
    pool: &MySqlPool,
    ledger: &Ledger,
    id: Position,
) -> Result<Option<Located>, LookupError> {
    let in_journal = ledger.find(id).await;
    let stored = orders::find(pool, id).await;
    let state = ledger.state(&order::state_id(id)).await.ok().flatten();
    let in_state = state.as_deref().and_then(Units::of_state);
    if let Ok(Some(stored)) = stored {
        let status = stored.status.with_state(state.as_deref());
        let has_code = has_code(ledger, &stored.order).await.unwrap_or(true);
        let changes = order_changes::of_orders(pool, &[id]).await?;
        let changes = changes.into_values().next().unwrap_or_default();
        return Ok(Some(Located {
            has_code,
            id,
            order: stored.order,
            status,
            entry: None,
            has_state: in_state.is_some(),
            left: in_state.or_else(|| order_changes::left(&changes)),
            changes,
        }));
    }
    let (entry, unread) = match in_journal {
        Ok(Some(entry)) => (Some(entry), None),
        // The entry was settled and trimmed between the two reads, or it is a dead letter: MySQL's
        // journal has it.
        other @ (Ok(None) | Err(_)) => {
            let mut connection = pool.acquire().await?;
            let found = journal::find(&mut connection, id).await?.transpose()?;
            (found, other.err())
        }
    };
    match (entry, stored) {
        (Some(entry), stored) if entry.kind == Kind::OrderPlaced => {
            let order: Order = entry.body().map_err(|error| LookupError::Body(id, error))?;
            let has_code = has_code(ledger, &order).await.unwrap_or(true);
            let dead = match stored {
                Ok(_) => dead_letters::state(pool, id).await?,
                Err(_) => None,
            };
            let status = match dead.as_deref() {
                Some("COMPENSATED") => OrderStatus::Fail,
                Some("CANCELLED") => OrderStatus::Cancel,
                _ => OrderStatus::OrderPending.with_state(state.as_deref()),
            };
            Ok(Some(Located {
                id,
                order,
                status,
                entry: Some(entry),
                has_code,
                has_state: in_state.is_some(),
                left: in_state,
                changes: Vec::new(),
            }))
        }
        (Some(_), _) => Ok(None),
        // MySQL does not have it. Only the journal in Redis could still have it.
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
/// [`LookupError`] when the entry may exist and cannot be read now.
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

/// Waits until MySQL has settled what Redis has accepted by now, at most for `limit`. A reader of
/// MySQL then sees what it was told before. Returns whether MySQL has settled it.
pub async fn catch_up(pool: &MySqlPool, ledger: &Ledger, limit: Duration) -> bool {
    let caught_up = async {
        // All heads are read first: entries that are accepted while one shard is awaited need not
        // be awaited.
        let mut heads = Vec::new();
        for shard in ledger.shards() {
            let mut link = shard.live_link().await.ok()?;
            let head = epoch::head(&mut link.read, shard.keys()).await.ok()??;
            heads.push((shard.keys().shard(), head.number));
        }
        for (shard, number) in heads {
            let (mut pause, longest) = CATCH_UP_EVERY;
            while shards::load(pool, shard).await.ok()??.number < number {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
        Some(())
    };
    matches!(tokio::time::timeout(limit, caught_up).await, Ok(Some(())))
}
