//! Starts a ledger, and keeps it informed: each second it reads the shard map and the selling
//! switch from MySQL.

use std::time::Duration;

use redis::RedisError;
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_common::supervise::supervise;
use stock_domain::selling::Switched;
use stock_domain::shard_map::ShardMap;
use stock_mysql::{Role, selling, shard_map};
use stock_redis::{DecideError, Ledger, WeakLedger};
use tokio::runtime::Handle;

use crate::fence;

/// How often the shard map and the switch are read.
const REFRESH: Duration = Duration::from_secs(1);
/// How long reading them may take.
const REFRESH_MAX: Duration = Duration::from_secs(5);
/// How long MySQL may take to store a switch. Afterwards it is stored again each second until it is
/// there.
const TELLING_MAX: Duration = Duration::from_secs(1);

/// Starts a ledger and its tasks: the fence's task and the batcher of each shard, and one that
/// refreshes the shard map. A shard opens when its Redis and MySQL answer and agree, which may be
/// later.
///
/// # Errors
/// When `redis_url` cannot be parsed.
pub fn start(config: &Config, pool: MySqlPool, clock: Clock) -> Result<Ledger, RedisError> {
    start_for(&Handle::current(), config, pool, clock)
}

/// Like [`start`], with the batchers and their links on the runtime of the requests. All other
/// tasks, and the links for reads, run on the caller's runtime.
///
/// # Errors
/// When `redis_url` cannot be parsed.
pub fn start_for(
    requests: &Handle,
    config: &Config,
    pool: MySqlPool,
    clock: Clock,
) -> Result<Ledger, RedisError> {
    let ledger = Ledger::new(config, clock, requests);
    show(&ledger, &pool, None)?;
    // A pool of its own, so that this task and the requests never wait for each other's
    // connections. The URL is valid, because `pool` was made from it.
    let own_pool = stock_mysql::pool(config, Role::Tool).unwrap_or_else(|_| pool.clone());
    let weak = ledger.downgrade();
    let prefix = config.redis.redis_prefix.clone();
    tokio::spawn(supervise("ledger", prefix, move || {
        keep(weak.clone(), pool.clone(), own_pool.clone())
    }));
    Ok(ledger)
}

/// Gives the ledger a shard map, and starts to verify the shards that begin with it.
fn show(ledger: &Ledger, pool: &MySqlPool, map: Option<ShardMap>) -> Result<(), RedisError> {
    for shard in ledger.show(map)? {
        fence::keep(&shard, pool);
    }
    Ok(())
}

/// Refreshes the shard map and the switch until the ledger is dropped.
async fn keep(ledger: WeakLedger, pool: MySqlPool, own_pool: MySqlPool) {
    while let Some(ledger) = ledger.upgrade() {
        // Limited, because a statement that a link has swallowed is never answered.
        let refreshing = refresh(&ledger, &pool, &own_pool);
        match tokio::time::timeout(REFRESH_MAX, refreshing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the shard map cannot be read yet"),
            Err(_) => tracing::debug!("mysql does not say the shard map"),
        }
        let is_known = ledger.shard_map().is_some();
        drop(ledger);
        tokio::time::sleep(if is_known { REFRESH } else { REFRESH / 10 }).await;
    }
}

/// Reads the shard map and the switch once.
async fn refresh(
    ledger: &Ledger,
    pool: &MySqlPool,
    own_pool: &MySqlPool,
) -> Result<(), sqlx::Error> {
    let map = shard_map::load(own_pool).await?;
    if map.is_some()
        && ledger.shard_map() != map
        && let Err(error) = show(ledger, pool, map)
    {
        tracing::error!(%error, "the shards cannot be started");
    }
    compare_switch(ledger, own_pool).await
}

/// Makes MySQL and this instance agree on the switch: the later request of the two counts.
async fn compare_switch(ledger: &Ledger, pool: &MySqlPool) -> Result<(), sqlx::Error> {
    let told = selling::load(pool).await?;
    if let Some(told) = told {
        ledger.hear_switch(told);
    }
    match ledger.last_switch() {
        Some(known) if told != Some(known) => selling::save(pool, known).await,
        Some(_) | None => Ok(()),
    }
}

/// Switches selling on every shard: at once on this instance, and on the others as soon as they
/// hear it through MySQL's row or through the channel.
///
/// Returns for each shard whether selling is open there, as far as is known. A shard that cannot be
/// reached did not follow.
///
/// # Errors
/// [`DecideError`] when the entry has no JSON form, or the shards are not known.
pub async fn switch_selling(
    pool: &MySqlPool,
    ledger: &Ledger,
    open: bool,
    actor: UserId,
) -> Result<Vec<(u64, bool)>, DecideError> {
    let switched = ledger.begin_switch(open);
    let (shards, ()) = tokio::join!(
        ledger.switch_everywhere(switched, actor),
        store(pool, switched)
    );
    shards
}

async fn store(pool: &MySqlPool, switched: Switched) {
    match tokio::time::timeout(TELLING_MAX, selling::save(pool, switched)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "mysql does not know the switch yet"),
        Err(_) => tracing::warn!("mysql does not answer: it does not know the switch yet"),
    }
}
