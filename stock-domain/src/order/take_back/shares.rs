//! The units of an order that are left or back, and the shares of its benefits and its price that
//! belong to them.

use serde::{Deserialize, Serialize};
use stock_common::money::Money;

use crate::order::Order;

/// The first word of the state of an order of which a part was taken back.
const LEFT: &str = "LEFT ";

/// The units of each line, in the order of the lines. Its text is `2,0,5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units(Vec<u32>);

impl FromIterator<u32> for Units {
    fn from_iter<I: IntoIterator<Item = u32>>(units: I) -> Self {
        Self(units.into_iter().collect())
    }
}

impl Units {
    /// All units of an order.
    #[must_use]
    pub fn of(order: &Order) -> Self {
        Self(order.lines.iter().map(|line| line.quantity.get()).collect())
    }

    /// Reads the text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts = text.split(',').map(|part| part.parse().ok());
        parts.collect::<Option<_>>().map(Self)
    }

    /// Reads the state of an order; `None` when no part of it was taken back.
    #[must_use]
    pub fn of_state(state: &str) -> Option<Self> {
        Self::parse(state.strip_prefix(LEFT)?)
    }

    /// The state of an order of which this is left.
    #[must_use]
    pub fn state(&self) -> String {
        format!("{LEFT}{}", self.text())
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        parts.join(",")
    }

    /// The units of a line, from 0.
    #[must_use]
    pub fn at(&self, line: usize) -> u32 {
        self.0.get(line).copied().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|units| *units == 0)
    }

    /// The difference of two numbers of each line; `None` when a number would fall below zero.
    #[must_use]
    pub fn less(&self, other: &Self) -> Option<Self> {
        let both = self.0.iter().zip(&other.0);
        let less = both.map(|(all, less)| all.checked_sub(*less));
        less.collect::<Option<_>>().map(Self)
    }
}

/// The shares of an order's benefits that belong to some of its units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Of the coupon's discount.
    pub coupon_discount: i64,
    /// Of the points that it used.
    pub used_points: i64,
    /// Of the points that it earned.
    pub earned_points: i64,
}

impl Shares {
    pub(super) const fn less(self, other: Self) -> Self {
        Self {
            coupon_discount: self.coupon_discount - other.coupon_discount,
            used_points: self.used_points - other.used_points,
            earned_points: self.earned_points - other.earned_points,
        }
    }
}

impl Order {
    /// The shares of its benefits that belong to the units of each line, out of `all`.
    #[must_use]
    pub fn shares(&self, of: &Units) -> Shares {
        let whole = Shares {
            coupon_discount: self.coupon_discount_amount().get(),
            used_points: self.used_points.get(),
            earned_points: self.earned_points.get(),
        };
        if *of == Units::of(self) {
            return whole;
        }
        let price =
            |line: usize| i128::from(self.lines.get(line).map_or(0, |of| of.unit_price.get()));
        let amounts: Vec<i128> = (0..self.lines.len())
            .map(|line| price(line) * i128::from(of.at(line)))
            .collect();
        let sum: i128 = self
            .lines
            .iter()
            .map(|of| i128::from(of.sub_total.get()))
            .sum();
        let share = |benefit: i64| {
            let of_line = |amount: &i128| match sum {
                0 => 0,
                sum => i128::from(benefit) * amount / sum,
            };
            let share: i128 = amounts.iter().map(of_line).sum();
            // A share is at most the whole, which is an i64.
            i64::try_from(share).unwrap_or(benefit)
        };
        Shares {
            coupon_discount: share(whole.coupon_discount),
            used_points: share(whole.used_points),
            earned_points: share(whole.earned_points),
        }
    }

    /// The amount that is refunded when some of its units are back, given what was refunded before
    /// that: the price of the units, less their shares of the discount and of the points that were
    /// used. Shares are rounded down, so of cheap units it could be more than what was paid: it
    /// never is.
    #[must_use]
    pub fn refunded(&self, back: &Units, before: Money) -> Money {
        let lines = self.lines.iter().enumerate();
        let price: i64 = lines
            .filter_map(|(at, line)| line.unit_price.times(back.at(at)))
            .map(Money::get)
            .sum();
        let shares = self.shares(back);
        let due = Money::new(price - shares.coupon_discount - shares.used_points);
        due.unwrap_or(Money::ZERO)
            .min(self.total_amount)
            .max(before)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use stock_common::id::{CouponId, ProductId, UserId};
    use stock_common::money::Money;

    use super::{Shares, Units};
    use crate::coupon::UsedCoupon;
    use crate::order::{DeliveryType, Order, OrderLine, Path};
    use crate::quantity::Quantity;

    pub(in crate::order::take_back) fn order(
        lines: &[(u32, i64)],
        discount: i64,
        used: i64,
        earned: i64,
    ) -> Order {
        let money = |units| Money::new(units).unwrap();
        let lines = (1..).zip(lines).map(|(id, &(quantity, price))| OrderLine {
            product_id: ProductId(id),
            product_name: String::new(),
            quantity: Quantity::new(quantity).unwrap(),
            price: money(price),
            unit_price: money(price),
            sub_total: money(price).times(quantity).unwrap(),
            allowance: None,
        });
        Order {
            user_id: UserId(2),
            path: Path::Redis,
            delivery_type: DeliveryType::Online,
            store_id: None,
            total_amount: {
                let sums: i64 = lines.clone().map(|line| line.sub_total.get()).sum();
                money((sums - discount - used).max(0))
            },
            lines: lines.collect(),
            coupon: Some(UsedCoupon {
                code: "A".to_owned(),
                coupon_id: CouponId(1),
                discount_amount: money(discount),
            }),
            used_points: money(used),
            earned_points: money(earned),
            reservation_id: None,
            checkout_id: None,
            paid: None,
            shares_online_stock: false,
            offline: None,
            buyer: None,
            reference: None,
        }
    }

    #[test]
    fn a_share_is_rounded_down_by_line_and_the_rest_goes_with_the_last_unit() {
        let order = order(&[(3, 1_000), (1, 500)], 100, 33, 7);
        let shares = |text: &str| {
            let Shares {
                coupon_discount,
                used_points,
                earned_points,
            } = order.shares(&Units::parse(text).unwrap());
            (coupon_discount, used_points, earned_points)
        };
        assert_eq!(shares("0,0"), (0, 0, 0));
        assert_eq!(shares("1,0"), (28, 9, 2));
        assert_eq!(shares("1,1"), (28 + 14, 9 + 4, 2 + 1));
        assert_eq!(shares("3,0"), (85, 28, 6));
        assert_eq!(shares("3,1"), (100, 33, 7));
    }

    #[test]
    fn the_refunds_of_small_parts_are_together_what_was_paid() {
        // Danger: three units of 1, a coupon of 1 and a point: each unit's shares are rounded down
        // to nothing, so the first two refunded 2, though 1 was paid.
        let order = order(&[(3, 1)], 1, 1, 0);
        assert_eq!(order.total_amount.get(), 1);
        let mut refunded = Money::ZERO;
        let steps = ["1", "2", "3"].map(|back| {
            let before = refunded;
            refunded = order.refunded(&Units::parse(back).unwrap(), before);
            refunded.get() - before.get()
        });
        assert_eq!(steps, [1, 0, 0]);
    }

    proptest! {
        #[test]
        fn every_way_of_taking_an_order_back_gives_the_same_and_never_more(
            lines in prop::collection::vec((1_u32..5, 0_i64..3_000), 1..5),
            benefits in (0_i64..500, 0_i64..500, 0_i64..500),
            picks in prop::collection::vec(0_usize..5, 30),
        ) {
            let (discount, used, earned) = benefits;
            let order = order(&lines, discount, used, earned);
            let all = Units::of(&order);
            let (mut back, mut given) = (all.less(&all).unwrap(), Shares::default());
            let mut refunded = Money::ZERO;
            let every = (0..lines.len()).flat_map(|line| [line; 5]);
            for line in picks.into_iter().chain(every) {
                let mut next = back.clone();
                match next.0.get_mut(line) {
                    Some(units) if *units < all.at(line) => *units += 1,
                    _ => continue,
                }
                let step = order.shares(&next).less(order.shares(&back));
                for share in [step.coupon_discount, step.used_points, step.earned_points] {
                    prop_assert!(share >= 0, "{step:?}");
                }
                given.coupon_discount += step.coupon_discount;
                given.used_points += step.used_points;
                given.earned_points += step.earned_points;
                let by_now = order.refunded(&next, refunded);
                prop_assert!(by_now >= refunded && by_now <= order.total_amount, "{by_now:?}");
                (back, refunded) = (next, by_now);
            }
            prop_assert_eq!(&back, &all);
            prop_assert_eq!(refunded, order.total_amount);
            prop_assert_eq!(
                (given.coupon_discount, given.used_points, given.earned_points),
                benefits
            );
        }
    }
}
