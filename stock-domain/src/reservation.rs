//! Reservations: stock set aside for a user for a while, then sold, given back, or expired; exactly once.
//!
//! ```text
//! PENDING → CONFIRMED | CANCELLED | EXPIRED        CONFIRMED → CANCELLED (an admin's force)
//! ```
//!
//! A reservation is a hold: what it takes moves from AVAILABLE to RESERVED, and a member of Redis'
//! `deadlines` names it and all that it gives back. Like an order it has no state until it is over; the
//! state lets exactly one end happen. It expires by Redis' clock, `ttl_ms` behind its position. An order
//! may take it instead of free stock ([`crate::order::place`]); it is CONFIRMED then.
//!
//! A reservation is a promise of a price as well: its entry says what a unit cost and which sale counted
//! when it was made ([`FrozenPrice`]), and the order that takes it is priced and counted by that.

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;

use crate::account::Account;
use crate::journal::{Draft, DraftError, Idempotency, Kind, Posting, Transition};
use crate::order::Quantity;
use crate::request::{Hold, Request};
use crate::sale::Allowance;

/// How long a reservation lives unless it says otherwise, where the setting `hold_ttl_seconds_max` allows that.
pub const TTL_SECONDS: u64 = 1_800;
/// The shortest life that it may ask for.
pub const TTL_SECONDS_MIN: u64 = 30;
/// The state of a hold's state when an order took it; to the outside it is CONFIRMED.
const ORDERED: &str = "ORDERED";

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReservationStatus {
    /// It holds stock.
    Pending,
    /// What it held was sold.
    Confirmed,
    /// It was given back.
    Cancelled,
    /// Its time was over, and it was given back.
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

    /// The status that a hold's state says.
    #[must_use]
    pub fn of_state(state: &str) -> Option<Self> {
        match state {
            ORDERED => Some(Self::Confirmed),
            state => Self::parse(state),
        }
    }
}

/// The price of a unit when it was set aside. In an entry's body `[price, unit price, sale]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FrozenWire", into = "FrozenWire")]
pub struct FrozenPrice {
    /// The list price.
    pub price: Money,
    /// The price that an order is charged which takes the reservation.
    pub unit_price: Money,
    /// The sale under which it was made, with a limit or without; none is the normal price.
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

/// What was set aside: the body of its entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// For whom.
    pub user_id: UserId,
    /// The product.
    pub product_id: ProductId,
    /// Where.
    pub location_id: LocationId,
    /// How many units.
    pub quantity: Quantity,
    /// How long it lives from its position on.
    pub ttl_ms: u64,
    /// The sale's limit that it counts against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<Allowance>,
    /// How many reservations the user could have at once; 0 was no limit.
    pub hold_limit: u32,
    /// The price that it promises. An entry of a program before 1.1 has none: its order is charged the
    /// price of the day on which it is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<FrozenPrice>,
}

impl Reservation {
    /// When it expires, in Unix ms of Redis' clock.
    #[must_use]
    pub const fn expires_ms(&self, id: Position) -> u64 {
        id.unix_ms() + self.ttl_ms
    }

    /// What its end needs to know.
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

    /// What setting it aside moves: stock first, then the limits, in the order in which they are refused.
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

/// A live hold: what its end gives back, as the member of `deadlines` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The reservation's id.
    pub id: Position,
    /// For whom.
    pub user_id: UserId,
    /// The product.
    pub product_id: ProductId,
    /// Where.
    pub location_id: LocationId,
    /// How many units.
    pub quantity: Quantity,
    /// The sale whose limit it counts against.
    pub sale_id: Option<SaleId>,
    /// How many reservations the user could have at once; 0 was no limit.
    pub hold_limit: u32,
}

impl Held {
    /// The member's text behind its id.
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

    /// Takes what is held out of RESERVED.
    pub(crate) fn release(&self) -> Posting {
        let account = Account::reserved(self.product_id, self.location_id);
        Posting::new(account, -i64::from(self.quantity.get()))
    }

    /// Lets the user reserve one more.
    pub(crate) fn free_one(&self) -> Option<Posting> {
        (self.hold_limit > 0).then(|| Posting::new(Account::hold(self.user_id, self.hold_limit), 1))
    }

    /// Gives the stock back, and what it took of the sale's limit.
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

    /// The state that an end of it sets.
    fn ends(&self, state: &str) -> Transition {
        Transition::new(state_id(self.id), "", state.to_owned())
    }

    /// The state that an order sets which takes it.
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

/// The state of a hold. It carries the stream id: the script, which makes the position, has no other.
#[must_use]
pub fn state_id(reservation: Position) -> String {
    format!("hold:{}", reservation.stream_id())
}

/// The field of Redis' `held_units` of what a member of `deadlines` holds, and how many units that is.
#[must_use]
pub fn held_units(held: &Held) -> (String, u64) {
    let field = format!("{}:{}", held.product_id, held.user_id);
    (field, u64::from(held.quantity.get()))
}

/// Sets stock aside, if the time between which its price holds has come and is not over.
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

/// Sells what was set aside, if it has not expired.
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
    let mut request = end(Kind::ReservationConfirmed, held, (actor, status), postings)?;
    request.idempotency = idempotency;
    request.release = Some((held.member(), expires_ms));
    Ok(request)
}

/// Gives back what was set aside, if it has not expired.
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
        (actor, status),
        returned(held),
    )?;
    request.idempotency = idempotency;
    request.release = Some((held.member(), expires_ms));
    request.allow_backlog = true;
    Ok(request)
}

/// Gives back what was set aside and whose time is over, which the script judges.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn expire(held: &Held, expires_ms: u64) -> Result<Request, DraftError> {
    let status = ReservationStatus::Expired;
    let mut request = end(
        Kind::ReservationExpired,
        held,
        (UserId::ENGINE, status),
        returned(held),
    )?;
    request.window_ms = Some((expires_ms, 0));
    request.allow_backlog = true;
    Ok(request)
}

/// Takes back what was sold from a reservation, at an admin's word: the stock returns. `state` is the state
/// of its state, which may be forgotten by now.
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
        (actor, status),
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
    (actor, status): (UserId, ReservationStatus),
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
    use crate::order::Quantity;

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
