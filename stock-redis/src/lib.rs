//! The Redis side: where every request is decided, atomically, together with its journal entry.
//!
//! | file | owns |
//! |---|---|
//! | [`keys`] | every key's name and format |
//! | [`shard`] | one shard: its fence, its batcher, its journal |
//! | `routing`, `claims`, `cross_shard` | where a request is decided; one key, whichever shard decides; entries over several shards |
//! | [`records`] | what is remembered under a key, and for how long |
//! | [`lost`], [`mend`] | what was found lost in Redis, and how it is written again |
//! | `lookup` | entries, states and levels, wherever they lie |
//! | [`nodes`] | where a shard's Redis is, in a cluster too |
//! | [`scripts`] | the Lua scripts of `lua/` |
//! | [`encoded_request`], [`codec`] | the call of the script: the order of KEYS and ARGV, and the decoder of the reply |
//! | `batcher` | one queue, few calls, no call sent twice |
//! | [`replication`] | accepted orders are answered when a replica has them |
//! | `pacer` | no more accepted than MySQL settles |
//! | `sold_out` | flags that keep a rush for a sold-out product away from Redis |
//! | [`epoch`] | how an epoch begins |
//! | [`fence`] | the link to the Redis that was verified, and what keeps this instance from deciding on another |
//! | [`journal_stream`] | entries out of the journal |
//! | [`scan`] | large keys, a page at a time |
//! | [`levels`], [`recent`] | the message of new levels; those that this instance heard last |
//! | [`units`] | how many units are held |
//! | [`redis_memory`] | how full Redis is |
//! | [`redis_settings`] | the settings of Redis on which a promise rests |
//! | [`info`] | the report of a Redis about itself |
//! | [`switch`] | the emergency stop, as this instance knows it |
//!
//! The ledger knows numbers and states. Their meaning is in the nouns' files
//! ([`stock_domain::order`] …). Nothing here knows MySQL: `stock-engine` tells the ledger how many
//! shards there are, and verifies the Redis of each.

pub mod codec;
pub mod encoded_request;
pub mod epoch;
pub mod fence;
pub mod info;
pub mod journal_stream;
pub mod keys;
pub mod levels;
pub mod lost;
pub mod mend;
pub mod nodes;
pub mod recent;
pub mod records;
pub mod redis_memory;
pub mod redis_settings;
pub mod replication;
pub mod scan;
pub mod scripts;
pub mod shard;
pub mod switch;
pub mod units;

mod batcher;
mod claims;
mod common;
mod cross_shard;
mod error;
mod lookup;
mod pacer;
mod routing;
mod shared;
mod sold_out;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use redis::{RedisError, cmd};
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::Position;
use stock_domain::selling::Switched;
use stock_domain::shard_map::ShardMap;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::common::Common;
pub use self::error::{DecideError, ReadError, Undecided};
pub use self::fence::{FenceState, Link};
use self::keys::Keys;
use self::levels::LevelsMessage;
use self::nodes::Servers;
use self::recent::Recent;
pub use self::recent::{RecentLevel, RecentLevels};
pub use self::shard::Shard;
use self::switch::Switch;

/// The shard map and its shards.
struct Map {
    /// `None` until MySQL has told it.
    known: Option<ShardMap>,
    /// All shards of the map; one shard until the map is known.
    shards: Vec<Shard>,
}

struct Inner {
    config: Config,
    /// The runtime that requests run on.
    requests: Handle,
    clock: Clock,
    switch: Arc<Switch>,
    recent: Arc<Recent>,
    map: watch::Sender<Arc<Map>>,
    /// Whether all fences were once open at the same time.
    was_open: AtomicBool,
}

/// The ledger with all its shards. Cloning shares it.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

/// A weak reference to a [`Ledger`].
#[derive(Clone)]
pub struct WeakLedger(Weak<Inner>);

impl WeakLedger {
    /// The ledger, as long as somebody uses it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Ledger> {
        self.0.upgrade().map(|inner| Ledger { inner })
    }
}

/// The origin of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// This shop and the verified epoch: the message was taken.
    Own,
    /// Unknown: this instance has verified no epoch yet, or none at the moment.
    TooEarly,
    /// Another epoch: the message is of another shop, or of a time that is over.
    Foreign,
}

impl Ledger {
    /// A ledger without shards, until [`Ledger::show`] tells the shard map. Batchers, and the links
    /// on which they send, run on the runtime of the requests.
    #[must_use]
    pub fn new(config: &Config, clock: Clock, requests: &Handle) -> Self {
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
            map: watch::Sender::new(map),
            was_open: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Takes over a shard map, and returns the shards that begin with it. The shards of an earlier
    /// map decide nothing any more.
    ///
    /// # Errors
    /// When `redis_url` cannot be parsed.
    pub fn show(&self, known: Option<ShardMap>) -> Result<Vec<Shard>, RedisError> {
        let before = self.map();
        let map = known.unwrap_or(ShardMap::new(1));
        let is_same = before.shards.len() as u64 == map.shards();
        let begun = match is_same {
            true => Vec::new(),
            false => (0..map.shards())
                .map(|shard| self.begin_shard(shard, map))
                .collect::<Result<_, _>>()?,
        };
        let shards = match is_same {
            true => before.shards.clone(),
            false => begun.clone(),
        };
        self.inner.map.send_replace(Arc::new(Map { known, shards }));
        if !is_same {
            before.shards.iter().for_each(Shard::retire);
        }
        Ok(begun)
    }

    fn begin_shard(&self, shard: u64, map: ShardMap) -> Result<Shard, RedisError> {
        let config = &self.inner.config;
        let common = Common {
            servers: Arc::new(Servers::parse(&config.redis.redis_url)?),
            map,
            requests: self.inner.requests.clone(),
            switch: Arc::clone(&self.inner.switch),
            recent: Arc::clone(&self.inner.recent),
        };
        Ok(Shard::begin(
            shard,
            common,
            config,
            self.inner.clock.clone(),
        ))
    }

    /// A weak reference, for a task that must not keep the ledger alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakLedger {
        WeakLedger(Arc::downgrade(&self.inner))
    }

    /// The last switch of selling of which this instance has heard.
    #[must_use]
    pub fn last_switch(&self) -> Option<Switched> {
        self.inner.switch.last()
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.inner.map.borrow())
    }

    /// All shards in their order; none before the first [`Ledger::show`].
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        self.map().shards.clone()
    }

    /// The shard map as it was last read; `None` before that.
    #[must_use]
    pub fn shard_map(&self) -> Option<ShardMap> {
        self.map().known
    }

    /// The shard of a number.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] while there is no such shard.
    pub fn shard(&self, shard: u64) -> Result<Shard, ReadError> {
        let at = usize::try_from(shard).unwrap_or(usize::MAX);
        let found = self.map().shards.get(at).cloned();
        found.ok_or_else(|| ReadError::Fenced("the shard is not known yet".into()))
    }

    /// The shard that a position names.
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
        match shard.fence_state().epoch() {
            None => return Heard::TooEarly,
            Some(epoch) if *epoch != *message.epoch => return Heard::Foreign,
            Some(_) => {}
        }
        self.inner.recent.moved();
        shard.hear(message);
        Heard::Own
    }

    /// Whether there is a verified Redis. At the start every shard needs one. Later one shard is
    /// enough, because requests for the others are refused one by one.
    #[must_use]
    pub fn fence_state(&self) -> FenceState {
        let states: Vec<FenceState> = self.shards().iter().map(Shard::fence_state).collect();
        let is_open = |state: &&FenceState| matches!(state, FenceState::Open(_));
        let open = states.iter().find(is_open);
        let fenced = states.iter().find(|state| !is_open(state));
        let shown = match (open, fenced) {
            (Some(open), None) if self.shard_map().is_some() => {
                self.inner.was_open.store(true, Ordering::Relaxed);
                Some(open)
            }
            (Some(open), Some(_)) if self.inner.was_open.load(Ordering::Relaxed) => Some(open),
            (_, fenced) => fenced,
        };
        let starting = || FenceState::Fenced("starting".into());
        shown.cloned().unwrap_or_else(starting)
    }

    /// Compares the epochs with Redis now. Otherwise a readiness answer could be a second old.
    pub async fn check_fence(&self) -> FenceState {
        for shard in self.shards() {
            shard.check_fence().await;
        }
        self.fence_state()
    }

    /// The shards on which nothing is decided, with the reasons.
    #[must_use]
    pub fn fenced(&self) -> Vec<(u64, Arc<str>)> {
        let why = |shard: Shard| match shard.fence_state() {
            // A link that is being replaced opens in a moment, or the shard is fenced then.
            FenceState::Open(_) | FenceState::Mending(_) => None,
            FenceState::Fenced(reason) => Some((shard.keys().shard(), reason)),
        };
        self.shards().into_iter().filter_map(why).collect()
    }

    /// Ends the tasks that keep the links, when the runtime of the requests is about to end.
    pub fn close(&self) {
        self.shards().iter().for_each(Shard::close);
    }

    /// Waits until the fences of all shards are open; `false` when `limit` passes first.
    pub async fn wait_open(&self, limit: Duration) -> bool {
        const A_MOMENT: Duration = Duration::from_millis(20);
        let until = Instant::now() + limit;
        // The shards may change meanwhile.
        loop {
            let is_known = self.shard_map().is_some();
            let fenced = self.shards().into_iter().find(|shard| !shard.is_open());
            match fenced {
                None if is_known => return true,
                _ if Instant::now() >= until => return false,
                Some(shard) => drop(shard.wait_open(A_MOMENT).await),
                None => tokio::time::sleep(A_MOMENT).await,
            }
        }
    }

    /// The names of keys that belong to no shard, and of the first shard's keys.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys::new(&self.inner.config, 0)
    }

    /// The settings that the ledger was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Redis' time in Unix ms, from this machine's clock and the offset last seen on the first
    /// shard.
    #[must_use]
    pub fn redis_now_ms(&self) -> u64 {
        self.map().shards.first().map_or_else(
            || u64::try_from(self.inner.clock.now_ms()).unwrap_or_default(),
            Shard::redis_now_ms,
        )
    }

    /// A link to the first shard's Redis, for keys that belong to no shard.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] when it is not verified.
    pub fn link(&self) -> Result<Link, ReadError> {
        self.shard(0)?.link()
    }

    /// Like [`Self::link`], for a request: waits for the next link while a broken one is replaced.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] when it is not verified.
    pub async fn live_link(&self) -> Result<Link, ReadError> {
        self.shard(0)?.live_link().await
    }

    /// Hears a switch of selling that an operator asked for.
    pub fn hear_switch(&self, heard: Switched) {
        if self.inner.switch.hear(heard) {
            tracing::warn!(open = heard.open, "selling was switched");
        }
    }

    /// Tells every instance that products have changed.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer. The other instances then notice by themselves.
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
