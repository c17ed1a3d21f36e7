//! The state of a shard as MySQL has it, and the entries of it that an instance remembers.

use stock_common::id::Position;

/// How far MySQL is with a shard's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// The shard, 0..=63.
    pub shard: u64,
    /// The last settled position.
    pub watermark: Position,
    /// The number of the entry there.
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
    /// Its dense number.
    pub number: u64,
    /// Where it stood.
    pub position: Position,
}
