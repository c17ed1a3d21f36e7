//! Flash sales: a window, a price and a limit per buyer that govern one product.
//!
//! The newest sale governs its product from its creation until it is deleted. An order is priced and
//! limited by it without looking at a clock; whether the window is open is judged by the script, by
//! Redis' time.

use serde::{Deserialize, Serialize};
use stock_common::id::{ProductId, SaleId, UserId};
use stock_common::money::Money;

use crate::account::Account;
use crate::journal::Posting;

/// A sale of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The sale.
    pub id: SaleId,
    /// When it opens, in Unix ms.
    pub starts_ms: u64,
    /// When it closes, in Unix ms.
    pub ends_ms: u64,
    /// Its price per unit, which takes no discount; none leaves the product's.
    pub price: Option<Money>,
    /// How many units one buyer may have in it.
    pub limit_per_user: Option<u32>,
}

/// Whether a sale has begun, as pages show it.
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
    /// Whether it has begun at a time in Unix ms.
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

    /// What an order of one buyer takes from the limit, if there is one.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.limit_per_user.map(|limit| Allowance {
            sale_id: self.id,
            limit,
        })
    }
}

/// A sale's limit, as an order or reservation met it. In an entry's body `[sale, limit]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(SaleId, u32)", into = "(SaleId, u32)")]
pub struct Allowance {
    /// The sale.
    pub sale_id: SaleId,
    /// How many units one buyer may have in it; the account is opened at this level.
    pub limit: u32,
}

impl Allowance {
    /// Takes units out of what a buyer may still have; the first time at the sale's limit.
    pub(crate) fn take(self, product: ProductId, user: UserId, quantity: i64) -> Posting {
        let account = Account::allowance(self.sale_id, user);
        Posting::new(account, -quantity)
            .opening(i64::from(self.limit))
            .beside(product)
    }

    /// Gives units back.
    pub(crate) fn give_back(self, product: ProductId, user: UserId, quantity: i64) -> Posting {
        Posting::new(Account::allowance(self.sale_id, user), quantity).beside(product)
    }
}

impl From<(SaleId, u32)> for Allowance {
    fn from((sale_id, limit): (SaleId, u32)) -> Self {
        Self { sale_id, limit }
    }
}

impl From<Allowance> for (SaleId, u32) {
    fn from(allowance: Allowance) -> Self {
        (allowance.sale_id, allowance.limit)
    }
}

/// The time between which all of some sales are open, in Unix ms; `None` without a sale.
#[must_use]
pub fn window<'a>(sales: impl Iterator<Item = &'a Sale>) -> Option<(u64, u64)> {
    sales
        .map(|sale| (sale.starts_ms, sale.ends_ms))
        .reduce(|(opens, closes), (starts, ends)| (opens.max(starts), closes.min(ends)))
}
