//! The things that ended, counted from both sides: by the entries that ended them, and by the rows that say so.
//!
//! An order that was taken back, a reservation that is over, a branch that was confirmed: the row says the state, and
//! no column of it leads to the entry, which may lie anywhere behind. So a pass over the whole journal adds a number for
//! each such row, takes it away for each such entry, and at the end nothing may be left. The numbers are kept in
//! [`BUCKETS`] sums by the thing's name, so that what is left is found by a second look at few of them ([`super::ends`]).

use std::hash::{DefaultHasher, Hash, Hasher};

use stock_common::id::Position;

/// Sums that are kept.
pub(super) const BUCKETS: usize = 4_096;

/// The kinds of things that can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Thing {
    /// An order that is taken back.
    Order,
    /// A reservation that is confirmed, cancelled or expired.
    Reservation,
    /// A branch that was held for an entry on another shard.
    Branch,
}

impl Thing {
    /// Its table.
    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Order => "orders",
            Self::Reservation => "reservations",
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

/// Where a thing is counted.
pub(super) fn bucket(thing: Thing, id: Position) -> usize {
    let buckets = BUCKETS as u64;
    usize::try_from(hash((thing, id)) % buckets).unwrap_or_default()
}

impl Tally {
    /// Nothing counted.
    pub(super) fn new() -> Self {
        Self(vec![0; BUCKETS])
    }

    fn count(&mut self, (thing, id): (Thing, Position), by: impl FnOnce(u64) -> u64) {
        if let Some(sum) = self.0.get_mut(bucket(thing, id)) {
            *sum = by(*sum);
        }
    }

    /// A row says so.
    pub(super) fn row(&mut self, of: (Thing, Position), state: &str) {
        let number = hash((of, state));
        self.count(of, |sum| sum.wrapping_add(number));
    }

    /// An entry says so.
    pub(super) fn entry(&mut self, of: (Thing, Position), state: &str) {
        let number = hash((of, state));
        self.count(of, |sum| sum.wrapping_sub(number));
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
            let of = (Thing::Order, Position::new(id));
            tally.entry(of, "CANCEL");
            tally.row(of, "CANCEL");
        }
        assert!(tally.left().is_empty());
        let of = (Thing::Order, Position::new(7));
        tally.row(of, "FAIL");
        tally.entry(of, "CANCEL");
        assert_eq!(tally.left(), [bucket(of.0, of.1)]);
    }
}
