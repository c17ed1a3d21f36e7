//! Reservations: stock held for a user for a while, then sold, given back, or expired, exactly
//! once.
//!
//! ```text
//! PENDING → CONFIRMED | CANCELLED | EXPIRED        CONFIRMED → CANCELLED (an admin's force)
//! ```
//!
//! A reservation is a hold. Its units move from AVAILABLE to RESERVED, and a member of Redis'
//! `deadlines` names the hold and all that it gives back. Like an order, a hold has no state until
//! it is over, and the state lets exactly one end happen. A hold expires by Redis' clock, `ttl_ms`
//! after its position. An order may take the units of a hold instead of free stock
//! ([`crate::order::place`]); the reservation is CONFIRMED then.
//!
//! A reservation also promises a price. Its entry says the unit price and the sale that counted
//! when it was made ([`FrozenPrice`]). An order that takes the reservation is priced and counted by
//! them.

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;

use crate::account::Account;
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::posting::Posting;
use crate::quantity::Quantity;
use crate::request::{Hold, Request};
use crate::sale::Allowance;
use crate::transition::Transition;

/// The life of a reservation that asks for none, where the setting `hold_ttl_seconds_max` allows
/// that.
pub const TTL_SECONDS: u64 = 1_800;
/// The shortest life that a reservation may ask for.
pub const TTL_SECONDS_MIN: u64 = 30;
/// The state of a hold that an order took. The API shows it as CONFIRMED.
const ORDERED: &str = "ORDERED";

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

    /// The data that its end needs.
    #[must_use]
    pub fn held(&self, id: Position) -> Held {
        Held {
            id,
            user_id: self.user_id,
            product_id: self.product_id,
            location_id: self.location_id,
            quantity: self.quantity,
            sale_id: self.allowance.map(|allowance| allowance.sale_id),
            hold_limit: self.hold_limit,
        }
    }

    /// The postings that reserve the units: stock first, then the limits, in the order in which
    /// they are refused.
    #[must_use]
    pub fn postings(&self) -> Vec<Posting> {
        let quantity = i64::from(self.quantity.get());
        let mut postings = vec![
            Posting::new(
                Account::available(self.product_id, self.location_id),
                -quantity,
            ),
            Posting {
                open: (self.location_id != LocationId::ONLINE).then_some(0),
                ..Posting::new(
                    Account::reserved(self.product_id, self.location_id),
                    quantity,
                )
            },
        ];
        let allowance = self.allowance;
        postings.extend(allowance.map(|of| of.take(self.product_id, self.user_id, quantity)));
        if self.hold_limit > 0 {
            let account = Account::hold(self.user_id, self.hold_limit);
            postings.push(Posting::new(account, -1).opening(i64::from(self.hold_limit)));
        }
        postings
    }
}

/// A live hold with all that its end gives back, as the member of `deadlines` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The reservation's id.
    pub id: Position,
    /// The user.
    pub user_id: UserId,
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// The number of units.
    pub quantity: Quantity,
    /// The sale whose limit it counts against.
    pub sale_id: Option<SaleId>,
    /// The number of reservations that the user could have at once; 0 was no limit.
    pub hold_limit: u32,
}

impl Held {
    /// The member's text after its id.
    fn text(&self) -> String {
        let Self {
            user_id,
            product_id,
            location_id,
            hold_limit,
            ..
        } = self;
        let (quantity, sale) = (self.quantity.get(), self.sale_id.map_or(0, |sale| sale.0));
        format!("{user_id} {product_id} {location_id} {quantity} {sale} {hold_limit}")
    }

    /// Its member of `deadlines`.
    #[must_use]
    pub fn member(&self) -> String {
        format!("{} {}", self.id.stream_id(), self.text())
    }

    /// Reads a member of `deadlines`; `None` when it has another form.
    #[must_use]
    pub fn parse(member: &str) -> Option<Self> {
        let (id, rest) = member.split_once(' ')?;
        let numbers: Vec<u64> = rest
            .split(' ')
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        let &[user, product, location, quantity, sale, limit] = numbers.as_slice() else {
            return None;
        };
        Some(Self {
            id: Position::from_stream_id(id)?,
            user_id: UserId(user),
            product_id: ProductId(product),
            location_id: LocationId(location),
            quantity: Quantity::new(u32::try_from(quantity).ok()?).ok()?,
            sale_id: (sale > 0).then_some(SaleId(sale)),
            hold_limit: u32::try_from(limit).ok()?,
        })
    }

    /// The account that it takes from and gives back to.
    #[must_use]
    pub const fn available(&self) -> Account {
        Account::available(self.product_id, self.location_id)
    }

    /// Whether its end would raise an account: stock, a sale's limit, or the user's reservations.
    #[must_use]
    pub fn gives_back_to(&self, account: Account) -> bool {
        let sale = self
            .sale_id
            .map(|sale| Account::allowance(sale, self.user_id));
        account == self.available()
            || account == Account::hold(self.user_id, self.hold_limit)
            || sale == Some(account)
    }

    /// The posting that takes the held units out of RESERVED.
    pub(crate) fn release(&self) -> Posting {
        let account = Account::reserved(self.product_id, self.location_id);
        Posting::new(account, -i64::from(self.quantity.get()))
    }

    /// The posting that lets the user make one more reservation.
    pub(crate) fn free_one(&self) -> Option<Posting> {
        (self.hold_limit > 0).then(|| Posting::new(Account::hold(self.user_id, self.hold_limit), 1))
    }

    /// The postings that give back the stock, and the units that the hold took of a sale's limit.
    fn give_back(&self) -> impl Iterator<Item = Posting> {
        let quantity = i64::from(self.quantity.get());
        let allowance = self
            .sale_id
            .map(|sale| Posting::new(Account::allowance(sale, self.user_id), quantity))
            .map(|posting| posting.beside(self.product_id));
        [Posting::new(self.available(), quantity)]
            .into_iter()
            .chain(allowance)
    }

    /// The transition with which the hold ends in a state.
    fn ends(&self, state: &str) -> Transition {
        Transition::new(state_id(self.id), "", state.to_owned())
    }

    /// The transition that an order makes when it takes the hold.
    pub(crate) fn ordered(&self) -> Transition {
        self.ends(ORDERED)
    }
}

/// The body of an entry that ended a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationEnded {
    /// The reservation.
    pub reservation_id: Position,
}

/// The id of a hold's state. It carries the stream id, because the script, which makes the
/// position, knows no other id.
#[must_use]
pub fn state_id(reservation: Position) -> String {
    format!("hold:{}", reservation.stream_id())
}

/// The field of Redis' `held_units` in which a hold counts, and its units.
#[must_use]
pub fn held_units(held: &Held) -> (String, u64) {
    let field = format!("{}:{}", held.product_id, held.user_id);
    (field, u64::from(held.quantity.get()))
}

/// Reserves stock. The times in `window_ms` are those between which the price holds.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn reserve(
    reservation: &Reservation,
    window_ms: Option<(u64, u64)>,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut draft = Draft::new(Kind::ReservationMade, reservation.user_id, reservation)?;
    draft.postings = reservation.postings();
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.window_ms = window_ms;
    request.takes_stock = true;
    request.hold = Some(Hold {
        ttl_ms: reservation.ttl_ms,
        text: reservation.held(Position::ZERO).text(),
        units_max: 0,
    });
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
    let postings = [held.release()].into_iter().chain(held.free_one());
    let status = ReservationStatus::Confirmed;
    let mut request = end(Kind::ReservationConfirmed, held, actor, status, postings)?;
    request.idempotency = idempotency;
    request.release = Some((held.member(), expires_ms));
    Ok(request)
}

/// Gives back the units of a hold that has not expired.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn cancel(
    held: &Held,
    expires_ms: u64,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let status = ReservationStatus::Cancelled;
    let mut request = end(
        Kind::ReservationCancelled,
        held,
        actor,
        status,
        returned(held),
    )?;
    request.idempotency = idempotency;
    request.release = Some((held.member(), expires_ms));
    request.allow_backlog = true;
    Ok(request)
}

/// Gives back the units of a hold that has expired. The script checks that its time is over.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn expire(held: &Held, expires_ms: u64) -> Result<Request, DraftError> {
    let status = ReservationStatus::Expired;
    let mut request = end(
        Kind::ReservationExpired,
        held,
        UserId::ENGINE,
        status,
        returned(held),
    )?;
    request.window_ms = Some((expires_ms, 0));
    request.allow_backlog = true;
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
    let status = ReservationStatus::Cancelled;
    let mut request = end(
        Kind::ReservationCancelled,
        held,
        actor,
        status,
        held.give_back(),
    )?;
    if let Some(own) = request.draft.transitions.first_mut() {
        state.unwrap_or_default().clone_into(&mut own.from);
    }
    request.release = None;
    request.idempotency = idempotency;
    request.allow_backlog = true;
    Ok(request)
}

fn returned(held: &Held) -> impl Iterator<Item = Posting> {
    [held.release()]
        .into_iter()
        .chain(held.give_back())
        .chain(held.free_one())
}

fn end(
    kind: Kind,
    held: &Held,
    actor: UserId,
    status: ReservationStatus,
    postings: impl Iterator<Item = Posting>,
) -> Result<Request, DraftError> {
    let body = ReservationEnded {
        reservation_id: held.id,
    };
    let mut draft = Draft::new(kind, actor, &body)?;
    draft.reference = Some(held.id.to_string());
    draft.postings = postings.collect();
    draft.transitions = vec![held.ends(status.as_str())];
    let mut request = Request::new(draft);
    request.allow_closed = true;
    request.release = Some((held.member(), 0));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, Position, ProductId, SaleId, UserId};

    use super::Held;
    use crate::quantity::Quantity;

    #[test]
    fn a_member_of_deadlines_says_all_that_is_given_back() {
        for sale_id in [None, Some(SaleId(4))] {
            let held = Held {
                id: Position::from_parts(1_795_250_000_123, 5).unwrap(),
                user_id: UserId(2),
                product_id: ProductId(7),
                location_id: LocationId(3),
                quantity: Quantity::new(25).unwrap(),
                sale_id,
                hold_limit: 20,
            };
            assert_eq!(Held::parse(&held.member()), Some(held));
        }
        for member in [
            "",
            "x",
            "1795250000123-5 1 2 3",
            "1795250000123-5 1 2 3 0 0 20",
        ] {
            assert_eq!(Held::parse(member), None, "{member}");
        }
    }
}
