//! Settle: balances and watermark move in journal order, each posting chained to the one before.
//!
//! Only the holder of the shard's row calls it, in the transaction that records the entries. It
//! demands dense entry numbers; a [`Gap`] stops applying with an alarm. For every account it demands
//! `seq = stored + 1` and `balance_after = stored + delta`; an account of which that does not hold
//! comes under quarantine, and everybody else goes on.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::MySqlConnection;
use stock_common::id::Position;
use stock_domain::account::{Account, Level};
use stock_domain::journal::{Entry, Posted};
use stock_domain::shard_state::ShardState;

use super::quarantine::Broken;
use super::{accounts, shards};
use crate::account_queue::{AccountQueue, Ticket};

/// An entry is missing, or comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {position} has number {number}, expected {expected}")]
pub struct Gap {
    /// Where it stands.
    pub position: Position,
    /// The number it has.
    pub number: u64,
    /// The number that should come.
    pub expected: u64,
}

/// Accounts under quarantine, and what a batch adds to them.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// Those under quarantine so far.
    pub accounts: HashSet<Account>,
    /// Those that came under quarantine in this batch.
    pub begun: Vec<Broken>,
    /// Postings of this batch that are kept aside.
    pub kept: Vec<(Position, Posted)>,
}

impl Quarantine {
    /// Puts an account under quarantine, unless it is there already.
    pub fn begin(&mut self, broken: Broken) {
        if self.accounts.insert(broken.account) {
            self.begun.push(broken);
        }
    }
}

/// The levels of the accounts that entries touch, locked.
pub type Levels = HashMap<Account, Level>;

/// Locks and reads every account that the entries touch.
///
/// # Errors
/// When MySQL does not answer, or a lock is not had in time.
pub async fn lock(
    connection: &mut MySqlConnection,
    entries: &[Entry],
) -> Result<Levels, sqlx::Error> {
    let touched: BTreeSet<Account> = entries.iter().flat_map(touched).collect();
    accounts::lock(connection, &touched.into_iter().collect::<Vec<_>>()).await
}

/// What was locked of a tail of entries.
#[derive(Debug)]
pub enum Ahead {
    /// The accounts of the first entries, and how many entries that are.
    Locked(Levels, usize),
    /// Nothing: the first entry's accounts are another transaction's ticket in this process.
    Queued(Vec<Account>),
}

/// Locks and reads the accounts of the first entry, and of as many behind it as nobody else holds.
///
/// The first is waited for, if it is its ticket; the others' accounts are not held meanwhile.
///
/// # Errors
/// When MySQL does not answer, or the first entry's locks are not had in time.
pub async fn lock_ahead(
    connection: &mut MySqlConnection,
    entries: &[Entry],
    rows: &AccountQueue,
    ticket: &mut Ticket,
) -> Result<Ahead, sqlx::Error> {
    let (first, others) = entries.split_at(entries.len().min(1));
    let awaited: Vec<Account> = first.iter().flat_map(touched).collect();
    if !ticket.covers(&awaited) {
        // Who waits for a ticket has none of another.
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
    // What is not there is new, or another's.
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

/// The level behind a posting; `None` when the posting does not follow from the one before.
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

/// Moves levels and state over one entry; postings that do not follow are kept aside.
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

/// Settles entries over which levels and state were moved: writes the accounts and the watermark.
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
