//! The fence's task: verifies the Redis of a shard before anything is decided on it.
//!
//! Before the first batch, the task checks that Redis has MySQL's epoch. It looks in the journal
//! for the watermark's entry, for the entry that this instance accepted last, and for the entries
//! that synchronous orders recorded. Only then does it load the scripts. When a link breaks and the
//! new one leads to the server that was verified last, MySQL is not asked; requests wait until the
//! link is replaced.

mod head;
mod loss;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, pipe};
use sqlx::MySqlPool;
use stock_common::config::Durability;
use stock_common::id::Position;
use stock_common::supervise::supervise;
use stock_domain::shard_state::ShardState;
use stock_mysql::migrate::{self, Schema};
use stock_mysql::{shard_map, shards};
use stock_redis::fence::head::{NEEDED, is_whole};
use stock_redis::fence::{CHECK, Fence, Identity, MEND_MAX, NO_EPOCH, OTHER_EPOCH};
use stock_redis::nodes::Connected;
use stock_redis::{FenceState, Link, Shard, epoch, journal_stream};

use crate::heal;

/// Pause between two attempts to verify a fenced Redis.
const RETRY: Duration = Duration::from_millis(200);

/// Why a Redis is not verified.
#[derive(Debug, thiserror::Error)]
enum Unverified {
    #[error("redis does not answer: {0}")]
    Redis(#[from] RedisError),
    #[error("mysql does not answer: {0}")]
    Database(#[source] sqlx::Error),
    #[error("only mysql can tell whether this is the right redis, and it does not answer: {0}")]
    Unwarranted(#[source] sqlx::Error),
    #[error("{NO_EPOCH}")]
    NoEpoch,
    #[error("redis has no epoch: rebuilding it was cut off")]
    CutOff,
    #[error("the schema of mysql is behind this program: run `stock-online migrate`")]
    SchemaBehind,
    #[error("mysql has no epoch: run `stock-online migrate`")]
    NoDatabaseEpoch,
    #[error("{OTHER_EPOCH}")]
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

impl Unverified {
    /// Whether Redis lacks accepted entries, so that it must be rebuilt.
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

/// Verifies the Redis of one shard against MySQL.
struct Verifier {
    fence: Arc<Fence>,
    pool: MySqlPool,
    /// Whether the fence was opened while MySQL was away, so that MySQL has yet to confirm the
    /// server.
    is_unverified: AtomicBool,
}

/// Starts the tasks that verify a shard's Redis and restore its lost keys. They end with the shard.
pub fn keep(shard: &Shard, pool: &MySqlPool) {
    let fence = Arc::clone(shard.fence());
    let name = fence.keys.epoch();
    heal::start(shard, pool);
    let pool = pool.clone();
    let keeping = supervise("gate", name, move || {
        let verifier = Verifier {
            fence: Arc::clone(&fence),
            pool: pool.clone(),
            is_unverified: AtomicBool::new(false),
        };
        verifier.keep()
    });
    shard.kept_by(tokio::spawn(keeping).abort_handle());
}

impl Verifier {
    /// Whether Redis is a lone server that keeps everything it has accepted.
    fn loses_nothing(&self) -> bool {
        self.fence.config.redis.durability == Durability::Always && !self.fence.servers.is_cluster()
    }

    /// Verifies a Redis, watches it while its link is open, and begins again, for ever.
    async fn keep(self) {
        loop {
            if let FenceState::Open(link) = self.fence.state() {
                self.watch(&link).await;
                continue;
            }
            let next = match self.meet_in_time().await {
                Ok(link) => {
                    let shard = self.fence.keys.shard();
                    tracing::info!(shard, epoch = %link.epoch, "fence open: redis is verified");
                    FenceState::Open(link)
                }
                Err(why) => FenceState::Fenced(describe(&why).into()),
            };
            self.fence.tell(next);
            if matches!(self.fence.state(), FenceState::Fenced(_)) {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Watches an open link until it is given up. Meanwhile, a server that was let in without MySQL
    /// is compared with MySQL.
    async fn watch(&self, link: &Link) {
        let compare = async {
            loop {
                tokio::time::sleep(CHECK).await;
                if let Err(error) = self.verify_afterwards(link).await {
                    tracing::debug!(%error, "the server is compared with mysql later");
                }
            }
        };
        self.fence.watch(link, compare).await;
    }

    /// Finds and verifies a Redis. After [`MEND_MAX`] the waiting requests are answered, while the
    /// search goes on.
    async fn meet_in_time(&self) -> Result<Link, Unverified> {
        let meeting = self.meet();
        tokio::pin!(meeting);
        if let Ok(met) = tokio::time::timeout(MEND_MAX, &mut meeting).await {
            return met;
        }
        self.fence.stop_waiting();
        meeting.await
    }

    /// Finds the shard's Redis and verifies it; rebuilds one that lost entries.
    async fn meet(&self) -> Result<Link, Unverified> {
        let Fence { keys, servers, .. } = &*self.fence;
        let limit = self.fence.response_timeout();
        let met = servers.connect(&keys.epoch(), limit).await?;
        let verified = self.verify(&met).await;
        match &verified {
            Ok(_) => servers.trust(&met),
            Err(why) => {
                if why.is_loss() {
                    self.recover(&met.url).await;
                }
                servers.mistrust(&met);
            }
        }
        verified
    }

    async fn verify(&self, connected: &Connected) -> Result<Link, Unverified> {
        let mut link = self.fence.make_link(connected).await?;
        let keys = &self.fence.keys;
        let read = &mut link.read;
        let server = Identity::read(read).await?;
        let mut ask = pipe();
        ask.cmd("TIME");
        ask.cmd("HGET").arg(keys.epoch()).arg("epoch");
        ask.cmd("HMGET").arg(keys.epoch()).arg(&NEEDED);
        let (time, epoch, needed): ((i64, i64), Option<String>, Vec<Option<String>>) =
            ask.query_async(read).await?;
        let is_whole = is_whole(&needed);
        let Some(epoch) = epoch else {
            // `recover` removes only the epoch before it begins, so a head without an epoch is the
            // trace of a rebuild that was cut off.
            let head = epoch::head(read, keys).await?;
            return Err(head.map_or(Unverified::NoEpoch, |_| Unverified::CutOff));
        };
        let same = match is_whole {
            true => self.fence.known_of_same(read, &server, &epoch).await?,
            false => None,
        };
        let known = match same {
            Some(known) => known,
            None => self.known_of_other(read, &epoch).await?,
        };
        if !is_whole {
            self.mend_head(read, &epoch, &known).await?;
        }
        let time_ms = time.0 * 1_000 + time.1 / 1_000;
        Ok(self.fence.open(link, server, &epoch, time_ms).await?)
    }

    /// Verifies a server against MySQL, when it is not known to be the one that was verified last.
    async fn known_of_other(
        &self,
        read: &mut MultiplexedConnection,
        epoch: &str,
    ) -> Result<ShardState, Unverified> {
        let (known, is_fresh) = self.shard_state(epoch).await?;
        if known.epoch != epoch {
            return Err(Unverified::OtherEpoch);
        }
        if is_fresh {
            self.find_accepted(read, &known).await?;
        }
        self.is_unverified.store(!is_fresh, Ordering::Relaxed);
        let found = journal_stream::find(read, &self.fence.keys, known.watermark).await?;
        if found.is_none_or(|(number, _)| number != known.number) {
            return Err(Unverified::WatermarkMissing(known.watermark));
        }
        if is_fresh {
            self.find_recorded(read, &known).await?;
        }
        Ok(known)
    }

    /// Compares an open server that was let in without MySQL, as soon as MySQL answers. The link is
    /// given up if MySQL contradicts it.
    async fn verify_afterwards(&self, link: &Link) -> Result<(), Unverified> {
        if !self.is_unverified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let verified = self
            .known_of_other(&mut link.read.clone(), &link.epoch)
            .await;
        if let Err(why) = &verified
            && !matches!(why, Unverified::Database(_) | Unverified::Unwarranted(_))
        {
            self.fence.fence_off(link.generation, &why.to_string());
        }
        verified.map(drop)
    }

    /// MySQL's state of the shard, and whether it is fresh. While MySQL is away, the state is the
    /// one that this instance saw last, and only for a server that cannot have lost anything.
    async fn shard_state(&self, epoch: &str) -> Result<(ShardState, bool), Unverified> {
        let load = shards::load(&self.pool, self.fence.keys.shard());
        let (loaded, schema, map) = tokio::join!(
            load,
            migrate::schema(&self.pool),
            shard_map::load(&self.pool)
        );
        match (schema, &loaded, map) {
            (Ok(Schema::Behind), ..) => return Err(Unverified::SchemaBehind),
            (_, Ok(Some(_)), Ok(None)) => return Err(Unverified::NoShardMap),
            (_, _, Ok(Some(map))) if map != self.fence.map => {
                return Err(Unverified::OtherShardMap);
            }
            // The state is of no use while the shard map cannot be read.
            (_, Ok(Some(_)), Err(error)) => return Err(Unverified::Database(error)),
            _ => {}
        }
        match loaded {
            Ok(Some(state)) => {
                self.fence.set_known_state(state.clone());
                Ok((state, true))
            }
            Ok(None) => Err(Unverified::NoDatabaseEpoch),
            Err(error) => {
                let known = self.fence.known_state();
                let known = known.filter(|state| state.epoch == epoch);
                // A lone Redis that syncs each write has lost nothing, even if its process was
                // killed.
                match known {
                    Some(state) if self.loses_nothing() => Ok((state, false)),
                    Some(_) | None => Err(Unverified::Unwarranted(error)),
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
