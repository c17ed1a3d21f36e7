//! `serve` runs the service; `migrate` sets the database up once before it.

use std::time::Duration;

use clap::Args;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_engine::recover;
use stock_mysql::migrate::{self as schema, Schema};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, output, reach_database};
use crate::serve::listen;
use crate::{ServiceRole, Start, install_metrics};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The roles that run in this process
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["http", "subscriber", "scheduler"])]
    roles: Vec<ServiceRole>,
    /// Print the effective settings, secrets masked, and exit
    #[arg(long)]
    print_config: bool,
}

/// A token that SIGINT, SIGTERM or SIGHUP cancels. A second SIGINT or SIGTERM ends the process at
/// once. A second SIGHUP does not, because a terminal that closes may send SIGHUP more than once.
pub(super) fn shutdown_on_signal() -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    // A user who starts this with `nohup` wants it to outlive the terminal.
    if !ignores_hangup() {
        let (mut hangup, cancel) = (signal(SignalKind::hangup())?, token.clone());
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                cancel.cancel();
            }
        });
    }
    let cancel = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                // Accepted orders are in the journal, so an impatient user loses nothing.
                tracing::warn!("second signal: ending at once");
                std::process::exit(1);
            }
            cancel.cancel();
        }
    });
    Ok(token)
}

/// Whether this process was started with SIGHUP ignored; `false` where the system does not tell.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    ignored.is_some_and(|mask| mask & 1 == 1)
}

pub(super) async fn run(config: Config, args: ServeArgs) -> Result<bool, Failure> {
    if args.print_config {
        output::say(&serde_json::to_string_pretty(&config.masked())?);
        return Ok(true);
    }
    config.check_secret()?;
    let listener = listen(&config.http.http_addr)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.http.http_addr))?;
    let shutdown = shutdown_on_signal()?;
    let prometheus = install_metrics();
    let start = Start {
        config,
        clock: Clock::system(),
        listener,
        parts: args.roles,
        prometheus,
    };
    crate::run(start, shutdown).await?;
    Ok(true)
}

/// Applies pending migrations and writes the first epoch. A schema that is ahead is left alone.
pub(super) async fn migrate(config: &Config) -> Result<bool, Failure> {
    let pool = reach_database(config).await?;
    prepare(config, &pool).await?;
    output::say(match schema::schema(&pool).await? {
        Schema::Ahead => "the schema is ahead of this program: there was nothing to migrate",
        Schema::Current | Schema::Behind => "migrated",
    });
    Ok(true)
}

/// Applies pending migrations and writes the first epoch, for `migrate` and `dev`.
pub(super) async fn prepare(config: &Config, pool: &sqlx::MySqlPool) -> Result<(), Failure> {
    schema::migrate(pool).await?;
    if recover::begin_first(config, pool).await? {
        // Waits until the first position lies in the past, whatever the clocks say.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
