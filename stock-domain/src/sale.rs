//! Flash sales: a window, a price and a limit per buyer for one product.
//!
//! The newest sale governs its product from its creation until it is deleted. A `SALE_ONLY` product
//! is sold only in the window. An `ALWAYS` product is also sold outside the window, at its normal
//! price and without the limit. In both cases an order is priced for one side of the window, and
//! carries the times between which that price holds ([`Sale::window_at`]). The script checks these
//! times by Redis' clock. So nobody is charged a price of the other side, however wrong a service's
//! clock is.
//!
//! The script checks a limit when a buyer takes units, by the limit that the sale has then. The
//! buyer's ALLOWANCE only counts the units that were taken, down from [`COUNTED_FROM`]. That is why
//! a limit can change while a sale runs.

use serde::{Deserialize, Serialize};
use stock_common::id::{ProductId, SaleId, UserId};
use stock_common::money::Money;

use crate::account::Account;
use crate::posting::Posting;

/// The level at which an ALLOWANCE is opened, and the highest limit. The units that are missing
/// from it were taken.
pub const COUNTED_FROM: u32 = 1_000_000;

/// When the product of a sale is sold.
#[derive(Debug, Clone, Copy, PartialEq, Hash, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Availability {
    /// In the sale's window only.
    #[default]
    SaleOnly,
    /// At any time; outside the window at its normal price and without the limit.
    Always,
}

impl Availability {
    /// Every availability.
    pub const ALL: [Self; 2] = [Self::SaleOnly, Self::Always];

    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SaleOnly => "SALE_ONLY",
            Self::Always => "ALWAYS",
        }
    }

    /// The availability of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

/// A sale of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The sale.
    pub id: SaleId,
    /// When it opens, in Unix ms.
    pub starts_ms: u64,
    /// When it closes, in Unix ms.
    pub ends_ms: u64,
    /// Its price per unit, which takes no discount; none leaves the product's price.
    pub price: Option<Money>,
    /// How many units one buyer may take in it.
    pub limit_per_user: Option<u32>,
    /// The level at which its buyers' ALLOWANCEs are opened: [`COUNTED_FROM`], or the limit of a
    /// sale that was made before limits could change.
    pub counted_from: u32,
    /// When its product is sold.
    pub availability: Availability,
}

/// The changes that an admin makes to a sale; a field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaleChange {
    /// When it opens, in Unix ms.
    pub starts_ms: Option<u64>,
    /// When it closes, in Unix ms.
    pub ends_ms: Option<u64>,
    /// Its price per unit; `Some(None)` leaves the product's price.
    pub price: Option<Option<Money>>,
    /// How many units one buyer may take in it; `Some(None)` is no limit.
    pub limit_per_user: Option<Option<u32>>,
}

/// Why a sale cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchangeable {
    /// It is over, or another sale governs its product.
    Over,
    /// It has begun, and the named field cannot be changed like that any more.
    Begun(&'static str),
    /// A buyer has taken more than the new limit.
    BelowTaken {
        /// How many units that buyer has taken.
        taken: u32,
    },
    /// It would end before it begins.
    Backwards,
}

/// Whether a sale has begun or is over, as pages show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleState {
    /// Its window has not opened.
    Upcoming,
    /// Its window is open.
    Running,
    /// Its window has closed.
    Over,
}

impl SaleState {
    /// The name in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upcoming => "UPCOMING",
            Self::Running => "RUNNING",
            Self::Over => "OVER",
        }
    }
}

impl Sale {
    /// Whether it has begun or is over at a time in Unix ms.
    #[must_use]
    pub const fn state(&self, now_ms: u64) -> SaleState {
        if now_ms < self.starts_ms {
            SaleState::Upcoming
        } else if now_ms < self.ends_ms {
            SaleState::Running
        } else {
            SaleState::Over
        }
    }

    /// The sale with a change, checked at a time in Unix ms. `most_taken` is the largest number of
    /// units that any one buyer has taken. A buyer who takes more at the moment of the change keeps
    /// the units, and gets no more.
    ///
    /// # Errors
    /// [`Unchangeable`].
    pub fn changed(
        &self,
        change: SaleChange,
        now_ms: u64,
        most_taken: u32,
    ) -> Result<Self, Unchangeable> {
        let has_begun = match self.state(now_ms) {
            SaleState::Upcoming => false,
            SaleState::Running => true,
            SaleState::Over => return Err(Unchangeable::Over),
        };
        let mut changed = self.clone();
        if let Some(starts_ms) = change.starts_ms.filter(|starts| *starts != self.starts_ms) {
            if has_begun {
                return Err(Unchangeable::Begun("startsAt"));
            }
            changed.starts_ms = starts_ms;
        }
        changed.ends_ms = change.ends_ms.unwrap_or(self.ends_ms);
        if changed.starts_ms >= changed.ends_ms {
            return Err(Unchangeable::Backwards);
        }
        changed.price = change.price.unwrap_or(self.price);
        changed.limit_per_user = change.limit_per_user.unwrap_or(self.limit_per_user);
        if !has_begun {
            // Nobody has taken anything yet, so an old sale may count from the new level too.
            changed.counted_from = COUNTED_FROM;
            return Ok(changed);
        }
        match (self.limit_per_user, changed.limit_per_user) {
            // Units that were taken without a limit were not counted.
            (None, Some(_)) => Err(Unchangeable::Begun("limitPerUser")),
            (_, Some(limit)) if limit > self.counted_from => {
                Err(Unchangeable::Begun("limitPerUser"))
            }
            (_, Some(limit)) if limit < most_taken => {
                Err(Unchangeable::BelowTaken { taken: most_taken })
            }
            (_, Some(_) | None) => Ok(changed),
        }
    }

    /// Whether its price and its limit count at a time in Unix ms.
    #[must_use]
    pub fn counts(&self, now_ms: u64) -> bool {
        match self.availability {
            Availability::SaleOnly => true,
            Availability::Always => self.state(now_ms) == SaleState::Running,
        }
    }

    /// Whether its product has another price outside the window, instead of not being sold.
    #[must_use]
    pub fn is_repriced(&self) -> bool {
        self.availability == Availability::Always
    }

    /// The times, in Unix ms, between which the price of `now_ms` holds; 0 is no bound.
    #[must_use]
    pub fn window_at(&self, now_ms: u64) -> (u64, u64) {
        match (self.availability, self.state(now_ms)) {
            (Availability::SaleOnly, _) | (Availability::Always, SaleState::Running) => {
                (self.starts_ms, self.ends_ms)
            }
            (Availability::Always, SaleState::Upcoming) => (0, self.starts_ms),
            (Availability::Always, SaleState::Over) => (self.ends_ms, 0),
        }
    }

    /// Returns the allowance from which an order of one buyer takes, if the sale has a limit.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.limit_per_user.map(|limit| Allowance {
            sale_id: self.id,
            limit,
            counted_from: self.counted_from,
        })
    }
}

/// A sale's limit, as an order or a reservation met it. In an entry's body it is `[sale, limit]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(SaleId, u32)", into = "(SaleId, u32)")]
pub struct Allowance {
    /// The sale.
    pub sale_id: SaleId,
    /// How many units one buyer may take in it.
    pub limit: u32,
    /// The level at which the account is opened. No body keeps it, because only taking needs it.
    pub counted_from: u32,
}

impl Allowance {
    /// The least level that taking may leave. A buyer at that level has taken all that the limit
    /// allows.
    #[must_use]
    pub fn least(self) -> i64 {
        i64::from(self.counted_from.saturating_sub(self.limit))
    }

    /// The posting that takes units of what a buyer may still have.
    pub(crate) fn take(self, product: ProductId, user: UserId, quantity: i64) -> Posting {
        let account = Account::allowance(self.sale_id, user);
        Posting::new(account, -quantity)
            .opening(i64::from(self.counted_from))
            .leaving(self.least())
            .beside(product)
    }

    /// The posting that gives units back.
    pub(crate) fn give_back(self, product: ProductId, user: UserId, quantity: i64) -> Posting {
        Posting::new(Account::allowance(self.sale_id, user), quantity).beside(product)
    }
}

impl From<(SaleId, u32)> for Allowance {
    fn from((sale_id, limit): (SaleId, u32)) -> Self {
        Self {
            sale_id,
            limit,
            counted_from: COUNTED_FROM,
        }
    }
}

impl From<Allowance> for (SaleId, u32) {
    fn from(allowance: Allowance) -> Self {
        (allowance.sale_id, allowance.limit)
    }
}

/// The times, in Unix ms, between which all prices hold that the products of some sales have at
/// `now_ms`. 0 is no bound; `None` is no sale.
#[must_use]
pub fn window<'a>(sales: impl Iterator<Item = &'a Sale>, now_ms: u64) -> Option<(u64, u64)> {
    let earlier = |a: u64, b: u64| match (a, b) {
        (0, only) | (only, 0) => only,
        (a, b) => a.min(b),
    };
    sales
        .map(|sale| sale.window_at(now_ms))
        .reduce(|(opens, closes), (starts, ends)| (opens.max(starts), earlier(closes, ends)))
}

#[cfg(test)]
mod tests {
    use stock_common::id::SaleId;

    use super::Availability::{Always, SaleOnly};
    use super::{Availability, COUNTED_FROM, Sale, SaleChange, Unchangeable, window};

    fn sale(availability: Availability, starts_ms: u64, ends_ms: u64) -> Sale {
        Sale {
            id: SaleId(1),
            starts_ms,
            ends_ms,
            price: None,
            limit_per_user: Some(2),
            counted_from: COUNTED_FROM,
            availability,
        }
    }

    fn check(sales: &[Sale], now_ms: u64, expected: (u64, u64)) {
        assert_eq!(
            window(sales.iter(), now_ms),
            Some(expected),
            "{sales:?} {now_ms}"
        );
    }

    #[test]
    fn a_sale_changes_only_what_takes_nothing_from_its_buyers() {
        let of = sale(SaleOnly, 10, 20);
        let limit = |limit| SaleChange {
            limit_per_user: Some(limit),
            ..SaleChange::default()
        };
        let starts = |at| SaleChange {
            starts_ms: Some(at),
            ..SaleChange::default()
        };
        let ends = |at| SaleChange {
            ends_ms: Some(at),
            ..SaleChange::default()
        };
        let unlimited = Sale {
            limit_per_user: None,
            ..of.clone()
        };
        let of_before = Sale {
            counted_from: 2,
            ..of.clone()
        };
        for (of, change, now_ms, expected) in [
            (&of, starts(5), 9, Ok(())),
            (&of, starts(5), 10, Err(Unchangeable::Begun("startsAt"))),
            (&of, starts(10), 10, Ok(())),
            (&of, starts(20), 9, Err(Unchangeable::Backwards)),
            (&of, ends(30), 19, Ok(())),
            (&of, ends(10), 15, Err(Unchangeable::Backwards)),
            (&of, ends(30), 20, Err(Unchangeable::Over)),
            (&of, limit(Some(1)), 15, Ok(())),
            (
                &of,
                limit(Some(0)),
                15,
                Err(Unchangeable::BelowTaken { taken: 1 }),
            ),
            (&of, limit(Some(COUNTED_FROM)), 15, Ok(())),
            (&of, limit(None), 15, Ok(())),
            (&unlimited, limit(Some(1)), 9, Ok(())),
            (
                &unlimited,
                limit(Some(1)),
                15,
                Err(Unchangeable::Begun("limitPerUser")),
            ),
            (&of_before, limit(Some(1)), 15, Ok(())),
            (&of_before, limit(Some(3)), 9, Ok(())),
            (
                &of_before,
                limit(Some(3)),
                15,
                Err(Unchangeable::Begun("limitPerUser")),
            ),
        ] {
            let got = of.changed(change, now_ms, 1).map(|_changed| ());
            assert_eq!(got, expected, "{of:?} {change:?} {now_ms}");
        }
        let changed = of_before.changed(limit(Some(3)), 9, 0).unwrap();
        assert_eq!(changed.counted_from, COUNTED_FROM);
    }

    #[test]
    fn a_price_holds_on_the_side_of_the_window_for_which_it_was_found() {
        let only = sale(SaleOnly, 10, 20);
        let always = sale(Always, 10, 20);
        for now_ms in [9, 10, 19, 20] {
            check(std::slice::from_ref(&only), now_ms, (10, 20));
            assert!(only.counts(now_ms));
            assert_eq!(always.counts(now_ms), (10..20).contains(&now_ms));
        }
        check(std::slice::from_ref(&always), 9, (0, 10));
        check(std::slice::from_ref(&always), 10, (10, 20));
        check(std::slice::from_ref(&always), 20, (20, 0));
        // For several sales, the times in which all prices hold: before one of them and within the
        // other, and so on.
        let other = sale(SaleOnly, 5, 15);
        check(&[always.clone(), other.clone()], 7, (5, 10));
        check(&[other.clone(), always.clone()], 12, (10, 15));
        check(&[always, other], 25, (20, 15));
        assert_eq!(window([].into_iter(), 1), None);
    }
}
