//! The plan of a rebuild of Redis: the entries after the watermark that Redis or a synchronous
//! order still has, and which of them continue MySQL's state.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use serde::Serialize;
use sqlx::{MySqlConnection, MySqlPool};
use stock_common::config::Config;
use stock_common::id::{Position, UserId};
use stock_domain::account::Account;
use stock_domain::journal::{Entry, Kind};
use stock_domain::order::Order;
use stock_domain::shard_state::ShardState;
use stock_mysql::settle::{self, Levels, Quarantine};
use stock_mysql::{accounts, journal, lost_entries, shards};
use stock_redis::epoch;
use stock_redis::journal_stream::{self, Portion};
use stock_redis::keys::Keys;

use super::{RecoverError, connect};

const PAGE: u32 = 1_000;
const PORTION: Portion = Portion {
    entries_max: 5_000,
    frame_entries: 50,
};

/// The plan of a run over a shard, read without changing anything.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The shard.
    pub shard: u64,
    /// Whether its Redis holds what MySQL knows, so that there is nothing to rebuild.
    pub serving: bool,
    /// Entries that would be applied from the old journal or from synchronous orders.
    pub apply: usize,
    /// Entries that do not continue MySQL's state; a run needs a file for them.
    pub left: Vec<Left>,
    /// Accounts that would be written to Redis.
    pub accounts: u64,
}

/// An accepted entry that would be dropped.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The entry's position; when the entry is an order, also the order's id.
    pub position: Position,
    /// Its number within the shard.
    pub number: u64,
    /// Its kind's name.
    pub kind: &'static str,
    /// The user who caused it.
    pub user_id: UserId,
    /// The order's total amount; `None` for any other kind of entry.
    pub total_amount: Option<i64>,
}

impl Left {
    fn new(entry: &Entry) -> Self {
        let order = (entry.kind == Kind::OrderPlaced).then(|| entry.body::<Order>().ok());
        Self {
            position: entry.position,
            number: entry.number,
            kind: entry.kind.as_str(),
            user_id: entry.actor,
            total_amount: order.flatten().map(|order| order.total_amount.get()),
        }
    }
}

/// Reads what a run would do with each of `shards`.
///
/// # Errors
/// [`RecoverError`] when Redis or MySQL does not answer.
pub async fn plan(
    config: &Config,
    pool: &MySqlPool,
    shards: impl IntoIterator<Item = u64>,
) -> Result<Vec<Plan>, RecoverError> {
    let mut plans = Vec::new();
    for shard in shards {
        let keys = Keys::new(config, shard);
        let mut redis = connect(config, &keys).await?;
        let state = shards::load(pool, shard).await?;
        let state = state.ok_or(RecoverError::NoEpoch)?;
        let mut connection = pool.acquire().await?;
        let found = candidates(&mut redis, &keys, &mut connection, &state).await?;
        let mut levels = Levels::new();
        for part in touched(&found).chunks(1_024) {
            levels.extend(accounts::read(&mut connection, part).await?);
        }
        let chosen = choose(found, levels, &state);
        let has_lost = lost_entries::is_listed(&mut connection, shard).await?;
        let accounts: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM accounts WHERE shard = ?")
            .bind(shard)
            .fetch_one(&mut *connection)
            .await?;
        plans.push(Plan {
            shard,
            serving: !has_lost && is_serving(&mut redis, &keys, &state).await?,
            apply: chosen.next.len(),
            left: chosen.left.iter().map(Left::new).collect(),
            accounts: u64::try_from(accounts).unwrap_or_default(),
        });
    }
    Ok(plans)
}

/// Whether Redis holds the epoch and the watermark's entry that MySQL knows, and every entry from
/// there to its head.
pub(super) async fn is_serving(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    state: &ShardState,
) -> Result<bool, RecoverError> {
    let Some(head) = epoch::head(redis, keys).await? else {
        return Ok(false);
    };
    if head.epoch != state.epoch || head.number < state.number {
        return Ok(false);
    }
    let (mut after, mut number) = (state.watermark, state.number);
    loop {
        let tail = journal_stream::tail(redis, keys, after, PORTION).await?;
        if tail.number != Some(number) || tail.broken.is_some() {
            return Ok(false);
        }
        let Some(last) = tail.entries.last().map(|entry| entry.position) else {
            return Ok(number == head.number);
        };
        for entry in &tail.entries {
            if entry.number != number + 1 {
                return Ok(false);
            }
            number = entry.number;
        }
        after = last;
    }
}

/// Entries after the watermark that Redis or a synchronous order still has, by number and position.
pub(super) type Candidates = BTreeMap<(u64, Position), Entry>;

/// Reads the entries after the watermark from Redis' journal and from synchronous orders.
pub(super) async fn candidates(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    connection: &mut MySqlConnection,
    state: &ShardState,
) -> Result<Candidates, RecoverError> {
    let mut entries = Candidates::new();
    let mut after = state.watermark;
    loop {
        let tail = journal_stream::tail(redis, keys, after, PORTION).await?;
        let Some(last) = tail.entries.last() else {
            break;
        };
        after = last.position;
        let read = tail.entries.into_iter();
        entries.extend(read.map(|entry| ((entry.number, entry.position), entry)));
    }
    for entry in recorded_behind(connection, state).await? {
        entries.insert((entry.number, entry.position), entry);
    }
    Ok(entries)
}

/// The accounts that entries touch.
pub(super) fn touched(entries: &Candidates) -> Vec<Account> {
    let postings = entries.values().flat_map(|entry| &entry.postings);
    let mut accounts: Vec<Account> = postings.map(|posted| posted.account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts
}

/// Entries that continue MySQL's state (`next`), and the others (`left`).
pub(super) struct Chosen {
    pub(super) next: Vec<Entry>,
    pub(super) left: Vec<Entry>,
}

/// Chooses the entries whose numbers follow each other. Of two entries with one number, the one
/// whose postings chain is chosen. An entry without such a twin is chosen even if its postings do
/// not chain: its accounts come under quarantine when it is applied, so that no later entry is
/// dropped for it.
pub(super) fn choose(entries: Candidates, mut levels: Levels, state: &ShardState) -> Chosen {
    let (mut next, mut left) = (Vec::new(), Vec::new());
    let mut by_number: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
    for entry in entries.into_values() {
        by_number.entry(entry.number).or_default().push(entry);
    }
    let (mut ahead, mut broken) = (state.clone(), Quarantine::default());
    for mut twins in by_number.into_values() {
        let chains = |entry: &Entry| {
            let mut own = Levels::new();
            entry.postings.iter().all(|posted| {
                let known = levels.get(&posted.account).copied().unwrap_or_default();
                let level = own.entry(posted.account).or_insert(known);
                let follows = settle::follow(*level, posted);
                *level = follows.unwrap_or(*level);
                follows.is_some()
            })
        };
        let best = twins.iter().position(chains).unwrap_or(0);
        let chosen = twins.swap_remove(best);
        match settle::advance(&mut levels, &mut ahead, &chosen, &mut broken) {
            Ok(()) => next.push(chosen),
            Err(_gap) => left.push(chosen),
        }
        left.append(&mut twins);
    }
    Chosen { next, left }
}

/// Entries that synchronous orders recorded and that are not settled.
async fn recorded_behind(
    connection: &mut MySqlConnection,
    state: &ShardState,
) -> Result<Vec<Entry>, sqlx::Error> {
    let mut found = Vec::new();
    let mut after = state.number;
    loop {
        let page = journal::page(connection, state.shard, after, u64::MAX, PAGE).await?;
        let numbers = page.iter().flatten().map(|entry| entry.number);
        let Some(last) = numbers.max().filter(|last| *last > after) else {
            return Ok(found);
        };
        after = last;
        found.extend(page.into_iter().flatten());
    }
}
