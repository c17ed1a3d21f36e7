//! `serve` and `migrate`: the service alone, and the one-off set-up before it.

use std::time::Duration;

use clap::Args;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_domain::database::{self, Role, migrate as schema};
use stock_domain::recover;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, output};
use crate::{Part, Start, install_metrics};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Which parts run in this process
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["http", "subscriber", "scheduler"])]
    roles: Vec<Part>,
    /// Print the effective settings, secrets masked, and exit
    #[arg(long)]
    print_config: bool,
}

/// Cancelled by SIGINT or SIGTERM; a second signal ends the process at once.
pub(super) fn shutdown_on_signal() -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let cancel = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                // Accepted orders are in the journal; whoever is impatient loses nothing.
                tracing::warn!("second signal: ending at once");
                std::process::exit(1);
            }
            cancel.cancel();
        }
    });
    Ok(token)
}

pub(super) async fn run(config: Config, args: ServeArgs) -> Result<bool, Failure> {
    if args.print_config {
        output::say(&serde_json::to_string_pretty(&config.masked())?);
        return Ok(true);
    }
    config.check_secret()?;
    let listener = TcpListener::bind(&config.http_addr)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.http_addr))?;
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

/// Applies pending migrations and writes the first epoch.
pub(super) async fn migrate(config: &Config) -> Result<bool, Failure> {
    let pool = database::pool(config, Role::Tool)?;
    prepare(config, &pool).await?;
    output::say("migrated");
    Ok(true)
}

/// The same for `dev`.
pub(super) async fn prepare(config: &Config, pool: &sqlx::MySqlPool) -> Result<(), Failure> {
    schema::migrate(pool).await?;
    if recover::begin_first(config, pool).await? {
        // A moment in which the first position is already past, whatever the clocks say.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
