//! Postings: the changes of accounts that a request asks for, and what the script made of them.

use stock_common::id::ProductId;

use crate::account::Account;

/// A signed change of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// The account that moves.
    pub account: Account,
    /// The change: ±1..=10^12; 0 only beside `open`.
    pub delta: i64,
    /// Opens a missing account at this level, 0..=10^12, by a posting of its own before this one.
    pub open: Option<i64>,
    /// The least level that it may leave, 0..=10^12; above 0 only beside `open`. This is a
    /// condition of the request, and the journal does not keep it.
    pub least: i64,
    /// The product on whose shard the account lies. An ALLOWANCE needs it, because its name holds
    /// the sale and not the product. The journal does not keep it.
    pub product: Option<ProductId>,
}

impl Posting {
    /// A change of an account that exists.
    #[must_use]
    pub const fn new(account: Account, delta: i64) -> Self {
        Self {
            account,
            delta,
            open: None,
            least: 0,
            product: None,
        }
    }

    /// The same posting, which opens a missing account first.
    #[must_use]
    pub const fn opening(self, level: i64) -> Self {
        Self {
            open: Some(level),
            ..self
        }
    }

    /// The same posting, which may not leave less than a level above zero.
    #[must_use]
    pub const fn leaving(self, least: i64) -> Self {
        Self { least, ..self }
    }

    /// The same posting, on the shard of a product.
    #[must_use]
    pub const fn beside(self, product: ProductId) -> Self {
        Self {
            product: Some(product),
            ..self
        }
    }
}

/// A posting with the level that the script gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The account that moved.
    pub account: Account,
    /// Sequence number of this posting within its account, from 1.
    pub seq: u64,
    /// The change.
    pub delta: i64,
    /// The balance after the change.
    pub balance_after: i64,
}
