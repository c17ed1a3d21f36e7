//! The memory of an instance: the entries that it accepted and that MySQL may not have yet.

use std::collections::VecDeque;

use stock_common::id::Position;
use stock_domain::shard_state::Remembered;

/// The entries that this instance accepted and that MySQL may not have yet.
#[derive(Debug, Default)]
pub struct Memory {
    /// The epoch under which the entries were accepted.
    pub epoch: String,
    /// The position of the last accepted entry.
    pub last: Position,
    /// The entries that MySQL may not have yet, in about the order of their numbers.
    pub unsettled: VecDeque<Remembered>,
}

impl Memory {
    /// Remembers accepted entries and forgets settled ones.
    pub(super) fn accepted(&mut self, entries: Vec<Remembered>, settled: u64) {
        // Batches are answered by tasks of their own, so a later batch may have been noted first.
        let last = entries.iter().map(|entry| entry.position).max();
        self.last = self.last.max(last.unwrap_or(self.last));
        self.unsettled.extend(entries);
        self.settled(settled);
    }

    pub(super) fn settled(&mut self, number: u64) {
        while self
            .unsettled
            .front()
            .is_some_and(|entry| entry.number <= number)
        {
            self.unsettled.pop_front();
        }
    }
}
