//! Taking orders back: whole or in part, at somebody's word or because they could not be stored.
//!
//! A part is some units of some lines, as often as there is something left. The state of the order
//! says how many units of each line are left, so two parts at once cannot take back the same unit.
//! With each part go its share of the coupon's discount and of the points: pro rata by line,
//! rounded down. The rest, and the coupon itself, go with the last unit. The shares of all units
//! that are back by now follow from their numbers alone, so the way there does not matter.

mod shares;

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, Position, ProductId, SaleId, UserId};

pub use self::shares::{Shares, Units};
use super::{Order, OrderStatus, state_id};
use crate::account::Account;
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::posting::Posting;
use crate::request::Request;
use crate::transition::Transition;

/// The way of units that were taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Way {
    /// They never left, and go back to where they were taken from.
    Cancelled,
    /// They came back, to a location.
    Returned,
    /// They came back, and are sold no more.
    WrittenOff,
}

impl Way {
    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Returned => "RETURNED",
            Self::WrittenOff => "WRITTEN_OFF",
        }
    }

    /// The way of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Cancelled, Self::Returned, Self::WrittenOff]
            .into_iter()
            .find(|way| way.as_str() == name)
    }
}

/// A step: a part of an order that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The way of the units.
    pub way: Way,
    /// The location to which they came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<LocationId>,
    /// The units of each line that are left afterwards, as text.
    pub left: String,
    /// The shares that went with the step.
    pub shares: Shares,
}

/// The body of the entry of a cancel, a failure or a part that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderReversed {
    /// The order that was taken back.
    pub order_id: Position,
    /// The step; none for a whole order of which no part was taken back before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
}

/// An order to be taken back, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Reversed<'a> {
    /// Its id.
    pub id: Position,
    /// The order.
    pub order: &'a Order,
    /// Whether its coupon's code still has a state. Long after a coupon is over its codes have
    /// none, and nothing is given back.
    pub has_code: bool,
    /// Sales among its lines whose limits are forgotten (`stock-engine` (`forget_sales`)). They get
    /// nothing back.
    pub forgotten: &'a [SaleId],
    /// The units that are left, if a part was taken back before.
    pub left: Option<&'a Units>,
    /// Whether the state of the order says so; it may be forgotten by now.
    pub has_state: bool,
}

/// The part to take back.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The units of each line.
    pub units: &'a Units,
    /// The way of the units.
    pub way: Way,
    /// The location to which they come back; none is where they were taken from.
    pub location: Option<LocationId>,
}

impl Reversed<'_> {
    fn left(&self) -> Units {
        self.left.cloned().unwrap_or_else(|| Units::of(self.order))
    }

    /// The part that is all that is left.
    #[must_use]
    pub fn rest(&self) -> Units {
        self.left()
    }

    /// The postings of a part: stock, the limits of sales that are kept, points.
    fn postings(&self, part: &Part<'_>, shares: Shares) -> Vec<Posting> {
        let order = self.order;
        let lines = || {
            let lines = order.lines.iter().enumerate();
            let units = lines.map(|(at, line)| (line, i64::from(part.units.at(at))));
            units.filter(|(_, units)| *units > 0)
        };
        let stock = |location: LocationId| {
            lines().map(move |(line, units)| {
                let account = Account::available(line.product_id, location);
                let open = part.location.filter(|at| *at != LocationId::ONLINE);
                Posting {
                    open: open.map(|_| 0),
                    ..Posting::new(account, units)
                }
            })
        };
        let online = order.shares_online_stock.then_some(LocationId::ONLINE);
        let locations: Vec<LocationId> = match (part.way, part.location) {
            (Way::WrittenOff, _) => Vec::new(),
            (_, Some(location)) if location != order.location() => vec![location],
            // Of a store that shares the online stock a sale has taken both.
            (_, Some(_) | None) => [order.location()].into_iter().chain(online).collect(),
        };
        let mut postings: Vec<Posting> = locations.into_iter().flat_map(stock).collect();
        postings.extend(lines().filter_map(|(line, units)| {
            let kept = line
                .allowance
                .filter(|allowance| !self.forgotten.contains(&allowance.sale_id));
            Some(kept?.give_back(line.product_id, order.user_id, units))
        }));
        let points = shares.used_points - shares.earned_points;
        let account = Account::points(order.user_id);
        postings.extend((points != 0).then(|| Posting::new(account, points)));
        postings
    }

    /// The product of the first line that has fewer units left than a part takes, and its units.
    #[must_use]
    pub fn short_of(&self, units: &Units) -> Option<(ProductId, u32)> {
        let left = self.left();
        let mut lines = self.order.lines.iter().enumerate();
        let short = lines.find(|(at, _)| units.at(*at) > left.at(*at));
        short.map(|(at, line)| (line.product_id, left.at(at)))
    }
}

/// Takes a part of an order back. The part that holds the last unit cancels the order.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn take_back(
    of: Reversed<'_>,
    part: &Part<'_>,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut request = reverse(Kind::OrderCancelled, of, part, actor)?;
    request.idempotency = idempotency;
    Ok(request)
}

/// Takes an order back at its owner's or an admin's word: gives back stock, limits, coupon and
/// points, once.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn cancel(
    of: Reversed<'_>,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let rest = of.rest();
    take_back(of, &whole(&rest), actor, idempotency)
}

/// Takes an order back that could not be stored. It does the same as a cancel, under the same
/// state, so that exactly one of the two happens.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn fail(of: Reversed<'_>) -> Result<Request, DraftError> {
    let rest = of.rest();
    reverse(Kind::OrderFailed, of, &whole(&rest), UserId::ENGINE)
}

const fn whole(rest: &Units) -> Part<'_> {
    Part {
        units: rest,
        way: Way::Cancelled,
        location: None,
    }
}

fn reverse(
    kind: Kind,
    of: Reversed<'_>,
    part: &Part<'_>,
    actor: UserId,
) -> Result<Request, DraftError> {
    let (order, before) = (of.order, of.left());
    let all = Units::of(order);
    // The caller has checked that so much is left.
    let left = before.less(part.units).unwrap_or_else(|| before.clone());
    let back = |left: &Units| {
        all.less(left)
            .map(|back| order.shares(&back))
            .unwrap_or_default()
    };
    let shares = back(&left).less(back(&before));
    let (kind, next) = match (left.is_empty(), kind) {
        (false, _) => (Kind::OrderReduced, left.state()),
        (true, Kind::OrderFailed) => (kind, OrderStatus::Fail.as_str().to_owned()),
        (true, _) => (kind, OrderStatus::CancelRequested.as_str().to_owned()),
    };
    let is_plain = before == all && left.is_empty() && part.way == Way::Cancelled;
    let body = OrderReversed {
        order_id: of.id,
        step: (!is_plain).then(|| Step {
            way: part.way,
            location: part.location,
            left: left.text(),
            shares,
        }),
    };
    let mut draft = Draft::new(kind, actor, &body)?;
    draft.reference = Some(of.id.to_string());
    draft.postings = of.postings(part, shares);
    let from = of.left.filter(|_| of.has_state).map(Units::state);
    let from = from.unwrap_or_default();
    draft.transitions = vec![Transition::new(state_id(of.id), &from, next)];
    let coupon = order
        .coupon
        .as_ref()
        .filter(|_| of.has_code && left.is_empty());
    let given_back = coupon.map(|coupon| coupon.gives_back(order.user_id));
    draft.transitions.extend(given_back);
    let mut request = Request::new(draft);
    request.allow_closed = true;
    request.allow_backlog = true;
    request.retried_anew = !is_plain;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, Position};

    use super::shares::tests::order;
    use super::{Part, Reversed, Shares, Units, Way};

    #[test]
    fn goods_that_come_back_to_their_store_come_back_online_too_if_both_were_taken() {
        let mut order = order(&[(2, 100)], 0, 0, 0);
        (order.store_id, order.shares_online_stock) = (Some(7), true);
        let units = Units::parse("1").unwrap();
        let places = |way, location| {
            let of = Reversed {
                id: Position::ZERO,
                order: &order,
                has_code: false,
                forgotten: &[],
                left: None,
                has_state: false,
            };
            let part = Part {
                units: &units,
                way,
                location,
            };
            let postings = of.postings(&part, Shares::default());
            let places = postings.iter().map(|of| (of.account.location, of.delta));
            places.collect::<Vec<_>>()
        };
        assert_eq!(places(Way::Cancelled, None), [(7, 1), (0, 1)]);
        assert_eq!(places(Way::Returned, Some(LocationId(7))), [(7, 1), (0, 1)]);
        assert_eq!(places(Way::Returned, Some(LocationId(8))), [(8, 1)]);
        assert_eq!(places(Way::WrittenOff, None), []);
    }
}
