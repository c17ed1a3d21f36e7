//! The service of Stock Flow.
//!
//! | module | purpose |
//! |---|---|
//! | [`serve`] | connections, time limits, request ids, and a shutdown that loses nothing |
//! | [`http`] | every route of the interface in one table; the handlers |
//! | [`pages`] | the HTML pages |
//! | [`app`] | the state that handlers share |
//! | [`requests`] | the runtime of requests, with threads of its own |
//! | [`subscriber`] | applies the journal to MySQL |
//! | [`scheduler`] | jobs by cron, such as reconcile and clean-up |
//! | [`tasks`] | the loops beside the requests: catalog, health, metrics, Pub/Sub |
//! | [`catalog_refresher`], [`coupons`] | how far the catalog in memory is complete; coupons in memory |
//! | [`limits`], [`passwords`], [`tokens`] | request limits; password hashes; access tokens |
//! | [`service_keys`], [`buyers`] | the keys of the shop's back ends; the shop's buyers by name |
//! | [`health`], [`readiness`] | the last look at MySQL; whether orders can be taken |
//! | [`history`], [`levels`] | the samples of the last two minutes; the latest levels |
//! | [`stream_places`] | places for event streams |
//! | [`kept`] | answers of MySQL that are kept for a moment |
//! | [`stock_csv`] | stock as CSV files |
//! | [`webhooks`] | sends settled stock changes to other systems |
//! | [`cli`] | the commands |
//!
//! [`run`] takes its listener, clock, settings and shutdown token from its caller, so that tests
//! can start many services. Each [`ServiceRole`] may run in a process of its own.

pub mod app;
pub mod buyers;
pub mod catalog_refresher;
pub mod cli;
pub mod coupons;
pub mod health;
pub mod history;
pub mod http;
pub mod kept;
pub mod levels;
pub mod limits;
mod outgoing;
pub mod pages;
pub mod passwords;
pub mod profile;
pub mod readiness;
pub mod requests;
pub mod scheduler;
pub mod seeds;
pub mod serve;
pub mod service_keys;
pub mod stock_csv;
pub mod stream_places;
pub mod subscriber;
pub mod tasks;
pub mod tokens;
pub mod webhooks;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::supervise::supervise;
use stock_engine::ledger;
use stock_engine::reads::Reads;
use stock_mysql::{Role, migrate};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Pools};
use crate::http::origin::{NotANetwork, TrustedProxies};
use crate::requests::Requests;

/// A role of the service, which may run in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ServiceRole {
    /// Answers requests.
    Http,
    /// Applies the journal to MySQL.
    Subscriber,
    /// Runs jobs by cron.
    Scheduler,
}

impl ServiceRole {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Http, Self::Subscriber, Self::Scheduler];
}

/// Reasons why the service did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The URL of Redis cannot be parsed.
    #[error("redis_url: {0}")]
    Redis(#[from] redis::RedisError),
    /// The URL of MySQL cannot be parsed.
    #[error("database_url: {0}")]
    Database(#[from] sqlx::Error),
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] stock_common::config::ConfigError),
    /// The secret cannot sign tokens.
    #[error("jwt_secret: {0}")]
    Secret(#[from] jsonwebtoken::errors::Error),
    /// No client for the issuer's keys can be made.
    #[error("jwt_jwks_url: {0}")]
    Issuer(#[from] reqwest::Error),
    /// An entry of `trusted_proxies` is not a network.
    #[error(transparent)]
    Proxies(#[from] NotANetwork),
    /// A cron expression cannot be read.
    #[error("scheduler: {0}")]
    Scheduler(#[from] tokio_cron_scheduler::JobSchedulerError),
    /// The system cannot start threads.
    #[error("no threads: {0}")]
    Threads(#[source] std::io::Error),
    /// The task that serves requests panicked.
    #[error("serving broke: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// The inputs of [`run`].
pub struct Start {
    /// The settings.
    pub config: Config,
    /// The time of day.
    pub clock: Clock,
    /// The listener, already bound.
    pub listener: TcpListener,
    /// The roles that run here.
    pub parts: Vec<ServiceRole>,
    /// Renders `/metrics`; one recorder serves the whole process.
    pub prometheus: PrometheusHandle,
}

/// Time limit at shutdown for synchronous requests whose clients have left, counted from the end of
/// the last connection.
const TASKS_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between attempts to migrate at start: the first one, and the longest.
const MIGRATE_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Disables transparent huge pages for this process. With huge pages, the unused half of each
/// connection's buffers would take memory too.
fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages are not refused");
    }
}

/// Runs the service until `shutdown`. Then the service answers accepted requests, commits the batch
/// under way, and returns.
///
/// # Errors
/// [`RunError`] when the service could not start, or its serving task panicked.
pub async fn run(start: Start, shutdown: CancellationToken) -> Result<(), RunError> {
    let Start {
        config,
        clock,
        listener,
        parts,
        prometheus,
    } = start;
    config.check_secret()?;
    refuse_huge_pages();
    let proxies = TrustedProxies::parse(&config.http.trusted_proxies)?;
    let pool = stock_mysql::pool(&config, Role::Requests)?;
    let requests = Requests::start().map_err(RunError::Threads)?;
    let ledger = ledger::start_for(requests.handle(), &config, pool.clone(), clock.clone())?;
    let reads = Reads::new(&config, pool.clone())?;
    let pools = Pools {
        pool: pool.clone(),
        locking: stock_mysql::pool(&config, Role::Locking)?,
        jobs: stock_mysql::pool(&config, Role::Tool)?,
        reads,
    };
    let app = App::new(&config, clock, pools, ledger.clone(), prometheus)?;

    let background = CancellationToken::new();
    let tasks = tokio_util::task::TaskTracker::new();
    let wake_ups = Arc::new(subscriber::WakeUps::default());
    let task = Tasks {
        tracker: &tasks,
        app: &app,
        shutdown: &background,
    };
    if parts.contains(&ServiceRole::Scheduler) {
        task.keep("scheduler", keep_schedule);
    }
    task.keep("schema", move |_, shutdown| {
        prepare_schema(pool.clone(), shutdown)
    });
    let hears = Arc::clone(&wake_ups);
    task.keep("pubsub", move |app, shutdown| {
        tasks::pubsub::run(app, Arc::clone(&hears), shutdown)
    });
    task.keep("replicas", tasks::replicas::run);
    task.keep("catalog", tasks::catalog::run);
    task.keep("monitor", tasks::monitor::run);
    let health_pool = stock_mysql::pool(&config, Role::Tool)?;
    task.keep("health", move |app, shutdown| {
        tasks::health::run(app, health_pool.clone(), shutdown)
    });
    if parts.contains(&ServiceRole::Subscriber) {
        // The subscriber has a pool of its own: a connection belongs to the runtime that opened it.
        let pool = stock_mysql::pool(&config, Role::Locking)?;
        task.keep("subscriber", move |app, shutdown| {
            let shared = subscriber::Shared {
                ledger: ledger.clone(),
                pool: pool.clone(),
                queue: app.selling.row_locks.queue().clone(),
                wake_ups: Arc::clone(&wake_ups),
                troubles: Arc::clone(&app.troubles),
            };
            subscriber::run(shared, shutdown)
        });
    }
    task.keep("limits", tasks::limits::run);
    task.keep("tokens", tasks::tokens::run);
    task.keep("issuer", tasks::issuer::run);
    let serving = serve::serve(listener, Arc::clone(&app), proxies, shutdown);
    requests.handle().spawn(serving).await?;
    drain(&app, &tasks, &background).await;
    // Links end with the runtime of requests; after this call, that does not count as a broken
    // link.
    app.ledger.close();
    Ok(())
}

/// Waits for running tasks, each kind up to a time limit.
async fn drain(app: &App, tasks: &tokio_util::task::TaskTracker, background: &CancellationToken) {
    tracing::info!("draining");
    app.tasks.close();
    // Every decision is already in the journal; a task that hangs has only its recording left to
    // do.
    if tokio::time::timeout(TASKS_TIMEOUT, app.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("synchronous requests did not end in time; the subscriber records them");
    }
    background.cancel();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(1), tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("background tasks did not end in time; nothing is lost by it");
    }
    tracing::info!("stopped");
}

/// The context that every task of a service is started with.
struct Tasks<'a> {
    tracker: &'a tokio_util::task::TaskTracker,
    app: &'a Arc<App>,
    shutdown: &'a CancellationToken,
}

impl Tasks<'_> {
    /// Runs a task until the shutdown, and restarts it when it panics.
    fn keep<T>(
        &self,
        name: &'static str,
        run: impl Fn(Arc<App>, CancellationToken) -> T + Send + 'static,
    ) where
        T: Future<Output = ()> + Send + 'static,
    {
        let (app, shutdown) = (Arc::clone(self.app), self.shutdown.clone());
        let of = app.config.redis.redis_prefix.clone();
        let make = move || run(Arc::clone(&app), shutdown.clone());
        self.tracker.spawn(supervise(name, of, make));
    }
}

/// Applies pending migrations. When this user may not, it waits until another user has applied
/// them; meanwhile the fence keeps this service from selling on a schema that is behind. Each
/// reason to wait is logged once.
async fn prepare_schema(pool: sqlx::MySqlPool, shutdown: CancellationToken) {
    let (mut wait, wait_max) = MIGRATE_RETRY;
    let mut known = String::new();
    while let Err(error) = migrate::migrate(&pool).await {
        let reason = error.to_string();
        if reason != known {
            tracing::warn!(
                reason,
                "waiting for the schema; `stock-online migrate` applies what is missing"
            );
            known = reason;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(wait_max);
    }
}

async fn keep_schedule(app: Arc<App>, shutdown: CancellationToken) {
    if let Err(error) = scheduler::run(app, shutdown).await {
        tracing::error!(%error, "the scheduler cannot run");
    }
}

/// Histogram buckets in seconds. Batch sizes use powers of two.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Installs the process's metrics recorder, once; every service in the process shares it.
#[must_use]
pub fn install_metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .and_then(|builder| {
                let batch = Matcher::Full("stock_decide_batch_size".to_owned());
                builder.set_buckets_for_metric(batch, &SIZES)
            })
            .unwrap_or_default()
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics stays empty");
        }
        handle
    };
    HANDLE.get_or_init(install).clone()
}
