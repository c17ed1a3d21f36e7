//! The entries of the journal after a watermark, which Redis has and MySQL has not settled.

use std::collections::HashMap;

use stock_common::id::Position;
use stock_domain::account::Account;
use stock_domain::journal::Entry;
use stock_domain::posting::Posted;
use stock_domain::shard_state::ShardState;
use stock_redis::records::{RecordKey, RecordName};
use stock_redis::{ReadError, Shard};

use super::VerifyError;

/// Entries read at once.
const TAIL: usize = 5_000;

/// The content of the entries that are not settled.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Postings per account, in the order of `seq`.
    pub(super) postings: HashMap<Account, Vec<Posted>>,
    /// The last state that was set of each thing.
    pub(super) states: HashMap<String, String>,
    /// The last flag that was set of each account: closed for sale, or open.
    pub(super) closed: HashMap<Account, bool>,
    /// Whether selling was switched, and how last.
    pub(super) selling: Option<bool>,
    /// The keys that entries were decided under.
    pub(super) records: HashMap<RecordKey, (Position, RecordName)>,
}

impl Unsettled {
    /// Reads the journal after a watermark; `None` when the watermark's entry is not there any
    /// more.
    pub(super) async fn read(
        ledger: &Shard,
        state: &ShardState,
    ) -> Result<Option<Self>, VerifyError> {
        let mut read = Self::default();
        let mut after: Position = state.watermark;
        let mut is_first = true;
        loop {
            let tail = ledger.tail(after, TAIL).await?;
            if is_first && tail.number != Some(state.number) {
                return Ok(None);
            }
            is_first = false;
            if let Some(error) = tail.broken {
                return Err(ReadError::Entry(error).into());
            }
            let Some(last) = tail.entries.last() else {
                return Ok(Some(read));
            };
            after = last.position;
            tail.entries.iter().for_each(|entry| read.add(entry));
        }
    }

    fn add(&mut self, entry: &Entry) {
        for posted in &entry.postings {
            self.postings
                .entry(posted.account)
                .or_default()
                .push(*posted);
        }
        for transition in &entry.transitions {
            self.states
                .insert(transition.id.clone(), transition.to.clone());
        }
        for closing in &entry.closings {
            let opens = |of: &Posted| of.account == closing.account && of.seq == 1;
            if !closing.only_if_opened || entry.postings.iter().any(opens) {
                self.closed.insert(closing.account, closing.closed);
            }
        }
        self.selling = entry.selling.or(self.selling);
        if let Some(idempotency) = &entry.idempotency {
            let name = RecordName::of(idempotency);
            self.records.insert(name.key, (entry.position, name));
        }
    }
}
