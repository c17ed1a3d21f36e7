//! The gate: nothing is decided on a Redis that is not proved to be the one that MySQL knows.
//!
//! A new connection and an answer NOSCRIPT both mean *perhaps another Redis*: one that restarted
//! empty, lost its tail, or was restored from a backup. Before the first batch the keeper compares the
//! epoch with MySQL's, finds the watermark's entry in the journal, and finds what this instance itself
//! accepted last; only then the scripts are loaded. Until then every request is answered `FENCED`.
//! A link that broke to the very server that was proved needs no word of MySQL (`same`); requests wait
//! for it to be replaced (`live`).

mod head;
mod live;
mod loss;
mod memory;
mod safe;
mod same;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, pipe};
use sqlx::MySqlPool;
use stock_common::config::{Config, Durability};
use stock_common::id::Position;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::live::Heard;
pub(super) use self::live::Line;
pub(super) use self::memory::Memory;
pub use self::memory::Remembered;
use self::same::Identity;
use super::keys::Keys;
use super::reader;
use super::replication::Replication;
use super::scripts::SCRIPTS;
use super::servers::{self, Connected, Servers};
use super::switch::{Follows, Switch};
use crate::database::migrate::{self, Schema};
use crate::database::shard_map;
use crate::database::shards::{self, ShardState};
use crate::server_settings::Setting;
use crate::shard_map::ShardMap;
use crate::verdict::Accepted;

/// How often a shut gate tries again, and how often an open one is checked.
const RETRY: Duration = Duration::from_millis(200);
const CHECK: Duration = Duration::from_secs(1);
/// How long requests wait for a link that broke to be replaced.
const MEND_MAX: Duration = Duration::from_secs(1);

/// A proved Redis.
#[derive(Debug, Clone)]
pub struct Link {
    /// The connection for scripts.
    pub decide: MultiplexedConnection,
    /// Another one for scripts where replicas are waited for, or the same.
    pub beside: Arc<MultiplexedConnection>,
    /// The connection for reads, so that a large read delays no verdict.
    pub read: MultiplexedConnection,
    /// The epoch that was proved.
    pub epoch: Arc<str>,
    /// Tells this link from an earlier one.
    pub generation: u64,
    /// Redis' time minus this machine's, in ms, when it was proved.
    pub offset_ms: i64,
    /// When each of the connections last answered.
    pub(super) heard: Arc<Heard>,
    /// Whether a connection for scripts has ended.
    ends: watch::Receiver<bool>,
}

/// Whether there is a proved Redis, or why not.
#[derive(Debug, Clone)]
pub enum GateState {
    /// Requests are decided.
    Open(Link),
    /// The link broke a moment ago, for this reason, and is being replaced: requests wait for that, and not for long.
    Mending(Arc<str>),
    /// Requests are answered `FENCED`, for this reason.
    Shut(Arc<str>),
}

impl GateState {
    /// The epoch of the Redis that was verified.
    #[must_use]
    pub fn epoch(&self) -> Option<&str> {
        match self {
            Self::Open(link) => Some(&link.epoch),
            Self::Mending(_) | Self::Shut(_) => None,
        }
    }
}

/// Why a Redis is not proved.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unproved {
    #[error("redis does not answer: {0}")]
    Redis(#[from] RedisError),
    #[error("mysql does not answer: {0}")]
    Database(#[source] sqlx::Error),
    #[error("only mysql can tell whether this is the right redis, and it does not answer: {0}")]
    Unwarranted(#[source] sqlx::Error),
    #[error("redis has no epoch: it is empty, or not the one that belongs to this database")]
    NoEpoch,
    #[error("redis has no epoch: rebuilding it was cut off")]
    CutOff,
    #[error("the schema of mysql is behind this program: run `stock-online migrate`")]
    SchemaBehind,
    #[error("mysql has no epoch: run `stock-online migrate`")]
    NoDatabaseEpoch,
    #[error("redis holds another epoch than mysql")]
    OtherEpoch,
    #[error("the watermark's entry {0} is not in the journal")]
    WatermarkMissing(Position),
    #[error("entry {last} that this instance accepted is not in the journal; {lost} entries lost")]
    OwnEntryMissing { last: Position, lost: usize },
    #[error("entry {0}, which a synchronous order recorded in mysql, is not in the journal")]
    RecordedMissing(Position),
    #[error("there is another number of shards by now")]
    OtherShardMap,
    #[error("this shop was of several shards with the first release: run `stock-online rehome`")]
    NoShardMap,
}

impl Unproved {
    /// Whether Redis lacks entries that were accepted, so that it must be rebuilt.
    const fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::WatermarkMissing(_)
                | Self::RecordedMissing(_)
                | Self::OwnEntryMissing { .. }
                | Self::CutOff
        )
    }
}

/// Everything that the gate needs to prove a Redis.
pub(super) struct Gate {
    pub(super) servers: Servers,
    /// The map that the shard is one of.
    pub(super) map: ShardMap,
    /// The runtime that requests run on.
    pub(super) requests: Handle,
    pub(super) config: Config,
    pub(super) keys: Keys,
    pub(super) pool: MySqlPool,
    pub(super) response_timeout: Duration,
    pub(super) now_ms: Box<dyn Fn() -> i64 + Send + Sync>,
    pub(super) state: watch::Sender<GateState>,
    /// The generation of the last link.
    pub(super) generation: AtomicU64,
    pub(super) memory: Mutex<Memory>,
    pub(super) known: Mutex<Option<ShardState>>,
    /// The server that was proved last, as it was when it was last seen.
    pub(super) proved: Mutex<Option<Identity>>,
    /// The replicas that an accepted order waits for.
    pub(super) replication: Replication,
    /// The server's settings, as they were found.
    pub(super) settings: Mutex<Arc<[Setting]>>,
    /// Whether one of them breaks what is promised.
    pub(super) is_unsafe: AtomicBool,
    /// Whether selling is open, as an operator asked for it last.
    pub(super) switch: Arc<Switch>,
    /// Which switch the script was seen to follow.
    pub(super) follows: Follows,
    /// Whether the open server was let in without MySQL, which has not confirmed it yet.
    pub(super) is_unverified: AtomicBool,
}

impl Gate {
    /// An accepted entry as it is to be remembered.
    pub(super) const fn remember(accepted: &Accepted) -> Remembered {
        Remembered {
            number: accepted.number,
            position: accepted.position,
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

    /// Forgets what MySQL has settled of what this instance accepted.
    pub(super) fn settled(&self, state: &ShardState) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.epoch == state.epoch {
            memory.settled(state.number);
        }
    }

    /// Gives up the link of `generation`, if it is still the one in use: another one is made at once, and what Redis
    /// says then decides whether the gate stays shut.
    pub(super) fn shut(&self, generation: u64, reason: &str) {
        self.state.send_if_modified(|state| match state {
            GateState::Open(link) if link.generation == generation => {
                tracing::warn!(shard = self.keys.shard(), reason, "the link is given up");
                *state = GateState::Mending(reason.into());
                true
            }
            GateState::Open(_) | GateState::Mending(_) | GateState::Shut(_) => false,
        });
    }

    /// Keeps the gate for ever: proves a Redis while it is shut, checks it while it is open.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            let state = self.state.borrow().clone();
            if let GateState::Open(link) = state {
                self.watch(&link).await;
                continue;
            }
            let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
            let next = match self.meet_in_time(generation).await {
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

    /// Nobody waits longer for a link than [`MEND_MAX`], however long finding another one takes.
    async fn meet_in_time(&self, generation: u64) -> Result<Link, Unproved> {
        let meeting = self.meet(generation);
        tokio::pin!(meeting);
        if let Ok(met) = tokio::time::timeout(MEND_MAX, &mut meeting).await {
            return met;
        }
        self.state.send_if_modified(|state| {
            let GateState::Mending(reason) = state else {
                return false;
            };
            tracing::warn!(shard = self.keys.shard(), %reason, "gate shut");
            *state = GateState::Shut(Arc::clone(reason));
            true
        });
        meeting.await
    }

    /// Publishes a state; a reason that has not changed is not logged again.
    fn tell(&self, next: GateState) {
        self.state.send_if_modified(|state| {
            match (&*state, &next) {
                (GateState::Shut(old), GateState::Shut(new)) if old == new => return false,
                (_, GateState::Shut(new)) => {
                    tracing::warn!(shard = self.keys.shard(), reason = %new, "gate shut");
                }
                (_, GateState::Open(_) | GateState::Mending(_)) => {}
            }
            *state = next;
            true
        });
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

    /// A connection's replies are taken in by a task of its own: this one's runs beside the requests that wait for them.
    async fn connect_for_requests(
        &self,
        url: &str,
        has_ended: &watch::Sender<bool>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let (url, response_timeout) = (url.to_owned(), self.response_timeout);
        let has_ended = has_ended.clone();
        let connecting =
            async move { servers::connect_watched(&url, response_timeout, has_ended).await };
        let connected = self.requests.spawn(connecting).await;
        connected.map_err(std::io::Error::other)?
    }

    async fn prove(&self, connected: &Connected, generation: u64) -> Result<Link, Unproved> {
        let (has_ended, ends) = watch::channel(false);
        let decide = self
            .connect_for_requests(&connected.url, &has_ended)
            .await?;
        let beside = match self.replication.is_wanted() {
            true => {
                self.connect_for_requests(&connected.url, &has_ended)
                    .await?
            }
            false => decide.clone(),
        };
        let mut read = connected.connection.clone();
        let server = Identity::read(&mut read).await?;
        let mut ask = pipe();
        ask.cmd("TIME");
        ask.cmd("HGET").arg(self.keys.epoch()).arg("epoch");
        ask.cmd("HMGET").arg(self.keys.epoch()).arg(&head::NEEDED);
        let (time, epoch, needed): ((i64, i64), Option<String>, Vec<Option<String>>) =
            ask.query_async(&mut read).await?;
        let is_whole = head::is_whole(&needed);
        let Some(epoch) = epoch else {
            // `recover` takes the epoch out, and nothing else, before it begins.
            let head = super::epoch::head(&mut read, &self.keys).await?;
            return Err(head.map_or(Unproved::NoEpoch, |_| Unproved::CutOff));
        };
        let same = match is_whole {
            true => self.known_of_same(&mut read, &server, &epoch).await?,
            false => None,
        };
        let known = match same {
            Some(known) => known,
            None => self.known_of_other(&mut read, &epoch).await?,
        };
        if !is_whole {
            self.mend_head(&mut read, &epoch, &known).await?;
        }
        // Before the first request, and not a moment after it.
        self.read_settings(&mut read).await?;
        // One call: requests wait for the link.
        let mut prepare = pipe();
        for script in SCRIPTS.all() {
            prepare.cmd("SCRIPT").arg("LOAD").arg(script.text).ignore();
        }
        let () = prepare.query_async(&mut decide.clone()).await?;
        *self.proved.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        let offset_ms = time.0 * 1_000 + time.1 / 1_000 - (self.now_ms)();
        Ok(Link {
            decide,
            beside: Arc::new(beside),
            read,
            epoch: epoch.into(),
            generation,
            offset_ms,
            heard: Arc::new(Heard::now()),
            ends,
        })
    }

    /// Proves a server that is not known to be the one of a moment ago, by what MySQL says.
    async fn known_of_other(
        &self,
        read: &mut MultiplexedConnection,
        epoch: &str,
    ) -> Result<ShardState, Unproved> {
        let (known, is_fresh) = self.shard_state(epoch).await?;
        if known.epoch != epoch {
            return Err(Unproved::OtherEpoch);
        }
        if is_fresh {
            self.find_accepted(read, &known).await?;
        }
        self.is_unverified.store(!is_fresh, Ordering::Relaxed);
        let found = reader::find(read, &self.keys, known.watermark).await?;
        if found.is_none_or(|(number, _)| number != known.number) {
            return Err(Unproved::WatermarkMissing(known.watermark));
        }
        if is_fresh {
            self.find_recorded(read, &known).await?;
        }
        Ok(known)
    }

    /// Compares an open server that was let in without MySQL, as soon as MySQL answers. The link is given up when MySQL knows
    /// better.
    pub(super) async fn verify_afterwards(&self, link: &Link) -> Result<(), Unproved> {
        if !self.is_unverified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let verified = self
            .known_of_other(&mut link.read.clone(), &link.epoch)
            .await;
        if let Err(why) = &verified
            && !matches!(why, Unproved::Database(_) | Unproved::Unwarranted(_))
        {
            self.shut(link.generation, &why.to_string());
        }
        verified.map(drop)
    }

    /// MySQL's state and whether it is fresh, or what this instance saw of it last while MySQL is away: then only of a
    /// server that cannot have lost anything.
    async fn shard_state(&self, epoch: &str) -> Result<(ShardState, bool), Unproved> {
        let load = shards::load(&self.pool, self.keys.shard());
        let (loaded, schema, map) = tokio::join!(
            load,
            migrate::schema(&self.pool),
            shard_map::load(&self.pool)
        );
        match (schema, &loaded, map) {
            (Ok(Schema::Behind), ..) => return Err(Unproved::SchemaBehind),
            (_, Ok(Some(_)), Ok(None)) => return Err(Unproved::NoShardMap),
            (_, _, Ok(Some(map))) if map != self.map => return Err(Unproved::OtherShardMap),
            // Without the map's word the state is not taken either.
            (_, Ok(Some(_)), Err(error)) => return Err(Unproved::Database(error)),
            _ => {}
        }
        match loaded {
            Ok(Some(state)) => {
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
                Ok((state, true))
            }
            Ok(None) => Err(Unproved::NoDatabaseEpoch),
            Err(error) => {
                let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                let known = known.clone().filter(|state| state.epoch == epoch);
                // A lone Redis that syncs each write has lost nothing, whatever became of its process.
                match known {
                    Some(state) if self.loses_nothing() => Ok((state, false)),
                    Some(_) | None => Err(Unproved::Unwarranted(error)),
                }
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
