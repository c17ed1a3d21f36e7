//! Lookup of holds: reservations, checkouts and the outcomes of their payments.

use std::time::Duration;

use sqlx::MySqlPool;
use stock_common::id::{LocationId, Position};
use stock_domain::checkout::{
    self, Changed, Checkout, CheckoutStatus, Course, Extended, PaymentOutcome,
};
use stock_domain::hold;
use stock_domain::journal::{Entry, Kind};
use stock_domain::pricing::AskedOrder;
use stock_domain::reservation::{Reservation, ReservationStatus};
use stock_mysql::checkouts::StoredCheckout;
use stock_mysql::reservations::ReservationFilter;
use stock_mysql::{checkouts, payments, reservations};
use stock_redis::{Ledger, units};

use super::{LookupError, catch_up};

/// Live reservations of one user and product that are looked at.
const OWN_MAX: u32 = 100;

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
