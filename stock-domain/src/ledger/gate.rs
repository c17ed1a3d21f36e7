//! The gate: nothing is decided on a Redis that is not proved to be the one that MySQL knows.
//!
//! A new connection and an answer NOSCRIPT both mean *perhaps another Redis*: one that restarted
//! empty, lost its tail, or was restored from a backup. Before the first batch the keeper compares the
//! epoch with MySQL's, finds the watermark's entry in the journal, and finds what this instance itself
//! accepted last; only then the scripts are loaded. Until then every request is answered `FENCED`.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, cmd};
use sqlx::MySqlPool;
use stock_common::id::Position;
use tokio::sync::watch;
use tokio::time::Instant;

use super::keys::Keys;
use super::reader;
use super::scripts::SCRIPTS;
use crate::database::journal;
use crate::database::shards::{self, ShardState};

/// How often a shut gate tries again, and how often an open one is checked.
const RETRY: Duration = Duration::from_millis(200);
const CHECK: Duration = Duration::from_secs(1);

/// A proved Redis.
#[derive(Debug, Clone)]
pub struct Link {
    /// The connection for scripts.
    pub decide: MultiplexedConnection,
    /// The connection for reads, so that a large read delays no verdict.
    pub read: MultiplexedConnection,
    /// The epoch that was proved.
    pub epoch: Arc<str>,
    /// Tells this link from an earlier one.
    pub generation: u64,
    /// Redis' time minus this machine's, in ms, when it was proved.
    pub offset_ms: i64,
}

/// Whether there is a proved Redis, or why not.
#[derive(Debug, Clone)]
pub enum GateState {
    /// Requests are decided.
    Open(Link),
    /// Requests are answered `FENCED`, for this reason.
    Shut(Arc<str>),
}

/// What this instance accepted and MySQL may not have yet.
#[derive(Debug, Default)]
pub(super) struct Memory {
    epoch: String,
    last: Position,
    unsettled: VecDeque<(u64, Position)>,
}

impl Memory {
    /// Remembers accepted entries and forgets settled ones.
    pub(super) fn accepted(&mut self, entries: &[(u64, Position)], settled: u64) {
        self.unsettled.extend(entries);
        self.last = entries
            .iter()
            .map(|&(_, position)| position)
            .max()
            .unwrap_or(self.last);
        while self
            .unsettled
            .front()
            .is_some_and(|&(number, _)| number <= settled)
        {
            self.unsettled.pop_front();
        }
    }
}

/// Why a Redis is not proved.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unproved {
    #[error("redis does not answer: {0}")]
    Redis(#[from] RedisError),
    #[error("mysql does not answer, and this instance has not seen its watermark before: {0}")]
    Database(#[source] sqlx::Error),
    #[error("redis has no epoch: it is empty, or not the one that belongs to this database")]
    NoEpoch,
    #[error("mysql has no epoch: run `stock-online migrate`")]
    NoDatabaseEpoch,
    #[error("redis holds another epoch than mysql")]
    OtherEpoch,
    #[error("the watermark's entry {0} is not in the journal")]
    WatermarkMissing(Position),
    #[error("entry {last} that this instance accepted is not in the journal; {lost} entries lost")]
    OwnEntryMissing { last: Position, lost: usize },
}

/// What the gate needs to prove a Redis.
pub(super) struct Gate {
    pub(super) client: Client,
    pub(super) keys: Keys,
    pub(super) pool: MySqlPool,
    pub(super) response_timeout: Duration,
    pub(super) now_ms: Box<dyn Fn() -> i64 + Send + Sync>,
    pub(super) state: watch::Sender<GateState>,
    pub(super) memory: Mutex<Memory>,
    pub(super) known: Mutex<Option<ShardState>>,
}

impl Gate {
    /// Shuts the gate if `generation` is still the one in use.
    pub(super) fn shut(&self, generation: u64, reason: &str) {
        self.state.send_if_modified(|state| match state {
            GateState::Open(link) if link.generation == generation => {
                tracing::warn!(reason, "gate shut");
                *state = GateState::Shut(reason.into());
                true
            }
            GateState::Open(_) | GateState::Shut(_) => false,
        });
    }

    /// Keeps the gate for ever: proves a Redis while it is shut, checks it while it is open.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut generation = 0;
        loop {
            let open = match &*self.state.borrow() {
                GateState::Open(link) => Some(link.clone()),
                GateState::Shut(_) => None,
            };
            if let Some(link) = open {
                let mut changes = self.state.subscribe();
                let shut = changes.wait_for(|state| matches!(state, GateState::Shut(_)));
                if tokio::time::timeout(CHECK, shut).await.is_err() {
                    self.check(&link).await;
                }
                continue;
            }
            generation += 1;
            let next = match self.prove(generation).await {
                Ok(link) => {
                    tracing::info!(epoch = %link.epoch, "gate open: redis is proved");
                    GateState::Open(link)
                }
                Err(why) => GateState::Shut(describe(&why).into()),
            };
            self.tell(next);
            if matches!(&*self.state.borrow(), GateState::Shut(_)) {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Publishes a state; a reason that has not changed is not logged again.
    fn tell(&self, next: GateState) {
        self.state.send_if_modified(|state| {
            match (&*state, &next) {
                (GateState::Shut(old), GateState::Shut(new)) if old == new => return false,
                (_, GateState::Shut(new)) => tracing::warn!(reason = %new, "gate shut"),
                (_, GateState::Open(_)) => {}
            }
            *state = next;
            true
        });
    }

    /// Compares the epoch of an open link again; shuts the gate when it is another one.
    pub(super) async fn check(&self, link: &Link) {
        let mut connection = link.read.clone();
        let read: Result<Option<String>, RedisError> = cmd("HGET")
            .arg(self.keys.epoch())
            .arg("epoch")
            .query_async(&mut connection)
            .await;
        match read {
            Ok(Some(epoch)) if *epoch == *link.epoch => {}
            Ok(None) => self.shut(link.generation, &Unproved::NoEpoch.to_string()),
            Ok(Some(_)) => self.shut(link.generation, &Unproved::OtherEpoch.to_string()),
            Err(error) => self.shut(link.generation, &Unproved::Redis(error).to_string()),
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(self.response_timeout));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn prove(&self, generation: u64) -> Result<Link, Unproved> {
        let (decide, mut read) = (self.connect().await?, self.connect().await?);
        let time: (i64, i64) = cmd("TIME").query_async(&mut read).await?;
        let epoch: Option<String> = cmd("HGET")
            .arg(self.keys.epoch())
            .arg("epoch")
            .query_async(&mut read)
            .await?;
        let epoch = epoch.ok_or(Unproved::NoEpoch)?;
        let known = self.shard_state(&epoch).await?;
        if known.epoch != epoch {
            return Err(Unproved::OtherEpoch);
        }
        let found = reader::find(&mut read, &self.keys, known.watermark).await?;
        if found.is_none_or(|(number, _)| number != known.number) {
            return Err(Unproved::WatermarkMissing(known.watermark));
        }
        self.find_own_last(&mut read, &known).await?;
        let mut scripts = decide.clone();
        for script in SCRIPTS.all() {
            let load = cmd("SCRIPT").arg("LOAD").arg(script.text).to_owned();
            let _sha: String = load.query_async(&mut scripts).await?;
        }
        let offset_ms = time.0 * 1_000 + time.1 / 1_000 - (self.now_ms)();
        Ok(Link {
            decide,
            read,
            epoch: epoch.into(),
            generation,
            offset_ms,
        })
    }

    /// MySQL's state, or what this instance saw of it last while MySQL is away.
    async fn shard_state(&self, epoch: &str) -> Result<ShardState, Unproved> {
        match shards::load(&self.pool, self.keys.shard()).await {
            Ok(Some(state)) => {
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
                Ok(state)
            }
            Ok(None) => Err(Unproved::NoDatabaseEpoch),
            Err(error) => {
                let known = self
                    .known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                known
                    .filter(|state| state.epoch == epoch)
                    .ok_or(Unproved::Database(error))
            }
        }
    }

    /// What this instance accepted last must be in the journal, or settled.
    async fn find_own_last(
        &self,
        read: &mut MultiplexedConnection,
        known: &ShardState,
    ) -> Result<(), Unproved> {
        self.list_lost_with_epoch(&known.epoch).await?;
        let (last, first) = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            (
                memory.last,
                memory
                    .unsettled
                    .front()
                    .map_or(memory.last, |&(_, first)| first),
            )
        };
        if last <= known.watermark || reader::find(read, &self.keys, last).await?.is_some() {
            return Ok(());
        }
        let present: HashSet<Position> = reader::positions_from(read, &self.keys, first)
            .await?
            .into_iter()
            .collect();
        let lost: Vec<Position> = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let unsettled = memory.unsettled.iter().map(|&(_, position)| position);
            unsettled
                .filter(|p| *p > known.watermark && !present.contains(p))
                .collect()
        };
        self.list_lost(&lost).await;
        Err(Unproved::OwnEntryMissing {
            last,
            lost: lost.len(),
        })
    }

    /// A new epoch means that `recover` has run: what this instance accepted under the earlier one and
    /// MySQL's journal lacks is lost, and is listed before the memory of it begins anew.
    async fn list_lost_with_epoch(&self, epoch: &str) -> Result<(), Unproved> {
        let accepted: Vec<Position> = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.epoch == epoch {
                return Ok(());
            }
            memory.unsettled.iter().map(|&(_, at)| at).collect()
        };
        let lost = journal::missing(&self.pool, &accepted)
            .await
            .map_err(Unproved::Database)?;
        self.list_lost(&lost).await;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        *memory = Memory {
            epoch: epoch.to_owned(),
            ..Memory::default()
        };
        Ok(())
    }

    /// Lists what was accepted and lost: in the log, and in MySQL for `recover` and `explain`.
    async fn list_lost(&self, lost: &[Position]) {
        match shards::list_lost(&self.pool, self.keys.shard(), lost).await {
            Ok(0) => {}
            Ok(_) => {
                for position in lost {
                    tracing::error!(%position, "accepted entry is not in the journal any more");
                }
            }
            Err(error) => tracing::error!(%error, lost = lost.len(), "cannot list lost entries"),
        }
    }
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Waits until the gate is open, or until `limit` has passed.
pub(super) async fn wait_open(state: &watch::Sender<GateState>, limit: Duration) -> bool {
    let mut changes = state.subscribe();
    let deadline = Instant::now() + limit;
    let open = changes.wait_for(|state| matches!(state, GateState::Open(_)));
    tokio::time::timeout_at(deadline, open)
        .await
        .is_ok_and(|seen| seen.is_ok())
}
