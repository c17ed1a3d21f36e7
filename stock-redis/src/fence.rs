//! The fence: nothing is decided on a Redis that is not verified to be the one that MySQL knows.
//!
//! A new connection and an answer NOSCRIPT both mean *perhaps another Redis*: one that restarted
//! empty, lost its tail, or was restored from a backup. Until somebody has verified it, every
//! request is answered `FENCED`. This module holds what the requests of a shard see of the fence:
//! the open link (`live`), what this instance accepted on it ([`Memory`]), the server that was
//! verified last (`same`) and its settings (`safe`). `stock-engine` verifies.

pub mod head;
mod live;
mod memory;
mod safe;
mod same;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, pipe};
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::lock::lock;
use stock_domain::server_settings::Setting;
use stock_domain::shard_map::ShardMap;
use stock_domain::shard_state::{Remembered, ShardState};
use stock_domain::verdict::Accepted;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::live::Heard;
pub(crate) use self::live::Line;
pub use self::live::{NO_EPOCH, OTHER_EPOCH};
pub use self::memory::Memory;
pub use self::same::Identity;
use crate::common::Common;
use crate::keys::Keys;
use crate::nodes::{self, Connected, Servers};
use crate::replication::Replication;
use crate::scripts::SCRIPTS;
use crate::switch::{Follows, Switch};

/// How often an open link is checked.
pub const CHECK: Duration = Duration::from_secs(1);
/// How long requests wait for a broken link to be replaced.
pub const MEND_MAX: Duration = Duration::from_secs(1);

/// A link to a verified Redis.
#[derive(Debug, Clone)]
pub struct Link {
    /// The connection for scripts.
    pub decide: MultiplexedConnection,
    /// Another connection for scripts where replicas are waited for, else the same one.
    pub beside: Arc<MultiplexedConnection>,
    /// The connection for reads, so that a large read delays no verdict.
    pub read: MultiplexedConnection,
    /// The epoch that was verified.
    pub epoch: Arc<str>,
    /// The number of the link, which tells it from an earlier one.
    pub generation: u64,
    /// Redis' time minus this machine's, in ms, when Redis was verified.
    pub offset_ms: i64,
    /// When each of the connections last answered.
    heard: Arc<Heard>,
    /// Whether a connection for scripts has ended.
    ends: watch::Receiver<bool>,
}

/// Whether there is a verified Redis, or the reason why not.
#[derive(Debug, Clone)]
pub enum FenceState {
    /// Requests are decided.
    Open(Link),
    /// The link broke a moment ago, for this reason, and is being replaced. Requests wait for the
    /// next link, but not for long.
    Mending(Arc<str>),
    /// Requests are answered `FENCED`, for this reason.
    Fenced(Arc<str>),
}

impl FenceState {
    /// The epoch of the Redis that was verified.
    #[must_use]
    pub fn epoch(&self) -> Option<&str> {
        match self {
            Self::Open(link) => Some(&link.epoch),
            Self::Mending(_) | Self::Fenced(_) => None,
        }
    }
}

/// The state that a shard's requests share with the task that verifies its Redis.
pub struct Fence {
    /// The servers that may be the shard's Redis.
    pub servers: Arc<Servers>,
    /// The map to which the shard belongs.
    pub map: ShardMap,
    /// The settings.
    pub config: Config,
    /// The names of the shard's keys.
    pub keys: Keys,
    /// The runtime that requests run on.
    requests: Handle,
    clock: Clock,
    state: watch::Sender<FenceState>,
    /// The generation of the last link.
    generation: AtomicU64,
    memory: Mutex<Memory>,
    /// How far MySQL was when this process last heard of it.
    known: Mutex<Option<ShardState>>,
    /// The server that was verified last, as it was last seen.
    verified: Mutex<Option<Identity>>,
    /// The replicas for which an accepted order waits.
    pub(crate) replication: Replication,
    /// The server's settings, as they were found.
    settings: Mutex<Arc<[Setting]>>,
    /// Whether one of the settings breaks what is promised.
    is_unsafe: AtomicBool,
    /// The last switch of selling that an operator asked for.
    pub(crate) switch: Arc<Switch>,
    /// The switch that the script was last seen to follow.
    pub(crate) follows: Follows,
}

impl Fence {
    /// The fence of a shard whose Redis nobody has verified yet.
    pub(crate) fn new(shard: u64, common: &Common, config: &Config, clock: Clock) -> Self {
        Self {
            servers: Arc::clone(&common.servers),
            map: common.map,
            config: config.clone(),
            keys: Keys::new(config, shard),
            requests: common.requests.clone(),
            clock,
            state: watch::Sender::new(FenceState::Fenced("starting".into())),
            generation: AtomicU64::new(0),
            memory: Mutex::new(Memory::default()),
            known: Mutex::new(None),
            verified: Mutex::default(),
            replication: Replication::new(config),
            settings: Mutex::new(Arc::new([])),
            is_unsafe: AtomicBool::new(false),
            switch: Arc::clone(&common.switch),
            follows: Follows::default(),
        }
    }

    /// Whether there is a verified Redis.
    #[must_use]
    pub fn state(&self) -> FenceState {
        self.state.borrow().clone()
    }

    /// The reason why requests are fenced; `None` while they are decided, or wait for another link.
    #[must_use]
    pub fn reason(&self) -> Option<Arc<str>> {
        match &*self.state.borrow() {
            FenceState::Fenced(reason) => Some(Arc::clone(reason)),
            FenceState::Open(_) | FenceState::Mending(_) => None,
        }
    }

    /// Watches the state of the fence.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<FenceState> {
        self.state.subscribe()
    }

    /// How long an answer of Redis may take.
    #[must_use]
    pub const fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.config.redis.redis_response_timeout_ms)
    }

    /// The entries that this instance accepted and MySQL may not have yet.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// How far MySQL was when this process last heard of it. While MySQL is away, that does not
    /// change.
    #[must_use]
    pub fn known_state(&self) -> Option<ShardState> {
        lock(&self.known).clone()
    }

    /// Notes how far MySQL is, as MySQL has just said.
    pub fn set_known_state(&self, state: ShardState) {
        *lock(&self.known) = Some(state);
    }

    /// Hears how far MySQL is, from a source that may be older than what this process knows. An
    /// older state is ignored.
    pub(crate) fn hear_state(&self, state: &ShardState) {
        let mut known = lock(&self.known);
        let is_older = known
            .as_ref()
            .is_some_and(|known| known.epoch == state.epoch && known.number > state.number);
        if !is_older {
            *known = Some(state.clone());
        }
    }

    /// Whether an operator has stopped selling, as far as this instance has heard.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.switch.is_stopped()
    }

    /// The data of an accepted entry that is remembered.
    pub(crate) const fn remember(accepted: &Accepted) -> Remembered {
        Remembered {
            number: accepted.number,
            position: accepted.position,
        }
    }

    /// Notes accepted entries, if the fence is still open on the link that brought them. Otherwise
    /// they are answered as unknown, because this instance has already told which entry it accepted
    /// last.
    pub(crate) fn note(&self, link: &Link, entries: Vec<Remembered>, settled: u64) -> bool {
        let mut memory = self.memory();
        let is_current = matches!(&*self.state.borrow(), FenceState::Open(now) if now.generation == link.generation);
        if is_current {
            memory.accepted(entries, settled);
        }
        is_current
    }

    /// Forgets the entries of this instance that MySQL has settled.
    pub(crate) fn settled(&self, state: &ShardState) {
        self.set_known_state(state.clone());
        let mut memory = self.memory();
        if memory.epoch == state.epoch {
            memory.settled(state.number);
        }
    }

    /// Gives up the link of `generation`, if it is still in use. Another link is made at once, and
    /// the answer of its Redis decides whether requests are fenced.
    pub fn fence_off(&self, generation: u64, reason: &str) {
        self.state.send_if_modified(|state| match state {
            FenceState::Open(link) if link.generation == generation => {
                tracing::warn!(shard = self.keys.shard(), reason, "the link is given up");
                *state = FenceState::Mending(reason.into());
                true
            }
            FenceState::Open(_) | FenceState::Mending(_) | FenceState::Fenced(_) => false,
        });
    }

    /// Ends the wait for a link that is being replaced: requests are fenced now.
    pub fn stop_waiting(&self) {
        self.state.send_if_modified(|state| {
            let FenceState::Mending(reason) = state else {
                return false;
            };
            tracing::warn!(shard = self.keys.shard(), %reason, "fenced");
            *state = FenceState::Fenced(Arc::clone(reason));
            true
        });
    }

    /// Publishes a state. A reason that has not changed is not logged again.
    pub fn tell(&self, next: FenceState) {
        self.state.send_if_modified(|state| {
            match (&*state, &next) {
                (FenceState::Fenced(old), FenceState::Fenced(new)) if old == new => return false,
                (_, FenceState::Fenced(new)) => {
                    tracing::warn!(shard = self.keys.shard(), reason = %new, "fenced");
                }
                (_, FenceState::Open(_) | FenceState::Mending(_)) => {}
            }
            *state = next;
            true
        });
    }

    /// Connects on the runtime of the requests. A connection's replies are received by a task of
    /// its own, and this task has to run beside the requests that wait for the replies.
    async fn connect_for_requests(
        &self,
        url: &str,
        has_ended: &watch::Sender<bool>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let (url, response_timeout) = (url.to_owned(), self.response_timeout());
        let has_ended = has_ended.clone();
        let connecting =
            async move { nodes::connect_watched(&url, response_timeout, has_ended).await };
        let connected = self.requests.spawn(connecting).await;
        connected.map_err(std::io::Error::other)?
    }

    /// Makes the connections of a link to a Redis that is about to be verified.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn make_link(&self, connected: &Connected) -> Result<Link, RedisError> {
        let (has_ended, ends) = watch::channel(false);
        let connecting = self.connect_for_requests(&connected.url, &has_ended);
        let decide = connecting.await?;
        let beside = match self.replication.is_wanted() {
            true => {
                let connecting = self.connect_for_requests(&connected.url, &has_ended);
                connecting.await?
            }
            false => decide.clone(),
        };
        Ok(Link {
            decide,
            beside: Arc::new(beside),
            read: connected.connection.clone(),
            epoch: "".into(),
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
            offset_ms: 0,
            heard: Arc::new(Heard::now()),
            ends,
        })
    }

    /// Opens a link to a verified Redis that has this epoch, and this time in Unix ms.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn open(
        &self,
        mut link: Link,
        server: Identity,
        epoch: &str,
        time_ms: i64,
    ) -> Result<Link, RedisError> {
        // The settings are read before the first request is sent.
        self.read_settings(&mut link.read).await?;
        // One call loads all scripts, because requests wait for the link.
        let mut prepare = pipe();
        for script in SCRIPTS.all() {
            prepare.cmd("SCRIPT").arg("LOAD").arg(script.text).ignore();
        }
        let () = prepare.query_async(&mut link.decide.clone()).await?;
        *lock(&self.verified) = Some(server);
        link.epoch = epoch.into();
        link.offset_ms = time_ms - self.clock.now_ms();
        Ok(link)
    }
}
