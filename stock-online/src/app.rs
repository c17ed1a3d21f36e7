//! The state that handlers share, built once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_domain::catalog::Catalog;
use stock_domain::coupon::Benefit;
use stock_domain::discount::Percentage;
use stock_domain::user::User;
use stock_engine::expiry::Expiry;
use stock_engine::reads::Reads;
use stock_engine::row_lock::RowLocks;
use stock_mysql::people::sessions::IdHash;
use stock_redis::Ledger;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog_refresher::CatalogRefresher;
use crate::coupons::Coupons;
use crate::health::Health;
use crate::history::History;
use crate::http::auth::Tokens;
use crate::kept::{Kept, Silence};
use crate::levels::Levels;
use crate::limits::Limits;
use crate::passwords::Passwords;
use crate::streams::Places;
use crate::subscriber::troubles::Troubles;

/// How long a list waits for MySQL to have what its reader was told before.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// MySQL, by what it is asked for.
pub struct Pools {
    /// Reads, and what is no order.
    pub pool: MySqlPool,
    /// For transactions that lock rows that every instance needs.
    pub locking: MySqlPool,
    /// For work that takes long.
    pub jobs: MySqlPool,
    /// Reads that need not be of this very moment.
    pub reads: Reads,
}

/// Users of whom, and paths of lists of which, an answer is kept at most.
const USERS_KEPT: u64 = 50_000;
const LISTS_KEPT: u64 = 100;

/// Answers of MySQL that are kept for a moment.
pub struct KeptReads {
    /// Whether MySQL was silent a moment ago.
    pub silence: Arc<Silence>,
    /// The benefits that a user's coupons give.
    pub benefits: Kept<UserId, Arc<[Benefit]>>,
    /// Users who read pages, unless they were deleted.
    pub users: Kept<UserId, Option<User>>,
    /// Sessions: their data and the Unix second in which they end.
    pub sessions: Arc<Kept<IdHash, Option<(String, i64)>>>,
    /// Lists of the interface that pages show to everybody, by path.
    pub lists: Kept<String, Bytes>,
}

impl Default for KeptReads {
    fn default() -> Self {
        let silence = Arc::default();
        Self {
            benefits: Kept::new(USERS_KEPT, &silence),
            users: Kept::new(USERS_KEPT, &silence),
            sessions: Arc::new(Kept::new(USERS_KEPT, &silence)),
            lists: Kept::new(LISTS_KEPT, &silence),
            silence,
        }
    }
}

/// The state that handlers share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The time of day.
    pub clock: Clock,
    /// MySQL, for reads and what is no order.
    pub pool: MySqlPool,
    /// Orders under row locks.
    pub row_locks: RowLocks,
    /// MySQL or a replica of it, for reads that need not be of this very moment.
    pub reads: Reads,
    /// MySQL, for what takes long or holds a job's row: the server ends no idle transaction of these within
    /// seconds.
    pub jobs_pool: MySqlPool,
    /// Redis.
    pub ledger: Ledger,
    /// The latest levels, for whoever watches.
    pub levels: Levels,
    /// The measurements of the last minutes.
    pub history: History,
    /// How the servers were a moment ago.
    pub health: Health,
    /// Troubles that keep this process from applying the journal.
    pub troubles: Arc<Troubles>,
    /// Products and prices in memory.
    pub catalog: Catalog,
    /// Coupons in memory.
    pub coupons: Coupons,
    /// Answers of MySQL that are kept for a moment.
    pub kept: KeptReads,
    /// The part of what is paid for an order that its buyer earns as points.
    pub earn_rate: Option<Percentage>,
    /// Releases expired holds for whoever is short of stock.
    pub expiry: Expiry,
    /// Files of stock that are judged at the same time: one, which holds two of the jobs' connections.
    pub imports: Semaphore,
    /// How many more may watch levels.
    pub event_streams: Arc<Places>,
    /// How many more pages may.
    pub page_streams: Arc<Places>,
    /// Rung when a file of stock is to be written.
    pub imports_wake_up: Notify,
    /// Keeps the catalog fresh.
    pub catalog_refresher: CatalogRefresher,
    /// Checks tokens.
    pub tokens: Tokens,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Counts requests.
    pub limits: Limits,
    /// What outlives its request; waited for at shutdown.
    pub tasks: TaskTracker,
    /// The runtime of everything that is no request.
    beside: Handle,
    /// Cancelled when the service stops taking requests: streams end then.
    pub closing: CancellationToken,
    /// Renders `/metrics`.
    pub prometheus: PrometheusHandle,
    /// Accepted entries that MySQL has not settled, as last seen.
    lag_entries: AtomicU64,
}

impl App {
    /// Puts the parts together. What outlives its request will run on the runtime of the caller.
    ///
    /// # Errors
    /// There is no secret to sign tokens with.
    pub fn new(
        config: &Config,
        clock: Clock,
        pools: Pools,
        ledger: Ledger,
        prometheus: PrometheusHandle,
    ) -> Result<Arc<Self>, jsonwebtoken::errors::Error> {
        let tokens = Tokens::new(
            &config.jwt_secret,
            &config.jwt_previous_secret,
            clock.clone(),
        )?;
        Ok(Arc::new(Self {
            tokens,
            passwords: Passwords::new(config.password_hashes_max),
            limits: Limits::new(config, clock.clone()),
            config: config.clone(),
            clock,
            pool: pools.pool,
            row_locks: RowLocks::new(pools.locking, config.synchronous_orders_max),
            reads: pools.reads,
            jobs_pool: pools.jobs,
            imports: Semaphore::new(1),
            event_streams: Places::new(config.event_streams_max, config.streams_each_max),
            page_streams: Places::new(config.page_streams_max, config.streams_each_max),
            ledger,
            catalog: Catalog::default(),
            coupons: Coupons::default(),
            kept: KeptReads::default(),
            // 0 is no percentage: nothing is earned.
            earn_rate: Percentage::from_hundredths(config.points_earn_hundredths).ok(),
            expiry: Expiry::default(),
            imports_wake_up: Notify::new(),
            levels: Levels::default(),
            history: History::default(),
            health: Health::default(),
            troubles: Arc::default(),
            closing: CancellationToken::new(),
            catalog_refresher: CatalogRefresher::default(),
            tasks: TaskTracker::new(),
            beside: Handle::current(),
            prometheus,
            lag_entries: AtomicU64::new(0),
        }))
    }

    /// Runs what outlives its request, and what holds locks that others wait for: it waits for no requests.
    pub fn start<T>(&self, task: T) -> JoinHandle<T::Output>
    where
        T: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn_on(task, &self.beside)
    }

    /// Accepted entries that MySQL has not settled, at most a second ago.
    #[must_use]
    pub fn lag_entries(&self) -> u64 {
        self.lag_entries.load(Ordering::Relaxed)
    }

    /// Notes the lag.
    pub fn set_lag_entries(&self, entries: u64) {
        self.lag_entries.store(entries, Ordering::Relaxed);
    }
}
