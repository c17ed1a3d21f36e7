//! Lookup: an order or a reservation wherever it is at the moment, in the journal, in MySQL, with its state
//! laid over.
//!
//! Either can be read the moment its 201 is out: first from the journal by its id, then from MySQL, then the
//! state decides what is newer. With MySQL away what the journal still has is shown from there; with Redis
//! away a stored order is shown from MySQL.

use std::time::Duration;

use sqlx::MySqlPool;
use stock_common::id::{Position, SaleId};
use stock_domain::account::Book;
use stock_domain::coupon::{self, CodeState};
use stock_domain::journal::{Entry, EntryError, Kind};
use stock_domain::order::{self, Order, OrderStatus, Reversed};
use stock_domain::reservation::{self, Reservation, ReservationStatus};
use stock_domain::sale::Allowance;
use stock_mysql::{dead_letters, journal, orders, reservations, sales, shards};
use stock_redis::{Ledger, ReadError, epoch};

/// How soon MySQL is asked again how far it is, at first and at most.
const CATCH_UP_EVERY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// An order and where it stands.
#[derive(Debug, Clone)]
pub struct Located {
    /// The order's id.
    pub id: Position,
    /// The order.
    pub order: Order,
    /// Where it stands, the state included.
    pub status: OrderStatus,
    /// Its own entry, when MySQL does not have the order.
    pub entry: Option<Entry>,
    /// Whether the code of its coupon still has its state.
    pub has_code: bool,
}

impl Located {
    /// The data that is needed to take the order back, [`forgotten_sales`] among it.
    #[must_use]
    pub const fn reversed<'a>(&'a self, forgotten: &'a [SaleId]) -> Reversed<'a> {
        Reversed {
            id: self.id,
            order: &self.order,
            has_code: self.has_code,
            forgotten,
        }
    }
}

/// Whether the code of an order's coupon still has its state.
///
/// # Errors
/// When Redis does not answer.
pub async fn has_code(ledger: &Ledger, order: &Order) -> Result<bool, ReadError> {
    match &order.coupon {
        None => Ok(false),
        Some(used) => {
            let state = ledger.state(&coupon::code_state_id(&used.code)).await?;
            let state = state.as_deref().and_then(CodeState::parse);
            // Once it was forgotten the code may come again, as another's.
            Ok(state.is_some_and(|of| of.is_of(used.coupon_id, order.user_id)))
        }
    }
}

/// The sales among an order's lines whose limits are forgotten. A book that Redis has is kept, and one that
/// it lacks may be lost: then MySQL knows.
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
    #[error("what entry {0} says cannot be read: {1}")]
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
    let state = ledger.state(&order::state_id(id)).await.ok().flatten();
    if let Ok(Some(stored)) = stored {
        let status = stored.status.with_state(state.as_deref());
        let has_code = has_code(ledger, &stored.order).await.unwrap_or(true);
        return Ok(Some(Located {
            has_code,
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

/// A reservation and where it stands.
#[derive(Debug, Clone)]
pub struct LocatedReservation {
    /// Its id.
    pub id: Position,
    /// The reservation itself.
    pub reservation: Reservation,
    /// Where it stands, its state and Redis' clock included.
    pub status: ReservationStatus,
    /// The order that took it, if MySQL has that.
    pub order_id: Option<Position>,
    /// The state of its state; none while it is live, and once it was forgotten.
    pub state: Option<String>,
    /// Its own entry, as far as the journal still has it: MySQL may not.
    pub entry: Option<Entry>,
}

/// Finds a reservation; `None` when there is none with this id. While it is live, MySQL is not asked.
///
/// # Errors
/// [`LookupError`] when it may exist and cannot be read now.
pub async fn reservation(
    pool: &MySqlPool,
    ledger: &Ledger,
    id: Position,
) -> Result<Option<LocatedReservation>, LookupError> {
    let in_journal = ledger.find(id).await;
    let state = ledger.state(&reservation::state_id(id)).await?;
    let ended = state.as_deref().and_then(ReservationStatus::of_state);
    let now_ms = ledger.redis_now_ms();
    let (made, unread) = match in_journal {
        Ok(Some(entry)) if entry.kind == Kind::ReservationMade => {
            let made: Result<Reservation, _> = entry.body();
            let made = made.map_err(|error| LookupError::Body(id, error))?;
            (Some((made, entry)), None)
        }
        Ok(Some(_)) => return Ok(None),
        Ok(None) => (None, None),
        Err(error) => (None, Some(error)),
    };
    if let Some((reservation, entry)) = &made
        && ended.is_none()
        && now_ms < reservation.expires_ms(id)
    {
        // Transitions are kept for longer than any reservation lives.
        return Ok(Some(LocatedReservation {
            id,
            reservation: reservation.clone(),
            status: ReservationStatus::Pending,
            order_id: None,
            state,
            entry: Some(entry.clone()),
        }));
    }
    let stored = reservations::find(pool, id).await;
    let (reservation, status, order_id) = match (made, stored) {
        (_, Ok(Some(stored))) => (stored.reservation, stored.status, stored.order_id),
        (Some((made, _)), Ok(None) | Err(_)) => (made, ReservationStatus::Pending, None),
        // MySQL says that there is none; only the journal could have known better.
        (None, Ok(None)) => return unread.map_or(Ok(None), |error| Err(error.into())),
        (None, Err(error)) => return Err(error.into()),
    };
    let is_over = status == ReservationStatus::Pending && now_ms >= reservation.expires_ms(id);
    let status = match ended {
        Some(ended) => ended,
        None if is_over => ReservationStatus::Expired,
        None => status,
    };
    Ok(Some(LocatedReservation {
        id,
        reservation,
        status,
        order_id,
        state,
        entry: None,
    }))
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

/// Waits until MySQL has settled what Redis has accepted by now, at most for `limit`: who reads MySQL then
/// sees what they were told before. Returns whether it has.
pub async fn catch_up(pool: &MySqlPool, ledger: &Ledger, limit: Duration) -> bool {
    let caught_up = async {
        // All heads first: what is accepted while one shard is waited for need not be waited for.
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
