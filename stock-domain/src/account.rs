//! Accounts: everything that can run out is a balance that never falls below zero.
//!
//! An account is named by the thing that it counts, its owner and its location:
//! `(kind, owner, location)`. Redis holds its current [`Level`]. MySQL holds the level at the
//! watermark, and every posting that led there.
//!
//! An account that is opened at its first touch lies in a [`Book`], where a missing account and a
//! lost one can be told apart. The other accounts have a key of their own and must exist.

use std::fmt;

use serde::{Deserialize, Serialize};
use stock_common::id::{CouponId, LocationId, ProductId, SaleId, UserId};

/// The kind of thing that an account counts. The order is that of MySQL's `ENUM`, in which rows are
/// locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccountKind {
    /// Units of a product that may be sold at a location.
    Available,
    /// Units of a product that are held at a location. Physical stock is available plus reserved.
    Reserved,
    /// Units that one user has taken in a sale, counted down from [`crate::sale::COUNTED_FROM`].
    Allowance,
    /// Coupons of a campaign that are left to be drawn.
    Coupon,
    /// A user's points.
    Points,
    /// How many more reservations a user may have at once.
    Hold,
    /// A part of a product's online stock that the first release had divided. Nothing opens one any
    /// more.
    Bucket,
}

impl AccountKind {
    /// Every kind, in the order of MySQL's `ENUM`.
    pub const ALL: [Self; 7] = [
        Self::Available,
        Self::Reserved,
        Self::Allowance,
        Self::Coupon,
        Self::Points,
        Self::Hold,
        Self::Bucket,
    ];

    /// The name in keys, tables and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Reserved => "RESERVED",
            Self::Allowance => "ALLOWANCE",
            Self::Coupon => "COUPON",
            Self::Points => "POINTS",
            Self::Hold => "HOLD",
            Self::Bucket => "BUCKET",
        }
    }

    /// Its number in MySQL's `ENUM`, from 1: a number is cheaper to write than a name.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The kind of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether new levels are published, for live pages and sold-out flags.
    #[must_use]
    pub const fn is_announced(self) -> bool {
        matches!(self, Self::Available | Self::Coupon)
    }
}

/// The name of an account. Its text form, `AVAILABLE:7:0`, is the end of its key in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The kind of thing that it counts.
    pub kind: AccountKind,
    /// A product, sale, coupon or user, by kind.
    pub owner: u64,
    /// The location of stock. An `ALLOWANCE` keeps its user here, a `HOLD` its limit, and the other
    /// kinds keep 0.
    pub location: u64,
}

impl Account {
    /// The first account in the order of accounts.
    pub const FIRST: Self = Self {
        kind: AccountKind::Available,
        owner: 0,
        location: 0,
    };

    /// Units of a product that may be sold at a location.
    #[must_use]
    pub const fn available(product: ProductId, location: LocationId) -> Self {
        Self {
            kind: AccountKind::Available,
            owner: product.0,
            location: location.0,
        }
    }

    /// Units of a product that are held at a location.
    #[must_use]
    pub const fn reserved(product: ProductId, location: LocationId) -> Self {
        Self {
            kind: AccountKind::Reserved,
            owner: product.0,
            location: location.0,
        }
    }

    /// Units that a user has taken in a sale, counted down from [`crate::sale::COUNTED_FROM`].
    #[must_use]
    pub const fn allowance(sale: SaleId, user: UserId) -> Self {
        Self {
            kind: AccountKind::Allowance,
            owner: sale.0,
            location: user.0,
        }
    }

    /// How many more reservations a user may have at once. The limit is a part of the name: another
    /// setting begins another account, and a hold goes back to the account from which it was taken.
    #[must_use]
    pub const fn hold(user: UserId, limit: u32) -> Self {
        Self {
            kind: AccountKind::Hold,
            owner: user.0,
            location: limit as u64,
        }
    }

    /// Coupons of a campaign that are left to be drawn.
    #[must_use]
    pub const fn coupon(coupon: CouponId) -> Self {
        Self {
            kind: AccountKind::Coupon,
            owner: coupon.0,
            location: 0,
        }
    }

    /// A user's points.
    #[must_use]
    pub const fn points(user: UserId) -> Self {
        Self {
            kind: AccountKind::Points,
            owner: user.0,
            location: 0,
        }
    }

    /// The book of the account; `None` for an account with a key of its own.
    #[must_use]
    pub const fn book(&self) -> Option<Book> {
        Some(match self.kind {
            AccountKind::Available if self.location != LocationId::ONLINE.0 => Book::StoreAvailable,
            AccountKind::Reserved if self.location != LocationId::ONLINE.0 => Book::StoreReserved,
            AccountKind::Allowance => Book::Allowances(SaleId(self.owner)),
            AccountKind::Points => Book::Points,
            AccountKind::Hold => Book::Holds,
            AccountKind::Bucket => Book::Buckets,
            AccountKind::Available | AccountKind::Reserved | AccountKind::Coupon => return None,
        })
    }

    /// Parses the text form, `AVAILABLE:7:0`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let kind = AccountKind::parse(parts.next()?)?;
        let owner = parts.next()?.parse().ok()?;
        let location = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self {
            kind,
            owner,
            location,
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind.as_str(), self.owner, self.location)
    }
}

/// A hash of accounts that are opened at their first touch. A sentinel field says whether the hash
/// is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Book {
    /// Units that each buyer has taken in a sale, counted down.
    Allowances(SaleId),
    /// Units that may be sold at the stores.
    StoreAvailable,
    /// Units that are held at the stores.
    StoreReserved,
    /// Every user's points.
    Points,
    /// How many more reservations each user may have at once.
    Holds,
    /// Parts of online stock that the first release had divided.
    Buckets,
}

impl Book {
    /// The books that every shard has from its first epoch on. A sale begins a book of its own.
    pub const OF_EVERY_SHARD: [Self; 5] = [
        Self::StoreAvailable,
        Self::StoreReserved,
        Self::Points,
        Self::Holds,
        Self::Buckets,
    ];

    /// The kind of its accounts.
    #[must_use]
    pub const fn kind(self) -> AccountKind {
        match self {
            Self::Allowances(_) => AccountKind::Allowance,
            Self::StoreAvailable => AccountKind::Available,
            Self::StoreReserved => AccountKind::Reserved,
            Self::Points => AccountKind::Points,
            Self::Holds => AccountKind::Hold,
            Self::Buckets => AccountKind::Bucket,
        }
    }

    /// The field of an account in the book: the part of the account's text form that follows the
    /// book's.
    #[must_use]
    pub fn field(self, account: Account) -> String {
        match self {
            Self::Allowances(_) => account.location.to_string(),
            Self::StoreAvailable
            | Self::StoreReserved
            | Self::Points
            | Self::Holds
            | Self::Buckets => format!("{}:{}", account.owner, account.location),
        }
    }
}

/// The text form, `ALLOWANCE:4` or `POINTS`, is the end of the book's key in Redis.
impl fmt::Display for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().as_str();
        match self {
            Self::Allowances(sale) => write!(f, "{kind}:{sale}"),
            Self::StoreAvailable
            | Self::StoreReserved
            | Self::Points
            | Self::Holds
            | Self::Buckets => f.write_str(kind),
        }
    }
}

/// The state of an account after its latest posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// The balance, 0..=2^53 − 1.
    pub balance: i64,
    /// The number of postings that the account has had.
    pub seq: u64,
    /// Whether nothing may be taken from it, as from a product that is not on sale.
    pub closed: bool,
    /// Whether its postings do not chain. Nothing may be taken from it until somebody ends the
    /// quarantine.
    pub quarantined: bool,
}

impl Level {
    /// The value in a book, where a flag of 0 is left out.
    #[must_use]
    pub fn in_book(&self) -> String {
        let text = self.to_string();
        text.strip_suffix(" 0").map(str::to_owned).unwrap_or(text)
    }

    /// The value of the level in Redis, for an account with a key of its own or in a book.
    #[must_use]
    pub fn value_of(&self, account: Account) -> String {
        match account.book() {
            None => self.to_string(),
            Some(_) => self.in_book(),
        }
    }

    /// Parses the value in Redis, `balance seq flag`; in a book a flag of 0 is left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let balance = parts.next()?.parse().ok().filter(|balance| *balance >= 0)?;
        let seq = parts.next()?.parse().ok()?;
        let (closed, quarantined) = match parts.next() {
            None | Some("0") => (false, false),
            Some("1") => (true, false),
            Some("2") => (false, true),
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self {
            balance,
            seq,
            closed,
            quarantined,
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = if self.quarantined {
            2
        } else {
            u8::from(self.closed)
        };
        write!(f, "{} {} {flag}", self.balance, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, AccountKind, Level};

    #[test]
    fn accounts_and_levels_survive_the_way_through_redis() {
        for kind in AccountKind::ALL {
            let account = Account {
                kind,
                owner: 7,
                location: 3,
            };
            assert_eq!(Account::parse(&account.to_string()), Some(account));
            if let Some(book) = account.book() {
                let text = format!("{book}:{}", book.field(account));
                assert_eq!(Account::parse(&text), Some(account));
            }
        }
        let level = Level {
            balance: 12,
            seq: 3,
            closed: true,
            quarantined: false,
        };
        assert_eq!(Level::parse(&level.to_string()), Some(level));
        let quarantined = Level::parse("12 3 2").unwrap();
        assert!(quarantined.quarantined && !quarantined.closed);
        assert_eq!(quarantined.in_book(), "12 3 2");
        assert_eq!(Level::parse("12 3").map(|level| level.closed), Some(false));
        for text in ["", "1", "-1 2 0", "1 2 3", "1 2 0 0", "x 1 0"] {
            assert_eq!(Level::parse(text), None, "{text}");
        }
    }
}
