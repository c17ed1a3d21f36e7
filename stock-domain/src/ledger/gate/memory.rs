//! What an instance remembers of what it accepted, and since when it is known to be there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stock_common::id::Position;
use tokio::time::Instant;

use crate::database::witnesses;
use crate::journal::Posted;
use crate::ledger::request::Sealed;

/// An entry that this instance accepted, with all that it takes to write it once more.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Its dense number.
    pub number: u64,
    /// Where it stood.
    pub position: Position,
    /// What moved, and what was asked; of a cluster only, where another master may lack it.
    pub content: Option<(Vec<Posted>, Arc<Sealed>)>,
}

/// What this instance accepted and MySQL may not have yet.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Memory {
    pub(super) epoch: String,
    /// How often this instance had been silent when it was last compared with MySQL ([`Beat::silences`]).
    pub(super) silences: u64,
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

/// Since when this instance has told MySQL without a break that it is there, and when it did last.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Beat {
    span: Mutex<Option<(Instant, Instant)>>,
    silences: AtomicU64,
}

impl Beat {
    /// It has told it now.
    pub(in crate::ledger) fn told(&self) {
        let now = Instant::now();
        let mut span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        let since = span.filter(|(_, last)| now - *last < witnesses::ALIVE);
        if span.is_some() && since.is_none() {
            self.silences.fetch_add(1, Ordering::Relaxed);
        }
        *span = Some((since.map_or(now, |(since, _)| since), now));
    }

    /// How often it was, and is not any more.
    pub(super) fn past_silences(&self) -> u64 {
        self.silences.load(Ordering::Relaxed)
    }

    /// How often it was silent for so long that others did not wait for it, and may sell on another server.
    pub(super) fn silences(&self) -> u64 {
        let span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        let is_silent = span.is_some_and(|(_, last)| last.elapsed() >= witnesses::ALIVE);
        self.silences.load(Ordering::Relaxed) + u64::from(is_silent)
    }

    pub(super) fn is_steady(&self, least: Duration) -> bool {
        let span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        span.is_some_and(|(since, last)| last - since >= least && last.elapsed() < least)
    }
}
