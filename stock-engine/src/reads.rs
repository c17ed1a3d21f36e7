//! Reads: chooses the database that answers a read, the primary or one of its replicas.
//!
//! A replica is asked only while it is known to have everything that was committed more than
//! `read_lag_ms_max` ago. Beats measure that ([`stock_mysql::replica_beats`]), on the clock of this
//! process. A user who has written reads from the primary for `read_your_writes_ms`, which is
//! longer: afterwards every replica that may be asked has that write. This process remembers its
//! writers. For the other instances they are noted in Redis, under a key that expires. While Redis
//! cannot be asked, every user counts as a writer.
//!
//! When a replica fails or does not answer in time, the primary answers instead. The replica is not
//! asked again before it has shown a beat. Without replicas nothing of this happens.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::cmd;
use sqlx::MySqlPool;
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_common::lock::lock;
use stock_mysql::{Role, replica_beats};
use stock_redis::{Ledger, ReadError};

use crate::lookup;

/// Beats that are remembered: more than a replica may lag and still be asked.
const BEATS_MAX: usize = 256;
/// How long a list waits for a replica to settle what Redis has accepted, before it asks the
/// primary.
const REPLICA_WAIT: Duration = Duration::from_millis(50);
/// The smallest number of remembered writers at which old ones are removed.
const SWEEP_FROM: usize = 1_024;

/// The kind of a reader, which decides whether a replica may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A user who has just written: the primary answers.
    Writer,
    /// Anybody else.
    Other,
}

/// A copy of the database that follows the primary.
#[derive(Debug)]
struct Replica {
    /// Host and port, for metrics and logs.
    name: String,
    pool: MySqlPool,
    /// It has everything that was committed before this moment, in ms of [`Reads::now_ms`]; 0 when
    /// that is not known.
    fresh_ms: AtomicU64,
}

/// The users who have written, and when.
#[derive(Debug, Default)]
struct Writers {
    at: HashMap<UserId, Instant>,
    sweep_at: usize,
}

/// The primary and its replicas.
#[derive(Debug)]
pub struct Reads {
    primary: MySqlPool,
    replicas: Vec<Replica>,
    began: Instant,
    /// A counter that spreads the reads over the replicas.
    next: AtomicUsize,
    /// The beats of this process, each with the moment at which it was asked for. A replica that
    /// shows a beat has everything that was committed before that moment.
    beats: Mutex<VecDeque<(u64, u64)>>,
    writers: Mutex<Writers>,
    lag_ms_max: u64,
    remember: Duration,
    timeout: Duration,
}

impl Reads {
    /// Reads over a primary and the replicas that the settings name. A replica is connected to when
    /// it is first asked.
    ///
    /// # Errors
    /// When a URL of `database_read_urls` cannot be parsed.
    pub fn new(config: &Config, primary: MySqlPool) -> Result<Self, sqlx::Error> {
        let urls = config.mysql.database_read_urls.split(',').map(str::trim);
        let replicas = urls.filter(|url| !url.is_empty()).map(|url| {
            let own = config.clone().with(|config| {
                config.mysql.database_url = url.to_owned();
                // Do not wait longer for a connection: the primary can answer.
                config.mysql.database_acquire_timeout_ms = config.mysql.read_timeout_ms;
            });
            let host = url.rsplit_once('@').map_or(url, |(_, host)| host);
            Ok(Replica {
                name: host.split('/').next().unwrap_or(host).to_owned(),
                pool: stock_mysql::pool(&own, Role::Requests)?,
                fresh_ms: AtomicU64::new(0),
            })
        });
        Ok(Self {
            primary,
            replicas: replicas.collect::<Result<_, sqlx::Error>>()?,
            began: Instant::now(),
            next: AtomicUsize::new(0),
            beats: Mutex::default(),
            writers: Mutex::default(),
            lag_ms_max: config.mysql.read_lag_ms_max,
            remember: Duration::from_millis(config.mysql.read_your_writes_ms),
            timeout: Duration::from_millis(config.mysql.read_timeout_ms),
        })
    }

    /// Whether there is any replica.
    #[must_use]
    pub const fn has_replicas(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// Age of this object in ms, plus 1: never 0, which stands for "not known".
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Remembers that a user has written, before the user is told so.
    pub async fn wrote(&self, ledger: &Ledger, user: UserId) {
        if !self.has_replicas() {
            return;
        }
        self.note(user);
        if let Err(error) = self.tell(ledger, user).await {
            tracing::warn!(user.id = user.0, %error, "other instances do not know that somebody has written");
        }
    }

    fn note(&self, user: UserId) {
        let mut writers = lock(&self.writers);
        writers.at.insert(user, Instant::now());
        if writers.at.len() >= writers.sweep_at.max(SWEEP_FROM) {
            writers.at.retain(|_, at| at.elapsed() < self.remember);
            writers.sweep_at = 2 * writers.at.len();
        }
    }

    async fn tell(&self, ledger: &Ledger, user: UserId) -> Result<(), ReadError> {
        let mut link = ledger.live_link().await?;
        Ok(cmd("SET")
            .arg(ledger.keys().wrote(user))
            .arg(1)
            .arg("PX")
            .arg(u64::try_from(self.remember.as_millis()).unwrap_or(u64::MAX))
            .query_async(&mut link.read)
            .await?)
    }

    /// The kind of a reader: one who has written just now, on any instance, or another. A user of
    /// whom Redis says nothing counts as one who has written; without a user it is
    /// [`Reader::Other`].
    pub async fn reader(&self, ledger: &Ledger, user: Option<UserId>) -> Reader {
        let Some(user) = user.filter(|_| self.has_replicas()) else {
            return Reader::Other;
        };
        let wrote_here = {
            let writers = lock(&self.writers);
            let at = writers.at.get(&user);
            at.is_some_and(|at| at.elapsed() < self.remember)
        };
        if wrote_here || self.wrote_elsewhere(ledger, user).await.unwrap_or(true) {
            Reader::Writer
        } else {
            Reader::Other
        }
    }

    async fn wrote_elsewhere(&self, ledger: &Ledger, user: UserId) -> Result<bool, ReadError> {
        let mut link = ledger.live_link().await?;
        Ok(cmd("EXISTS")
            .arg(ledger.keys().wrote(user))
            .query_async(&mut link.read)
            .await?)
    }

    /// Picks a replica that is fresh enough; none for a user who has just written.
    fn pick(&self, reader: Reader) -> Option<&Replica> {
        if reader == Reader::Writer || !self.has_replicas() {
            return None;
        }
        let since = self.now_ms().saturating_sub(self.lag_ms_max);
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.replicas.len();
        let (behind, from) = self.replicas.split_at(first);
        let is_fresh = |replica: &&Replica| replica.fresh_ms.load(Ordering::Acquire) > since;
        from.iter().chain(behind).find(is_fresh)
    }

    /// Reads from a replica if one may be asked and answers, else from the primary.
    ///
    /// # Errors
    /// The primary's error.
    pub async fn read<T, E, F>(
        &self,
        reader: Reader,
        query: impl Fn(MySqlPool) -> F,
    ) -> Result<T, E>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(replica) = self.pick(reader)
            && let Some(found) = self.ask(replica, query(replica.pool.clone())).await
        {
            return Ok(found);
        }
        count("primary", self);
        query(self.primary.clone()).await
    }

    /// Like [`Self::read`], for something that must not be missed: if the replica lacks it, the
    /// primary is asked.
    ///
    /// # Errors
    /// The primary's error.
    pub async fn find<T, E, F>(
        &self,
        reader: Reader,
        query: impl Fn(MySqlPool) -> F,
    ) -> Result<Option<T>, E>
    where
        E: Display,
        F: Future<Output = Result<Option<T>, E>>,
    {
        if let Some(replica) = self.pick(reader)
            && let Some(found @ Some(_)) = self.ask(replica, query(replica.pool.clone())).await
        {
            return Ok(found);
        }
        count("primary", self);
        query(self.primary.clone()).await
    }

    /// Like [`Self::read`], for a read that must show everything accepted before: the database that
    /// answers has settled it. If the primary has not settled it within `limit`, the primary
    /// answers as it is.
    ///
    /// # Errors
    /// The primary's error.
    pub async fn read_settled<T, E, F>(
        &self,
        ledger: &Ledger,
        limit: Duration,
        reader: Reader,
        query: impl Fn(MySqlPool) -> F,
    ) -> Result<T, E>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(replica) = self.pick(reader)
            && lookup::catch_up(&replica.pool, ledger, REPLICA_WAIT).await
            && let Some(found) = self.ask(replica, query(replica.pool.clone())).await
        {
            return Ok(found);
        }
        count("primary", self);
        lookup::catch_up(&self.primary, ledger, limit).await;
        query(self.primary.clone()).await
    }

    /// Asks a replica; `None` when it fails. The replica is then not asked again before it has
    /// shown a beat.
    async fn ask<T, E: Display>(
        &self,
        replica: &Replica,
        query: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let failure = match tokio::time::timeout(self.timeout, query).await {
            Ok(Ok(found)) => {
                count("replica", self);
                return Some(found);
            }
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        replica.fresh_ms.store(0, Ordering::Release);
        count("failed", self);
        tracing::warn!(
            replica = replica.name,
            error = failure,
            "the primary is asked instead of a replica"
        );
        None
    }

    /// Raises a beat on the primary, and reads the newest beat that each replica shows.
    ///
    /// # Errors
    /// When the primary does not answer. The replicas then age by themselves.
    pub async fn probe(&self) -> Result<(), sqlx::Error> {
        let asked_ms = self.now_ms();
        let beat = replica_beats::raise(&self.primary).await?;
        {
            let mut beats = lock(&self.beats);
            beats.push_back((beat, asked_ms));
            if beats.len() > BEATS_MAX {
                beats.pop_front();
            }
        }
        // All at once: a replica that does not answer must not let the others grow stale.
        join_all(self.replicas.iter().map(|replica| self.look_at(replica))).await;
        Ok(())
    }

    /// The replicas by host and port, each with its largest possible lag in ms; `None` when it
    /// shows no beat.
    #[must_use]
    pub fn lags(&self) -> Vec<(&str, Option<u64>)> {
        let lag = |fresh_ms: u64| (fresh_ms > 0).then(|| self.now_ms().saturating_sub(fresh_ms));
        self.replicas
            .iter()
            .map(|of| (of.name.as_str(), lag(of.fresh_ms.load(Ordering::Acquire))))
            .collect()
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and lags are far below 2^53"
    )]
    async fn look_at(&self, replica: &Replica) {
        let seen = tokio::time::timeout(self.timeout, replica_beats::seen(&replica.pool)).await;
        let fresh_ms = match seen {
            Ok(Ok(seen)) => {
                let beats = lock(&self.beats);
                let newest = beats.iter().rev().find(|(beat, _)| *beat <= seen);
                newest.map(|(_, asked_ms)| *asked_ms)
            }
            Ok(Err(error)) => {
                tracing::debug!(replica = replica.name, %error, "a replica does not answer");
                None
            }
            Err(_elapsed) => None,
        };
        replica
            .fresh_ms
            .store(fresh_ms.unwrap_or_default(), Ordering::Release);
        // A replica that shows no beat of this process lags by more than all of them. Its gauge
        // then shows the age of this process.
        let lag_ms = self.now_ms().saturating_sub(fresh_ms.unwrap_or_default());
        let lag = metrics::gauge!("stock_replica_lag_seconds", "replica" => replica.name.clone());
        lag.set(lag_ms as f64 / 1_000.0);
    }
}

/// Counts a read by the database that answered it, where there is a choice.
fn count(source: &'static str, reads: &Reads) {
    if reads.has_replicas() {
        metrics::counter!("stock_reads_total", "source" => source).increment(1);
    }
}
