//! The state of a shard in MySQL, and the entries of the shard that an instance remembers.

use stock_common::id::Position;

/// How far MySQL is with a shard's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// The shard, 0..=63.
    pub shard: u64,
    /// The position of the last settled entry.
    pub watermark: Position,
    /// The number of that entry.
    pub number: u64,
    /// Whether selling is open.
    pub selling: bool,
    /// The epoch that Redis must hold.
    pub epoch: String,
    /// Whether accounts of the shard are under quarantine.
    pub has_quarantine: bool,
}

/// An entry that this instance accepted.
#[derive(Debug, Clone, Copy)]
pub struct Remembered {
    /// The entry's number in its shard.
    pub number: u64,
    /// The entry's position.
    pub position: Position,
}
