//! Ids: journal positions, and the plain numbers of users, products and locations.
//!
//! A position names an entry of the journal. It is the only id that the engine makes itself: an
//! order, a reservation or a point transaction has the position of the entry that made it as its
//! id. A position rises with time, names its shard, and fits MySQL's `BIGINT UNSIGNED`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds from 1970-01-01 to 2025-01-01, where positions begin to count.
const POSITION_EPOCH_MS: u64 = 1_735_689_600_000;
/// Bits below the milliseconds: six of shard, sixteen of sequence.
const LOW_BITS: u32 = 22;
const LOW_MASK: u64 = (1 << LOW_BITS) - 1;

/// The position of an entry in the journal: `(ms − 2025-01-01) << 22 | shard << 16 | seq`.
///
/// In JSON a position is a decimal string, because JavaScript's numbers are exact only up to 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// The position before the first one.
    pub const ZERO: Self = Self(0);

    /// Takes a position from its number, as MySQL stores it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number that MySQL stores.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Builds a position from the two halves of a Redis stream id: Unix milliseconds and the low
    /// part (`shard << 16 | seq`). `None` when a half is out of range.
    #[must_use]
    pub fn from_parts(unix_ms: u64, low: u64) -> Option<Self> {
        let ms = unix_ms.checked_sub(POSITION_EPOCH_MS)?;
        (low <= LOW_MASK && ms < 1 << (64 - LOW_BITS)).then_some(Self(ms << LOW_BITS | low))
    }

    /// Parses a Redis stream id, `ms-low`.
    #[must_use]
    pub fn from_stream_id(text: &str) -> Option<Self> {
        let (ms, low) = text.split_once('-')?;
        Self::from_parts(ms.parse().ok()?, low.parse().ok()?)
    }

    /// The Redis stream id of a frame that begins at this position.
    #[must_use]
    pub fn stream_id(self) -> String {
        format!("{}-{}", self.unix_ms(), self.low())
    }

    /// Unix milliseconds at which the entry was decided, by Redis' clock.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        (self.0 >> LOW_BITS) + POSITION_EPOCH_MS
    }

    /// The low half of the stream id: `shard << 16 | seq`.
    #[must_use]
    pub const fn low(self) -> u64 {
        self.0 & LOW_MASK
    }

    /// The shard whose journal holds the entry, 0..=63.
    #[must_use]
    pub const fn shard(self) -> u64 {
        self.low() >> 16
    }

    /// The position `index` entries further in the same frame.
    #[must_use]
    pub const fn plus(self, index: u64) -> Self {
        Self(self.0 + index)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a decimal u64.
#[derive(Debug, thiserror::Error)]
#[error("not a position: a decimal number below 2^64 is expected")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PositionError);
        }
        text.parse().map(Self).or(Err(PositionError))
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A user: the `sub` of a token. In JSON an integer.
    UserId
}
number_id! {
    /// A product. In JSON an integer.
    ProductId
}
number_id! {
    /// A location that holds stock: 0 is the online warehouse, any other number a store.
    LocationId
}

number_id! {
    /// A flash sale of a product.
    SaleId
}

number_id! {
    /// A coupon, of a campaign or of one user. In JSON an integer.
    CouponId
}

number_id! {
    /// A campaign item that coupons are drawn for. In JSON an integer.
    WorkId
}

/// Positions after one and up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The position before the first.
    pub after: Position,
    /// The last position.
    pub upto: Position,
}

impl UserId {
    /// The engine itself: the actor of entries that no user asked for.
    pub const ENGINE: Self = Self(0);

    /// The actor of what a service key does. People's numbers are far below.
    #[must_use]
    pub const fn of_service_key(id: u64) -> Self {
        Self((1 << 51) + id)
    }

    /// A buyer whom only the shop knows, by a hash of the name.
    #[must_use]
    pub const fn of_buyer(hash: u64) -> Self {
        Self((1 << 52) | (hash >> 12))
    }
}

impl ProductId {
    /// A product that never exists: numbers begin at 1.
    pub const NONE: Self = Self(0);
}

impl LocationId {
    /// The warehouse that ONLINE orders are sold from.
    pub const ONLINE: Self = Self(0);
}

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn a_position_survives_the_way_through_a_stream_id() {
        let position = Position::from_parts(1_795_250_000_123, 3 << 16 | 65_535).unwrap();
        assert_eq!(position.stream_id(), "1795250000123-262143");
        assert_eq!(
            Position::from_stream_id(&position.stream_id()),
            Some(position)
        );
        assert_eq!(position.shard(), 3);
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
    }

    #[test]
    fn what_is_not_a_position_is_refused() {
        for text in ["", "-1", "+1", "1.5", "18446744073709551616", " 1", "abc"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
        assert_eq!(Position::from_parts(0, 0), None);
        assert_eq!(Position::from_parts(1_795_250_000_123, 1 << 22), None);
    }
}
