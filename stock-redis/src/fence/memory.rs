//! The memory of an instance: where the entries stand that it accepted and that MySQL may not have yet.

use std::collections::VecDeque;

use stock_common::id::Position;
use stock_domain::shard_state::Remembered;

/// What this instance accepted and MySQL may not have yet.
#[derive(Debug, Default)]
pub struct Memory {
    /// The epoch under which it was accepted.
    pub epoch: String,
    /// The last of all.
    pub last: Position,
    /// Those that MySQL may not have yet, in about the order of their numbers.
    pub unsettled: VecDeque<Remembered>,
}

impl Memory {
    /// Remembers accepted entries and forgets settled ones.
    pub(super) fn accepted(&mut self, entries: Vec<Remembered>, settled: u64) {
        // Batches are answered by tasks of their own: a later one may have been first.
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
