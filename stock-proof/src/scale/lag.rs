//! Measures how long MySQL stood still while a shard had entries for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::MySqlPool;
use stock_mysql::shards;
use stock_redis::{Ledger, epoch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::World;
use crate::Failure;

const EVERY: Duration = Duration::from_millis(20);
/// A Redis that is away is not waited for longer than this, so that the other shards are looked at.
const ANSWER: Duration = Duration::from_millis(200);

/// How far MySQL is with one shard.
#[derive(Debug, Clone, Copy)]
pub struct Lag {
    /// The shard.
    pub shard: u64,
    /// Entries that MySQL has settled.
    pub settled: u64,
    /// Entries that Redis has accepted; `None` when it does not answer.
    pub accepted: Option<u64>,
}

impl Lag {
    /// Whether, as far as is known, there are entries to settle.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.accepted
            .is_some_and(|accepted| accepted > self.settled)
    }
}

/// Looks at every shard in use; reads MySQL first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn look(pool: &MySqlPool, ledger: &Ledger) -> Result<Vec<Lag>, sqlx::Error> {
    let states = shards::all(pool).await?;
    let mut lags = Vec::new();
    for shard in ledger.shards() {
        let number = shard.keys().shard();
        let state = states.iter().find(|state| state.shard == number);
        let accepted = async {
            let mut link = shard.link().ok()?;
            let head = epoch::head(&mut link.read, shard.keys()).await.ok()??;
            Some(head.number)
        };
        lags.push(Lag {
            shard: number,
            settled: state.map(|state| state.number).unwrap_or_default(),
            accepted: tokio::time::timeout(ANSWER, accepted).await.ok().flatten(),
        });
    }
    Ok(lags)
}

/// A task that looks until it is told to stop.
pub struct Watch {
    stop: CancellationToken,
    task: JoinHandle<Result<(u64, Duration), sqlx::Error>>,
}

impl Watch {
    /// Starts to look.
    #[must_use]
    pub fn start(world: &World) -> Self {
        let stop = CancellationToken::new();
        let watching = watch(world.pool.clone(), world.ledger.clone(), stop.clone());
        let task = tokio::spawn(watching);
        Self { stop, task }
    }

    /// The shard whose settled number stood still for longest while entries waited, and for how
    /// long.
    ///
    /// # Errors
    /// When MySQL did not answer.
    pub async fn stop(self) -> Result<(u64, Duration), Failure> {
        self.stop.cancel();
        Ok(self.task.await??)
    }
}

async fn watch(
    pool: MySqlPool,
    ledger: Ledger,
    stop: CancellationToken,
) -> Result<(u64, Duration), sqlx::Error> {
    let mut moved: BTreeMap<u64, (u64, Instant)> = BTreeMap::new();
    let mut longest = (0, Duration::ZERO);
    while !stop.is_cancelled() {
        for lag in look(&pool, &ledger).await? {
            let now = Instant::now();
            let (number, since) = moved.entry(lag.shard).or_insert((lag.settled, now));
            if *number != lag.settled || !lag.is_behind() {
                (*number, *since) = (lag.settled, now);
            }
            let still = since.elapsed();
            if still > longest.1 {
                longest = (lag.shard, still);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(longest)
}
