//! The memory of an instance: where the entries stand that it accepted and that MySQL may not have yet.

use std::collections::VecDeque;

use stock_common::id::Position;

/// An entry that this instance accepted.
#[derive(Debug, Clone, Copy)]
pub struct Remembered {
    /// Its dense number.
    pub number: u64,
    /// Where it stood.
    pub position: Position,
}

/// What this instance accepted and MySQL may not have yet.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Memory {
    pub(super) epoch: String,
    pub(super) last: Position,
    pub(super) unsettled: VecDeque<Remembered>,
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
