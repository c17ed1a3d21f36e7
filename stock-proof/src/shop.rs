//! Private servers, a stocked shop on them, and service processes that may be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;
use stock_client::Client;
use stock_common::clock::Clock;
use stock_common::config::{Config, Durability};
use stock_engine::ledger;
use stock_mysql::Role;
use stock_redis::Ledger;
use stock_servers::{Server, Spec, free_port};
use tokio::process::{Child, Command};

use crate::Failure;

/// The longest time that [`until`] waits for a condition.
const PATIENCE: Duration = Duration::from_secs(120);
/// The secret that signs tokens. The shops that use it live for minutes, on 127.0.0.1.
pub const SECRET: &str = "a secret of proofs, long enough for HS256";

/// Waits until a condition holds.
///
/// # Errors
/// When the condition does not hold within two minutes.
pub async fn until<F: Future<Output = bool>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> Result<(), Failure> {
    let started = Instant::now();
    while !holds().await {
        if started.elapsed() > PATIENCE {
            return Err(format!("did not happen: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A folder that is removed when this is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder in the system's temporary folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let unique = format!("stock-{name}-{}-{}", std::process::id(), free_port()?);
        let folder = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// The path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "cannot remove a folder");
        }
    }
}

/// A private Redis and a private database server.
pub struct Servers {
    /// The Redis.
    pub redis: Server,
    /// The MySQL or MariaDB.
    pub mysql: Server,
    /// The durability that the Redis promises, and so do its shops.
    pub durability: Durability,
    /// The folder with the servers' files; dropped after the servers.
    pub folder: Folder,
}

impl Servers {
    /// Starts both servers.
    ///
    /// # Errors
    /// When one is not installed or does not answer.
    pub async fn start(durability: Durability) -> Result<Self, Failure> {
        let folder = Folder::new("proof")?;
        let redis = Spec::redis(&folder.path().join("redis"), durability)?;
        let mysql = Spec::mysql(&folder.path().join("mysql")).await?;
        let (redis, mysql) = tokio::join!(redis.start(), mysql.start());
        Ok(Self {
            redis: redis?,
            mysql: mysql?,
            durability,
            folder,
        })
    }
}

/// The size of a shop.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    /// Products at a price of 1,000.
    pub products: u64,
    /// First stock of each.
    pub stock: i64,
}

/// A shop: a key prefix and a database on some servers, and the settings under which it is served.
#[derive(Clone)]
pub struct Shop {
    variables: Vec<(String, String)>,
    /// The file that its services log to; without it they log to this program's stderr.
    log: Option<PathBuf>,
    database_url: String,
    /// The URL of its Redis.
    pub redis_url: String,
    /// The prefix of its keys.
    pub prefix: String,
}

impl Shop {
    /// Makes a database, migrates it and stocks the shop.
    ///
    /// # Errors
    /// When a server does not answer or a command fails.
    pub async fn open(servers: &Servers, name: &str, seed: Seed) -> Result<Self, Failure> {
        let shop = Self::empty(servers, name).await?;
        shop.stock(seed).await?;
        Ok(shop)
    }

    /// Stocks a shop. The first subscriber that runs applies the entries of that.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn stock(&self, seed: Seed) -> Result<(), Failure> {
        let (products, stock) = (seed.products.to_string(), seed.stock.to_string());
        let seed = ["seed", "--users", "500", "--products", &products];
        self.command(&[&seed[..], &["--stock", &stock]].concat())
            .await?;
        Ok(())
    }

    /// Makes a database with empty tables.
    ///
    /// # Errors
    /// When a server does not answer or a command fails.
    pub async fn empty(servers: &Servers, name: &str) -> Result<Self, Failure> {
        servers.mysql.create_database(name).await?;
        let shop = Self::at(
            &servers.redis.spec.url("0"),
            &servers.mysql.spec.url(name),
            name,
        )
        .with("STOCK_DURABILITY", servers.durability.as_str());
        shop.command(&["migrate"]).await?;
        Ok(shop)
    }

    /// The shop of that name at these URLs, unchanged.
    #[must_use]
    pub fn at(redis_url: &str, database_url: &str, name: &str) -> Self {
        let prefix = format!("sf:v1:{name}");
        let variables = [
            ("STOCK_REDIS_URL", redis_url),
            ("STOCK_REDIS_PREFIX", &prefix),
            ("STOCK_DATABASE_URL", database_url),
            ("STOCK_JWT_SECRET", SECRET),
            ("STOCK_METRICS_OPEN", "true"),
            // Requests are counted as everywhere, but these limits are never reached: a load comes
            // from one address with few users.
            ("STOCK_LIMIT_USER_REQUESTS", "1000000000"),
            ("STOCK_LIMIT_ADDRESS_REQUESTS", "1000000000"),
            ("STOCK_LIMIT_USER_KEYS", "1000000000"),
            ("STOCK_LIMIT_USER_KEYS_DAILY", "1000000000"),
            ("STOCK_HTTP_ADDRESS_CONNECTIONS_MAX", "0"),
            ("STOCK_LOG", "error"),
        ];
        Self {
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            log: None,
            database_url: database_url.to_owned(),
            redis_url: redis_url.to_owned(),
            prefix,
        }
    }

    /// The same shop under a further setting, or another variable of its processes.
    #[must_use]
    pub fn with(&self, name: &str, value: impl ToString) -> Self {
        let mut shop = self.clone();
        shop.variables.push((name.to_owned(), value.to_string()));
        shop
    }

    /// The same shop, whose services log to a file.
    #[must_use]
    pub fn logging_to(&self, file: &Path) -> Self {
        let mut shop = self.with("STOCK_LOG", "info");
        shop.log = Some(file.to_owned());
        shop
    }

    /// Runs a command of `stock-online` and returns what it printed.
    ///
    /// # Errors
    /// When the command fails, with its complaint.
    pub async fn command(&self, arguments: &[&str]) -> Result<String, Failure> {
        let out = Command::new(program("stock-online")?)
            .args(arguments)
            .envs(self.variables.iter().cloned())
            .kill_on_drop(true)
            .output()
            .await?;
        let (said, complained) = (
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        );
        if out.status.success() {
            Ok(said)
        } else {
            Err(format!(
                "stock-online {} failed: {said}{complained}",
                arguments.join(" ")
            )
            .into())
        }
    }

    /// Starts a service process and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub async fn serve(&self, roles: &str) -> Result<Service, Failure> {
        self.serve_at(&free_address()?, roles).await
    }

    /// Like [`Shop::serve`], at an address.
    ///
    /// # Errors
    /// As [`Shop::serve`].
    pub async fn serve_at(&self, address: &str, roles: &str) -> Result<Service, Failure> {
        let mut service = self.spawn_at(address, roles)?;
        let client = service.client.clone();
        loop {
            if client.is_ready().await {
                return Ok(service);
            }
            if let Some(status) = service.child.try_wait()? {
                return Err(format!("the service ended: {status}").into());
            }
            if service.started.elapsed() > PATIENCE {
                return Err("the service does not become ready".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a service process without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, roles: &str) -> Result<Service, Failure> {
        self.spawn_at(&free_address()?, roles)
    }

    /// Like [`Shop::spawn`], at an address.
    ///
    /// # Errors
    /// As [`Shop::spawn`].
    pub fn spawn_at(&self, address: &str, roles: &str) -> Result<Service, Failure> {
        let started = Instant::now();
        let mut command = Command::new(program("stock-online")?);
        command
            .args(["serve", "--roles", roles])
            .envs(self.variables.iter().cloned())
            .env("STOCK_HTTP_ADDR", address)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(log) = &self.log {
            let file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(log)?;
            command.stderr(file);
        }
        let child = command.spawn()?;
        let client = crate::client(address)?;
        Ok(Service {
            child,
            client,
            started,
        })
    }

    /// The shop's ledger in this process, for load that needs no HTTP. Its backlog limits are too
    /// high to be reached.
    ///
    /// # Errors
    /// When a server does not answer, or Redis cannot be verified.
    pub async fn ledger(&self, durability: Durability) -> Result<Ledger, Failure> {
        let config = self.config(durability);
        let pool = stock_mysql::pool(&config, Role::Tool)?;
        let ledger = ledger::start(&config, pool, Clock::system())?;
        if ledger.wait_open(PATIENCE).await {
            Ok(ledger)
        } else {
            Err("redis cannot be proved".into())
        }
    }

    /// The settings of [`Shop::ledger`].
    #[must_use]
    pub fn config(&self, durability: Durability) -> Config {
        Config::default().with(|config| {
            config.redis.redis_url = self.redis_url.clone();
            config.redis.redis_prefix = self.prefix.clone();
            config.mysql.database_url = self.database_url.clone();
            config.redis.durability = durability;
            config.decide.lag_soft_entries = 90_000_000;
            config.decide.lag_hard_entries = 100_000_000;
        })
    }

    /// A pool of a few connections, for looks from outside.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn pool(&self) -> Result<MySqlPool, Failure> {
        let url = format!("{}?ssl-mode=DISABLED", self.database_url);
        Ok(MySqlPoolOptions::new()
            .max_connections(4)
            .connect(&url)
            .await?)
    }
}

/// An address at which nobody listens.
///
/// # Errors
/// When the machine has none.
pub fn free_address() -> Result<String, Failure> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

/// A program that was built beside this one.
///
/// # Errors
/// When it was not.
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.ok_or_else(|| format!("{name} is not built beside {}", own.display()).into())
}

/// A service in a separate process. Dropping it kills the process.
pub struct Service {
    /// The process.
    pub child: Child,
    /// A client of the service.
    pub client: Client,
    /// When it was started.
    pub started: Instant,
}

impl Service {
    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.pid().ok_or("the service has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()?).ok()?)
    }

    /// Sends SIGTERM, and returns whether the process ended with 0.
    ///
    /// # Errors
    /// When the process does not end within 15 seconds.
    pub async fn stop(&mut self) -> Result<bool, Failure> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_secs(15), self.child.wait());
        Ok(ended.await??.success())
    }

    /// A line of `/proc/<pid>/status` in bytes, such as `VmHWM`, the peak memory so far.
    #[must_use]
    pub fn memory_bytes(&self, line: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let found = status.lines().find(|text| text.starts_with(line))?;
        let kilobytes: u64 = found.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1_024)
    }

    /// A value of `/metrics`, labels included in the name.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.client.get("/metrics").try_send().await.ok()?;
        answer.text.lines().find_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            (key == name).then(|| value.parse().ok())?
        })
    }
}
