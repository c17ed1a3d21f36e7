//! Money: whole currency units in an i64, never a float, never negative.
//!
//! The Korean won has no minor unit, so a price is a whole number. Sums are checked: an amount that
//! does not fit gives `None` and never wraps around.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of money, 0..=2^53 − 1 whole units, so that any JSON reader keeps it exact.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "i64", into = "i64")]
pub struct Money(i64);

/// The amount is negative or above 2^53 − 1.
#[derive(Debug, thiserror::Error)]
#[error("an amount is a whole number from 0 to 9007199254740991")]
pub struct MoneyError;

impl Money {
    /// The largest amount, 2^53 − 1.
    pub const MAX: i64 = (1 << 53) - 1;
    /// No money.
    pub const ZERO: Self = Self(0);

    /// Takes an amount in whole units.
    ///
    /// # Errors
    /// [`MoneyError`] when it is negative or above [`Money::MAX`].
    pub const fn new(units: i64) -> Result<Self, MoneyError> {
        if units < 0 || units > Self::MAX {
            Err(MoneyError)
        } else {
            Ok(Self(units))
        }
    }

    /// The amount in whole units.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The amount `count` times; `None` when it does not fit.
    #[must_use]
    pub fn times(self, count: u32) -> Option<Self> {
        Self::new(self.0.checked_mul(i64::from(count))?).ok()
    }

    /// The difference; `None` when it would be negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        Self::new(self.0 - other.0).ok()
    }

    /// The sum of both; `None` when it does not fit.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        Self::new(self.0.checked_add(other.0)?).ok()
    }
}

impl TryFrom<i64> for Money {
    type Error = MoneyError;

    fn try_from(units: i64) -> Result<Self, MoneyError> {
        Self::new(units)
    }
}

impl From<Money> for i64 {
    fn from(money: Money) -> Self {
        money.0
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Money;

    #[test]
    fn an_amount_that_does_not_fit_is_an_answer_and_not_a_wrap_around() {
        let most = Money::new(Money::MAX).unwrap();
        assert_eq!(most.times(2), None);
        assert_eq!(most.plus(Money::new(1).unwrap()), None);
        assert!(Money::new(-1).is_err());
        assert_eq!(Money::new(1000).unwrap().times(3).unwrap().get(), 3000);
    }
}
