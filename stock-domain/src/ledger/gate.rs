//! The gate: nothing is decided on a Redis that is not proved to be the one that MySQL knows.
//!
//! A new connection and an answer NOSCRIPT both mean *perhaps another Redis*: one that restarted
//! empty, lost its tail, or was restored from a backup. Before the first batch the keeper compares the
//! epoch with MySQL's, finds the watermark's entry in the journal, and finds what this instance itself
//! accepted last; only then the scripts are loaded. Until then every request is answered `FENCED`.

mod loss;
mod memory;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use sqlx::MySqlPool;
use stock_common::config::{Config, Durability};
use stock_common::id::Position;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::memory::Remembered;
pub(super) use self::memory::{Beat, Memory};
use super::keys::Keys;
use super::reader;
use super::request::Sealed;
use super::scripts::SCRIPTS;
use super::servers::{self, Connected, Servers};
use crate::database::shards::{self, ShardState};
use crate::database::witnesses;
use crate::verdict::Accepted;

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

/// Why a Redis is not proved.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unproved {
    #[error("redis does not answer: {0}")]
    Redis(#[from] RedisError),
    #[error("mysql does not answer, and this instance has not seen its watermark before: {0}")]
    Database(#[source] sqlx::Error),
    #[error("redis has no epoch: it is empty, or not the one that belongs to this database")]
    NoEpoch,
    #[error("redis has no epoch: rebuilding it was cut off")]
    CutOff,
    #[error("mysql has no epoch: run `stock-online migrate`")]
    NoDatabaseEpoch,
    #[error("redis holds another epoch than mysql")]
    OtherEpoch,
    #[error("the watermark's entry {0} is not in the journal")]
    WatermarkMissing(Position),
    #[error("entry {last} that this instance accepted is not in the journal; {lost} entries lost")]
    OwnEntryMissing { last: Position, lost: usize },
    #[error("entry {0} that another instance accepted is not in the journal")]
    OthersEntryMissing(Position),
    #[error("another redis than before: {0} instances have not said yet what they accepted last")]
    WitnessesMissing(u64),
}

impl Unproved {
    /// Whether Redis lacks entries that were accepted, so that it must be rebuilt.
    const fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::WatermarkMissing(_)
                | Self::OwnEntryMissing { .. }
                | Self::OthersEntryMissing(_)
                | Self::CutOff
        )
    }
}

/// What the gate needs to prove a Redis.
pub(super) struct Gate {
    pub(super) servers: Servers,
    pub(super) instance: Arc<str>,
    pub(super) beat: Arc<Beat>,
    pub(super) config: Config,
    pub(super) keys: Keys,
    pub(super) pool: MySqlPool,
    pub(super) response_timeout: Duration,
    pub(super) now_ms: Box<dyn Fn() -> i64 + Send + Sync>,
    pub(super) state: watch::Sender<GateState>,
    pub(super) memory: Mutex<Memory>,
    pub(super) known: Mutex<Option<ShardState>>,
    /// The server that was proved last.
    pub(super) proved: Mutex<String>,
}

impl Gate {
    /// An accepted entry as it is to be remembered.
    pub(super) fn remember(&self, accepted: &Accepted, request: &Arc<Sealed>) -> Remembered {
        let content = || (accepted.postings.clone(), Arc::clone(request));
        Remembered {
            number: accepted.number,
            position: accepted.position,
            // Kept for nothing by everybody else: what a lone Redis loses is listed, as it always was.
            content: self.servers.is_cluster().then(content),
        }
    }

    /// Whether the one Redis that there is keeps all that it has accepted.
    fn loses_nothing(&self) -> bool {
        self.config.durability == Durability::Always && !self.servers.is_cluster()
    }

    /// Notes accepted entries, if the gate is still open on the link that brought them; what comes later is told
    /// as unknown, since this instance has said by then what it accepted last.
    pub(super) fn note(&self, link: &Link, entries: Vec<Remembered>, settled: u64) -> bool {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = matches!(&*self.state.borrow(), GateState::Open(now) if now.generation == link.generation);
        if is_current {
            memory.accepted(entries, settled);
        }
        is_current
    }

    /// Forgets what MySQL has settled of what this instance accepted; not behind a silence of its own, when other entries
    /// may have its numbers.
    pub(super) fn settled(&self, state: &ShardState) {
        let silences = self.beat.silences();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.silences == silences && memory.epoch == state.epoch {
            memory.settled(state.number);
        }
    }

    /// Shuts the gate if `generation` is still the one in use.
    pub(super) fn shut(&self, generation: u64, reason: &str) {
        self.state.send_if_modified(|state| match state {
            GateState::Open(link) if link.generation == generation => {
                tracing::warn!(shard = self.keys.shard(), reason, "gate shut");
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
            self.say_shut().await;
            let next = match self.meet(generation).await {
                Ok(link) => {
                    let shard = self.keys.shard();
                    tracing::info!(shard, epoch = %link.epoch, "gate open: redis is proved");
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
                (_, GateState::Shut(new)) => {
                    tracing::warn!(shard = self.keys.shard(), reason = %new, "gate shut");
                }
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
            Ok(Some(epoch)) if *epoch == *link.epoch => {
                if let Err(error) = self.find_settled_in_silence().await {
                    tracing::debug!(%error, "what was settled in a silence is compared later");
                }
            }
            Ok(None) => self.shut(link.generation, &Unproved::NoEpoch.to_string()),
            Ok(Some(_)) => self.shut(link.generation, &Unproved::OtherEpoch.to_string()),
            Err(error) => self.shut(link.generation, &Unproved::Redis(error).to_string()),
        }
    }

    /// Finds the shard's Redis and proves it; rebuilds one that lost entries.
    async fn meet(&self, generation: u64) -> Result<Link, Unproved> {
        let key = self.keys.epoch();
        let met = self.servers.connect(&key, self.response_timeout).await?;
        let proved = self.prove(&met, generation).await;
        match &proved {
            Ok(_) => self.servers.trust(&met),
            Err(why) => {
                if why.is_loss() {
                    self.recover(&met.url).await;
                }
                self.servers.mistrust(&met);
            }
        }
        proved
    }

    async fn prove(&self, connected: &Connected, generation: u64) -> Result<Link, Unproved> {
        let decide = connected.connection.clone();
        let mut read = servers::connect(&connected.url, self.response_timeout).await?;
        let server = servers::run_id(&mut read).await?;
        let time: (i64, i64) = cmd("TIME").query_async(&mut read).await?;
        let epoch: Option<String> = cmd("HGET")
            .arg(self.keys.epoch())
            .arg("epoch")
            .query_async(&mut read)
            .await?;
        let Some(epoch) = epoch else {
            // `recover` takes the epoch out, and nothing else, before it begins.
            let head = super::epoch::head(&mut read, &self.keys).await?;
            return Err(head.map_or(Unproved::NoEpoch, |_| Unproved::CutOff));
        };
        let (known, is_fresh) = self.shard_state(&epoch, &server).await?;
        if known.epoch != epoch {
            return Err(Unproved::OtherEpoch);
        }
        let own = self.find_own_last(&mut read, &known).await;
        if is_fresh {
            self.witness(&mut read, &known, &server).await?;
        }
        own?;
        let found = reader::find(&mut read, &self.keys, known.watermark).await?;
        if found.is_none_or(|(number, _)| number != known.number) {
            return Err(Unproved::WatermarkMissing(known.watermark));
        }
        let mut scripts = decide.clone();
        for script in SCRIPTS.all() {
            let load = cmd("SCRIPT").arg("LOAD").arg(script.text).to_owned();
            let _sha: String = load.query_async(&mut scripts).await?;
        }
        // What was taken away from the shard stays away, also where a promoted replica does not know it.
        let _number: i64 = cmd("EVALSHA")
            .arg(&SCRIPTS.relayout.sha)
            .arg(1)
            .arg(self.keys.epoch())
            .arg(&epoch)
            .arg(known.layout)
            .query_async(&mut scripts)
            .await?;
        *self.proved.lock().unwrap_or_else(PoisonError::into_inner) = server;
        let offset_ms = time.0 * 1_000 + time.1 / 1_000 - (self.now_ms)();
        Ok(Link {
            decide,
            read,
            epoch: epoch.into(),
            generation,
            offset_ms,
        })
    }

    /// A Redis that is not the one that was proved before may lack what others accepted: it is proved when every
    /// live instance has said what it accepted last, and all of that is there. Until then nobody sells on it.
    async fn witness(
        &self,
        read: &mut MultiplexedConnection,
        known: &ShardState,
        server: &str,
    ) -> Result<(), Unproved> {
        let shard = self.keys.shard();
        let last = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.last
        };
        let own = (&*self.instance, last);
        let said = witnesses::say(&self.pool, shard, own, server).await;
        let Some(witnessed) = said.map_err(Unproved::Database)? else {
            return Ok(());
        };
        // Behind an outage of MySQL nobody has said for a while that they are there.
        if !self.beat.is_steady(witnesses::ALIVE) {
            return Err(Unproved::WitnessesMissing(witnessed.missing.max(1)));
        }
        if witnessed.missing > 0 {
            return Err(Unproved::WitnessesMissing(witnessed.missing));
        }
        let is_settled = witnessed.last <= known.watermark;
        if !is_settled
            && reader::find(read, &self.keys, witnessed.last)
                .await?
                .is_none()
        {
            return Err(Unproved::OthersEntryMissing(witnessed.last));
        }
        // Only if nobody has met another one meanwhile.
        let proved = witnesses::prove(&self.pool, shard, server, witnessed.last).await;
        match proved.map_err(Unproved::Database)? {
            true => Ok(()),
            false => Err(Unproved::WitnessesMissing(1)),
        }
    }

    /// Nobody needs to wait for what this instance will say of another server: it accepts nothing until it has.
    async fn say_shut(&self) {
        let last = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.last
        };
        let shard = self.keys.shard();
        if let Err(error) = witnesses::shut(&self.pool, shard, &self.instance, last).await {
            tracing::debug!(%error, "mysql does not hear that the gate is shut");
        }
    }

    fn has_proved(&self, server: &str) -> bool {
        *self.proved.lock().unwrap_or_else(PoisonError::into_inner) == server
    }

    /// MySQL's state and whether it is fresh, or what this instance saw of it last while MySQL is away: then only of a
    /// server that it has proved before, or that cannot have lost anything.
    async fn shard_state(&self, epoch: &str, server: &str) -> Result<(ShardState, bool), Unproved> {
        match shards::load(&self.pool, self.keys.shard()).await {
            Ok(Some(state)) => {
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
                Ok((state, true))
            }
            Ok(None) => Err(Unproved::NoDatabaseEpoch),
            Err(error) => {
                let known = self
                    .known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                // Of a cluster another may have been promoted meanwhile, and only MySQL knows.
                let is_alone = !self.servers.is_cluster();
                let is_known = self.loses_nothing() || is_alone && self.has_proved(server);
                known
                    .filter(|state| state.epoch == epoch && is_known)
                    .map(|state| (state, false))
                    .ok_or(Unproved::Database(error))
            }
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
