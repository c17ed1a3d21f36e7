//! The state that handlers share, built once: the state that every request needs, and one part each
//! for selling, for people and for live views.

mod live;
mod people;
mod selling;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::spent;
use stock_engine::reads::Reads;
use stock_redis::Ledger;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::live::Live;
pub use self::people::People;
pub use self::selling::Selling;
use crate::RunError;
use crate::health::Health;
use crate::kept::Silence;
use crate::subscriber::troubles::Troubles;

/// How long a list waits until MySQL has the entries that its reader already knows of.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// The connection pools of MySQL, by purpose.
pub struct Pools {
    /// For reads, and for writes other than orders.
    pub pool: MySqlPool,
    /// For transactions that lock rows that every instance needs.
    pub locking: MySqlPool,
    /// For long work.
    pub jobs: MySqlPool,
    /// For reads that may be a few seconds old.
    pub reads: Reads,
}

/// The state that handlers share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The time of day.
    pub clock: Clock,
    /// MySQL, for reads, and for writes other than orders.
    pub pool: MySqlPool,
    /// MySQL or a replica, for reads that may be a few seconds old.
    pub reads: Reads,
    /// MySQL, for long work and for transactions that hold a job's row: the server does not end
    /// their idle transactions within seconds.
    pub jobs_pool: MySqlPool,
    /// Redis.
    pub ledger: Ledger,
    /// Products, coupons and orders.
    pub selling: Selling,
    /// Users, and the limits of their requests.
    pub people: People,
    /// Pages and streams that show levels and measurements as they change.
    pub live: Live,
    /// The last seen state of the servers.
    pub health: Health,
    /// Whether MySQL was silent a moment ago.
    pub silence: Arc<Silence>,
    /// Troubles that keep this process from applying the journal.
    pub troubles: Arc<Troubles>,
    /// Tasks that outlive their request; the shutdown waits for them.
    pub tasks: TaskTracker,
    /// The runtime of everything except requests.
    beside: Handle,
    /// Cancelled when the service stops taking requests, so that streams end.
    pub closing: CancellationToken,
    /// Renders `/metrics`.
    pub prometheus: PrometheusHandle,
    /// Accepted entries that MySQL has not settled, as last seen.
    lag_entries: AtomicU64,
}

impl App {
    /// Builds the state. Tasks that outlive their request will run on the caller's runtime.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn new(
        config: &Config,
        clock: Clock,
        pools: Pools,
        ledger: Ledger,
        prometheus: PrometheusHandle,
    ) -> Result<Arc<Self>, RunError> {
        let silence = Arc::default();
        Ok(Arc::new(Self {
            selling: Selling::new(config, pools.locking, &silence),
            people: People::new(config, &clock, &silence)?,
            live: Live::new(config, &silence),
            config: config.clone(),
            clock,
            pool: pools.pool,
            reads: pools.reads,
            jobs_pool: pools.jobs,
            ledger,
            health: Health::default(),
            silence,
            troubles: Arc::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            beside: Handle::current(),
            prometheus,
            lag_entries: AtomicU64::new(0),
        }))
    }

    /// Runs a task that outlives its request or holds locks that others wait for. It runs on a
    /// runtime where it does not wait behind requests.
    pub fn start<T>(&self, task: T) -> JoinHandle<T::Output>
    where
        T: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn_on(spent::continued(task), &self.beside)
    }

    /// Accepted entries that MySQL has not settled, measured about a second ago.
    #[must_use]
    pub fn lag_entries(&self) -> u64 {
        self.lag_entries.load(Ordering::Relaxed)
    }

    /// Notes the lag.
    pub fn set_lag_entries(&self, entries: u64) {
        self.lag_entries.store(entries, Ordering::Relaxed);
    }
}
