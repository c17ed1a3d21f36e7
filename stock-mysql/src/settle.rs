//! Settle: moves balances and the watermark in journal order, with each posting chained to the one
//! before.
//!
//! Only the holder of the shard's row calls it, in the transaction that records the entries. Entry
//! numbers must follow each other without a gap; a [`Gap`] stops applying and raises an alarm. For
//! every account `seq = stored + 1` and `balance_after = stored + delta` must hold. An account for
//! which they do not hold comes under quarantine, and all others go on.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::MySqlConnection;
use stock_common::id::Position;
use stock_domain::account::{Account, Level};
use stock_domain::journal::Entry;
use stock_domain::posting::Posted;
use stock_domain::shard_state::ShardState;

use super::quarantine::Broken;
use super::{accounts, shards};
use crate::account_queue::{AccountQueue, Ticket};

/// An entry is missing, or came twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {position} has number {number}, expected {expected}")]
pub struct Gap {
    /// The position of the entry.
    pub position: Position,
    /// The number of the entry.
    pub number: u64,
    /// The number that was expected.
    pub expected: u64,
}

/// The accounts under quarantine, and what a batch adds to them.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// Accounts under quarantine, including those of this batch.
    pub accounts: HashSet<Account>,
    /// Accounts that came under quarantine in this batch.
    pub begun: Vec<Broken>,
    /// Postings of this batch that are kept aside.
    pub kept: Vec<(Position, Posted)>,
}

impl Quarantine {
    /// Puts an account under quarantine, unless it already is.
    pub fn begin(&mut self, broken: Broken) {
        if self.accounts.insert(broken.account) {
            self.begun.push(broken);
        }
    }
}

/// The levels of the accounts that entries touch. Their rows are locked.
pub type Levels = HashMap<Account, Level>;

/// Locks and reads every account that the entries touch.
///
/// # Errors
/// When MySQL does not answer, or a lock is not granted in time.
pub async fn lock(
    connection: &mut MySqlConnection,
    entries: &[Entry],
) -> Result<Levels, sqlx::Error> {
    let touched: BTreeSet<Account> = entries.iter().flat_map(touched).collect();
    accounts::lock(connection, &touched.into_iter().collect::<Vec<_>>()).await
}

/// The result of [`lock_ahead`].
#[derive(Debug)]
pub enum Ahead {
    /// The levels of the locked accounts, and how many of the first entries they suffice for.
    Locked(Levels, usize),
    /// Nothing is locked, because another transaction of this process has the ticket for one of the
    /// first entry's accounts. The accounts of the first entry are returned.
    Queued(Vec<Account>),
}

/// Locks and reads the accounts of the first entry, and of as many entries after it as no other
/// transaction holds.
///
/// Once the ticket covers the first entry, the call waits for its rows. It holds no rows of the
/// other entries while it waits.
///
/// # Errors
/// When MySQL does not answer, or the first entry's locks are not granted in time.
pub async fn lock_ahead(
    connection: &mut MySqlConnection,
    entries: &[Entry],
    rows: &AccountQueue,
    ticket: &mut Ticket,
) -> Result<Ahead, sqlx::Error> {
    let (first, others) = entries.split_at(entries.len().min(1));
    let awaited: Vec<Account> = first.iter().flat_map(touched).collect();
    if !ticket.covers(&awaited) {
        // Release every ticket before queueing, so that two waiters cannot deadlock.
        *ticket = Ticket::default();
        rows.extend(ticket, &awaited);
        if !ticket.covers(&awaited) {
            *ticket = Ticket::default();
            return Ok(Ahead::Queued(awaited));
        }
    }
    let mut levels = lock(connection, first).await?;
    let held: HashSet<Account> = awaited.into_iter().collect();
    let others: BTreeSet<Account> = others
        .iter()
        .flat_map(touched)
        .filter(|account| !held.contains(account))
        .collect();
    if others.is_empty() {
        return Ok(Ahead::Locked(levels, entries.len()));
    }
    let mut others: Vec<Account> = others.into_iter().collect();
    rows.extend(ticket, &others);
    others.retain(|account| ticket.has(*account));
    levels.extend(accounts::lock_free(connection, &others).await?);
    // An account without a row is new, or another transaction holds its row.
    let mut known = held;
    known.extend(levels.keys());
    let mut is_ours = |entry: &&Entry| {
        let opened = entry.postings.iter().filter(|posted| posted.seq == 1);
        known.extend(opened.map(|posted| posted.account));
        touched(entry).all(|account| known.contains(&account))
    };
    let ours = entries.iter().take_while(|entry| is_ours(entry)).count();
    Ok(Ahead::Locked(levels, ours))
}

fn touched(entry: &Entry) -> impl Iterator<Item = Account> {
    let posted = entry.postings.iter().map(|posted| posted.account);
    posted.chain(entry.closings.iter().map(|closing| closing.account))
}

/// Whether an entry is the next one of its shard.
///
/// # Errors
/// [`Gap`].
pub const fn check_number(state: &ShardState, entry: &Entry) -> Result<(), Gap> {
    let (position, number, expected) = (entry.position, entry.number, state.number + 1);
    if number == expected && position.get() > state.watermark.get() {
        return Ok(());
    }
    Err(Gap {
        position,
        number,
        expected,
    })
}

/// The level after a posting; `None` when the posting does not chain to `level`.
#[must_use]
pub fn follow(level: Level, posted: &Posted) -> Option<Level> {
    let follows = posted.seq == level.seq + 1
        && level.balance.checked_add(posted.delta) == Some(posted.balance_after)
        && posted.balance_after >= 0;
    follows.then_some(Level {
        balance: posted.balance_after,
        seq: posted.seq,
        ..level
    })
}

/// Moves levels and state over one entry; postings that do not chain are kept aside.
///
/// # Errors
/// [`Gap`]; nothing was moved.
pub fn advance(
    levels: &mut Levels,
    state: &mut ShardState,
    entry: &Entry,
    quarantine: &mut Quarantine,
) -> Result<(), Gap> {
    check_number(state, entry)?;
    for posted in &entry.postings {
        let account = posted.account;
        if quarantine.accounts.contains(&account) {
            quarantine.kept.push((entry.position, *posted));
            continue;
        }
        let level = levels.entry(account).or_default();
        if let Some(next) = follow(*level, posted) {
            *level = next;
            continue;
        }
        let reason = format!(
            "entry {} says {:+} to {} as posting {}, but mysql has {} at posting {}",
            entry.position,
            posted.delta,
            posted.balance_after,
            posted.seq,
            level.balance,
            level.seq
        );
        quarantine.begin(Broken {
            account,
            position: entry.position,
            reason,
        });
        quarantine.kept.push((entry.position, *posted));
    }
    for closing in &entry.closings {
        let is_opening = |posted: &Posted| posted.account == closing.account && posted.seq == 1;
        if closing.only_if_opened && !entry.postings.iter().any(is_opening) {
            continue;
        }
        if let Some(level) = levels.get_mut(&closing.account) {
            level.closed = closing.closed;
        }
    }
    (state.watermark, state.number) = (entry.position, entry.number);
    state.selling = entry.selling.unwrap_or(state.selling);
    Ok(())
}

/// Settles the entries over which [`advance`] has moved `levels` and `state`: writes the accounts
/// and the watermark.
///
/// # Errors
/// When MySQL does not answer; the caller rolls back.
pub async fn settle(
    connection: &mut MySqlConnection,
    levels: &Levels,
    state: &ShardState,
    entries: &[Entry],
) -> Result<(), sqlx::Error> {
    let moved: HashSet<Account> = entries.iter().flat_map(touched).collect();
    let mut moved: Vec<(Account, Level)> = levels
        .iter()
        .filter(|(account, level)| moved.contains(account) && level.seq > 0)
        .map(|(account, level)| (*account, *level))
        .collect();
    moved.sort_unstable_by_key(|(account, _)| *account);
    accounts::write(connection, state.shard, &moved).await?;
    shards::advance(connection, state).await
}
