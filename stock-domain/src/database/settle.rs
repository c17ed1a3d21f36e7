//! Settle: balances and watermark move in journal order, each posting chained to the one before.
//!
//! Only the holder of the shard's row calls it, in the transaction that records the entries. It
//! demands dense entry numbers, and for every account `seq = stored + 1` and
//! `balance_after = stored + delta`. Anything else is not guessed at: applying stops with an alarm.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::MySqlConnection;
use stock_common::id::Position;

use super::accounts;
use super::row_queue::{RowQueue, Turn};
use super::shards::{self, ShardState};
use crate::account::{Account, Level};
use crate::journal::{Entry, Posted};

/// Why entries cannot be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// An entry is missing, or comes twice.
    #[error("entry {position} has number {number}, expected {expected}")]
    Gap {
        /// Where it stands.
        position: Position,
        /// The number it has.
        number: u64,
        /// The number that should come.
        expected: u64,
    },
    /// A posting does not follow from the account's level.
    #[error("entry {position} moves {account} to {posted:?}, but it stands at {stored:?}")]
    Chain {
        /// Where the entry stands.
        position: Position,
        /// The account.
        account: Account,
        /// What the entry says.
        posted: Box<Posted>,
        /// What MySQL has.
        stored: Level,
    },
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
    /// Nothing: the first entry's accounts are another transaction's turn in this process.
    Queued(Vec<Account>),
}

/// Locks and reads the accounts of the first entry, and of as many behind it as nobody else holds.
///
/// The first is waited for, if it is its turn; the others' accounts are not held meanwhile.
///
/// # Errors
/// When MySQL does not answer, or the first entry's locks are not had in time.
pub async fn lock_ahead(
    connection: &mut MySqlConnection,
    entries: &[Entry],
    (rows, turn): (&RowQueue, &mut Turn),
) -> Result<Ahead, sqlx::Error> {
    let (first, others) = entries.split_at(entries.len().min(1));
    let awaited: Vec<Account> = first.iter().flat_map(touched).collect();
    if !turn.covers(&awaited) {
        // Who waits for a turn has none of another.
        *turn = Turn::default();
        rows.extend(turn, &awaited);
        if !turn.covers(&awaited) {
            *turn = Turn::default();
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
    rows.extend(turn, &others);
    others.retain(|account| turn.has(*account));
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

/// Moves levels and state over one entry.
///
/// # Errors
/// [`SettleError::Gap`] or [`SettleError::Chain`]; levels and state are then of no use any more.
pub fn advance(
    levels: &mut Levels,
    state: &mut ShardState,
    entry: &Entry,
) -> Result<(), SettleError> {
    let (position, number, expected) = (entry.position, entry.number, state.number + 1);
    if number != expected || position <= state.watermark {
        return Err(SettleError::Gap {
            position,
            number,
            expected,
        });
    }
    for posted in &entry.postings {
        let level = levels.entry(posted.account).or_default();
        let follows = posted.seq == level.seq + 1
            && level.balance.checked_add(posted.delta) == Some(posted.balance_after)
            && posted.balance_after >= 0;
        if !follows {
            let (account, stored) = (posted.account, *level);
            let posted = Box::new(*posted);
            return Err(SettleError::Chain {
                position,
                account,
                posted,
                stored,
            });
        }
        *level = Level {
            balance: posted.balance_after,
            seq: posted.seq,
            closed: level.closed,
        };
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
    (state.watermark, state.number) = (position, number);
    state.selling = entry.selling.unwrap_or(state.selling);
    Ok(())
}

/// Settles entries: moves the accounts and the watermark.
///
/// # Errors
/// [`SettleError`]; the caller rolls back.
pub async fn settle(
    connection: &mut MySqlConnection,
    levels: &mut Levels,
    state: &mut ShardState,
    entries: &[Entry],
) -> Result<(), SettleError> {
    for entry in entries {
        advance(levels, state, entry)?;
    }
    let moved: HashSet<Account> = entries.iter().flat_map(touched).collect();
    let mut moved: Vec<(Account, Level)> = levels
        .iter()
        .filter(|(account, _)| moved.contains(account))
        .map(|(account, level)| (*account, *level))
        .collect();
    moved.sort_unstable_by_key(|(account, _)| *account);
    accounts::write(connection, state.shard, &moved).await?;
    shards::advance(connection, state).await?;
    Ok(())
}
