//! Private servers: a Redis and a MySQL or MariaDB in a folder, on free ports; a Redis [`cluster`];
//! and a [`proxy`] that misbehaves.
//!
//! `dev` runs a shop on them; tests start and kill them. They listen on 127.0.0.1 only and belong
//! to the process that started them. A pid file in their folder lets the next `dev` find a server
//! that a killed process left behind.

pub mod cluster;
pub mod proxy;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use stock_common::config::Durability;
use stock_common::lock::lock;
use tokio::process::{Child, Command};

/// Time that a server has to answer after its start, and to end after SIGTERM.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that the path of a Unix socket may have, roughly.
const SOCKET_PATH_MAX: usize = 90;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The program is not installed.
    #[error("none of {0} is installed; `make run` installs it, or install {1} by hand")]
    Missing(&'static str, &'static str),
    /// A file or process could not be made.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// The server ended, or did not answer in time.
    #[error("{name} did not start; its log is {log}")]
    NotReady {
        /// The name of the server.
        name: &'static str,
        /// The log, which says why.
        log: PathBuf,
    },
}

fn at<'a>(path: &'a Path) -> impl FnOnce(io::Error) -> ServerError + 'a {
    move |error| ServerError::Io(path.display().to_string(), error)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Redis,
    MySql,
}

/// The way to start a server, as often as needed.
#[derive(Debug, Clone)]
pub struct Spec {
    kind: Kind,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    /// The port on 127.0.0.1.
    pub port: u16,
}

/// A free port on 127.0.0.1. No process that asks here gets the same port before this process has
/// ended.
///
/// The port lies outside the range that the system gives to clients: a client could take it before
/// the server that it is meant for.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> io::Result<u16> {
    const PORTS: RangeInclusive<u16> = 15_000..=32_000;
    // Servers speak TCP. The UDP port of the same number is held as a sign that the port is taken,
    // and is freed with the process.
    static GIVEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    for _ in PORTS {
        let port = rand::random_range(PORTS);
        let address = (Ipv4Addr::LOCALHOST, port);
        if let Ok(sign) = UdpSocket::bind(address)
            && TcpListener::bind(address).is_ok()
        {
            let mut given = lock(&GIVEN);
            given.push(sign);
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Environment variables that name the Redis and the MySQL program to start, instead of the first
/// one found. `make test-compat` runs the tests on other versions with them.
const CHOSEN: [(&str, &str); 2] = [
    ("redis-server", "REDIS_SERVER"),
    ("mariadbd", "MYSQL_SERVER"),
];

/// Finds a program on PATH, or where packages put servers.
#[must_use]
pub fn find(names: &[&str]) -> Option<PathBuf> {
    const ELSEWHERE: [&str; 6] = [
        "/usr/sbin",
        "/usr/libexec",
        "/usr/local/sbin",
        "/usr/local/bin",
        "/opt/homebrew/bin",
        "/opt/homebrew/opt/mysql/bin",
    ];
    let chosen = CHOSEN
        .iter()
        .find(|(first, _)| names.first() == Some(first));
    if let Some(program) = chosen.and_then(|(_, variable)| std::env::var_os(variable)) {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(ELSEWHERE.iter().map(PathBuf::from))
        .collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}

/// Whether a MySQL (not MariaDB) server is installed.
#[must_use]
pub fn has_mysql() -> bool {
    find(&["mysqld"]).is_some_and(|program| {
        let version = std::process::Command::new(program)
            .arg("--version")
            .output();
        version.is_ok_and(|out| !String::from_utf8_lossy(&out.stdout).contains("MariaDB"))
    })
}

impl Spec {
    /// A Redis (or Valkey) that keeps its data in `folder`.
    ///
    /// # Errors
    /// [`ServerError`] when it is not installed or the folder cannot be made.
    pub fn redis(folder: &Path, durability: Durability) -> Result<Self, ServerError> {
        const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
        let program = find(&NAMES).ok_or(ServerError::Missing(
            "redis-server, valkey-server",
            "redis-server",
        ))?;
        fs::create_dir_all(folder).map_err(at(folder))?;
        let port = free_port().map_err(at(folder))?;
        let arguments = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".to_owned()),
            ("--dir", folder.display().to_string()),
            ("--save", String::new()),
            ("--appendonly", "yes".to_owned()),
            ("--appendfsync", durability.as_str().to_owned()),
            ("--maxmemory-policy", "noeviction".to_owned()),
            // Under load the file grows by 25 MB a second. With the default of 64 MB a fork would
            // rewrite it every few seconds, on cores that are needed.
            ("--auto-aof-rewrite-min-size", "1gb".to_owned()),
        ];
        let arguments = arguments
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect();
        Ok(Self {
            kind: Kind::Redis,
            program,
            arguments,
            folder: folder.to_owned(),
            port,
        })
    }

    /// A MariaDB (or MySQL) that keeps its data in `folder`. The data is made if there is none yet.
    ///
    /// # Errors
    /// [`ServerError`] when it is not installed or its tables cannot be made.
    pub async fn mysql(folder: &Path) -> Result<Self, ServerError> {
        Self::database(folder, &["mariadbd", "mysqld"]).await
    }

    /// A MySQL, even where MariaDB is installed too.
    ///
    /// # Errors
    /// [`ServerError`] when it is not installed or its tables cannot be made.
    pub async fn oracle_mysql(folder: &Path) -> Result<Self, ServerError> {
        Self::database(folder, &["mysqld"]).await
    }

    async fn database(folder: &Path, names: &[&str]) -> Result<Self, ServerError> {
        let program = find(names).ok_or(ServerError::Missing(
            "mariadbd, mysqld",
            "mariadb-server-core or mysql-server",
        ))?;
        fs::create_dir_all(folder).map_err(at(folder))?;
        let data = folder.join("data");
        // The temporary folder is the server's own: a server that starts removes every temporary
        // table in it, and in a shared folder it would remove those of its neighbours.
        let temporary = folder.join("tmp");
        fs::create_dir_all(&temporary).map_err(at(&temporary))?;
        if !data.is_dir() {
            initialize(&program, folder, &data).await?;
        }
        let port = free_port().map_err(at(folder))?;
        let mut socket = folder.join("mysql.sock");
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            socket = std::env::temp_dir().join(format!("stock-mysql-{port}.sock"));
        }
        let mut arguments = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", data.display()),
            format!("--tmpdir={}", temporary.display()),
            format!("--port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--socket={}", socket.display()),
            format!("--pid-file={}", folder.join("server.pid").display()),
            "--skip-log-bin".to_owned(),
            "--innodb-flush-log-at-trx-commit=1".to_owned(),
            "--innodb-buffer-pool-size=512M".to_owned(),
            "--max-connections=500".to_owned(),
        ];
        if !is_mariadb(&program) {
            // By default Debian's MySQL needs a folder that only its service has, and opens a
            // second port.
            let own = [
                "--secure-file-priv=NULL",
                "--mysqlx=OFF",
                "--loose-innodb-redo-log-capacity=512M",
            ];
            arguments.extend(own.map(str::to_owned));
        } else {
            arguments.push("--innodb-log-file-size=256M".to_owned());
        }
        if rustix::process::getuid().is_root() {
            arguments.push("--user=root".to_owned());
        }
        Ok(Self {
            kind: Kind::MySql,
            program,
            arguments,
            folder: folder.to_owned(),
            port,
        })
    }

    /// The same server, started with further arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        let more = arguments.iter().map(|&argument| argument.to_owned());
        self.arguments.extend(more);
        self
    }

    const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Redis => "redis",
            Kind::MySql => "mysql",
        }
    }

    /// The URL of a database on the server; `database` is a number for Redis and a name for MySQL.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        match self.kind {
            Kind::Redis => format!("redis://127.0.0.1:{}/{database}", self.port),
            Kind::MySql => format!("mysql://root@127.0.0.1:{}/{database}", self.port),
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The file that holds the pid of the last process that was started.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("stock.pid")
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// [`ServerError`] when it does not answer in time.
    pub async fn start(&self) -> Result<Server, ServerError> {
        let log = self.log();
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(at(&log))?;
        let error_out = out.try_clone().map_err(at(&log))?;
        // The process writes its pid before it becomes the server, so that it is found even when
        // its parent is killed meanwhile.
        let mut child = Command::new("sh")
            .args(["-c", "printf %s $$ >\"$0\"; exec \"$@\""])
            .arg(self.pid_file())
            .arg(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(error_out)
            // Ctrl-C goes to the service alone, which stops its servers after itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(at(&self.program))?;
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if self.answers().await {
                return Ok(Server {
                    spec: self.clone(),
                    child,
                });
            }
            if child.try_wait().map_err(at(&self.program))?.is_some() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ServerError::NotReady {
            name: self.name(),
            log,
        })
    }

    async fn answers(&self) -> bool {
        match self.kind {
            Kind::Redis => {
                let Ok(client) = redis::Client::open(self.url("0")) else {
                    return false;
                };
                let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                    return false;
                };
                redis::cmd("PING")
                    .query_async::<String>(&mut connection)
                    .await
                    .is_ok()
            }
            Kind::MySql => match connect(&self.url("")).await {
                Ok(connection) => connection.close().await.is_ok(),
                Err(_) => false,
            },
        }
    }

    /// Stops a server that an earlier process left behind in this folder.
    ///
    /// # Errors
    /// When the pid file cannot be removed.
    pub async fn stop_orphan(&self) -> Result<(), ServerError> {
        let file = self.pid_file();
        let Ok(text) = fs::read_to_string(&file) else {
            return Ok(());
        };
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| self.is_ours(*pid)) {
            tracing::warn!(server = self.name(), pid = %pid.as_raw_nonzero(), "stopping an orphan");
            terminate(pid, || self.is_ours(pid)).await;
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&file)(error)),
            _ => Ok(()),
        }
    }

    /// Whether the process serves this folder. A pid alone does not tell, because another process
    /// may have it by now. Any `redis-server` counts, because Redis does not show its folder.
    fn is_ours(&self, pid: Pid) -> bool {
        let ps = std::process::Command::new("ps")
            .args([
                "-ww",
                "-o",
                "stat=,command=",
                "-p",
                &pid.as_raw_nonzero().to_string(),
            ])
            .output();
        let folder = self.folder.display().to_string();
        let proc = || fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        match ps {
            Ok(out) => {
                let line = String::from_utf8_lossy(&out.stdout).into_owned();
                let is_redis = self.kind == Kind::Redis && line.contains("redis-server");
                !line.trim_start().starts_with('Z') && (line.contains(&folder) || is_redis)
            }
            Err(_) => proc().is_ok_and(|line| line.contains(&folder)),
        }
    }
}

async fn connect(url: &str) -> Result<sqlx::MySqlConnection, sqlx::Error> {
    MySqlConnectOptions::from_str(url)?
        .ssl_mode(sqlx::mysql::MySqlSslMode::Disabled)
        .connect()
        .await
}

async fn terminate(pid: Pid, is_alive: impl Fn() -> bool) {
    for (signal, limit) in [(Signal::TERM, STOP_TIMEOUT), (Signal::KILL, STOP_TIMEOUT)] {
        let sent = Instant::now();
        if kill_process(pid, signal).is_err() {
            return;
        }
        while sent.elapsed() < limit {
            if !is_alive() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn is_mariadb(program: &Path) -> bool {
    program.file_name() == Some(OsStr::new("mariadbd"))
}

/// Makes the tables of a new server. They appear in `data` only when all of them are there. An
/// attempt that is killed leaves nothing that looks like a server's data, although its process may
/// still be writing.
async fn initialize(program: &Path, folder: &Path, data: &Path) -> Result<(), ServerError> {
    const BEGUN: &str = "new-";
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(BEGUN)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "an earlier attempt is still at it");
        }
    }
    let new = folder.join(format!("{BEGUN}{:08x}", rand::random::<u32>()));
    let log = folder.join("initialize.log");
    let out = File::create(&log).map_err(at(&log))?;
    let error_out = out.try_clone().map_err(at(&log))?;
    let mut command = if is_mariadb(program) {
        let installer = find(&["mariadb-install-db", "mysql_install_db"]).ok_or(
            ServerError::Missing("mariadb-install-db", "mariadb-server-core"),
        )?;
        let mut command = Command::new(installer);
        command.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        command
    } else {
        let mut command = Command::new(program);
        command.args(["--no-defaults", "--initialize-insecure"]);
        command
    };
    command.arg(format!("--datadir={}", new.display()));
    command.env("TMPDIR", folder.join("tmp"));
    if rustix::process::getuid().is_root() {
        command.arg("--user=root");
    }
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(error_out)
        .status()
        .await;
    match status {
        Ok(status) if status.success() => fs::rename(&new, data).map_err(at(&new)),
        Ok(_) => Err(ServerError::NotReady { name: "mysql", log }),
        Err(error) => Err(at(program)(error)),
    }
}

/// A running server. Dropping it kills it; [`Server::stop`] lets it end in order.
#[derive(Debug)]
pub struct Server {
    /// The spec that the server was started with.
    pub spec: Spec,
    child: Child,
}

impl Server {
    /// The pid of the process.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }

    /// Waits until the process ends.
    pub async fn ended(&mut self) {
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "cannot wait for a server");
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid()
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, "cannot signal a server");
        }
    }

    /// Kills the process at once, as a crash would, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Starts the server again on the same port with the same data.
    ///
    /// # Errors
    /// [`ServerError`] when it does not answer.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        *self = self.spec.start().await?;
        Ok(())
    }

    /// Lets the server end in order, and kills it when it does not.
    pub async fn stop(mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            self.kill().await;
        }
        if let Err(error) = fs::remove_file(self.spec.pid_file()) {
            tracing::debug!(%error, "no pid file");
        }
    }

    /// Makes a database on a MySQL server, unless there is one of that name.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn create_database(&self, name: &str) -> Result<(), sqlx::Error> {
        let mut connection = connect(&self.spec.url("")).await?;
        let text = format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4");
        connection.execute(AssertSqlSafe(text)).await?;
        connection.close().await
    }
}
