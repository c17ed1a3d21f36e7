//! A number of units that somebody orders or holds.

use serde::{Deserialize, Serialize};

/// A number of units, 1..=1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Quantity(u32);

/// The quantity is 0 or above 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a quantity is a whole number from 1 to 1000000")]
pub struct QuantityError;

impl Quantity {
    /// The largest quantity.
    pub const MAX: u32 = 1_000_000;

    /// Makes a quantity of a number of units.
    ///
    /// # Errors
    /// [`QuantityError`] when the number is outside 1..=1,000,000.
    pub const fn new(units: u32) -> Result<Self, QuantityError> {
        if units == 0 || units > Self::MAX {
            Err(QuantityError)
        } else {
            Ok(Self(units))
        }
    }

    /// The number of units.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The sum of both; `None` above 1,000,000.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        Self::new(self.0.checked_add(other.0)?).ok()
    }
}

impl TryFrom<u32> for Quantity {
    type Error = QuantityError;

    fn try_from(units: u32) -> Result<Self, QuantityError> {
        Self::new(units)
    }
}

impl From<Quantity> for u32 {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}
