//! The subscriber: applies the journal to MySQL.
//!
//! [`run`] starts one subscriber per shard. Each waits for a message on the levels channel, and
//! also looks every `apply_poll_ms`, in case a message is lost. [`Subscriber::step`] applies one
//! bounded batch. Pub/Sub is only a wake-up; the journal is the truth. Any number of instances may
//! run subscribers: the shard's row lock lets one apply at a time.

mod compensate;
pub mod troubles;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_common::lock::lock;
use stock_domain::shard_state::ShardState;
use stock_engine::apply::{Applied, ApplyError, ReadAhead, apply};
use stock_engine::quarantine::flag;
use stock_mysql::account_queue::AccountQueue;
use stock_redis::{Ledger, Shard};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::troubles::Troubles;

/// Pause after a failed step, doubled up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often new shards are looked for.
const LOOK_FOR_SHARDS: Duration = Duration::from_millis(250);
/// Entries from which a batch means a rush. After such a batch, unless it was full, the subscriber
/// waits to gather a larger one.
const GATHER_FROM: usize = 64;
/// How often dead letters and accounts under quarantine are handled when there is no new one.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// Applies the journal of one shard.
pub struct Subscriber {
    ledger: Ledger,
    shard: Shard,
    /// A pool whose idle transactions the server ends after 1 s.
    pool: MySqlPool,
    /// Notified by the levels channel.
    wake_up: Arc<Notify>,
    /// Decides which transaction of this process may lock an account's row next.
    queue: AccountQueue,
    /// Numbers of settled entries, each with the position below which frames may be dropped once
    /// enough later entries are settled.
    checkpoints: VecDeque<(u64, Position)>,
    ahead: ReadAhead,
    keep_entries: u64,
    entries_max: usize,
    gather: Duration,
    poll: Duration,
    settled: metrics::Counter,
    apply_seconds: metrics::Histogram,
}

impl Subscriber {
    /// The subscriber of a shard over its own pool.
    #[must_use]
    pub fn new(shared: &Shared, shard: Shard) -> Self {
        let config = shared.ledger.config();
        Self {
            ledger: shared.ledger.clone(),
            pool: shared.pool.clone(),
            wake_up: shared.wake_ups.of(shard.keys().shard()),
            queue: shared.queue.clone(),
            shard,
            checkpoints: VecDeque::new(),
            ahead: ReadAhead::default(),
            keep_entries: config.apply.journal_keep_entries,
            entries_max: config.apply.apply_entries_max,
            gather: Duration::from_millis(config.apply.apply_gather_ms),
            poll: Duration::from_millis(config.apply.apply_poll_ms),
            settled: metrics::counter!("stock_settled_entries_total"),
            apply_seconds: metrics::histogram!("stock_apply_duration_seconds"),
        }
    }

    /// Applies one batch.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing was changed.
    pub async fn step(&mut self) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let applied = apply(
            &self.pool,
            &self.shard,
            &self.queue,
            self.entries_max,
            &mut self.ahead,
        )
        .await?;
        if let Applied::Settled {
            state,
            entries,
            last_frame,
            ..
        } = &applied
        {
            self.settled.increment(*entries as u64);
            self.apply_seconds.record(started.elapsed().as_secs_f64());
            self.note_settled(state, *last_frame).await;
        }
        Ok(applied)
    }

    /// Tells Redis how far MySQL is, and which old frames Redis may drop.
    async fn note_settled(&mut self, state: &ShardState, last_frame: Position) {
        self.checkpoints.push_back((state.number, last_frame));
        let mut keep_from = None;
        while let Some(&(number, frame)) = self.checkpoints.front()
            && number + self.keep_entries <= state.number
        {
            keep_from = Some(frame);
            self.checkpoints.pop_front();
        }
        // A failure does no harm: the next step tells Redis again.
        if let Err(error) = self.shard.settled(state, keep_from).await {
            tracing::debug!(%error, "cannot note in redis what is settled");
        }
    }
}

/// The wake-ups of all shards.
#[derive(Default)]
pub struct WakeUps(Mutex<HashMap<u64, Arc<Notify>>>);

impl WakeUps {
    fn of(&self, shard: u64) -> Arc<Notify> {
        let mut wake_ups = lock(&self.0);
        Arc::clone(wake_ups.entry(shard).or_default())
    }

    /// Wakes the subscriber of a shard.
    pub fn notify(&self, shard: u64) {
        self.of(shard).notify_one();
    }

    /// Wakes the subscribers of all shards.
    pub fn notify_all(&self) {
        let wake_ups = lock(&self.0);
        wake_ups.values().for_each(|wake_up| wake_up.notify_one());
    }
}

/// The state that the subscribers of all shards share.
#[derive(Clone)]
pub struct Shared {
    /// The ledger whose journal the subscribers apply.
    pub ledger: Ledger,
    /// A pool whose idle transactions the server ends after 1 s.
    pub pool: MySqlPool,
    /// Decides which transaction of this process may lock an account's row next.
    pub queue: AccountQueue,
    /// Notified by the levels channel.
    pub wake_ups: Arc<WakeUps>,
    /// The troubles that keep the subscribers from applying.
    pub troubles: Arc<Troubles>,
}

/// Applies every shard until `shutdown`, including shards that appear later.
pub async fn run(shared: Shared, shutdown: CancellationToken) {
    let mut running: JoinSet<u64> = JoinSet::new();
    let mut known = HashSet::new();
    while !shutdown.is_cancelled() {
        for shard in shared.ledger.shards() {
            let number = shard.keys().shard();
            if known.insert(number) {
                let one = Subscriber::new(&shared, shard);
                let troubles = Arc::clone(&shared.troubles);
                running.spawn(run_one(one, troubles, shutdown.clone()));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            Some(ended) = running.join_next() => {
                // A shard was given up and starts again, or a task panicked and all shards start
                // again.
                match ended {
                    Ok(shard) => drop(known.remove(&shard)),
                    Err(error) => {
                        metrics::counter!("stock_task_restarts_total", "task" => "subscriber")
                            .increment(1);
                        tracing::error!(%error, "a subscriber broke");
                        running.shutdown().await;
                        known.clear();
                    }
                }
                tokio::time::sleep(BACKOFF_MIN).await;
            }
            () = tokio::time::sleep(LOOK_FOR_SHARDS) => {}
        }
    }
    while running.join_next().await.is_some() {}
}

/// Applies a shard until `shutdown` or until the shard map changes. A step under way is finished.
async fn run_one(
    mut subscriber: Subscriber,
    troubles: Arc<Troubles>,
    shutdown: CancellationToken,
) -> u64 {
    let number = subscriber.shard.keys().shard();
    // The fence opens a moment after the start; until then a failed step would only log warnings.
    subscriber.shard.wait_open(BACKOFF_MAX).await;
    let mut backoff = BACKOFF_MIN;
    let mut tended = Instant::now();
    let is_used = |of: &Subscriber| {
        let now = of.ledger.shard(number);
        now.is_ok_and(|now| now.is_same(&of.shard))
    };
    while !shutdown.is_cancelled() && is_used(&subscriber) {
        let wait = match subscriber.step().await {
            Ok(Applied::Settled {
                dead_letters,
                quarantined,
                entries,
                ..
            }) => {
                backoff = BACKOFF_MIN;
                troubles.end(number);
                if dead_letters + quarantined > 0 || tended.elapsed() > TEND_EVERY {
                    tend(&subscriber).await;
                    tended = Instant::now();
                }
                if (GATHER_FROM..subscriber.entries_max).contains(&entries) {
                    tokio::time::sleep(subscriber.gather).await;
                }
                continue;
            }
            Ok(Applied::Nothing(_) | Applied::Busy) => {
                backoff = BACKOFF_MIN;
                troubles.end(number);
                subscriber.poll
            }
            Err(error) => {
                // MySQL ends one of two transactions that wait for each other. Once is ordinary.
                if !error.is_conflict() || backoff > BACKOFF_MIN {
                    alarm(&error);
                    troubles.note(number, &error);
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
                backoff
            }
        };
        if tended.elapsed() > TEND_EVERY {
            tend(&subscriber).await;
            tended = Instant::now();
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = subscriber.wake_up.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    number
}

/// Takes back orders that could not be stored, and flags accounts under quarantine in Redis, so
/// that Redis refuses requests that take from them.
async fn tend(subscriber: &Subscriber) {
    compensate::all(&subscriber.pool, &subscriber.ledger).await;
    if let Err(error) = flag(&subscriber.pool, &subscriber.shard).await {
        tracing::warn!(%error, "accounts under quarantine are not flagged in redis yet");
    }
}

fn alarm(error: &ApplyError) {
    if error.is_passing() {
        tracing::warn!(%error, "applying will be tried again");
    } else {
        tracing::error!(%error, "applying has stopped");
    }
}
