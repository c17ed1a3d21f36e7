//! The Redis side: where every request is decided, atomically, together with its journal entry.
//!
//! | file | owns |
//! |---|---|
//! | [`keys`] | every key's name and format |
//! | [`shard`] | one shard: its gate, its batcher, its journal |
//! | [`across`] | what lies on several shards |
//! | `buckets` | what is divided over shards |
//! | `claims` | one key, whatever shard decides |
//! | `lookup` | entries, marks and levels, wherever they lie |
//! | `servers` | where a shard's Redis is, in a cluster too |
//! | [`scripts`] | the Lua scripts of `lua/` |
//! | [`request`] | what the script is asked |
//! | [`decide`] | the order of KEYS and ARGV, and the decoder of the reply |
//! | `batcher` | one queue, few calls, no call sent twice |
//! | `pacer` | no more accepted than MySQL settles |
//! | `sold_out` | flags that keep a rush for nothing away from Redis |
//! | [`epoch`] | how Redis' memory begins |
//! | [`gate`] | the proof that this is the Redis that MySQL knows |
//! | [`reader`] | entries out of the journal |
//! | [`levels`] | the message of new levels |
//! | [`redis_memory`] | how full Redis is |
//!
//! The ledger knows numbers and states; what they mean is in the nouns' files ([`crate::order`] …).

pub mod across;
pub mod decide;
pub mod epoch;
pub mod gate;
pub mod keys;
pub mod levels;
pub mod reader;
pub mod redis_memory;
pub mod request;
pub mod scripts;
pub mod servers;
pub mod shard;

mod batcher;
mod buckets;
mod claims;
mod error;
mod lookup;
mod pacer;
mod sold_out;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use redis::{RedisError, cmd};
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::Position;
use tokio::sync::{Notify, watch};

pub(crate) use self::buckets::{Judged, Placing};
pub use self::error::{DecideError, ReadError};
use self::gate::Beat;
pub use self::gate::{GateState, Link};
use self::keys::Keys;
use self::levels::LevelsMessage;
pub use self::request::Request;
use self::request::Sealed;
use self::servers::Servers;
pub use self::shard::Shard;
use self::sold_out::SoldOut;
use crate::branch::{self, Route, Split};
use crate::bucket;
use crate::database::{self, Role, layouts, witnesses};
use crate::layout::Layout;
use crate::verdict::{Refusal, Verdict};

/// How often the layout is read, and this instance says that it is there.
const REFRESH: Duration = Duration::from_secs(1);
/// How often it is read while something moves.
const REFRESH_MOVING: Duration = Duration::from_millis(5);

/// The shards, and what is on them.
struct Map {
    /// None until MySQL has said it.
    layout: Option<Arc<Layout>>,
    shards: Vec<Shard>,
}

struct Inner {
    config: Config,
    pool: MySqlPool,
    clock: Clock,
    /// This process' name among others.
    instance: Arc<str>,
    beat: Arc<Beat>,
    map: watch::Sender<Arc<Map>>,
    /// Rung by whoever was told that the layout is another one.
    wanted: Arc<Notify>,
    /// Whether every gate was open at the same time.
    was_open: AtomicBool,
    /// Divided products of which no share held anything a moment ago.
    gone: SoldOut,
}

/// The ledger: all shards of it. Cloning shares it.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

impl Ledger {
    /// Starts the ledger's tasks: of each shard the gate's keeper and the batcher, and the keeper of the layout. A
    /// gate opens when Redis and MySQL answer and agree, which may be later.
    ///
    /// # Errors
    /// When `redis_url` cannot be parsed.
    pub fn start(config: &Config, pool: MySqlPool, clock: Clock) -> Result<Self, RedisError> {
        // What the tasks of the shards parse again cannot fail any more.
        Servers::parse(&config.redis_url)?;
        let instance: Arc<str> = format!("{:032x}", rand::random::<u128>()).into();
        let map = Arc::new(Map {
            layout: None,
            shards: Vec::new(),
        });
        let inner = Inner {
            config: config.clone(),
            clock,
            instance,
            beat: Arc::default(),
            pool,
            map: watch::Sender::new(map),
            wanted: Arc::default(),
            was_open: AtomicBool::new(false),
            gone: SoldOut::new(config.sold_out_flag_ms),
        };
        let ledger = Self {
            inner: Arc::new(inner),
        };
        ledger.show(None, 1)?;
        // Connections that no request waits for, or holds up. The URL was good enough for the pool that was given.
        let beat_pool = database::pool(config, Role::Tool);
        let beat_pool = beat_pool.unwrap_or_else(|_| ledger.inner.pool.clone());
        let name = Arc::clone(&ledger.inner.instance);
        tokio::spawn(Self::keep(
            Arc::downgrade(&ledger.inner),
            Arc::clone(&ledger.inner.wanted),
            (beat_pool, name),
        ));
        Ok(ledger)
    }

    /// Shows a layout, and starts the shards that are new in it.
    fn show(&self, layout: Option<Arc<Layout>>, shards: u64) -> Result<(), RedisError> {
        let Inner { config, pool, .. } = &*self.inner;
        let mut all = self.map().shards.clone();
        for shard in all.len() as u64..shards {
            let servers = Servers::parse(&config.redis_url)?;
            all.push(Shard::start(
                shard,
                (
                    servers,
                    Arc::clone(&self.inner.instance),
                    Arc::clone(&self.inner.beat),
                ),
                config,
                pool.clone(),
                self.inner.clock.clone(),
            ));
        }
        self.inner.map.send_replace(Arc::new(Map {
            layout,
            shards: all,
        }));
        Ok(())
    }

    /// Keeps the layout, and says that this instance is there, until the ledger is dropped.
    async fn keep(
        inner: Weak<Inner>,
        wanted: Arc<Notify>,
        (pool, instance): (MySqlPool, Arc<str>),
    ) {
        let mut seen = None::<Instant>;
        while let Some(inner) = inner.upgrade() {
            let ledger = Self { inner };
            if seen.is_none_or(|seen| seen.elapsed() >= REFRESH)
                && witnesses::seen(&pool, &instance).await.is_ok()
            {
                ledger.inner.beat.told();
                seen = Some(Instant::now());
            }
            match layouts::load(&pool).await {
                Ok(layout) if ledger.map().layout.as_deref() == Some(&layout) => {}
                Ok(layout) => {
                    let shards = layout.shards;
                    if let Err(error) = ledger.show(Some(Arc::new(layout)), shards) {
                        tracing::error!(%error, "the shards cannot be started");
                    }
                }
                Err(error) => tracing::debug!(%error, "the layout cannot be read yet"),
            }
            let wait = match ledger.layout() {
                Some(layout) if layout.is_moving() => REFRESH_MOVING,
                Some(_) => REFRESH,
                None => REFRESH / 10,
            };
            drop(ledger);
            tokio::select! {
                () = wanted.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        // Nobody has to wait for what it would say.
        if let Err(error) = witnesses::gone(&pool, &instance).await {
            tracing::debug!(%error, "mysql does not hear that this instance has gone");
        }
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.inner.map.borrow())
    }

    /// Every shard that is in use, in their order; the first is always there.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let map = self.map();
        let count = map.layout.as_ref().map_or(1, |layout| layout.shards);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        map.shards.iter().take(count).cloned().collect()
    }

    /// The layout as it was last read; `None` until it was.
    #[must_use]
    pub fn layout(&self) -> Option<Arc<Layout>> {
        self.map().layout.clone()
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
    /// [`ReadError::Fenced`] while the layout is not known.
    pub fn shard_of(&self, position: Position) -> Result<Shard, ReadError> {
        let of = self.known_layout()?.of_position(position);
        self.shard(of)
    }

    fn known_layout(&self) -> Result<Arc<Layout>, ReadError> {
        self.layout()
            .ok_or_else(|| ReadError::Fenced("mysql has not said yet where everything lies".into()))
    }

    /// The shard on which a request becomes an entry.
    ///
    /// # Errors
    /// [`DecideError::Fenced`] while the layout is not known, `Elsewhere` while what it is about is moving.
    pub fn home_of(&self, request: &Request) -> Result<Shard, DecideError> {
        let layout = self.known_layout()?;
        let home = match branch::route(request, &layout, 0) {
            Route::One(shard) => shard,
            Route::Several(split) => split.home.shard,
            Route::Moving => {
                return Err(DecideError::Elsewhere(
                    "it is moving to another shard".into(),
                ));
            }
        };
        Ok(self.shard(home)?)
    }

    /// Decides one request, wherever what it is about lies.
    ///
    /// # Errors
    /// [`DecideError`] when there is no verdict; only with `OutcomeUnknown` may something have been
    /// changed.
    pub async fn decide(&self, request: Request) -> Result<Verdict, DecideError> {
        if request.draft.selling.is_some() {
            return self.decide_everywhere(request).await;
        }
        let map = self.map();
        let (is_one, concerns) = map.layout.as_ref().map_or((true, false), |layout| {
            let is_one = layout.shards == 1 && layout.buckets.is_empty();
            (is_one, bucket::concerns(&request, &layout.buckets))
        });
        if is_one {
            return self.decide_placed(request).await;
        }
        if !concerns {
            match self.decide_placed(request.clone()).await {
                // Its stock was divided meanwhile.
                Err(DecideError::Elsewhere(_)) => {}
                decided => return decided,
            }
        }
        // A client that leaves does not leave units on their way.
        let ledger = self.clone();
        let decided = tokio::spawn(async move { ledger.decide_divided(&request).await }).await;
        decided.unwrap_or(Err(DecideError::OutcomeUnknown))
    }

    async fn decide_divided(&self, request: &Request) -> Result<Verdict, DecideError> {
        let started = Instant::now();
        loop {
            match self.place_and_decide(request.clone()).await {
                // It was divided in another way.
                Err(DecideError::Elsewhere(_)) if started.elapsed() < self.patience() => {}
                Err(DecideError::Elsewhere(why)) => return Err(DecideError::Fenced(why)),
                decided => return decided,
            }
        }
    }

    async fn place_and_decide(&self, request: Request) -> Result<Verdict, DecideError> {
        let mut placing = match Placing::begin(self, &request).await? {
            None => return self.decide_placed(request).await,
            Some(Err(verdict)) => return Ok(verdict),
            Some(Ok(placing)) => placing,
        };
        loop {
            let verdict = self.decide_placed(placing.request()).await;
            match placing.judge(self, verdict).await? {
                Judged::Whole(verdict) => return Ok(verdict),
                Judged::AskAgain => {}
            }
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.inner.config.queue_wait_ms_max)
    }

    /// Decides one request that says of which accounts it takes; `Elsewhere` when stock is divided in another way than
    /// when it came.
    async fn decide_placed(&self, request: Request) -> Result<Verdict, DecideError> {
        let sealed = Arc::new(request.seal()?);
        let started = Instant::now();
        loop {
            let seen = self.map();
            let verdict = self.attempt(&seen, &sealed).await;
            let again = matches!(
                verdict,
                Ok(Verdict::Refused(Refusal::Moved)) | Err(DecideError::Elsewhere(_))
            );
            if !again {
                return verdict;
            }
            // Nothing was executed. As soon as it is known where it lies now, it is asked there.
            if started.elapsed() > self.patience() {
                let why = "what it is about is moving to another server";
                return Err(DecideError::Fenced(why.into()));
            }
            self.await_change(&seen).await;
            if self.is_divided_otherwise(&seen) {
                return Err(DecideError::Elsewhere("its stock was divided".into()));
            }
        }
    }

    /// The same as a value of known type: the end of a branch is decided while its entry is.
    fn decide_boxed(
        &self,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Result<Verdict, DecideError>> + Send + '_>> {
        Box::pin(self.decide(request))
    }

    /// Decides one request without waiting for it to arrive where it is moving to: for whoever holds locks meanwhile.
    ///
    /// # Errors
    /// [`DecideError`]; `Elsewhere` where [`Ledger::decide`] would ask again: nothing was changed.
    pub async fn decide_once(&self, request: Request) -> Result<Verdict, DecideError> {
        let seen = self.map();
        match self.attempt(&seen, &Arc::new(request.seal()?)).await {
            Ok(Verdict::Refused(Refusal::Moved)) => Err(DecideError::Elsewhere(
                "it is moving to another shard".into(),
            )),
            other => other,
        }
    }

    /// Waits a moment for what is moving to have arrived.
    pub async fn moment(&self) {
        self.await_change(&self.map()).await;
    }

    fn is_divided_otherwise(&self, seen: &Map) -> bool {
        let buckets = |map: &Map| map.layout.as_ref().map(|layout| layout.buckets.clone());
        buckets(seen) != buckets(&self.map())
    }

    /// Waits a moment for another layout, or for gates that are shut to open.
    async fn await_change(&self, seen: &Arc<Map>) {
        const A_MOMENT: Duration = Duration::from_millis(20);
        self.inner.wanted.notify_one();
        let mut changes = self.inner.map.subscribe();
        let other = changes.wait_for(|map| !Arc::ptr_eq(map, seen));
        drop(tokio::time::timeout(A_MOMENT, other).await);
        for shard in self.shards() {
            if !shard.is_open() {
                shard.wait_open(A_MOMENT).await;
            }
        }
    }

    /// Decides on every shard: the same switch on each, the first's verdict for all. It is done when all have it.
    async fn decide_everywhere(&self, request: Request) -> Result<Verdict, DecideError> {
        let until = Instant::now() + self.patience();
        let mut first = None;
        for shard in self.shards() {
            let mut own = request.clone();
            // A key is remembered once.
            own.idempotency = own.idempotency.filter(|_| first.is_none());
            let own = Arc::new(own.seal()?);
            let verdict = loop {
                let seen = self.map();
                let version = self.known_layout()?.version(shard.keys().shard());
                let verdict = shard.decide(Arc::clone(&own), version).await?;
                if verdict != Verdict::Refused(Refusal::Moved) || Instant::now() > until {
                    break verdict;
                }
                self.await_change(&seen).await;
            };
            if !matches!(verdict, Verdict::Accepted(_)) {
                return Ok(verdict);
            }
            first.get_or_insert(verdict);
        }
        first.ok_or_else(|| DecideError::Fenced("there is no shard".into()))
    }

    async fn attempt(&self, map: &Map, sealed: &Arc<Sealed>) -> Result<Verdict, DecideError> {
        let Some(layout) = &map.layout else {
            let why = "mysql has not said yet where everything lies";
            return Err(DecideError::Fenced(why.into()));
        };
        let request = &sealed.request;
        match branch::route(request, layout, self.inner.config.branch_hold_ms) {
            Route::Moving => Ok(Verdict::Refused(Refusal::Moved)),
            Route::One(shard) => {
                let send = || self.send(layout, shard, sealed);
                match &request.idempotency {
                    Some(of) if layout.shards > 1 => {
                        self.under_key(layout, (of, shard), send).await
                    }
                    Some(of) => match send().await? {
                        // Claimed while there were more.
                        Verdict::Refused(Refusal::Claimed(_)) => {
                            self.under_key(layout, (of, shard), send).await
                        }
                        verdict @ (Verdict::Accepted(_)
                        | Verdict::Replayed(_)
                        | Verdict::Refused(_)) => Ok(verdict),
                    },
                    None => send().await,
                }
            }
            Route::Several(split) => {
                let split: Arc<Split> = split.into();
                let send = || self.send_across(layout, &split);
                match &request.idempotency {
                    Some(of) => self.under_key(layout, (of, split.home.shard), send).await,
                    None => send().await,
                }
            }
        }
    }

    async fn send(
        &self,
        layout: &Layout,
        shard: u64,
        sealed: &Arc<Sealed>,
    ) -> Result<Verdict, DecideError> {
        let version = layout.version(shard);
        self.shard(shard)?.decide(Arc::clone(sealed), version).await
    }

    /// Decides on several shards, in a task of its own: a client that leaves breaks nothing off halfway.
    async fn send_across(
        &self,
        layout: &Arc<Layout>,
        split: &Arc<Split>,
    ) -> Result<Verdict, DecideError> {
        let (ledger, layout, split) = (self.clone(), Arc::clone(layout), Arc::clone(split));
        let deciding = async move { across::decide(&ledger, &layout, &split).await };
        let decided = tokio::spawn(deciding).await;
        decided.unwrap_or(Err(DecideError::OutcomeUnknown))
    }

    /// Decides a part of a request on its shard, by the layout that it was divided by: what has moved since then is
    /// refused, and the whole is routed again.
    async fn decide_part(
        &self,
        layout: &Layout,
        shard: u64,
        request: Request,
    ) -> Result<Verdict, DecideError> {
        self.send(layout, shard, &Arc::new(request.seal()?)).await
    }

    /// Hears new levels.
    pub fn hear(&self, message: &LevelsMessage) {
        self.hear_shares(&message.levels);
        if let Ok(shard) = self.shard(message.position.shard()) {
            shard.hear(message);
        }
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
            (Some(open), None) if self.layout().is_some() => {
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
            GateState::Open(_) => None,
            GateState::Shut(reason) => Some((shard.keys().shard(), reason)),
        };
        self.shards().into_iter().filter_map(shut).collect()
    }

    /// Waits until the gates of all shards are open; `false` when `limit` passes first.
    pub async fn wait_open(&self, limit: Duration) -> bool {
        const A_MOMENT: Duration = Duration::from_millis(20);
        let until = Instant::now() + limit;
        // Which shards there are may change meanwhile.
        loop {
            let is_known = self.layout().is_some();
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
        Keys::new(&self.inner.config.redis_prefix, 0)
    }

    /// The settings that the ledger was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
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

    /// Tells every instance that products have changed.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer; the others then notice by themselves.
    pub async fn announce_catalog(&self) -> Result<(), ReadError> {
        let mut link = self.link()?;
        let _heard: i64 = cmd("PUBLISH")
            .arg(self.keys().catalog())
            .arg("changed")
            .query_async(&mut link.read)
            .await?;
        Ok(())
    }
}
