//! The Redis side: where every request is decided, atomically, together with its journal entry.
//!
//! | file | owns |
//! |---|---|
//! | [`keys`] | every key's name and format |
//! | [`shard`] | one shard: its gate, its batcher, its journal |
//! | [`across`] | what lies on several shards |
//! | `routing` | where a request is decided |
//! | [`records`] | what is remembered under a key, and for how long |
//! | `claims` | one key, whatever shard decides |
//! | [`lost`], `heal`, `mend` | what was found lost in Redis, and how it is brought back |
//! | `lookup` | entries, marks and levels, wherever they lie |
//! | `servers` | where a shard's Redis is, in a cluster too |
//! | [`scripts`] | the Lua scripts of `lua/` |
//! | [`request`] | what the script is asked |
//! | [`decide`] | the order of KEYS and ARGV, and the decoder of the reply |
//! | `batcher` | one queue, few calls, no call sent twice |
//! | `replication` | accepted orders are answered when a replica has them |
//! | `pacer` | no more accepted than MySQL settles |
//! | `sold_out` | flags that keep a rush for nothing away from Redis |
//! | [`epoch`] | how Redis' memory begins |
//! | [`gate`] | the proof that this is the Redis that MySQL knows |
//! | [`reader`] | entries out of the journal |
//! | [`scan`] | large keys, a page at a time |
//! | [`levels`] | the message of new levels |
//! | [`redis_memory`] | how full Redis is |
//! | [`redis_settings`] | whether Redis keeps what is promised |
//! | [`info`] | what Redis says of itself |
//! | [`switch`] | the emergency stop, as this instance knows it |
//!
//! The ledger knows numbers and states; what they mean is in the nouns' files ([`crate::order`] …).

pub mod across;
pub mod decide;
pub mod epoch;
pub mod gate;
pub mod info;
pub mod keys;
pub mod levels;
pub mod lost;
pub mod reader;
pub mod records;
pub mod redis_memory;
pub mod redis_settings;
pub mod request;
pub mod scan;
pub mod scripts;
pub mod servers;
pub mod shard;
pub mod switch;
pub mod units;

mod batcher;
mod claims;
mod error;
mod heal;
mod lookup;
pub(crate) mod mend;
mod pacer;
mod recent;
mod replication;
mod routing;
mod sold_out;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use redis::{RedisError, cmd};
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::Position;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

pub use self::error::{DecideError, ReadError};
pub use self::gate::{GateState, Link};
use self::keys::Keys;
use self::levels::LevelsMessage;
use self::recent::Recent;
pub use self::recent::{RecentLevel, RecentLevels};
pub use self::request::Request;
use self::servers::Servers;
use self::shard::Common;
pub use self::shard::Shard;
use self::switch::{Switch, Switched};
use crate::database::row_queue::RowQueue;
use crate::database::{self, Role, selling, shard_map};
use crate::shard_map::ShardMap;
use crate::supervise::supervise;

/// How often the shard map and the switch are read.
const REFRESH: Duration = Duration::from_secs(1);
/// How long reading it may take.
const REFRESH_MAX: Duration = Duration::from_secs(5);

/// The shards, and what is on them.
struct Map {
    /// None until MySQL has said it.
    known: Option<ShardMap>,
    /// All shards of the map; of one shard until it is known.
    shards: Vec<Shard>,
}

struct Inner {
    config: Config,
    /// The runtime that requests run on.
    requests: Handle,
    pool: MySqlPool,
    clock: Clock,
    switch: Arc<Switch>,
    recent: Arc<Recent>,
    map: watch::Sender<Arc<Map>>,
    /// Whether every gate was open at the same time.
    was_open: AtomicBool,
    rows: RowQueue,
    /// How many transactions under row locks may run at once.
    row_locks: Semaphore,
}

/// The ledger: all shards of it. Cloning shares it.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

/// Whose a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// This shop's, of the epoch that is verified: it was taken.
    Own,
    /// This instance has verified no epoch yet, or none at the moment.
    TooEarly,
    /// Of another epoch: another shop's, or of a time that is over.
    Foreign,
}

impl Ledger {
    /// Starts the ledger's tasks: of each shard the gate's keeper and the batcher, and the keeper of the shard map. A
    /// gate opens when Redis and MySQL answer and agree, which may be later.
    ///
    /// # Errors
    /// When `redis_url` cannot be parsed.
    pub fn start(config: &Config, pool: MySqlPool, clock: Clock) -> Result<Self, RedisError> {
        Self::start_for(&Handle::current(), config, pool, clock)
    }

    /// The same, with the batchers and their links on the runtime of the requests. All other tasks, and the links to
    /// read by, are on the runtime of the caller.
    ///
    /// # Errors
    /// When `redis_url` cannot be parsed.
    pub fn start_for(
        requests: &Handle,
        config: &Config,
        pool: MySqlPool,
        clock: Clock,
    ) -> Result<Self, RedisError> {
        // The tasks of the shards parse the URL again; that cannot fail any more.
        Servers::parse(&config.redis_url)?;
        let map = Arc::new(Map {
            known: None,
            shards: Vec::new(),
        });
        let inner = Inner {
            config: config.clone(),
            requests: requests.clone(),
            clock,
            switch: Arc::default(),
            recent: Arc::default(),
            pool,
            map: watch::Sender::new(map),
            was_open: AtomicBool::new(false),
            rows: RowQueue::default(),
            row_locks: Semaphore::new(config.synchronous_orders_max),
        };
        let ledger = Self {
            inner: Arc::new(inner),
        };
        ledger.show(None)?;
        // Connections that no request waits for, or holds up. The URL was good enough for the pool that was given.
        let own_pool = database::pool(config, Role::Tool);
        let own_pool = own_pool.unwrap_or_else(|_| ledger.inner.pool.clone());
        let inner = Arc::downgrade(&ledger.inner);
        tokio::spawn(supervise(
            "ledger",
            config.redis_prefix.clone(),
            move || Self::keep(Weak::clone(&inner), own_pool.clone()),
        ));
        Ok(ledger)
    }

    /// Shows a shard map. The shards of another map than before are new ones: those of the earlier map decide nothing any more.
    fn show(&self, known: Option<ShardMap>) -> Result<(), RedisError> {
        let before = self.map();
        let map = known.unwrap_or(ShardMap::new(1));
        let is_same = before.shards.len() as u64 == map.shards();
        let shards = match is_same {
            true => before.shards.clone(),
            false => (0..map.shards())
                .map(|shard| self.start_shard(shard, map))
                .collect::<Result<_, _>>()?,
        };
        self.inner.map.send_replace(Arc::new(Map { known, shards }));
        if !is_same {
            before.shards.iter().for_each(Shard::retire);
        }
        Ok(())
    }

    fn start_shard(&self, shard: u64, map: ShardMap) -> Result<Shard, RedisError> {
        let Inner { config, pool, .. } = &*self.inner;
        let common = Common {
            servers: Servers::parse(&config.redis_url)?,
            map,
            requests: self.inner.requests.clone(),
            switch: Arc::clone(&self.inner.switch),
            recent: Arc::clone(&self.inner.recent),
        };
        let clock = self.inner.clock.clone();
        Ok(Shard::start(shard, common, config, pool.clone(), clock))
    }

    /// Keeps the shard map and the switch, until the ledger is dropped.
    async fn keep(inner: Weak<Inner>, pool: MySqlPool) {
        while let Some(inner) = inner.upgrade() {
            let ledger = Self { inner };
            // A statement that a link has swallowed is never answered.
            match tokio::time::timeout(REFRESH_MAX, ledger.refresh(&pool)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the shard map cannot be read yet"),
                Err(_) => tracing::debug!("mysql does not say the shard map"),
            }
            let is_known = ledger.shard_map().is_some();
            drop(ledger);
            tokio::time::sleep(if is_known { REFRESH } else { REFRESH / 10 }).await;
        }
    }

    /// Reads what every instance must know.
    async fn refresh(&self, pool: &MySqlPool) -> Result<(), sqlx::Error> {
        let map = shard_map::load(pool).await?;
        if map.is_some()
            && self.shard_map() != map
            && let Err(error) = self.show(map)
        {
            tracing::error!(%error, "the shards cannot be started");
        }
        self.compare_switch(pool).await
    }

    /// The switch that was asked for last counts, whether MySQL heard it first or this instance.
    async fn compare_switch(&self, pool: &MySqlPool) -> Result<(), sqlx::Error> {
        let told = selling::load(pool).await?;
        if let Some(told) = told {
            self.hear_switch(told);
        }
        match self.inner.switch.last() {
            Some(known) if told != Some(known) => selling::save(pool, known).await,
            Some(_) | None => Ok(()),
        }
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.inner.map.borrow())
    }

    /// Every shard, in their order; the first is always there.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        self.map().shards.clone()
    }

    /// The shard map as it was last read; `None` until it was.
    #[must_use]
    pub fn shard_map(&self) -> Option<ShardMap> {
        self.map().known
    }

    /// The shard of a number.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] while it is not known.
    pub fn shard(&self, shard: u64) -> Result<Shard, ReadError> {
        let at = usize::try_from(shard).unwrap_or(usize::MAX);
        let found = self.map().shards.get(at).cloned();
        found.ok_or_else(|| ReadError::Fenced("the shard is not known yet".into()))
    }

    /// The shard that has what a position names.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] while the shard map is not known.
    pub fn shard_of(&self, position: Position) -> Result<Shard, ReadError> {
        let of = self.known_shard_map()?.of_position(position);
        self.shard(of)
    }

    fn known_shard_map(&self) -> Result<ShardMap, ReadError> {
        self.shard_map().ok_or_else(|| {
            ReadError::Fenced("mysql has not said yet how many shards there are".into())
        })
    }

    /// Hears new levels, if they are of the epoch that this instance has verified.
    pub fn hear(&self, message: &LevelsMessage) -> Heard {
        let shard = match self.shard(message.position.shard()) {
            Ok(shard) => shard,
            Err(_) if self.shard_map().is_none() => return Heard::TooEarly,
            Err(_) => return Heard::Foreign,
        };
        match shard.gate().epoch() {
            None => return Heard::TooEarly,
            Some(epoch) if *epoch != *message.epoch => return Heard::Foreign,
            Some(_) => {}
        }
        self.inner.recent.moved();
        shard.hear(message);
        Heard::Own
    }

    /// Whether there is a proved Redis: at the start of every shard, later of one at least. Requests for another are
    /// refused one by one then.
    #[must_use]
    pub fn gate(&self) -> GateState {
        let states: Vec<GateState> = self.shards().iter().map(Shard::gate).collect();
        let is_open = |state: &&GateState| matches!(state, GateState::Open(_));
        let (open, shut) = (
            states.iter().find(is_open),
            states.iter().find(|s| !is_open(s)),
        );
        let shown = match (open, shut) {
            (Some(open), None) if self.shard_map().is_some() => {
                self.inner.was_open.store(true, Ordering::Relaxed);
                Some(open)
            }
            (Some(open), Some(_)) if self.inner.was_open.load(Ordering::Relaxed) => Some(open),
            (_, shut) => shut,
        };
        let starting = || GateState::Shut("starting".into());
        shown.cloned().unwrap_or_else(starting)
    }

    /// Compares the epochs with Redis now, so that a readiness answer is not a second old.
    pub async fn check_gate(&self) -> GateState {
        for shard in self.shards() {
            shard.check_gate().await;
        }
        self.gate()
    }

    /// The shards that nothing is decided on, and why.
    #[must_use]
    pub fn shut(&self) -> Vec<(u64, Arc<str>)> {
        let shut = |shard: Shard| match shard.gate() {
            // One that is being replaced is there in a moment, or shut.
            GateState::Open(_) | GateState::Mending(_) => None,
            GateState::Shut(reason) => Some((shard.keys().shard(), reason)),
        };
        self.shards().into_iter().filter_map(shut).collect()
    }

    /// Ends what keeps the links, when the runtime of the requests is about to end.
    pub fn close(&self) {
        self.shards().iter().for_each(Shard::close);
    }

    /// Waits until the gates of all shards are open; `false` when `limit` passes first.
    pub async fn wait_open(&self, limit: Duration) -> bool {
        const A_MOMENT: Duration = Duration::from_millis(20);
        let until = Instant::now() + limit;
        // Which shards there are may change meanwhile.
        loop {
            let is_known = self.shard_map().is_some();
            let shut = self.shards().into_iter().find(|shard| !shard.is_open());
            match shut {
                None if is_known => return true,
                _ if Instant::now() >= until => return false,
                Some(shard) => drop(shard.wait_open(A_MOMENT).await),
                None => tokio::time::sleep(A_MOMENT).await,
            }
        }
    }

    /// The names of what belongs to no shard, or to the first.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys::new(&self.inner.config, 0)
    }

    /// The settings that the ledger was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The queues that decide which transaction of this process may lock an account's row in MySQL next.
    #[must_use]
    pub fn rows(&self) -> &RowQueue {
        &self.inner.rows
    }

    /// The permits of transactions under row locks. One is taken behind the turn for the rows, so that those who queue
    /// for one row keep nobody from another.
    #[must_use]
    pub fn row_locks(&self) -> &Semaphore {
        &self.inner.row_locks
    }

    /// Redis' time in Unix ms, from this machine's clock and the offset last seen on the first shard.
    #[must_use]
    pub fn redis_now_ms(&self) -> u64 {
        self.map().shards.first().map_or_else(
            || u64::try_from(self.inner.clock.now_ms()).unwrap_or_default(),
            Shard::redis_now_ms,
        )
    }

    /// A link to the first shard's Redis, for what belongs to no shard.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] when it is not proved.
    pub fn link(&self) -> Result<Link, ReadError> {
        self.shard(0)?.link()
    }

    /// The same for a request: one that answers.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] when it is not proved.
    pub async fn live_link(&self) -> Result<Link, ReadError> {
        self.shard(0)?.live_link().await
    }

    /// Hears what an operator asked for, from another instance.
    pub fn hear_switch(&self, heard: Switched) {
        if self.inner.switch.hear(heard) {
            tracing::warn!(open = heard.open, "selling was switched");
        }
    }

    /// Tells every instance that products have changed.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer; the others then notice by themselves.
    pub async fn announce_catalog(&self) -> Result<(), ReadError> {
        let mut link = self.live_link().await?;
        let _heard: i64 = cmd("PUBLISH")
            .arg(self.keys().catalog())
            .arg("changed")
            .query_async(&mut link.read)
            .await?;
        Ok(())
    }
}
