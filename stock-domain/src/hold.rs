//! Holds: units that are set aside until a deadline, and how a hold ends.
//!
//! ```text
//! live → CONFIRMED (sold)        live → CANCELLED | EXPIRED (given back)
//! EXPIRED → CONFIRMED | REFUND_DUE (a checkout that was paid too late)
//! ```
//!
//! A reservation holds units of one product. A checkout ([`crate::checkout`]) holds all lines of an
//! order, its coupon and its points. Both have one shape, one member in `deadlines`, and one end.
//! The member says all that the end gives back, so that an expiry needs nothing else.

use serde::{Deserialize, Serialize};
use stock_common::id::{CouponId, LocationId, Position, ProductId, SaleId, UserId};

use crate::account::Account;
use crate::coupon::{CodeState, code_moves, is_code};
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::posting::Posting;
use crate::quantity::Quantity;
use crate::request::{HeldUnits, Hold, HoldLine, Release, Request, Then};
use crate::transition::Transition;

/// The state of a hold that was given back at its owner's word.
pub const CANCELLED: &str = "CANCELLED";
/// The state of a hold that was given back because its time was over.
pub const EXPIRED: &str = "EXPIRED";
/// The first word of a checkout's member after its id.
const CHECKOUT: &str = "checkout";

/// The thing that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldKind {
    /// A reservation: one product, without a total.
    Reservation,
    /// A checkout: an order at a frozen total.
    Checkout,
}

/// Held units of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLine {
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// The number of units.
    pub quantity: Quantity,
    /// The sale whose limit they count against.
    pub sale_id: Option<SaleId>,
}

/// A live hold with all that its end gives back, as the member of `deadlines` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The id of the reservation or checkout.
    pub id: Position,
    /// The thing that holds.
    pub kind: HoldKind,
    /// The user.
    pub user_id: UserId,
    /// The number of holds that the user could have at once; 0 was no limit.
    pub hold_limit: u32,
    /// The held units. A reservation has one line.
    pub lines: Vec<HeldLine>,
    /// The points that are set aside.
    pub points: i64,
    /// The coupon whose code is set aside, and the code.
    pub coupon: Option<(CouponId, String)>,
}

impl HeldLine {
    fn units(&self) -> i64 {
        i64::from(self.quantity.get())
    }

    /// The account that the line takes from and gives back to.
    #[must_use]
    pub const fn available(&self) -> Account {
        Account::available(self.product_id, self.location_id)
    }

    /// The postings that set the units aside: out of AVAILABLE, into RESERVED.
    pub(crate) fn set_aside(&self) -> [Posting; 2] {
        let reserved = Account::reserved(self.product_id, self.location_id);
        let is_store = self.location_id != LocationId::ONLINE;
        [
            Posting::new(self.available(), -self.units()),
            Posting {
                open: is_store.then_some(0),
                ..Posting::new(reserved, self.units())
            },
        ]
    }

    /// The posting that takes the held units out of RESERVED.
    pub(crate) fn release(&self) -> Posting {
        let account = Account::reserved(self.product_id, self.location_id);
        Posting::new(account, -self.units())
    }

    fn allowance(&self, user: UserId) -> Option<Posting> {
        let account = Account::allowance(self.sale_id?, user);
        Some(Posting::new(account, self.units()).beside(self.product_id))
    }
}

impl Held {
    /// The member's text after its id.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            user_id,
            hold_limit,
            points,
            ..
        } = self;
        let sale = |line: &HeldLine| line.sale_id.map_or(0, |sale| sale.0);
        if let (HoldKind::Reservation, [line]) = (self.kind, self.lines.as_slice()) {
            let HeldLine {
                product_id,
                location_id,
                ..
            } = line;
            let (quantity, sale) = (line.quantity.get(), sale(line));
            return format!("{user_id} {product_id} {location_id} {quantity} {sale} {hold_limit}");
        }
        let coupon = match &self.coupon {
            None => "-".to_owned(),
            Some((coupon, code)) => format!("{coupon}:{code}"),
        };
        let mut text = format!("{CHECKOUT} {user_id} {hold_limit} {points} {coupon}");
        for line in &self.lines {
            let (product, location) = (line.product_id, line.location_id);
            let (quantity, sale) = (line.quantity.get(), sale(line));
            text.push_str(&format!(" {product}:{location}:{quantity}:{sale}"));
        }
        text
    }

    /// Its member of `deadlines`.
    #[must_use]
    pub fn member(&self) -> String {
        format!("{} {}", self.id.stream_id(), self.text())
    }

    /// Reads a member of `deadlines`; `None` when it has another form.
    #[must_use]
    pub fn parse(member: &str) -> Option<Self> {
        let (id, text) = member.split_once(' ')?;
        let id = Position::from_stream_id(id)?;
        match text.strip_prefix(CHECKOUT) {
            Some(text) => Self::parse_checkout(id, text.strip_prefix(' ')?),
            None => Self::parse_reservation(id, text),
        }
    }

    fn parse_reservation(id: Position, text: &str) -> Option<Self> {
        let &[user, product, location, quantity, sale, limit] = numbers(text, ' ')?.as_slice()
        else {
            return None;
        };
        Some(Self {
            id,
            kind: HoldKind::Reservation,
            user_id: UserId(user),
            hold_limit: u32::try_from(limit).ok()?,
            lines: vec![line(product, location, quantity, sale)?],
            points: 0,
            coupon: None,
        })
    }

    fn parse_checkout(id: Position, text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let user_id = UserId(parts.next()?.parse().ok()?);
        let hold_limit = parts.next()?.parse().ok()?;
        let points = parts.next()?.parse().ok().filter(|points| *points >= 0)?;
        let coupon = match parts.next()? {
            "-" => None,
            of => {
                let (coupon, code) = of.split_once(':').filter(|(_, code)| is_code(code))?;
                Some((CouponId(coupon.parse().ok()?), code.to_owned()))
            }
        };
        let lines = parts.map(|part| match numbers(part, ':')?.as_slice() {
            &[product, location, quantity, sale] => line(product, location, quantity, sale),
            _ => None,
        });
        let lines: Vec<HeldLine> = lines.collect::<Option<_>>()?;
        (!lines.is_empty()).then_some(Self {
            id,
            kind: HoldKind::Checkout,
            user_id,
            hold_limit,
            lines,
            points,
            coupon,
        })
    }

    /// Whether its end would raise an account: stock, a sale's limit, or the user's holds.
    #[must_use]
    pub fn gives_back_to(&self, account: Account) -> bool {
        let mut allowances = self.lines.iter().filter_map(|line| line.sale_id);
        self.lines.iter().any(|line| line.available() == account)
            || account == Account::hold(self.user_id, self.hold_limit)
            || allowances.any(|sale| Account::allowance(sale, self.user_id) == account)
    }

    /// The units of its lines, as they count in Redis' `held_units`.
    pub fn units(&self) -> impl Iterator<Item = HeldUnits> + '_ {
        self.lines.iter().map(|line| HeldUnits {
            field: format!("{}:{}", line.product_id, self.user_id),
            units: line.quantity.get(),
        })
    }

    /// Redis' record of it for so long. Its user may hold at most `units_max` units of a
    /// product, where no sale's limit counts them; 0 is any number.
    pub(crate) fn begins(&self, ttl_ms: u64, units_max: u32) -> Hold {
        let most = |line: &HeldLine| line.sale_id.map_or(units_max, |_| 0);
        let lines = self.units().zip(self.lines.iter().map(most));
        Hold {
            ttl_ms,
            text: self.text(),
            lines: lines
                .map(|(units, most)| HoldLine { units, most })
                .collect(),
        }
    }

    /// Its end, before a time in Redis' Unix ms; 0 is at any time.
    pub(crate) fn ends_before(&self, until_ms: u64) -> Release {
        Release {
            member: self.member(),
            until_ms,
            then: Then::Ends(self.units().collect()),
        }
    }

    /// The posting that takes one of the holds that the user may have at once.
    pub(crate) fn take_one(&self) -> Option<Posting> {
        let account = Account::hold(self.user_id, self.hold_limit);
        let limit = i64::from(self.hold_limit);
        (self.hold_limit > 0).then(|| Posting::new(account, -1).opening(limit))
    }

    /// The posting that lets the user have one more hold.
    pub(crate) fn free_one(&self) -> Option<Posting> {
        (self.hold_limit > 0).then(|| Posting::new(Account::hold(self.user_id, self.hold_limit), 1))
    }

    /// The postings that take the held units out of RESERVED.
    pub(crate) fn release(&self) -> impl Iterator<Item = Posting> + '_ {
        self.lines.iter().map(HeldLine::release)
    }

    /// The postings that give back the stock, and the units that the hold took of sales' limits.
    pub(crate) fn give_back(&self) -> impl Iterator<Item = Posting> + '_ {
        let stock = |line: &HeldLine| Posting::new(line.available(), line.units());
        let stock = self.lines.iter().map(stock);
        let allowances = self
            .lines
            .iter()
            .filter_map(|of| of.allowance(self.user_id));
        stock.chain(allowances)
    }

    /// All that goes back when it ends without a sale.
    fn returned(&self) -> Vec<Posting> {
        let points = Posting::new(Account::points(self.user_id), self.points);
        let points = (self.points > 0).then_some(points);
        let all = self.release().chain(self.give_back());
        all.chain(points).chain(self.free_one()).collect()
    }

    /// The transition with which the hold ends in a state.
    #[must_use]
    pub fn ends(&self, state: &str) -> Transition {
        Transition::new(state_id(self.id), "", state.to_owned())
    }

    /// The transition of its coupon's code to another state.
    pub(crate) fn code_becomes(&self, next: impl Fn(CodeState) -> CodeState) -> Option<Transition> {
        let (coupon, code) = self.coupon.as_ref()?;
        let held = CodeState::free(*coupon, self.user_id).held();
        Some(code_moves(code, held, next(held)))
    }
}

/// The body of an entry that ended a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldEnded {
    /// The reservation or checkout.
    #[serde(rename = "reservation_id")]
    pub hold_id: Position,
}

fn numbers(text: &str, separator: char) -> Option<Vec<u64>> {
    let parts = text.split(separator).map(|part| part.parse().ok());
    parts.collect()
}

fn line(product: u64, location: u64, quantity: u64, sale: u64) -> Option<HeldLine> {
    Some(HeldLine {
        product_id: ProductId(product),
        location_id: LocationId(location),
        quantity: Quantity::new(u32::try_from(quantity).ok()?).ok()?,
        sale_id: (sale > 0).then_some(SaleId(sale)),
    })
}

/// The id of a hold's state. It carries the stream id, because the script, which makes the
/// position, knows no other id.
#[must_use]
pub fn state_id(hold: Position) -> String {
    format!("hold:{}", hold.stream_id())
}

/// Gives back what a hold that has not expired took.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn cancel(
    held: &Held,
    expires_ms: u64,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let kind = match held.kind {
        HoldKind::Reservation => Kind::ReservationCancelled,
        HoldKind::Checkout => Kind::CheckoutCancelled,
    };
    let mut request = end(kind, held, actor, CANCELLED, held.returned())?;
    request
        .draft
        .transitions
        .extend(held.code_becomes(CodeState::freed));
    request.idempotency = idempotency;
    request.release = Some(held.ends_before(expires_ms));
    request.allow_backlog = true;
    // Its deadline may have been moved meanwhile.
    request.retried_anew = held.kind == HoldKind::Checkout;
    Ok(request)
}

/// Gives back what a hold that has expired took. The script checks that its time is over.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn expire(held: &Held, expires_ms: u64) -> Result<Request, DraftError> {
    let kind = match held.kind {
        HoldKind::Reservation => Kind::ReservationExpired,
        HoldKind::Checkout => Kind::CheckoutExpired,
    };
    let mut request = end(kind, held, UserId::ENGINE, EXPIRED, held.returned())?;
    request
        .draft
        .transitions
        .extend(held.code_becomes(CodeState::freed));
    request.window_ms = Some((expires_ms, 0));
    request.allow_backlog = true;
    Ok(request)
}

/// Ends a hold in a state, with some postings.
pub(crate) fn end(
    kind: Kind,
    held: &Held,
    actor: UserId,
    state: &str,
    postings: Vec<Posting>,
) -> Result<Request, DraftError> {
    let body = HoldEnded { hold_id: held.id };
    let mut draft = Draft::new(kind, actor, &body)?;
    draft.reference = Some(held.id.to_string());
    draft.postings = postings;
    draft.transitions = vec![held.ends(state)];
    let mut request = Request::new(draft);
    request.allow_closed = true;
    request.release = Some(held.ends_before(0));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use stock_common::id::{CouponId, LocationId, Position, ProductId, SaleId, UserId};

    use super::{Held, HeldLine, HoldKind};
    use crate::quantity::Quantity;

    fn line(product: u64, sale_id: Option<SaleId>) -> HeldLine {
        HeldLine {
            product_id: ProductId(product),
            location_id: LocationId(3),
            quantity: Quantity::new(25).unwrap(),
            sale_id,
        }
    }

    #[test]
    fn a_member_of_deadlines_says_all_that_is_given_back() {
        let reservation = |sale_id| Held {
            id: Position::from_parts(1_795_250_000_123, 5).unwrap(),
            kind: HoldKind::Reservation,
            user_id: UserId(2),
            hold_limit: 20,
            lines: vec![line(7, sale_id)],
            points: 0,
            coupon: None,
        };
        let checkout = |points, coupon: Option<(CouponId, String)>| Held {
            kind: HoldKind::Checkout,
            lines: vec![line(7, Some(SaleId(4))), line(8, None)],
            points,
            coupon,
            ..reservation(None)
        };
        for held in [
            reservation(None),
            reservation(Some(SaleId(4))),
            checkout(0, None),
            checkout(1_500, Some((CouponId(6), "AB-12_x".to_owned()))),
            Held {
                lines: vec![line(7, None)],
                ..checkout(0, None)
            },
        ] {
            assert_eq!(Held::parse(&held.member()), Some(held));
        }
        for member in [
            "",
            "x",
            "1795250000123-5 1 2 3",
            "1795250000123-5 1 2 3 0 0 20",
            "1795250000123-5 checkout 1 20 0 -",
            "1795250000123-5 checkout 1 20 0 - 1:2:0:0",
            "1795250000123-5 checkout 1 20 -5 - 1:2:3:0",
            "1795250000123-5 checkout 1 20 0 7 1:2:3:0",
        ] {
            assert_eq!(Held::parse(member), None, "{member}");
        }
    }
}
