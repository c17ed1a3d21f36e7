//! Counts the things that ended from both sides: by the entries that ended them, and by the rows
//! that say so.
//!
//! The row of an order that was taken back, of a hold that is over or of a branch that has
//! ended states its end. No column leads to the entry that ended it, which may lie anywhere later.
//! So a pass over the whole journal adds a number for each such row and subtracts it for each such
//! entry; at the end nothing may be left. The numbers are kept in [`BUCKETS`] sums by the thing's
//! id, so that a second look at a few of them finds what is left ([`super::ends`]).

use std::hash::{DefaultHasher, Hash, Hasher};

use stock_common::id::Position;

/// Number of sums.
pub(super) const BUCKETS: usize = 4_096;

/// The kinds of things that can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Thing {
    /// An order that is taken back.
    Order,
    /// A reservation that is confirmed, cancelled or expired.
    Reservation,
    /// A checkout that was cancelled, has expired, or is to be refunded.
    Checkout,
    /// A checkout whose deadline was moved.
    Deadline,
    /// A branch that was held for an entry on another shard.
    Branch,
}

impl Thing {
    /// Whether it is a hold, whose row names the order that took it.
    pub(super) const fn is_hold(self) -> bool {
        matches!(self, Self::Reservation | Self::Checkout)
    }

    /// Its table.
    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Order => "orders",
            Self::Reservation => "reservations",
            Self::Checkout | Self::Deadline => "checkouts",
            Self::Branch => "branches",
        }
    }
}

/// The sums.
#[derive(Debug, Clone)]
pub(super) struct Tally(Vec<u64>);

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The bucket in which a thing is counted.
pub(super) fn bucket(thing: Thing, id: Position) -> usize {
    let buckets = BUCKETS as u64;
    usize::try_from(hash((thing, id)) % buckets).unwrap_or_default()
}

impl Tally {
    /// Nothing counted.
    pub(super) fn new() -> Self {
        Self(vec![0; BUCKETS])
    }

    fn count(&mut self, thing: Thing, id: Position, by: impl FnOnce(u64) -> u64) {
        if let Some(sum) = self.0.get_mut(bucket(thing, id)) {
            *sum = by(*sum);
        }
    }

    /// Counts a row that states an end.
    pub(super) fn row(&mut self, thing: Thing, id: Position, state: &str) {
        let number = hash(((thing, id), state));
        self.count(thing, id, |sum| sum.wrapping_add(number));
    }

    /// Counts an entry that states an end.
    pub(super) fn entry(&mut self, thing: Thing, id: Position, state: &str) {
        let number = hash(((thing, id), state));
        self.count(thing, id, |sum| sum.wrapping_sub(number));
    }

    /// One of the sums.
    pub(super) fn sum(&self, bucket: usize) -> u64 {
        self.0.get(bucket).copied().unwrap_or_default()
    }

    /// Sets one of the sums to what it was.
    pub(super) fn set(&mut self, bucket: usize, sum: u64) {
        if let Some(of) = self.0.get_mut(bucket) {
            *of = sum;
        }
    }

    /// The buckets in which something is left.
    pub(super) fn left(&self) -> Vec<usize> {
        let left = self.0.iter().enumerate().filter(|(_, sum)| **sum != 0);
        left.map(|(bucket, _)| bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::Position;

    use super::{Tally, Thing, bucket};

    #[test]
    fn what_both_sides_say_leaves_nothing_and_what_one_says_is_left() {
        let mut tally = Tally::new();
        for id in 1..1_000 {
            tally.entry(Thing::Order, Position::new(id), "CANCEL");
            tally.row(Thing::Order, Position::new(id), "CANCEL");
        }
        assert!(tally.left().is_empty());
        let id = Position::new(7);
        tally.row(Thing::Order, id, "FAIL");
        tally.entry(Thing::Order, id, "CANCEL");
        assert_eq!(tally.left(), [bucket(Thing::Order, id)]);
    }
}
