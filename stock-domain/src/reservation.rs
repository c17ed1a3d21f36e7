//! Reservations: units of one product held for a user for a while, then sold, given back, or
//! expired, exactly once.
//!
//! ```text
//! PENDING → CONFIRMED | CANCELLED | EXPIRED        CONFIRMED → CANCELLED (an admin's force)
//! ```
//!
//! A reservation is a hold ([`crate::hold`]): its units move from AVAILABLE to RESERVED, and a
//! member of Redis' `deadlines` names it. It expires by Redis' clock, `ttl_ms` after its position.
//! An order may take the units of a reservation instead of free stock ([`crate::order::place`]).
//! The reservation is CONFIRMED then.
//!
//! A reservation also promises a price. Its entry says the unit price and the sale that counted
//! when it was made ([`FrozenPrice`]). An order that takes the reservation is priced and counted by
//! them.

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;

use crate::hold::{CANCELLED, Held, HeldLine, HoldKind, end};
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::posting::Posting;
use crate::quantity::Quantity;
use crate::request::Request;
use crate::sale::Allowance;

/// The life of a reservation that asks for none, where the setting `hold_ttl_seconds_max` allows
/// that.
pub const TTL_SECONDS: u64 = 1_800;
/// The shortest life that a reservation may ask for.
pub const TTL_SECONDS_MIN: u64 = 30;
/// The state of a hold that an order took. The API shows it as CONFIRMED.
pub(crate) const ORDERED: &str = "ORDERED";

/// The status of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReservationStatus {
    /// It holds stock.
    Pending,
    /// Its units were sold.
    Confirmed,
    /// Its units were given back.
    Cancelled,
    /// Its time was over, and its units were given back.
    Expired,
}

impl ReservationStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [
        Self::Pending,
        Self::Confirmed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The status of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// The status that the state of a hold means.
    #[must_use]
    pub fn of_state(state: &str) -> Option<Self> {
        match state {
            ORDERED => Some(Self::Confirmed),
            state => Self::parse(state),
        }
    }
}

/// The price of a unit when it was reserved. In an entry's body it is `[price, unit price, sale]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FrozenWire", into = "FrozenWire")]
pub struct FrozenPrice {
    /// The list price.
    pub price: Money,
    /// The price that an order is charged when it takes the reservation.
    pub unit_price: Money,
    /// The sale that counted when it was made, with a limit or without; none is the normal price.
    pub sale_id: Option<SaleId>,
}

type FrozenWire = (Money, Money, Option<SaleId>);

impl From<FrozenWire> for FrozenPrice {
    fn from((price, unit_price, sale_id): FrozenWire) -> Self {
        Self {
            price,
            unit_price,
            sale_id,
        }
    }
}

impl From<FrozenPrice> for FrozenWire {
    fn from(frozen: FrozenPrice) -> Self {
        (frozen.price, frozen.unit_price, frozen.sale_id)
    }
}

/// The body of the entry that makes a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The user.
    pub user_id: UserId,
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// The number of units.
    pub quantity: Quantity,
    /// How long it lives, from the time of its position on.
    pub ttl_ms: u64,
    /// The sale's limit that it counts against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<Allowance>,
    /// The number of reservations that the user could have at once; 0 was no limit.
    pub hold_limit: u32,
    /// The price that it promises. An entry of a program before 1.1 has none: its order is charged
    /// the price of the day on which the order is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<FrozenPrice>,
}

impl Reservation {
    /// The time at which it expires, in Unix ms of Redis' clock.
    #[must_use]
    pub const fn expires_ms(&self, id: Position) -> u64 {
        id.unix_ms() + self.ttl_ms
    }

    /// The hold that it is.
    #[must_use]
    pub fn held(&self, id: Position) -> Held {
        Held {
            id,
            kind: HoldKind::Reservation,
            user_id: self.user_id,
            hold_limit: self.hold_limit,
            lines: vec![HeldLine {
                product_id: self.product_id,
                location_id: self.location_id,
                quantity: self.quantity,
                sale_id: self.allowance.map(|allowance| allowance.sale_id),
            }],
            points: 0,
            coupon: None,
        }
    }

    /// The postings that reserve the units: stock first, then the limits, in the order in which
    /// they are refused.
    #[must_use]
    pub fn postings(&self) -> Vec<Posting> {
        let (held, quantity) = (self.held(Position::ZERO), i64::from(self.quantity.get()));
        let mut postings: Vec<Posting> = held.lines.iter().flat_map(HeldLine::set_aside).collect();
        let allowance = self.allowance;
        postings.extend(allowance.map(|of| of.take(self.product_id, self.user_id, quantity)));
        postings.extend(held.take_one());
        postings
    }
}

/// Reserves stock. The times in `window_ms` are those between which the price holds. A user may
/// hold at most `units_max` units of the product, unless a sale's limit counts them; 0 is any
/// number.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn reserve(
    reservation: &Reservation,
    window_ms: Option<(u64, u64)>,
    units_max: u32,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut draft = Draft::new(Kind::ReservationMade, reservation.user_id, reservation)?;
    draft.postings = reservation.postings();
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.window_ms = window_ms;
    request.takes_stock = true;
    let held = reservation.held(Position::ZERO);
    request.hold = Some(held.begins(reservation.ttl_ms, units_max));
    Ok(request)
}

/// Sells the units of a hold that has not expired.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn confirm(
    held: &Held,
    expires_ms: u64,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let postings = held.release().chain(held.free_one()).collect();
    let state = ReservationStatus::Confirmed.as_str();
    let mut request = end(Kind::ReservationConfirmed, held, actor, state, postings)?;
    request.idempotency = idempotency;
    request.release = Some(held.ends_before(expires_ms));
    Ok(request)
}

/// Takes back a confirmed reservation at an admin's word: the stock returns. `state` is the state
/// of the hold, which may be forgotten by now.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn force_cancel(
    held: &Held,
    state: Option<&str>,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let postings = held.give_back().collect();
    let mut request = end(Kind::ReservationCancelled, held, actor, CANCELLED, postings)?;
    if let Some(own) = request.draft.transitions.first_mut() {
        state.unwrap_or_default().clone_into(&mut own.from);
    }
    request.release = None;
    request.idempotency = idempotency;
    request.allow_backlog = true;
    Ok(request)
}
