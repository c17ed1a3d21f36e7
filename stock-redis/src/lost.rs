//! Things that requests found lost in a shard's Redis, until `stock-engine` (`heal`) brings them
//! back.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use stock_common::lock::lock;
use stock_domain::account::{Account, Book};
use stock_domain::verdict::{LostKey, Refusal, Why};
use tokio::sync::Notify;

/// The most things that are noted. Others are noted when they are asked for again.
const NOTED_MAX: usize = 10_000;

/// A thing that a shard's Redis should have, and lacks or cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LostThing {
    /// An account with a key of its own.
    Account(Account),
    /// A book of accounts.
    Book(Book),
    /// Another key.
    Key(LostKey),
}

impl LostThing {
    /// The thing that a refusal names as lost.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Option<Self> {
        if let Refusal::Posting {
            account,
            why: Why::Broken,
            ..
        } = refusal
        {
            return Some(account.book().map_or(Self::Account(*account), Self::Book));
        }
        if let Refusal::Lost(key) = refusal {
            return Some(Self::Key(*key));
        }
        None
    }
}

/// The lost things of one shard.
#[derive(Debug, Default)]
pub struct Lost {
    things: Mutex<BTreeSet<LostThing>>,
    noted: Notify,
    is_closed: AtomicBool,
}

impl Lost {
    /// Ends the wait in [`Lost::take`].
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.noted.notify_one();
    }

    /// Notes what a refusal names as lost.
    pub fn note(&self, refusal: &Refusal) {
        if let Some(thing) = LostThing::of(refusal) {
            self.note_thing(thing);
        }
    }

    /// Notes something as lost.
    pub fn note_thing(&self, thing: LostThing) {
        let mut things = lock(&self.things);
        if things.len() < NOTED_MAX {
            things.insert(thing);
            self.noted.notify_one();
        }
    }

    /// Waits until something is noted, and takes all of it; `None` when the shard is closed.
    pub async fn take(&self) -> Option<BTreeSet<LostThing>> {
        loop {
            if self.is_closed.load(Ordering::Relaxed) {
                return None;
            }
            let things = {
                let mut things = lock(&self.things);
                std::mem::take(&mut *things)
            };
            if !things.is_empty() {
                return Some(things);
            }
            self.noted.notified().await;
        }
    }
}
