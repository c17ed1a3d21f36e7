//! Discounts: a percentage off a product's price between two times.
//!
//! A product has at most one discount, and a new one replaces it. A percentage has two decimals and
//! is kept as hundredths of a percent. The amount that it takes off is rounded down to a whole
//! unit, so money is never a float.

use std::fmt;
use std::str::FromStr;

use stock_common::money::Money;

/// A percentage, 0.01 to 100.00, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentage(u32);

/// The percentage is not above 0, is above 100, or has more than two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a percentage is above 0 and at most 100, with at most two decimals")]
pub struct PercentageError;

impl Percentage {
    /// Takes hundredths of a percent, 1..=10,000.
    ///
    /// # Errors
    /// [`PercentageError`] outside the range.
    pub const fn from_hundredths(hundredths: u32) -> Result<Self, PercentageError> {
        if hundredths == 0 || hundredths > 10_000 {
            Err(PercentageError)
        } else {
            Ok(Self(hundredths))
        }
    }

    /// Hundredths of a percent.
    #[must_use]
    pub const fn hundredths(self) -> u32 {
        self.0
    }

    /// The amount that it takes off a price, rounded down to a whole unit.
    #[must_use]
    pub fn of(self, price: Money) -> Money {
        let part = i128::from(price.get()) * i128::from(self.0) / 10_000;
        i64::try_from(part)
            .ok()
            .and_then(|part| Money::new(part).ok())
            .unwrap_or(price)
    }
}

impl FromStr for Percentage {
    type Err = PercentageError;

    /// Reads a decimal number as JSON writes it without an exponent: `12`, `12.5`, `12.50`.
    fn from_str(text: &str) -> Result<Self, PercentageError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let decimals = match decimals.trim_end_matches('0') {
            "" if is_plain(decimals) => "0",
            decimals => decimals,
        };
        if !is_plain(whole) || !is_plain(decimals) || decimals.len() > 2 {
            return Err(PercentageError);
        }
        let whole: u32 = whole.parse().map_err(|_too_large| PercentageError)?;
        let tenth = if decimals.len() == 1 { 10 } else { 1 };
        let decimals: u32 = decimals.parse().map_err(|_too_large| PercentageError)?;
        let hundredths = whole.checked_mul(100).ok_or(PercentageError)? + decimals * tenth;
        Self::from_hundredths(hundredths)
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}"),
            rest if rest % 10 == 0 => write!(f, "{whole}.{}", rest / 10),
            rest => write!(f, "{whole}.{rest:02}"),
        }
    }
}

/// A discount of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discount {
    /// How much it takes off.
    pub percentage: Percentage,
    /// The time from which it counts, in Unix ms.
    pub starts_ms: u64,
    /// The time until which it counts, in Unix ms.
    pub ends_ms: u64,
}

impl Discount {
    /// The amount that it takes off a price at a time in Unix ms.
    #[must_use]
    pub fn amount(&self, price: Money, now_ms: u64) -> Money {
        if (self.starts_ms..self.ends_ms).contains(&now_ms) {
            self.percentage.of(price)
        } else {
            Money::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_common::money::Money;

    use super::Percentage;

    #[test]
    fn a_percentage_is_exact_and_rounds_what_it_takes_off_down() {
        for (text, price, off) in [
            ("10", 999, 99),
            ("10", 10_000, 1_000),
            ("12.5", 1_000, 125),
            ("0.01", 9_999, 0),
            ("33.33", 100, 33),
            ("100", Money::MAX, Money::MAX),
            ("99.99", Money::MAX, 9_006_298_534_815_516),
        ] {
            let percentage: Percentage = text.parse().unwrap();
            assert_eq!(
                percentage.of(Money::new(price).unwrap()).get(),
                off,
                "{text} of {price}"
            );
            assert_eq!(percentage.to_string(), text);
        }
        assert_eq!("12.50".parse::<Percentage>().unwrap().to_string(), "12.5");
        for text in [
            "",
            "0",
            "0.00",
            "-1",
            "100.01",
            "101",
            "1.001",
            "1e1",
            "1.",
            ".5",
            "+1",
            "99999999999",
        ] {
            assert!(text.parse::<Percentage>().is_err(), "{text}");
        }
    }
}
