//! Recover: rebuilds Redis from MySQL after Redis lost its data, and begins a new epoch.
//!
//! 1. lock the shard's row and the epoch's row: no subscriber applies, no synchronous order runs;
//! 2. remove the epoch from Redis: no instance can decide anything there any more;
//! 3. apply and commit the entries that the old journal or a synchronous order still has and that
//!    continue MySQL's state. An account whose postings do not chain comes under quarantine.
//!    Entries after a gap in the numbers are dropped only into a file that the operator names;
//! 4. under the locks again, rebuild accounts, flags, the switch, states, holds and keys from
//!    MySQL;
//! 5. begin the journal at a position above every known one; write the new epoch to Redis, then
//!    commit it to MySQL.
//!
//! A run may be killed anywhere, and run again: until the commit, MySQL's epoch is not in Redis,
//! and every instance stays fenced. A Redis that serves is left alone unless that is forced.
//! [`plan`] says what a run would do.

mod begin;
pub(crate) mod rebuild;
mod rest;

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use serde::Serialize;
use sqlx::{MySql, MySqlPool, Transaction};
use stock_common::config::Config;
use stock_common::id::Position;
use stock_domain::journal::{DraftError, Entry};
use stock_domain::shard_map::ShardMap;
use stock_domain::shard_state::ShardState;
use stock_mysql::record::{self, RecordError};
use stock_mysql::{Role, accounts, jobs, lost_entries, settle, shard_map, shards};
use stock_redis::epoch::{self, Head};
use stock_redis::keys::Keys;
use stock_redis::nodes::{self, Servers};

use self::begin::{begin, next_epoch};
pub use self::begin::{begin_first, begin_shard};
pub(crate) use self::rebuild::{Filling, Rebuild};
use self::rest::Chosen;
pub use self::rest::{Left, Plan, plan};
use crate::apply::{self, ApplyError};
use crate::verify::Progress;

/// The name of the jobs; the shard's number follows it.
pub const JOB: &str = "recover";
/// How often to try for the locks, until a subscriber or a synchronous order ends its transaction.
const LOCK_ATTEMPTS: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How long Redis may take for a command: it may have a large journal to drop.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// The new epoch.
    pub epoch: String,
    /// Entries applied from the old journal or from synchronous orders.
    pub applied: usize,
    /// Entries that did not continue MySQL's state: written to the file, or listed as lost.
    pub discarded: usize,
    /// Accounts written to Redis.
    pub accounts: u64,
    /// Idempotency keys written to Redis.
    pub keys: u64,
    /// Shards that serve, and were left as they are.
    pub serving: u64,
}

/// Why Redis was not rebuilt. The run may be repeated.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// Applying the entries that the journal still had failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The rows that a dropped entry had recorded cannot be removed.
    #[error(transparent)]
    Erase(#[from] RecordError),
    /// The first entry cannot be written.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The file for dropped entries cannot be written.
    #[error("cannot write the dropped entries to {0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// Another instance kept the shard's row locked.
    #[error("another process keeps the shard locked; stop it, or wait, and run this again")]
    Busy,
    /// Another process has rebuilt the shard meanwhile.
    #[error("the shard was rebuilt meanwhile")]
    Done,
    /// MySQL has no epoch yet.
    #[error("mysql has no epoch: run `stock-online migrate`")]
    NoEpoch,
    /// MySQL has no shard map.
    #[error(
        "mysql does not say how many shards there are: run `stock-online migrate`, or `stock-online rehome` when this shop was \
         of several shards with the first release"
    )]
    NoShardMap,
    /// Redis belongs to another database.
    #[error("redis holds entries of another database under this prefix; choose another prefix")]
    Foreign,
    /// Redis holds what MySQL knows, and instances decide on it.
    #[error(
        "the redis of shard {0} serves: nothing is to be rebuilt. `stock-online verify` compares what it holds; --force \
         rebuilds it all the same"
    )]
    Serving(u64),
    /// Entries would be lost, and no file was named for them.
    #[error(
        "{0} accepted entries do not continue the database's state; name a file for them: --discard FILE"
    )]
    WouldDiscard(usize),
}

/// The actions that an operator allows to a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed<'a> {
    /// Entries that cannot be applied are appended to this file as JSON lines; without it they stop
    /// the run.
    pub discard: Option<&'a Path>,
    /// Rebuild a Redis that serves.
    pub force: bool,
}

impl Allowed<'_> {
    /// Rebuild whatever Redis holds, and drop nothing.
    pub const FORCED: Self = Self {
        discard: None,
        force: true,
    };
}

/// Rebuilds the shards of Redis from MySQL, one after the other. Shards that serve are left as they
/// are, unless the rebuild is forced.
///
/// # Errors
/// [`RecoverError`], also when every shard serves. A shard whose rebuild has begun then stays
/// fenced.
pub async fn recover(
    config: &Config,
    pool: &MySqlPool,
    allowed: Allowed<'_>,
    progress: Progress<'_>,
) -> Result<Recovered, RecoverError> {
    let shards = known_map(pool).await?.shards();
    let mut all = Recovered::default();
    for shard in 0..shards {
        let done = match recover_shard(config, pool, shard, allowed, progress).await {
            Err(RecoverError::Serving(_)) if all.serving + 1 < shards => {
                all.serving += 1;
                continue;
            }
            done => done?,
        };
        all = Recovered {
            serving: all.serving,
            epoch: done.epoch,
            applied: all.applied + done.applied,
            discarded: all.discarded + done.discarded,
            accounts: all.accounts + done.accounts,
            keys: all.keys + done.keys,
        };
    }
    Ok(all)
}

/// Rebuilds one shard; the others go on meanwhile.
///
/// # Errors
/// [`RecoverError`]; the shard then stays fenced.
pub async fn recover_shard(
    config: &Config,
    pool: &MySqlPool,
    shard: u64,
    allowed: Allowed<'_>,
    progress: Progress<'_>,
) -> Result<Recovered, RecoverError> {
    let run = Run {
        config,
        pool,
        shard,
        map: known_map(pool).await?,
        allowed,
        lost: None,
    };
    run.run(progress).await
}

/// Rebuilds a shard on the server that was seen to have lost entries, unless that was done
/// meanwhile. `lost` is the epoch of the loss and the server's URL. Entries that do not continue
/// MySQL's state are listed as lost.
///
/// # Errors
/// [`RecoverError`]; the shard then stays fenced.
pub(crate) async fn recover_lost(
    config: &Config,
    shard: u64,
    lost: (&str, &str),
) -> Result<Recovered, RecoverError> {
    // Its transactions may take long.
    let pool = stock_mysql::pool(config, Role::Tool)?;
    // While `rehome` runs, a shard without an epoch belongs to it.
    if shard_map::is_rebuilding(&pool).await? {
        return Err(RecoverError::Busy);
    }
    let run = Run {
        config,
        pool: &pool,
        shard,
        map: known_map(&pool).await?,
        allowed: Allowed::FORCED,
        lost: Some(lost),
    };
    run.run(&mut |_, _| {}).await
}

/// Removes the epoch from a shard's Redis, saves the rest of its journal to MySQL, and deletes its
/// keys. `keys` are the names that the shard had.
pub(crate) async fn empty(
    config: &Config,
    pool: &MySqlPool,
    keys: &Keys,
) -> Result<(), RecoverError> {
    let run = Run {
        config,
        pool,
        shard: keys.shard(),
        map: ShardMap::new(1),
        allowed: Allowed::FORCED,
        lost: None,
    };
    // An instance that has just found the shard lost may be rebuilding it.
    let claim = claim_in_time(pool, keys.shard()).await?;
    let mut redis = connect(config, keys).await?;
    run.save(&mut redis, keys, &mut Recovered::default())
        .await?;
    rebuild::clear(&mut redis, keys).await?;
    claim.succeed().await?;
    Ok(())
}

async fn claim_in_time(pool: &MySqlPool, shard: u64) -> Result<jobs::Claim, RecoverError> {
    for _ in 0..LOCK_ATTEMPTS {
        if let Some(claim) = jobs::claim(pool, &format!("{JOB} {shard}")).await? {
            return Ok(claim);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Err(RecoverError::Busy)
}

/// Rebuilds a shard, whatever its Redis holds.
pub(crate) async fn rebuild_shard(
    config: &Config,
    pool: &MySqlPool,
    shard: u64,
    progress: Progress<'_>,
) -> Result<Recovered, RecoverError> {
    for _ in 1..LOCK_ATTEMPTS {
        match recover_shard(config, pool, shard, Allowed::FORCED, progress).await {
            Err(RecoverError::Busy) => tokio::time::sleep(LOCK_PAUSE).await,
            rebuilt => return rebuilt,
        }
    }
    recover_shard(config, pool, shard, Allowed::FORCED, progress).await
}

/// The shard map in MySQL.
async fn known_map(pool: &MySqlPool) -> Result<ShardMap, RecoverError> {
    let known = shard_map::load(pool).await?;
    known.ok_or(RecoverError::NoShardMap)
}

/// One run over one shard.
struct Run<'a> {
    config: &'a Config,
    pool: &'a MySqlPool,
    shard: u64,
    map: ShardMap,
    allowed: Allowed<'a>,
    /// For a run that no operator asked for: the epoch under which a loss was seen, and the
    /// server's URL.
    lost: Option<(&'a str, &'a str)>,
}

impl Run<'_> {
    async fn run(&self, progress: Progress<'_>) -> Result<Recovered, RecoverError> {
        // One run at a time: the second half of another run would clear what this run has begun.
        let name = format!("{JOB} {}", self.shard);
        let claim = jobs::claim(self.pool, &name).await?;
        let claim = claim.ok_or(RecoverError::Busy)?;
        match self.run_claimed(&claim, progress).await {
            Ok(done) => {
                claim.succeed().await?;
                Ok(done)
            }
            // Whoever is told why may try again at once.
            Err(error) => {
                if let Err(error) = claim.release().await {
                    tracing::debug!(%error, "the server ends the claim of a failed recovery");
                }
                Err(error)
            }
        }
    }

    async fn run_claimed(
        &self,
        claim: &jobs::Claim,
        progress: Progress<'_>,
    ) -> Result<Recovered, RecoverError> {
        let keys = Keys::new(self.config, self.shard);
        let mut redis = match self.lost {
            Some((_, url)) => nodes::connect(url, RESPONSE_TIMEOUT).await?,
            None => connect(self.config, &keys).await?,
        };
        let mut done = Recovered::default();
        let old = self.save(&mut redis, &keys, &mut done).await?;
        claim.check()?;
        self.rebuild(&mut redis, &keys, old, &mut done, progress)
            .await?;
        Ok(done)
    }

    /// Rebuilds Redis. MySQL now has everything that Redis could still give, so the old journal may
    /// go.
    async fn rebuild(
        &self,
        redis: &mut MultiplexedConnection,
        keys: &Keys,
        old: Option<Head>,
        done: &mut Recovered,
        progress: Progress<'_>,
    ) -> Result<(), RecoverError> {
        let mut transaction = self.pool.begin().await?;
        let mut state = lock(&mut transaction, self.shard).await?;
        let beginning = next_epoch(redis, &mut transaction, &state, old).await?;
        done.epoch.clone_from(&beginning.epoch);
        rebuild::clear(redis, keys).await?;
        let mut rebuild = Rebuild {
            redis,
            keys,
            map: self.map,
            filling: Filling::Directly,
        };
        done.accounts = rebuild.write_accounts(&mut transaction, progress).await?;
        rebuild
            .begin_sales(&mut transaction, &beginning.epoch)
            .await?;
        let keep_ms = self.config.decide.marks_keep_ms;
        rebuild.write_states(&mut transaction, keep_ms).await?;
        rebuild.write_holds(&mut transaction).await?;
        rebuild.write_branch_states(&mut transaction).await?;
        rebuild.write_branch_holds(&mut transaction).await?;
        done.keys = rebuild.write_keys(&mut transaction, self.config).await?;
        begin(&mut transaction, &mut state, &beginning).await?;
        epoch::begin(redis, keys, &beginning).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Removes the epoch from Redis and commits the rest of the old journal to MySQL, so that no
    /// accepted entry is only in an open transaction when the journal is deleted. Returns the old
    /// head.
    async fn save(
        &self,
        redis: &mut MultiplexedConnection,
        keys: &Keys,
        done: &mut Recovered,
    ) -> Result<Option<Head>, RecoverError> {
        let mut transaction = self.pool.begin().await?;
        let mut state = lock(&mut transaction, self.shard).await?;
        if self.lost.is_some_and(|(epoch, _)| epoch != state.epoch) {
            return Err(RecoverError::Done);
        }
        if self.lost.is_some() && shard_map::is_rebuilding(self.pool).await? {
            return Err(RecoverError::Busy);
        }
        let old = epoch::head(redis, keys).await?;
        let has_lost = lost_entries::is_listed(&mut transaction, self.shard).await?;
        if !self.allowed.force && !has_lost && rest::is_serving(redis, keys, &state).await? {
            return Err(RecoverError::Serving(self.shard));
        }
        let _removed: i64 = cmd("HDEL")
            .arg(keys.epoch())
            .arg("epoch")
            .query_async(redis)
            .await?;
        let saved = self.save_rest(redis, keys, &mut transaction, &mut state, done);
        match saved.await {
            Ok(()) => {
                transaction.commit().await?;
                Ok(old)
            }
            Err(error) => {
                transaction.rollback().await?;
                if let Some(old) = old.filter(|old| !old.epoch.is_empty()) {
                    restore_epoch(redis, keys, &old).await?;
                }
                Err(error)
            }
        }
    }

    async fn save_rest(
        &self,
        redis: &mut MultiplexedConnection,
        keys: &Keys,
        transaction: &mut Transaction<'static, MySql>,
        state: &mut ShardState,
        done: &mut Recovered,
    ) -> Result<(), RecoverError> {
        let rest = apply_rest(redis, keys, transaction, state).await?;
        done.applied = rest.applied;
        done.discarded = rest.left.len();
        if rest.left.is_empty() {
            return Ok(());
        }
        if self.lost.is_some() {
            lost_entries::list_entries(transaction, self.shard, &rest.left).await?;
        } else {
            let file = self
                .allowed
                .discard
                .ok_or(RecoverError::WouldDiscard(rest.left.len()))?;
            write_discarded(file, &rest.left)
                .map_err(|error| RecoverError::File(file.to_owned(), error))?;
        }
        record::erase(transaction, &rest.left).await?;
        Ok(())
    }
}

/// Connects to a shard's Redis, whatever it holds.
pub(crate) async fn connect(
    config: &Config,
    keys: &Keys,
) -> Result<MultiplexedConnection, RedisError> {
    let (servers, key) = (Servers::parse(&config.redis.redis_url)?, keys.epoch());
    let connected = servers.connect_agreed(&key, RESPONSE_TIMEOUT).await?;
    Ok(connected.connection)
}

async fn lock(
    transaction: &mut Transaction<'static, MySql>,
    shard: u64,
) -> Result<ShardState, RecoverError> {
    for _ in 0..LOCK_ATTEMPTS {
        match shards::try_lock(transaction, shard).await {
            Ok(Some(state)) => {
                // Waits for synchronous orders, which hold this row in share mode.
                sqlx::query("SELECT epoch FROM epochs WHERE shard = ? FOR UPDATE")
                    .bind(shard)
                    .execute(&mut **transaction)
                    .await?;
                return Ok(state);
            }
            Ok(None) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(sqlx::Error::RowNotFound) => return Err(RecoverError::NoEpoch),
            Err(error) => return Err(error.into()),
        }
    }
    Err(RecoverError::Busy)
}

async fn restore_epoch(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    old: &Head,
) -> Result<(), RedisError> {
    cmd("HSET")
        .arg(keys.epoch())
        .arg("epoch")
        .arg(&old.epoch)
        .query_async(redis)
        .await
}

/// The number of applied entries, and the entries that do not continue MySQL's state.
struct Rest {
    applied: usize,
    left: Vec<Entry>,
}

/// Applies the entries after the watermark that Redis' journal or a synchronous order still has, in
/// the order of their numbers.
async fn apply_rest(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    transaction: &mut Transaction<'static, MySql>,
    state: &mut ShardState,
) -> Result<Rest, RecoverError> {
    let found = rest::candidates(redis, keys, transaction, state).await?;
    let mut levels = settle::Levels::new();
    for part in rest::touched(&found).chunks(1_024) {
        levels.extend(accounts::lock(transaction, part).await?);
    }
    let Chosen { next, left } = rest::choose(found, levels, state);
    for part in next.chunks(1_024) {
        apply::write(transaction, state, part).await?;
    }
    let entered: Vec<Position> = next.iter().map(|entry| entry.position).collect();
    lost_entries::found(transaction, &entered).await?;
    Ok(Rest {
        applied: next.len(),
        left,
    })
}

fn write_discarded(file: &Path, left: &[Entry]) -> Result<(), std::io::Error> {
    use std::io::Write as _;
    let mut out = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)?;
    for entry in left {
        // A payload that is no JSON is kept as it is: this file is all that is left of the entry.
        let text = || String::from_utf8_lossy(&entry.payload).into_owned().into();
        let payload: serde_json::Value =
            serde_json::from_slice(&entry.payload).unwrap_or_else(|_| text());
        let line = serde_json::json!({
            "position": entry.position, "number": entry.number, "payload": payload,
        });
        writeln!(out, "{line}")?;
    }
    out.sync_all()
}
