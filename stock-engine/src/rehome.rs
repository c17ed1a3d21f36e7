//! Rehome: changes the number of shards while nothing is sold; also the way from one Redis to a
//! cluster.
//!
//! 1. MySQL notes whether selling is open; the ledger is verified; selling stops; MySQL catches up,
//!    and the rest is verified;
//! 2. MySQL notes that the shards are rebuilt from now on, and each shard's epoch is removed from
//!    Redis: nothing is decided any more;
//! 3. every account is assigned to the shard that the new map says, and the map is replaced;
//! 4. each shard is rebuilt from MySQL under a new epoch, as `recover` does it;
//! 5. selling opens again, if it was open.
//!
//! Until step 2 nothing but selling was changed, and an error opens selling again. A run that was
//! cut off anywhere is finished by running it again. Each epoch is new, so an instance that has not
//! heard the new map from MySQL is fenced.

use std::time::{Duration, Instant};

use redis::RedisError;
use serde::Serialize;
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_domain::shard_map::{SHARDS_MAX, ShardMap};
use stock_mysql::shard_map::{self, Underway};
use stock_mysql::{accounts, branches, jobs, quarantine, shards};
use stock_redis::epoch::{self, Head};
use stock_redis::keys::Keys;
use stock_redis::{DecideError, Ledger};

use crate::ledger::{start, switch_selling};
use crate::recover::{self, RecoverError};
use crate::verify::{Difference, Progress, VerifyError, verify, verify_before_rebuild};

/// The name of the job; one run at a time.
pub const JOB: &str = "rehome";
/// How long the fences may take to open.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// How long MySQL may take to settle what was accepted before selling stopped.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const SETTLE_EVERY: Duration = Duration::from_millis(50);

/// The outcome of a run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehomed {
    /// How many shards there are now.
    pub shards: u64,
    /// How many accounts were written to Redis.
    pub accounts: u64,
    /// How long nothing was sold, in ms.
    pub pause_ms: u64,
    /// The part of the pause in which MySQL settled what had been accepted, in ms.
    pub settle_ms: u64,
    /// The part of the pause in which the ledger was verified, in ms.
    pub verify_ms: u64,
}

/// A stop of selling, and how long its first steps took.
struct Stopped {
    at: Instant,
    settle: Duration,
    verify: Duration,
}

impl Stopped {
    /// Selling stopped now, or before this run.
    fn now() -> Self {
        Self {
            at: Instant::now(),
            settle: Duration::ZERO,
            verify: Duration::ZERO,
        }
    }
}

fn ms(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// Why the shop was not moved.
#[derive(Debug, thiserror::Error)]
pub enum RehomeError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// A shard cannot be rebuilt.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Selling cannot be switched.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// The ledger cannot be verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Another process changes the number of shards.
    #[error("another process is changing the number of shards")]
    Busy,
    /// The number of shards is out of range.
    #[error("there are 1 to {SHARDS_MAX} shards")]
    Number,
    /// A shard is fenced.
    #[error("shard {0} is fenced ({1}): `stock-online recover` first")]
    Fenced(u64, String),
    /// A shard did not follow the switch.
    #[error("shard {0} did not stop selling")]
    Unstopped(u64),
    /// MySQL does not catch up.
    #[error("mysql has not settled everything within a minute: is a subscriber running?")]
    Unsettled,
    /// The ledger does not agree with itself.
    #[error(
        "the ledger does not agree in {0} points, which `stock-online verify` names; the first: {1}"
    )]
    Differences(usize, String),
    /// Accounts are under quarantine.
    #[error("{0} accounts are under quarantine: end that first (`stock-online quarantine`)")]
    Quarantined(i64),
    /// Instances of the first release are running.
    #[error("an instance of the first release is running: stop all of them")]
    FirstRelease,
    /// The first release has divided the stock of some products.
    #[error(
        "the stock of {0} products is divided: with the first release, `buckets --product N --count 1` for each of them"
    )]
    Divided(i64),
}

/// Changes the number of shards. It moves the shop from the Redis servers that `from` names to
/// those that `config` names; the two may be the same.
///
/// # Errors
/// [`RehomeError`]. It may be run again.
pub async fn rehome(
    from: &Config,
    config: &Config,
    pool: &MySqlPool,
    target: u64,
    progress: Progress<'_>,
) -> Result<Rehomed, RehomeError> {
    if !(1..=SHARDS_MAX).contains(&target) {
        return Err(RehomeError::Number);
    }
    let stays = from.redis.redis_url == config.redis.redis_url;
    let claim = jobs::claim(pool, JOB).await?.ok_or(RehomeError::Busy)?;
    // Of the pause of a run that was cut off, only the rest can be measured.
    let mut stopped = Stopped::now();
    let (map, underway) = (
        shard_map::load(pool).await?,
        shard_map::underway(pool).await?,
    );
    let target = ShardMap::new(target);
    let reopens = match (underway, map) {
        (Some(Underway { reopens, .. }), _) => reopens,
        (None, Some(map)) if map == target && stays => {
            return Ok(Rehomed {
                shards: target.shards(),
                ..Rehomed::default()
            });
        }
        (None, Some(_)) => is_selling(pool).await?,
        (None, None) => check_first_release(pool).await?,
    };
    shard_map::begin_change(pool, reopens).await?;
    if !underway.is_some_and(|of| of.is_verified) {
        if map.is_some() {
            stopped = stop(from, pool, reopens, progress).await?;
        }
        shard_map::note_verified(pool).await?;
    }
    claim.check()?;
    let accounts = rebuild(from, config, pool, target, progress).await?;
    if reopens {
        reopen(config, pool).await?;
    }
    shard_map::end_change(pool).await?;
    claim.succeed().await?;
    Ok(Rehomed {
        shards: target.shards(),
        accounts,
        pause_ms: ms(stopped.at.elapsed()),
        settle_ms: ms(stopped.settle),
        verify_ms: ms(stopped.verify),
    })
}

async fn meet(config: &Config, pool: &MySqlPool) -> Result<Ledger, RehomeError> {
    let ledger = start(config, pool.clone(), Clock::system())?;
    if ledger.wait_open(OPEN_MAX).await {
        return Ok(ledger);
    }
    let fenced = ledger.fenced().into_iter().next();
    let (shard, why) = fenced.map_or((0, "starting".into()), |(shard, why)| (shard, why));
    Err(RehomeError::Fenced(shard, why.to_string()))
}

async fn is_selling(pool: &MySqlPool) -> Result<bool, sqlx::Error> {
    Ok(shards::all(pool).await?.iter().any(|state| state.selling))
}

/// Stops selling, and waits until MySQL has everything. On an error
/// the shop stays as it is, and selling opens again if `reopens` is set.
async fn stop(
    config: &Config,
    pool: &MySqlPool,
    reopens: bool,
    progress: Progress<'_>,
) -> Result<Stopped, RehomeError> {
    let ledger = meet(config, pool).await?;
    let stopped = stop_and_verify(pool, &ledger, progress).await;
    if stopped.is_err() {
        if reopens {
            switch_selling(pool, &ledger, true, UserId::ENGINE).await?;
        }
        shard_map::end_change(pool).await?;
    }
    stopped
}

async fn stop_and_verify(
    pool: &MySqlPool,
    ledger: &Ledger,
    progress: Progress<'_>,
) -> Result<Stopped, RehomeError> {
    let quarantined = quarantine::count(pool).await?;
    if quarantined > 0 {
        return Err(RehomeError::Quarantined(quarantined));
    }
    // Most of the ledger is verified while the shop sells; the rest is verified below.
    let report = Box::pin(verify(pool, ledger, false, progress)).await?;
    refuse_any(&report.differences)?;
    let mut stopped = Stopped::now();
    let switched = switch_selling(pool, ledger, false, UserId::ENGINE).await?;
    if let Some((shard, _)) = switched.into_iter().find(|(_, is_open)| *is_open) {
        return Err(RehomeError::Unstopped(shard));
    }
    let mut heads = Vec::new();
    for shard in ledger.shards() {
        let mut link = shard.live_link().await.map_err(DecideError::from)?;
        heads.extend(epoch::head(&mut link.read, shard.keys()).await?);
    }
    let until = Instant::now() + SETTLE_MAX;
    while !is_settled(pool, &heads).await? {
        if Instant::now() > until {
            return Err(RehomeError::Unsettled);
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    stopped.settle = stopped.at.elapsed();
    let differences = Box::pin(verify_before_rebuild(pool, ledger, progress)).await?;
    refuse_any(&differences)?;
    stopped.verify = stopped.at.elapsed().saturating_sub(stopped.settle);
    Ok(stopped)
}

fn refuse_any(differences: &[Difference]) -> Result<(), RehomeError> {
    match differences.first() {
        None => Ok(()),
        Some(first) => Err(RehomeError::Differences(
            differences.len(),
            first.to_string(),
        )),
    }
}

/// Whether MySQL has settled everything accepted before selling stopped, and no cross-shard entry
/// of that time is half done. Entries accepted afterwards take no stock; they are read from the
/// journal before it is deleted.
async fn is_settled(pool: &MySqlPool, heads: &[Head]) -> Result<bool, RehomeError> {
    for head in heads {
        let shard = head.position.shard();
        let settled = shards::load(pool, shard).await?;
        let is_behind = settled.is_none_or(|state| state.number < head.number);
        if is_behind || branches::held(pool, shard, head.position).await? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checks that a shop that lay on several shards with the first release can be moved; returns
/// whether selling was open.
async fn check_first_release(pool: &MySqlPool) -> Result<bool, RehomeError> {
    if shard_map::has_first_release(pool).await? {
        return Err(RehomeError::FirstRelease);
    }
    let divided = shard_map::divided(pool).await?;
    if divided > 0 {
        return Err(RehomeError::Divided(divided));
    }
    Ok(is_selling(pool).await?)
}

/// Steps 2 to 4; returns how many accounts were written.
async fn rebuild(
    from: &Config,
    config: &Config,
    pool: &MySqlPool,
    target: ShardMap,
    progress: Progress<'_>,
) -> Result<u64, RehomeError> {
    let map = shard_map::load(pool).await?;
    let before = shards::all(pool).await?;
    // A new shard is empty, and nobody may decide on it before it has its accounts. So it is begun
    // while the earlier map still excludes it, and loses its epoch like the others.
    for shard in 0..target.shards() {
        if recover::begin_shard(config, pool, shard).await? {
            recover::empty(config, pool, &Keys::new(config, shard)).await?;
        } else {
            shards::follow_switch(pool, shard).await?;
        }
    }
    for state in &before {
        let keys = match map {
            Some(_) => Keys::new(from, state.shard),
            None => Keys::of_first_release(from, state.shard),
        };
        recover::empty(from, pool, &keys).await?;
    }
    let mut transaction = pool.begin().await?;
    accounts::set_shards(&mut transaction, target).await?;
    shard_map::replace(&mut transaction, target).await?;
    transaction.commit().await?;
    let mut accounts = 0;
    for shard in 0..target.shards() {
        accounts += recover::rebuild_shard(config, pool, shard, progress)
            .await?
            .accounts;
    }
    Ok(accounts)
}

async fn reopen(config: &Config, pool: &MySqlPool) -> Result<(), RehomeError> {
    let ledger = meet(config, pool).await?;
    let switched = switch_selling(pool, &ledger, true, UserId::ENGINE).await?;
    match switched.into_iter().find(|(_, is_open)| !*is_open) {
        Some((shard, _)) => Err(RehomeError::Fenced(shard, "it did not open".to_owned())),
        None => Ok(()),
    }
}
