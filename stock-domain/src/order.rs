//! Orders: the priced order, its status, and the requests that place it or take it back.
//!
//! ```text
//! ORDER_PENDING → SUCCESS | FAIL        ORDER_PENDING | SUCCESS → CANCEL_REQUESTED → CANCEL
//! ```
//!
//! These are pure rules that build [`Request`]s for the script. An order is stored as the body of
//! its entry, so it can be shown before MySQL has it. Prices come from [`crate::pricing`].

mod offline_sale;
mod take_back;

use serde::{Deserialize, Serialize, Serializer};
use stock_common::id::{LocationId, Position, ProductId, UserId};
use stock_common::money::{Money, MoneyError};

pub use self::offline_sale::{
    OfflineSale, offline_state, offline_state_id, parse_offline_state_id,
};
pub use self::take_back::{
    OrderReversed, Part, Reversed, Shares, Step, Units, Way, cancel, fail, take_back,
};
use crate::account::{Account, AccountKind};
use crate::buyer::Buyer;
use crate::coupon::UsedCoupon;
use crate::hold::Held;
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::posting::Posting;
use crate::quantity::Quantity;
use crate::request::Request;
use crate::reservation::ORDERED;
use crate::sale::Allowance;

/// The most lines of an order, counted before lines of one product are added up.
pub const LINES_MAX: usize = 100;

/// How the order reaches the buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliveryType {
    /// Sent from the online warehouse, location 0.
    Online,
    /// Brought today from a store's stock.
    TodayDelivery,
    /// Fetched at a store, from its stock.
    Pickup,
}

impl DeliveryType {
    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::TodayDelivery => "TODAY_DELIVERY",
            Self::Pickup => "PICKUP",
        }
    }

    /// The type of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Online, Self::TodayDelivery, Self::Pickup]
            .into_iter()
            .find(|t| t.as_str() == name)
    }
}

/// The status of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Decided; MySQL does not have it yet.
    OrderPending,
    /// Stored.
    Success,
    /// It could not be stored, and its stock was given back.
    Fail,
    /// Taken back: its stock is back in Redis, and MySQL follows.
    CancelRequested,
    /// Taken back, and MySQL has it.
    Cancel,
}

impl OrderStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::OrderPending,
        Self::Success,
        Self::Fail,
        Self::CancelRequested,
        Self::Cancel,
    ];

    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderPending => "ORDER_PENDING",
            Self::Success => "SUCCESS",
            Self::Fail => "FAIL",
            Self::CancelRequested => "CANCEL_REQUESTED",
            Self::Cancel => "CANCEL",
        }
    }

    /// The status of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether the state table allows this step.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (
                Self::OrderPending,
                Self::Success | Self::Fail | Self::CancelRequested
            ) | (Self::Success, Self::CancelRequested)
                | (Self::CancelRequested, Self::Cancel)
        )
    }

    /// The status to show: the state in Redis counts before the status that the journal or MySQL
    /// says, because the state is newer. Only MySQL's `CANCEL` already includes the state
    /// `CANCEL_REQUESTED`.
    #[must_use]
    pub fn with_state(self, state: Option<&str>) -> Self {
        match (self, state.and_then(Self::parse)) {
            (Self::OrderPending | Self::Success, Some(newer)) => newer,
            (stored, _) => stored,
        }
    }
}

/// The path by which an order was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Redis first: answered before MySQL has it.
    Redis,
    /// Under row locks in MySQL: answered when MySQL has it.
    Lock,
    /// At a store's till: under row locks, or while the till was cut off.
    Till,
}

impl Path {
    /// The name in the table and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Lock => "lock",
            Self::Till => "till",
        }
    }

    /// The path of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Redis, Self::Lock, Self::Till]
            .into_iter()
            .find(|path| path.as_str() == name)
    }
}

/// One product of an order.
///
/// In an entry's body it is `[product, name, quantity, price, unit price]`, followed by a sale's
/// limit if it has one. The form is short because a line is copied half a dozen times between the
/// handler and the disks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LineWire")]
pub struct OrderLine {
    /// The product.
    pub product_id: ProductId,
    /// Its name when it was ordered.
    pub product_name: String,
    /// The number of units.
    pub quantity: Quantity,
    /// The list price per unit.
    pub price: Money,
    /// The price per unit that was charged.
    pub unit_price: Money,
    /// `unit_price · quantity`.
    pub sub_total: Money,
    /// The sale's limit that the line counts against.
    pub allowance: Option<Allowance>,
}

impl OrderLine {
    /// The posting that takes its units of the sale's limit.
    pub(crate) fn take_allowance(&self, user: UserId) -> Option<Posting> {
        let quantity = i64::from(self.quantity.get());
        Some(self.allowance?.take(self.product_id, user, quantity))
    }
}

#[derive(Deserialize)]
struct LineWire(
    ProductId,
    String,
    Quantity,
    Money,
    Money,
    #[serde(default)] Option<Allowance>,
);

impl TryFrom<LineWire> for OrderLine {
    type Error = MoneyError;

    fn try_from(wire: LineWire) -> Result<Self, MoneyError> {
        let LineWire(product_id, product_name, quantity, price, unit_price, allowance) = wire;
        Ok(Self {
            product_id,
            product_name,
            quantity,
            price,
            unit_price,
            sub_total: unit_price.times(quantity.get()).ok_or(MoneyError)?,
            allowance,
        })
    }
}

impl Serialize for OrderLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (id, name, quantity) = (self.product_id, &self.product_name, self.quantity);
        match self.allowance {
            None => (id, name, quantity, self.price, self.unit_price).serialize(serializer),
            Some(allowance) => {
                (id, name, quantity, self.price, self.unit_price, allowance).serialize(serializer)
            }
        }
    }
}

/// The payment of an order that was a checkout. In the order's body `[id, is late]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, bool)", into = "(String, bool)")]
pub struct Paid {
    /// The payment's id, as the payment provider names it.
    pub payment_id: String,
    /// Whether it came after the checkout had expired.
    pub is_late: bool,
}

impl From<(String, bool)> for Paid {
    fn from((payment_id, is_late): (String, bool)) -> Self {
        Self {
            payment_id,
            is_late,
        }
    }
}

impl From<Paid> for (String, bool) {
    fn from(paid: Paid) -> Self {
        (paid.payment_id, paid.is_late)
    }
}

/// A priced order: the body of its entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The buyer.
    pub user_id: UserId,
    /// The path by which it was placed.
    pub path: Path,
    /// How it reaches the buyer.
    pub delivery_type: DeliveryType,
    /// The store whose stock it takes; none for ONLINE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<u64>,
    /// The products that are bought, one line per product.
    pub lines: Vec<OrderLine>,
    /// The amount that is paid: the lines' sum less the coupon's discount and the points.
    pub total_amount: Money,
    /// The coupon that it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon: Option<UsedCoupon>,
    /// The points that it used.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub used_points: Money,
    /// The points that it earned.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub earned_points: Money,
    /// The reservation whose stock it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_id: Option<Position>,
    /// The checkout that became it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkout_id: Option<Position>,
    /// The payment of that checkout. Only the entry says it; MySQL has it in `payments`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid: Option<Paid>,
    /// Whether the units that the store sells are also taken from the online stock.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares_online_stock: bool,
    /// The sale that a till made while it was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineSale>,
    /// The shop's own name of the buyer. Only the entry says it; MySQL has it in `buyers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<Buyer>,
    /// The shop's own name for the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// The longest reference, in characters.
pub const REFERENCE_MAX: usize = 100;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(amount: &Money) -> bool {
    *amount == Money::ZERO
}

impl Order {
    /// The location whose stock it takes.
    #[must_use]
    pub fn location(&self) -> LocationId {
        LocationId(self.store_id.unwrap_or(0))
    }

    /// The amount that the prices of the day saved: Σ (price − unit price) · quantity.
    #[must_use]
    pub fn discount_amount(&self) -> i64 {
        let saved = |line: &OrderLine| {
            let per_unit = i128::from(line.price.get()) - i128::from(line.unit_price.get());
            per_unit * i128::from(line.quantity.get())
        };
        let all: i128 = self.lines.iter().map(saved).sum();
        // The saving exceeds an i64 only at list prices that nobody can pay.
        i64::try_from(all).unwrap_or(i64::MAX)
    }

    /// The amount that the coupon took off.
    #[must_use]
    pub fn coupon_discount_amount(&self) -> Money {
        let coupon = self.coupon.as_ref();
        coupon.map_or(Money::ZERO, |coupon| coupon.discount_amount)
    }

    /// The postings of placing it: stock in the order of its lines, then limits, then points. What
    /// a hold has set aside is taken from there.
    #[must_use]
    pub fn postings(&self, held: Option<&Held>) -> Vec<Posting> {
        let of_hold = |line: &OrderLine| {
            let lines = held.map_or(&[][..], |held| held.lines.as_slice());
            lines.iter().find(|of| of.product_id == line.product_id)
        };
        let mut postings = self.stock(-1);
        for (posting, line) in postings.iter_mut().zip(&self.lines) {
            if let Some(of) = of_hold(line) {
                *posting = of.release();
            }
        }
        let limited = self.lines.iter().filter(|line| of_hold(line).is_none());
        postings.extend(limited.filter_map(|line| line.take_allowance(self.user_id)));
        postings.extend(held.and_then(Held::free_one));
        let points = Account::points(self.user_id);
        let (used, earned) = (self.used_points.get(), self.earned_points.get());
        let is_used = used > 0 && held.is_none_or(|held| held.points == 0);
        postings.extend(is_used.then(|| Posting::new(points, -used)));
        postings.extend((earned > 0).then(|| Posting::new(points, earned).opening(0)));
        postings
    }

    /// The stock of each line, and then the same from the online stock if the store shares it.
    fn stock(&self, sign: i64) -> Vec<Posting> {
        let online = self.shares_online_stock.then_some(LocationId::ONLINE);
        let locations = [self.location()].into_iter().chain(online);
        let at = |location| {
            self.lines.iter().map(move |line| {
                let account = Account::available(line.product_id, location);
                Posting::new(account, sign * i64::from(line.quantity.get()))
            })
        };
        locations.flat_map(at).collect()
    }
}

/// The id of an order's state.
#[must_use]
pub fn state_id(order: Position) -> String {
    format!("order:{order}")
}

/// The conditions under which an order is placed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// The times between which its prices hold, in Unix ms; 0 is no bound.
    pub window_ms: Option<(u64, u64)>,
    /// Whether it is priced anew and sent again outside that time.
    pub retried_anew: bool,
    /// The reservation whose stock it takes, and the time at which the reservation expires, in Unix
    /// ms.
    pub held: Option<&'a (Held, u64)>,
}

/// Places an order: takes each line's stock, all or nothing.
///
/// # Errors
/// [`DraftError`] when the order has no JSON form.
pub fn place(
    order: &Order,
    terms: Terms<'_>,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut draft = Draft::new(Kind::OrderPlaced, order.user_id, order)?;
    let held = terms.held.map(|(held, _)| held);
    draft.postings = order.postings(held);
    draft.transitions = held.map(|held| held.ends(ORDERED)).into_iter().collect();
    draft.reference = order.reservation_id.map(|id| id.to_string());
    if let (Some(sale), Some(store)) = (&order.offline, order.store_id) {
        draft
            .transitions
            .push(sale.transition(store, order, "SOLD"));
        draft.reference = Some(sale.key.clone());
    }
    // The code is checked after stock and limits, and before points.
    let late_check = order.coupon.as_ref().map(|coupon| {
        draft.transitions.push(coupon.uses(order.user_id));
        let mut postings = draft.postings.iter();
        let points = postings.position(|posting| posting.account.kind == AccountKind::Points);
        points.unwrap_or(draft.postings.len())
    });
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.late_check = late_check;
    // A till's sale has happened. So it is taken although the product may be off sale by now, or
    // selling stopped.
    request.takes_stock = order.offline.is_none();
    request.allow_closed = order.offline.is_some();
    let release = |(held, until_ms): &(Held, u64)| held.ends_before(*until_ms);
    request.release = terms.held.map(release);
    request.window_ms = terms.window_ms;
    request.retried_anew = terms.retried_anew;
    Ok(request)
}

/// Notes a till's sale for which there is no stock. A person has to resolve it.
///
/// # Errors
/// [`DraftError`] when the order has no JSON form.
pub fn oversold(order: &Order) -> Result<Request, DraftError> {
    let mut draft = Draft::new(Kind::SaleOversold, order.user_id, order)?;
    if let (Some(sale), Some(store)) = (&order.offline, order.store_id) {
        draft
            .transitions
            .push(sale.transition(store, order, "OVERSOLD"));
        draft.reference = Some(sale.key.clone());
    }
    Ok(Request::new(draft))
}

#[cfg(test)]
mod tests {
    use super::OrderStatus::{self, Cancel, CancelRequested, Fail, OrderPending, Success};
    use crate::quantity::Quantity;

    #[test]
    fn an_order_goes_only_the_ways_of_the_state_table() {
        let allowed = [
            (OrderPending, Success),
            (OrderPending, Fail),
            (OrderPending, CancelRequested),
            (Success, CancelRequested),
            (CancelRequested, Cancel),
        ];
        for from in OrderStatus::ALL {
            for next in OrderStatus::ALL {
                assert_eq!(
                    from.may_become(next),
                    allowed.contains(&(from, next)),
                    "{from:?} {next:?}"
                );
            }
        }
    }

    #[test]
    fn a_mark_is_newer_than_what_is_stored_but_not_than_a_settled_cancel() {
        let state = Some("CANCEL_REQUESTED");
        assert_eq!(OrderPending.with_state(state), CancelRequested);
        assert_eq!(Success.with_state(state), CancelRequested);
        assert_eq!(Cancel.with_state(state), Cancel);
        assert_eq!(Success.with_state(Some("FAIL")), Fail);
        assert_eq!(Success.with_state(None), Success);
    }

    #[test]
    fn a_quantity_is_between_one_and_a_million() {
        assert!(Quantity::new(0).is_err());
        assert!(Quantity::new(1_000_001).is_err());
        let most = Quantity::new(1_000_000).unwrap();
        assert_eq!(most.plus(Quantity::new(1).unwrap()), None);
    }
}
