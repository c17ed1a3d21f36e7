//! The commands. They print results to stdout and logs to stderr, and ask no questions. Exit codes:
//! 0 done, 1 failed, 2 wrong usage.

mod archive;
#[cfg(feature = "dev")]
mod campaign;
mod create_admin;
mod dead_letters;
#[cfg(feature = "dev")]
mod dev;
mod doctor;
mod explain;
mod export;
mod import;
pub mod output;
mod points_report;
mod quarantine;
mod ready;
mod rehome;
pub mod seed;
mod serve;
mod token;
mod upkeep;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sqlx::{ConnectOptions as _, Connection as _, MySqlPool};
use stock_common::clock::Clock;
use stock_common::config::{Config, without_password};
use stock_common::telemetry;
use stock_engine::ledger;
use stock_mysql::Role;
use stock_mysql::migrate::{self, Schema};
use stock_redis::Ledger;
use tokio::time::{sleep, timeout};

use crate::readiness::is_away;

/// Any error that ends a command.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Redis-first flash-sale stock engine.
#[derive(Debug, Parser)]
#[command(name = "stock-online", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// The options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Read `STOCK_*` settings from a file of NAME=value lines, below the environment's
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Report as one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a private Redis and MySQL, migrate, seed once, and serve
    #[cfg(feature = "dev")]
    Dev(dev::DevArgs),
    /// Run the service, or some of its roles
    Serve(serve::ServeArgs),
    /// Apply pending migrations and write the first epoch
    Migrate,
    /// Write users, products and stores to try things with
    Seed(seed::SeedArgs),
    /// Make an account that may write catalog and stock; its password is read from stdin
    CreateAdmin(create_admin::CreateAdminArgs),
    /// Print access tokens
    Token(token::TokenArgs),
    /// Verify that nothing was lost or sold twice
    Verify(upkeep::VerifyArgs),
    /// Compare Redis and MySQL at a watermark
    Reconcile(upkeep::ReconcileArgs),
    /// Rebuild Redis from MySQL after a loss of data
    Recover(upkeep::RecoverArgs),
    /// Give the ledger another number of shards, while nothing is sold
    Rehome(rehome::RehomeArgs),
    /// Move months of the journal into files
    Archive(archive::ArchiveArgs),
    /// List dead letters, or write their tables again
    DeadLetters(dead_letters::DeadLettersArgs),
    /// List accounts under quarantine, or release one
    Quarantine(quarantine::QuarantineArgs),
    /// Write stock from a CSV file, all of it or nothing
    Import(import::ImportArgs),
    /// Print every stock level as CSV
    Export(export::ExportArgs),
    /// Write the daily reports of points of a day, again if need be
    PointsReport(points_report::PointsReportArgs),
    /// Ask the service on this machine whether it takes orders, as a health check does
    Ready,
    /// Check the servers' settings, versions, clocks and durability
    Doctor,
    /// Say everything that is known about an order or an account
    Explain(explain::ExplainArgs),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(cli));
    // A normal shutdown would wait for a name lookup that does not end.
    runtime.shutdown_background();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::complain(&format!("stock-online: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<bool, Failure> {
    let Cli { common, command } = cli;
    // `dev` makes its own settings; no settings file has to exist.
    #[cfg(feature = "dev")]
    if let Command::Dev(args) = command {
        return dev::run(args).await;
    }
    let config = Config::load(common.env_file.as_deref())?;
    let is_service = matches!(command, Command::Serve(_));
    let filter = if is_service { &config.http.log } else { "warn" };
    telemetry::init(filter, is_service && config.http.request_profile);
    let waits_for_mysql = !matches!(
        command,
        Command::Serve(_) | Command::Token(_) | Command::Ready
    );
    let done = tokio::select! {
        done = dispatch(&config, &common, command) => done,
        silence = silence(&config), if waits_for_mysql => Err(silence),
    };
    done.map_err(|error| with_server(error, &config))
}

async fn dispatch(config: &Config, common: &Common, command: Command) -> Result<bool, Failure> {
    match command {
        #[cfg(feature = "dev")]
        Command::Dev(_) => Ok(false),
        Command::Serve(args) => serve::run(config.clone(), args).await,
        Command::Migrate => serve::migrate(config).await,
        Command::Seed(args) => seed::run(config, &args).await,
        Command::CreateAdmin(args) => create_admin::run(config, &args).await,
        Command::Token(args) => token::run(config, &args),
        Command::Verify(args) => upkeep::verify(config, common, &args).await,
        Command::Reconcile(args) => upkeep::reconcile(config, common, &args).await,
        Command::Recover(args) => upkeep::recover(config, common, &args).await,
        Command::Rehome(args) => rehome::run(config, common, &args).await,
        Command::Archive(args) => archive::run(config, common, &args).await,
        Command::DeadLetters(args) => dead_letters::run(config, common, &args).await,
        Command::Quarantine(args) => quarantine::run(config, common, &args).await,
        Command::Import(args) => import::run(config, common, &args).await,
        Command::Export(args) => export::run(config, &args).await,
        Command::PointsReport(args) => points_report::run(config, common, &args).await,
        Command::Ready => ready::run(config).await,
        Command::Doctor => doctor::run(config, common).await,
        Command::Explain(args) => explain::run(config, common, &args).await,
    }
}

/// The ways to name the servers.
const NAMED_BY: &str = "is that the right one, and up? STOCK_DATABASE_URL and STOCK_REDIS_URL name the servers: in the \
                        environment, in stock.toml, or in a file of lines NAME=value that --env-file names";

/// Adds to an error that a server caused the server's address and the ways to name another server.
/// Any other error stays as it is.
fn with_server(error: Failure, config: &Config) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(of) = cause {
        let url = match (of.is::<redis::RedisError>(), of.is::<sqlx::Error>()) {
            (true, _) => Some(&config.redis.redis_url),
            (_, true) => Some(&config.mysql.database_url),
            (false, false) => None,
        };
        if let Some(url) = url {
            let url = without_password(url);
            return format!("{error} (from {url}); {NAMED_BY}").into();
        }
        cause = of.source();
    }
    error
}

/// Puts a file's name before its error.
fn at(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| format!("{}: {error}", path.display()).into()
}

/// Time within which a MySQL that takes connections must answer; long enough for a busy one.
const SILENT_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns when MySQL is silent. The command is then given up; its finished work stands, and
/// running it again is safe. The command itself reports any other error.
async fn silence(config: &Config) -> Failure {
    let Ok(pool) = stock_mysql::pool(config, Role::Tool) else {
        return std::future::pending().await;
    };
    let mut connection = None;
    loop {
        let asking = async {
            let mut asked = match connection.take() {
                Some(known) => known,
                None => pool.connect_options().connect().await?,
            };
            asked.ping().await?;
            connection = Some(asked);
            Ok::<(), sqlx::Error>(())
        };
        if timeout(SILENT_MAX, asking).await.is_err() {
            let why = "mysql takes connections and says nothing";
            return sqlx::Error::Io(std::io::Error::new(ErrorKind::TimedOut, why)).into();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// MySQL for a command.
async fn reach_database(config: &Config) -> Result<MySqlPool, Failure> {
    let pool = stock_mysql::pool(config, Role::Tool)?;
    match pool.acquire().await {
        // The pool gives up without a cause; connecting once more shows it.
        Err(sqlx::Error::PoolTimedOut) => {
            pool.connect_options().connect().await?;
        }
        acquired => drop(acquired?),
    }
    Ok(pool)
}

/// MySQL for a command, with a schema that has all that this program needs. A schema that is ahead
/// is enough. With `needs_current` it is refused, because the command copies rows and would lose
/// columns that this program does not know.
async fn open_database(config: &Config, needs_current: bool) -> Result<MySqlPool, Failure> {
    let pool = reach_database(config).await?;
    match migrate::schema(&pool).await? {
        Schema::Current => Ok(pool),
        Schema::Behind => Err(
            "the schema of the database is behind this program: run `stock-online migrate`".into(),
        ),
        Schema::Ahead if needs_current => Err(
            "the schema of the database is ahead of this program: use the version that migrated"
                .into(),
        ),
        Schema::Ahead => {
            output::complain("the schema of the database is ahead of this program");
            Ok(pool)
        }
    }
}

/// MySQL and Redis for a command.
async fn connect(config: &Config) -> Result<(MySqlPool, Ledger), Failure> {
    let pool = open_database(config, false).await?;
    let ledger = meet(config, &pool).await?;
    for (shard, reason) in ledger.fenced() {
        let url = without_password(&config.redis.redis_url);
        let remedy = match is_away(&reason) {
            true => NAMED_BY,
            false => "`stock-online doctor` says more, and docs/recovery.md what to do",
        };
        output::complain(&format!("shard {shard}: {reason} (from {url}); {remedy}"));
    }
    Ok((pool, ledger))
}

/// How long a command waits for the fences to open before it reports why a shard is fenced.
const OPEN_MAX: Duration = Duration::from_secs(6);

/// Redis for a command. The fence gets a moment to open, and may stay fenced: after a restart of
/// Redis it opens only when no instance that may still be alive contradicts it.
async fn meet(config: &Config, pool: &MySqlPool) -> Result<Ledger, Failure> {
    let ledger = ledger::start(config, pool.clone(), Clock::system())?;
    ledger.wait_open(OPEN_MAX).await;
    Ok(ledger)
}
