//! The foundation of every test: shared servers, a shop of its own on them, a client, a load.
//!
//! One Redis and one database server serve the whole binary; a test that kills servers starts its
//! own. A watchdog process ends them all when this process is gone, however it ended.

#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

pub(crate) use self::load::{History, Load};
pub(crate) use self::process::{ROLES, ServiceProcess};
use sqlx::MySqlPool;
pub(crate) use stock_client::{Answer, Call, Client, Session, order_json};
use stock_common::clock::Clock;
use stock_common::config::{Config, Durability};
use stock_common::telemetry;
use stock_engine::verify::{Report, VerifyError, verify};
use stock_engine::{ledger, recover};
use stock_mysql::Role;
use stock_online::cli::seed::{SeedArgs, seed};
use stock_online::tokens::Tokens;
use stock_online::{ServiceRole, Start, install_metrics};
use stock_redis::nodes::Servers;
use stock_redis::{Ledger, ReadError};
use stock_servers::cluster::{RedisCluster, Shape};
use stock_servers::{Server, Spec};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Time limit for any condition; reaching it fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SECRET: &str = "a secret of tests, long enough for HS256";

/// Waits for a condition, never for a time.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that runs commands when this process has ended.
struct Watchdog {
    child: Mutex<std::process::Child>,
}

impl Watchdog {
    fn start() -> Self {
        // Last command first: a server is killed by its pid file before its folder is removed.
        let script = "while read -r line; do all=\"$line;$all\"; done; eval \"$all\"";
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child: Mutex::new(child),
        }
    }

    /// Notes a shell command to run at the end.
    fn at_end(&self, command: &str) {
        let mut child = self.child.lock().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{command}").unwrap();
    }
}

fn watchdog() -> &'static Watchdog {
    static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();
    WATCHDOG.get_or_init(Watchdog::start)
}

/// Notes a shell command to run when this process has ended.
pub(crate) fn at_end(command: &str) {
    watchdog().at_end(command);
}

/// A new folder, removed after the tests unless `TEST_KEEP` is set.
pub(crate) fn folder(name: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder =
        std::env::temp_dir().join(format!("stock-it-{}-{number}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    if std::env::var_os("TEST_KEEP").is_none() {
        watchdog().at_end(&format!("rm -rf '{}'", folder.display()));
    }
    folder
}

/// Starts a server that ends with the tests.
pub(crate) async fn start(spec: &Spec) -> Server {
    let server = spec.start().await.unwrap();
    let pid_file = server.spec.pid_file();
    watchdog().at_end(&format!(
        "kill -9 $(cat '{}') 2>/dev/null; sleep 0.2",
        pid_file.display()
    ));
    server
}

pub(crate) struct SharedServers {
    pub(crate) redis: Spec,
    mysql: Spec,
}

/// The shared servers, started once on a runtime that lives as long as the process.
pub(crate) fn shared() -> &'static SharedServers {
    static SHARED: OnceLock<SharedServers> = OnceLock::new();
    SHARED.get_or_init(|| {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let folder = folder("shared");
                let redis = Spec::redis(&folder.join("redis"), Durability::Everysec).unwrap();
                let mysql = Spec::mysql(&folder.join("mysql")).await.unwrap();
                let (mut redis, mysql) = (start(&redis).await, start(&mysql).await);
                send.send((redis.spec.clone(), mysql.spec.clone())).unwrap();
                redis.ended().await;
                drop(mysql);
            });
        });
        let (redis, mysql) = receive.recv().unwrap();
        SharedServers { redis, mysql }
    })
}

/// A Redis and a database server of a test's own, to be killed.
pub(crate) struct OwnServers {
    pub(crate) redis: Server,
    pub(crate) mysql: Server,
}

impl OwnServers {
    pub(crate) async fn start(durability: Durability) -> Self {
        let folder = folder("own");
        let redis = Spec::redis(&folder.join("redis"), durability).unwrap();
        let mysql = Spec::mysql(&folder.join("mysql")).await.unwrap();
        Self {
            redis: start(&redis).await,
            mysql: start(&mysql).await,
        }
    }
}

/// A Redis Cluster, and a database server, of a test's own.
pub(crate) struct OwnCluster {
    pub(crate) cluster: RedisCluster,
    pub(crate) mysql: Server,
}

impl OwnCluster {
    pub(crate) async fn start(shape: Shape) -> Self {
        let folder = folder("cluster");
        let mut nodes = Vec::new();
        for spec in RedisCluster::specs(&folder, shape).unwrap() {
            nodes.push(start(&spec).await);
        }
        let mysql = Spec::mysql(&folder.join("mysql")).await.unwrap();
        Self {
            cluster: RedisCluster::of(nodes, shape.replicas).await.unwrap(),
            mysql: start(&mysql).await,
        }
    }

    /// A shop on the cluster, in `shards` shards.
    pub(crate) async fn shop(&self, shards: u64, products: u64, stock: i64) -> Shop {
        let url = self.cluster.url();
        Shop::open_divided(url, &self.mysql.spec, shards, products, stock).await
    }
}

/// A shop: a fresh prefix and database, migrated and stocked; services on it are started at will.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) config: Config,
    pub(crate) pool: MySqlPool,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
}

impl Shop {
    /// A shop on the shared servers, with `products` products of `stock` units each.
    pub(crate) async fn open(products: u64, stock: i64) -> Self {
        let servers = shared();
        Self::open_on(&servers.redis, &servers.mysql, products, stock).await
    }

    /// A shop of one shard on a Redis of its own, for faults that would disturb other tests.
    pub(crate) async fn open_on_own_redis(products: u64, stock: i64) -> (Self, Server) {
        let redis = Spec::redis(&folder("own").join("redis"), Durability::Everysec).unwrap();
        let redis = start(&redis).await;
        let (url, mysql) = (redis.spec.url("0"), &shared().mysql);
        let shop = Self::open_divided(url, mysql, 1, products, stock).await;
        (shop, redis)
    }

    /// A shop on given servers.
    pub(crate) async fn open_on(redis: &Spec, mysql: &Spec, products: u64, stock: i64) -> Self {
        Self::open_divided(redis.url("0"), mysql, shards(), products, stock).await
    }

    /// A shop of one shard, whatever `SHARDS` says, for tests that look at its keys.
    pub(crate) async fn open_undivided(products: u64, stock: i64) -> Self {
        Self::open_in(1, products, stock).await
    }

    /// A shop in `shards` shards on the shared servers.
    pub(crate) async fn open_in(shards: u64, products: u64, stock: i64) -> Self {
        let servers = shared();
        let url = servers.redis.url("0");
        Self::open_divided(url, &servers.mysql, shards, products, stock).await
    }

    /// A shop in `shards` shards on a Redis or a cluster.
    pub(crate) async fn open_divided(
        redis_url: String,
        mysql: &Spec,
        shards: u64,
        products: u64,
        stock: i64,
    ) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if let Ok(filter) = std::env::var("TEST_LOG") {
            telemetry::init(&filter, false);
        }
        let name = format!("shop_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        create_database(mysql, &name).await;
        let config = Config::default().with(|config| {
            config.redis.redis_url = redis_url;
            config.redis.shards = shards;
            config.redis.redis_prefix = format!("sf:v1:{}:{name}", std::process::id());
            config.mysql.database_url = mysql.url(&name);
            config.people.jwt_secret = SECRET.to_owned();
            config.http.metrics_open = true;
            config.mysql.database_connections_max = 8;
            config.mysql.synchronous_orders_max = 4;
            // A test is one address with few users; tests of limits set their own.
            config.people.limit_user_requests = 0;
            config.people.limit_address_requests = 0;
            config.people.limit_user_keys = 0;
            config.people.limit_user_keys_daily = 0;
            config.people.limit_address_logins = 0;
            config.schedule.reconcile_cron = "0 0 0 29 2 *".to_owned();
            // Tests reconcile and verify by themselves.
            config.schedule.verify_cron = "0 0 0 29 2 *".to_owned();
        });
        let shop = Self::begin(config).await;
        let args = SeedArgs {
            users: 3,
            products,
            stock,
        };
        assert!(seed(&shop.pool, &shop.ledger, &args, None).await.unwrap());
        shop
    }

    /// An empty shop in a database that was just made.
    pub(crate) async fn begin(config: Config) -> Self {
        let durability = durability_of(&config.redis.redis_url).await;
        let config = config.with(|config| config.redis.durability = durability);
        let pool = stock_mysql::pool(&config, Role::Tool).unwrap();
        stock_mysql::migrate::migrate(&pool).await.unwrap();
        assert!(recover::begin_first(&config, &pool).await.unwrap());
        let shop = Self::at(config);
        assert!(shop.ledger.wait_open(PATIENCE).await);
        shop
    }

    /// The shop that these settings name, as it is.
    pub(crate) fn at(config: Config) -> Self {
        let pool = stock_mysql::pool(&config, Role::Tool).unwrap();
        let clock = Clock::system();
        let ledger = ledger::start(&config, pool.clone(), clock.clone()).unwrap();
        Self {
            config,
            pool,
            ledger,
            clock,
        }
    }

    /// Starts a service in this process with all roles.
    pub(crate) async fn serve(&self) -> Service {
        self.serve_roles(&ServiceRole::ALL).await
    }

    /// Starts a service in this process with some roles.
    pub(crate) async fn serve_roles(&self, parts: &[ServiceRole]) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let start = Start {
            config: self.config.clone(),
            clock: self.clock.clone(),
            listener,
            parts: parts.to_vec(),
            prometheus: install_metrics(),
        };
        let task = tokio::spawn(stock_online::run(start, shutdown.clone()));
        let client = self.client(&address);
        until("the service is ready and knows the catalog", || {
            client.is_ready()
        })
        .await;
        Service {
            client,
            shutdown,
            task,
        }
    }

    pub(crate) fn client(&self, address: &str) -> Client {
        let tokens = Tokens::new(SECRET, "", None, self.clock.clone()).unwrap();
        Client::new(address, tokens.into_bearers())
    }

    /// The variables of a service process on this shop.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let durability = self.config.redis.durability.as_str().to_owned();
        vec![
            ("STOCK_REDIS_URL", self.config.redis.redis_url.clone()),
            ("STOCK_REDIS_PREFIX", self.config.redis.redis_prefix.clone()),
            ("STOCK_DATABASE_URL", self.config.mysql.database_url.clone()),
            ("STOCK_SHARDS", self.config.redis.shards.to_string()),
            ("STOCK_DURABILITY", durability),
            ("STOCK_JWT_SECRET", SECRET.to_owned()),
            ("STOCK_METRICS_OPEN", "true".to_owned()),
            ("STOCK_LIMIT_USER_REQUESTS", "0".to_owned()),
            ("STOCK_LIMIT_ADDRESS_REQUESTS", "0".to_owned()),
            ("STOCK_LIMIT_USER_KEYS", "0".to_owned()),
            ("STOCK_LIMIT_USER_KEYS_DAILY", "0".to_owned()),
            (
                "STOCK_RECONCILE_CRON",
                self.config.schedule.reconcile_cron.clone(),
            ),
            (
                "STOCK_VERIFY_CRON",
                self.config.schedule.verify_cron.clone(),
            ),
        ]
    }

    /// Waits until MySQL has settled everything that was accepted.
    pub(crate) async fn drained(&self) {
        until("mysql has settled every entry", || async {
            self.report()
                .await
                .is_some_and(|report| report.lag_entries == 0)
        })
        .await;
    }

    async fn report(&self) -> Option<Report> {
        let report = verify(&self.pool, &self.ledger, false, &mut |_, _| {}).await;
        report
            .inspect_err(|error| tracing::warn!(%error, "nothing could be verified"))
            .ok()
    }

    /// Verifies the whole ledger from zero.
    pub(crate) async fn verify(&self) -> Report {
        // Another process may have run `recover` or `rehome` less than a second ago.
        let since = Instant::now();
        let report = loop {
            self.ledger.check_fence().await;
            let is_open = self.ledger.wait_open(PATIENCE).await;
            assert!(is_open, "shut: {:?}", self.ledger.fenced());
            match verify(&self.pool, &self.ledger, true, &mut |_, _| {}).await {
                Err(VerifyError::Read(ReadError::Fenced(_))) if since.elapsed() < PATIENCE => {}
                report => break report.unwrap(),
            }
        };
        assert!(report.ok, "{:?}", report.differences);
        report
    }

    /// Rebuilds Redis from MySQL, although it serves.
    pub(crate) async fn rebuild(&self) {
        let allowed = recover::Allowed::FORCED;
        let done = recover::recover(&self.config, &self.pool, allowed, &mut |_, _| {}).await;
        done.unwrap();
    }

    pub(crate) async fn count(&self, text: &'static str) -> i64 {
        sqlx::query_scalar(text)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Every text in the tables about people, one after the other.
    pub(crate) async fn all_text(&self) -> String {
        let mut text = String::new();
        for table in [
            "SELECT CONCAT_WS(' ', email, name, password_hash) FROM users",
            "SELECT HEX(token_hash) FROM refresh_tokens",
            "SELECT CONCAT(HEX(id_hash), ' ', data) FROM sessions",
            "SELECT CONCAT(action, ' ', subject) FROM audit_log",
        ] {
            let rows: Vec<String> = sqlx::query_scalar(table)
                .fetch_all(&self.pool)
                .await
                .unwrap();
            text.extend(rows);
        }
        text
    }

    /// The units of a product that are available online, as Redis says.
    pub(crate) async fn available(&self, product: u64) -> i64 {
        let is_open = self.ledger.wait_open(PATIENCE).await;
        assert!(is_open, "shut: {:?}", self.ledger.fenced());
        let account = account(product);
        self.ledger
            .levels(&[account])
            .await
            .unwrap()
            .get(&account)
            .unwrap()
            .balance
    }

    /// Ids of all stored orders, in rising order.
    pub(crate) async fn stored_orders(&self) -> Vec<String> {
        let ids: Vec<u64> = sqlx::query_scalar("SELECT id FROM orders ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        ids.into_iter().map(|id| id.to_string()).collect()
    }
}

/// The durability that a Redis promises: a shop on it promises no more.
async fn durability_of(redis_url: &str) -> Durability {
    let servers = Servers::parse(redis_url).unwrap();
    let connected = servers.connect_agreed("any", PATIENCE).await.unwrap();
    let mut connection = connected.connection;
    let asked = redis::cmd("CONFIG")
        .arg("GET")
        .arg("appendfsync")
        .to_owned();
    let (_, value): (String, String) = asked.query_async(&mut connection).await.unwrap();
    match value.as_str() {
        "always" => Durability::Always,
        _ => Durability::Everysec,
    }
}

/// Number of shards of a shop: `SHARDS=3 cargo test` runs every test over three.
fn shards() -> u64 {
    std::env::var("SHARDS").map_or(1, |text| text.parse().unwrap())
}

pub(crate) fn account(product: u64) -> stock_domain::account::Account {
    stock_domain::account::Account::parse(&format!("AVAILABLE:{product}:0")).unwrap()
}

async fn create_database(mysql: &Spec, name: &str) {
    let url = format!("{}?ssl-mode=DISABLED", mysql.url("mysql"));
    let pool = MySqlPool::connect(&url).await.unwrap();
    let text = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

/// A service in this process.
pub(crate) struct Service {
    pub(crate) client: Client,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), stock_online::RunError>>,
}

impl Service {
    /// Shuts the service down in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Sorted, for comparing sets of ids.
pub(crate) fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_by_key(|id| id.parse::<u64>().unwrap());
    ids
}
