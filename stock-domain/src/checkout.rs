//! Checkouts: an order that is held at a frozen total while its buyer pays.
//!
//! ```text
//! OPEN → CONFIRMED | CANCELLED | EXPIRED        EXPIRED → CONFIRMED (late) | REFUND_DUE
//! ```
//!
//! A checkout is a hold ([`crate::hold`]) of everything that the order needs: stock, limits, the
//! coupon's code, points. Its entry keeps the whole priced order, so the total stays what it was,
//! whatever becomes of prices, sales and coupons. A payment ends it: the entry of that end is the
//! order itself, `order_placed`. A payment that comes after the deadline takes everything again at
//! the same total. What then is not there any more is not sold, and the payment is to be refunded.
//!
//! [`judge`] says what a payment does, and [`Extended`] how far the deadline may move. Both are
//! plain functions of what is known; the transitions in the requests make sure that it is still so.

mod extension;
#[cfg(test)]
mod model;
mod payment;

use serde::{Deserialize, Serialize};
use stock_common::id::{Position, SaleId, UserId};

pub use self::extension::{Budget, CheckoutExtended, Extended, extend, extended_state_id};
pub use self::payment::{
    PAYMENT_ID_MAX, Payment, PaymentOutcome, PaymentUnused, Step, Was, is_payment_id, judge, note,
    payment_state_id,
};
use crate::account::{Account, AccountKind};
use crate::coupon::CodeState;
use crate::hold::{self, CANCELLED, EXPIRED, Held, HeldLine, HoldKind, state_id};
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::order::{self, Order, Paid, Terms};
use crate::posting::Posting;
use crate::request::Request;
use crate::sale::Allowance;
use crate::transition::{PLACE, Transition};

/// The life of a checkout that asks for none, in seconds.
pub const TTL_SECONDS: u64 = 600;
/// The state of a hold that was paid in time; the position of its order follows.
const CONFIRMED: &str = "CONFIRMED";
/// The state of a hold that was paid late; the position of its order follows.
const LATE: &str = "LATE";
const REFUND_DUE: &str = "REFUND_DUE";

/// The body of the entry that opens a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// The order that it becomes, priced.
    pub order: Order,
    /// How long it lives without an extension, from the time of its position on.
    pub ttl_ms: u64,
    /// The number of holds that the user could have at once; 0 was no limit.
    pub hold_limit: u32,
}

/// The status of a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckoutStatus {
    /// It holds everything that its order needs.
    Open,
    /// It was paid, and is an order.
    Confirmed,
    /// It was given back at its buyer's or the shop's word.
    Cancelled,
    /// It was given back because its time was over.
    Expired,
    /// It was paid too late, and could not be sold any more.
    RefundDue,
}

impl CheckoutStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Confirmed,
        Self::Cancelled,
        Self::Expired,
        Self::RefundDue,
    ];

    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Confirmed => CONFIRMED,
            Self::Cancelled => CANCELLED,
            Self::Expired => EXPIRED,
            Self::RefundDue => REFUND_DUE,
        }
    }

    /// The status of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// How far a checkout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// Its status.
    pub status: CheckoutStatus,
    /// The order that it became.
    pub order_id: Option<Position>,
    /// Whether it was paid after it had expired.
    pub is_late: bool,
}

impl Course {
    /// A course without an order.
    #[must_use]
    pub const fn without_order(status: CheckoutStatus) -> Self {
        Self {
            status,
            order_id: None,
            is_late: false,
        }
    }

    /// The course that the state of a hold means.
    #[must_use]
    pub fn of_state(state: &str) -> Option<Self> {
        let (word, order) = state.split_once(' ').unwrap_or((state, ""));
        let is_late = word == LATE;
        if is_late || word == CONFIRMED {
            return Some(Self {
                status: CheckoutStatus::Confirmed,
                order_id: Some(Position::from_stream_id(order)?),
                is_late,
            });
        }
        CheckoutStatus::parse(state).map(Self::without_order)
    }

    /// The state of the hold; `None` while it is live.
    #[must_use]
    pub fn state(self) -> Option<String> {
        let word = if self.is_late { LATE } else { CONFIRMED };
        match (self.status, self.order_id) {
            (CheckoutStatus::Open, _) => None,
            (CheckoutStatus::Confirmed, Some(order)) => {
                Some(format!("{word} {}", order.stream_id()))
            }
            (status, _) => Some(status.as_str().to_owned()),
        }
    }
}

impl Checkout {
    /// The time at which it expires without an extension, in Unix ms of Redis' clock.
    #[must_use]
    pub const fn expires_ms(&self, id: Position) -> u64 {
        id.unix_ms() + self.ttl_ms
    }

    /// The hold that it is.
    #[must_use]
    pub fn held(&self, id: Position) -> Held {
        let order = &self.order;
        let location_id = order.location();
        let lines = order.lines.iter().map(|line| HeldLine {
            product_id: line.product_id,
            location_id,
            quantity: line.quantity,
            sale_id: line.allowance.map(|allowance| allowance.sale_id),
        });
        let coupon = order.coupon.as_ref();
        Held {
            id,
            kind: HoldKind::Checkout,
            user_id: order.user_id,
            hold_limit: self.hold_limit,
            lines: lines.collect(),
            points: order.used_points.get(),
            coupon: coupon.map(|coupon| (coupon.coupon_id, coupon.code.clone())),
        }
    }

    /// The postings of opening it, in the order in which they are refused: stock in the order of
    /// its lines, limits, the user's holds, points.
    #[must_use]
    pub fn postings(&self) -> Vec<Posting> {
        let (order, held) = (&self.order, self.held(Position::ZERO));
        let (taken, kept): (Vec<_>, Vec<_>) = held
            .lines
            .iter()
            .map(HeldLine::set_aside)
            .map(|[taken, kept]| (taken, kept))
            .unzip();
        let limits = order.lines.iter();
        let limits = limits.filter_map(|line| line.take_allowance(order.user_id));
        let points = Posting::new(Account::points(order.user_id), -held.points);
        let points = (held.points > 0).then_some(points);
        let all = taken.into_iter().chain(kept).chain(limits);
        all.chain(held.take_one()).chain(points).collect()
    }
}

/// The conditions under which a checkout is opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenTerms {
    /// The times between which its prices hold, in Unix ms; 0 is no bound.
    pub window_ms: Option<(u64, u64)>,
    /// Whether it is priced anew and sent again outside that time.
    pub retried_anew: bool,
    /// How many units of a product the user may hold where no sale's limit counts them; 0 is any
    /// number.
    pub units_max: u32,
}

/// Opens a checkout: sets aside everything that its order needs, or nothing.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn open(
    checkout: &Checkout,
    terms: OpenTerms,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let order = &checkout.order;
    let mut draft = Draft::new(Kind::CheckoutOpened, order.user_id, checkout)?;
    draft.postings = checkout.postings();
    // The code is checked after stock and limits, and before points.
    let late_check = order.coupon.as_ref().map(|coupon| {
        draft.transitions.push(coupon.sets_aside(order.user_id));
        let mut postings = draft.postings.iter();
        let points = postings.position(|posting| posting.account.kind == AccountKind::Points);
        points.unwrap_or(draft.postings.len())
    });
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.late_check = late_check;
    request.takes_stock = true;
    request.window_ms = terms.window_ms;
    request.retried_anew = terms.retried_anew;
    let held = checkout.held(Position::ZERO);
    request.hold = Some(held.begins(checkout.ttl_ms, terms.units_max));
    Ok(request)
}

/// A checkout that changes: its id, its entry's body, and how far its deadline was moved.
#[derive(Debug, Clone, Copy)]
pub struct Changed<'a> {
    /// Its id.
    pub id: Position,
    /// The checkout.
    pub checkout: &'a Checkout,
    /// How far its deadline was moved before; none is not at all.
    pub extended: Option<Extended>,
}

impl Changed<'_> {
    /// Its deadline, in Unix ms of Redis' clock.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.checkout.extended(self.id, self.extended).until_ms
    }

    /// The checkout's order with its payment.
    fn paid(&self, payment: &Payment, is_late: bool) -> Order {
        Order {
            checkout_id: Some(self.id),
            paid: Some(Paid {
                payment_id: payment.id.clone(),
                is_late,
            }),
            ..self.checkout.order.clone()
        }
    }
}

/// Gives a checkout back whose deadline has passed and was not moved meanwhile.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn expire(of: Changed<'_>) -> Result<Request, DraftError> {
    let mut request = hold::expire(&of.checkout.held(of.id), of.expires_ms())?;
    let extended = of.extended.map_or_else(String::new, Extended::state);
    let unmoved = Transition::new(extended_state_id(of.id), &extended, extended.clone());
    request.draft.transitions.push(unmoved);
    Ok(request)
}

/// Makes a held checkout an order. It also sells while the product or all selling is stopped:
/// what is held was promised.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn confirm(
    of: Changed<'_>,
    payment: &Payment,
    known: Option<PaymentOutcome>,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let order = of.paid(payment, false);
    let held = of.checkout.held(of.id);
    let mut draft = Draft::new(Kind::OrderPlaced, actor, &order)?;
    draft.reference = Some(of.id.to_string());
    draft.postings = order.postings(Some(&held));
    draft.transitions = vec![
        held.ends(&format!("{CONFIRMED} {PLACE}")),
        of.payment_becomes(&payment.id, known, PaymentOutcome::Confirmed),
    ];
    draft.transitions.extend(held.code_becomes(CodeState::used));
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.allow_closed = true;
    request.allow_backlog = true;
    request.retried_anew = true;
    request.release = Some(held.ends_before(of.expires_ms()));
    Ok(request)
}

/// Makes an expired checkout an order, at the frozen total, if everything is still there.
///
/// `state` is the state of the hold, which Redis may have forgotten by now. `forgotten` are the
/// sales whose limits it has forgotten: they count nobody any more.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn retake(
    of: Changed<'_>,
    state: Option<&str>,
    payment: &Payment,
    known: Option<PaymentOutcome>,
    forgotten: &[SaleId],
    actor: UserId,
) -> Result<Request, DraftError> {
    let mut order = of.paid(payment, true);
    for line in &mut order.lines {
        let is_kept = |of: &Allowance| !forgotten.contains(&of.sale_id);
        line.allowance = line.allowance.filter(is_kept);
    }
    let mut request = order::place(&order, Terms::default(), None)?;
    let draft = &mut request.draft;
    draft.actor = actor;
    draft.reference = Some(of.id.to_string());
    let late = Transition::new(
        state_id(of.id),
        state.unwrap_or_default(),
        format!("{LATE} {PLACE}"),
    );
    let paid = of.payment_becomes(&payment.id, known, PaymentOutcome::Confirmed);
    draft.transitions.splice(0..0, [late, paid]);
    request.retried_anew = true;
    request.allow_backlog = true;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use stock_common::id::Position;

    use super::{CheckoutStatus, Course, Extended};

    #[test]
    fn the_state_of_a_checkout_says_its_status_and_its_order() {
        let order_id = Some(Position::from_parts(1_795_250_000_123, 5).unwrap());
        let confirmed = |is_late| Course {
            status: CheckoutStatus::Confirmed,
            order_id,
            is_late,
        };
        for course in [
            confirmed(false),
            confirmed(true),
            Course::without_order(CheckoutStatus::Cancelled),
            Course::without_order(CheckoutStatus::Expired),
            Course::without_order(CheckoutStatus::RefundDue),
        ] {
            let state = course.state().unwrap();
            assert_eq!(Course::of_state(&state), Some(course), "{state}");
        }
        assert_eq!(Course::of_state("CONFIRMED #"), None);
        let extended = Extended {
            times: 2,
            by_payment: true,
            until_ms: 1_795_250_000_123,
        };
        assert_eq!(Extended::parse(&extended.state()), Some(extended));
    }
}
