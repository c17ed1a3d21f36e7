//! Lookup: finds an order, a reservation or a checkout in the journal or in MySQL, and applies its
//! state.
//!
//! An order and a reservation can be read as soon as their 201 is sent. The journal is asked first,
//! by id, then MySQL. Then the state in Redis is applied, because it may be newer than the entry: a
//! cancel, or an end. While MySQL is away, entries that the journal still has
//! are shown from there. While Redis is away, a stored order is shown from MySQL.

use std::time::Duration;

use sqlx::MySqlPool;
use stock_common::id::{LocationId, Position, SaleId};
use stock_domain::account::Book;
use stock_domain::checkout::{
    self, Changed, Checkout, CheckoutStatus, Course, Extended, PaymentOutcome,
};
use stock_domain::coupon::{self, CodeState};
use stock_domain::hold;
use stock_domain::journal::{Entry, EntryError, Kind};
use stock_domain::order::{self, Order, OrderStatus, Reversed, Units};
use stock_domain::pricing::AskedOrder;
use stock_domain::reservation::{Reservation, ReservationStatus};
use stock_domain::sale::Allowance;
use stock_mysql::checkouts::StoredCheckout;
use stock_mysql::order_changes::{self, StoredChange};
use stock_mysql::reservations::ReservationFilter;
use stock_mysql::{
    checkouts, dead_letters, journal, orders, payments, reservations, sales, shards,
};
use stock_redis::{Ledger, ReadError, epoch, units};

/// Pause before MySQL is asked again how far it is: the first one, and the longest one.
const CATCH_UP_EVERY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Live reservations of one user and product that are looked at.
const OWN_MAX: u32 = 100;

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

/// A reservation and its status.
#[derive(Debug, Clone)]
pub struct LocatedReservation {
    /// Its id.
    pub id: Position,
    /// The reservation itself.
    pub reservation: Reservation,
    /// Its status, with its state and Redis' clock applied.
    pub status: ReservationStatus,
    /// The order that took it, if MySQL knows it.
    pub order_id: Option<Position>,
    /// Its state in Redis; `None` while it is live, and after the state was forgotten.
    pub state: Option<String>,
    /// Its own entry while it is live and in Redis' journal; MySQL may not have it yet.
    pub entry: Option<Entry>,
}

/// Finds a reservation; `None` when there is none with this id. While it is live, MySQL is not
/// asked.
///
/// # Errors
/// [`LookupError`] when the reservation may exist and cannot be read now.
pub async fn reservation(
    pool: &MySqlPool,
    ledger: &Ledger,
    id: Position,
) -> Result<Option<LocatedReservation>, LookupError> {
    let in_journal = ledger.find(id).await;
    let state = ledger.state(&hold::state_id(id)).await?;
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
        // A missing state means live: states are kept for longer than any reservation lives.
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
        // MySQL does not have it. Only the journal in Redis could still have it.
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

/// A live reservation of a user that holds exactly a line of an order at its location, the one that
/// expires first. MySQL is asked only if Redis says that the user holds units of a product.
///
/// # Errors
/// [`LookupError`] when Redis does not answer, or MySQL where it is asked.
pub async fn own_hold(
    pool: &MySqlPool,
    ledger: &Ledger,
    order: &AskedOrder,
    patience: Duration,
) -> Result<Option<Position>, LookupError> {
    let location = LocationId(order.store_id.unwrap_or(0));
    let mut found: Vec<(u64, Position)> = Vec::new();
    let mut has_waited = false;
    for line in &order.lines {
        if !units::is_holding(ledger, order.user_id, line.product_id).await? {
            continue;
        }
        if !has_waited {
            // MySQL lists a reservation only once it is stored.
            catch_up(pool, ledger, patience).await;
            has_waited = true;
        }
        let filter = ReservationFilter {
            user: Some(order.user_id),
            product: Some(line.product_id),
            status: Some(ReservationStatus::Pending),
            before: None,
            limit: OWN_MAX,
        };
        for of in reservations::list(pool, &filter).await? {
            let of_line = of.reservation.location_id == location
                && order.units_of(line.product_id) == u64::from(of.reservation.quantity.get());
            if of_line {
                found.push((of.reservation.expires_ms(of.id), of.id));
            }
        }
    }
    found.sort_unstable();
    for (_, id) in found {
        let now = reservation(pool, ledger, id).await?;
        if now.is_some_and(|now| now.status == ReservationStatus::Pending) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// A checkout and how far it has come.
#[derive(Debug, Clone)]
pub struct LocatedCheckout {
    /// Its id.
    pub id: Position,
    /// The checkout itself.
    pub checkout: Checkout,
    /// How far it has come, with its state and Redis' clock applied.
    pub course: Course,
    /// How far its deadline was moved; none is not at all.
    pub extended: Option<Extended>,
    /// Its state in Redis; `None` while it is live, and after the state was forgotten.
    pub state: Option<String>,
    /// Whether its end is on record. The time of a checkout may be over before it is given back.
    pub has_ended: bool,
}

impl From<StoredCheckout> for LocatedCheckout {
    fn from(of: StoredCheckout) -> Self {
        let is_moved = of.extended.times > 0 || of.extended.by_payment;
        let extended = is_moved.then_some(of.extended);
        Self::live(of.id, of.checkout, of.course, extended)
    }
}

impl LocatedCheckout {
    /// A checkout without a look at Redis.
    #[must_use]
    pub fn live(
        id: Position,
        checkout: Checkout,
        course: Course,
        extended: Option<Extended>,
    ) -> Self {
        Self {
            id,
            checkout,
            course,
            extended,
            state: None,
            has_ended: course.status != CheckoutStatus::Open,
        }
    }

    /// Its deadline, in Unix ms of Redis' clock.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.changed().expires_ms()
    }

    /// The data that a change of it needs.
    #[must_use]
    pub const fn changed(&self) -> Changed<'_> {
        Changed {
            id: self.id,
            checkout: &self.checkout,
            extended: self.extended,
        }
    }
}

/// Finds a checkout; `None` when there is none with this id. While it is live, MySQL is not asked.
///
/// # Errors
/// [`LookupError`] when the checkout may exist and cannot be read now.
pub async fn checkout(
    pool: &MySqlPool,
    ledger: &Ledger,
    id: Position,
) -> Result<Option<LocatedCheckout>, LookupError> {
    let in_journal = ledger.find(id).await;
    let state = ledger.state(&hold::state_id(id)).await?;
    let moved = ledger.state(&checkout::extended_state_id(id)).await?;
    let moved = moved.as_deref().and_then(Extended::parse);
    let ended = state.as_deref().and_then(Course::of_state);
    let now_ms = ledger.redis_now_ms();
    let (opened, unread) = match in_journal {
        Ok(Some(entry)) if entry.kind == Kind::CheckoutOpened => {
            let opened: Result<Checkout, _> = entry.body();
            (
                Some(opened.map_err(|error| LookupError::Body(id, error))?),
                None,
            )
        }
        Ok(Some(_)) => return Ok(None),
        Ok(None) => (None, None),
        Err(error) => (None, Some(error)),
    };
    let located = |checkout: Checkout, course: Course, extended: Option<Extended>| {
        let until_ms = checkout.extended(id, extended).until_ms;
        let is_over = course.status == CheckoutStatus::Open && now_ms >= until_ms;
        let course = match ended {
            Some(ended) => ended,
            None if is_over => Course::without_order(CheckoutStatus::Expired),
            None => course,
        };
        let has_ended = ended.is_some() || (course.status != CheckoutStatus::Open && !is_over);
        LocatedCheckout {
            id,
            checkout,
            course,
            extended,
            state: state.clone(),
            has_ended,
        }
    };
    // A missing state means live, as long as the time of a hold is not over: states are kept for
    // longer than any checkout lives.
    let is_live = |of: &Checkout| now_ms < of.extended(id, moved).until_ms;
    if let Some(checkout) = opened.as_ref().filter(|of| ended.is_some() || is_live(of)) {
        let course = Course::without_order(CheckoutStatus::Open);
        return Ok(Some(located(checkout.clone(), course, moved)));
    }
    match (opened, checkouts::find(pool, id).await) {
        (_, Ok(Some(stored))) => {
            let is_moved = stored.extended.times > 0 || stored.extended.by_payment;
            let extended = moved.or_else(|| is_moved.then_some(stored.extended));
            Ok(Some(located(stored.checkout, stored.course, extended)))
        }
        (Some(opened), Ok(None) | Err(_)) => {
            let course = Course::without_order(CheckoutStatus::Open);
            Ok(Some(located(opened, course, moved)))
        }
        // MySQL does not have it. Only the journal in Redis could still have it.
        (None, Ok(None)) => unread.map_or(Ok(None), |error| Err(error.into())),
        (None, Err(error)) => Err(error.into()),
    }
}

/// The outcome of a payment; `None` when it is unknown.
///
/// # Errors
/// [`LookupError`] when it may be known and cannot be read now.
pub async fn payment(
    pool: &MySqlPool,
    ledger: &Ledger,
    checkout: &LocatedCheckout,
    payment_id: &str,
) -> Result<Option<PaymentOutcome>, LookupError> {
    let state = checkout::payment_state_id(checkout.id, payment_id);
    let known = ledger.state(&state).await?;
    if let Some(known) = known.as_deref().and_then(PaymentOutcome::parse) {
        return Ok(Some(known));
    }
    // While a checkout is open, Redis has forgotten nothing of it.
    if checkout.course.status == CheckoutStatus::Open {
        return Ok(None);
    }
    Ok(payments::outcome(pool, checkout.id, payment_id).await?)
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
