//! Writes files of stock that passed their check: at once when this instance received one, and also
//! files that another instance left half written.

use std::sync::Arc;
use std::time::Duration;

use stock_engine::import;
use stock_mysql::imports;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often files of other instances are looked for.
const EVERY: Duration = Duration::from_secs(2);

/// Runs until `shutdown`. A file under way is then left to another instance.
pub(super) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        if let Err(error) = apply(&app, &shutdown).await {
            tracing::warn!(%error, "files of stock will be looked for later");
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = app.selling.imports_wake_up.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn apply(app: &App, shutdown: &CancellationToken) -> Result<(), sqlx::Error> {
    for waiting in imports::applying(&app.pool).await? {
        let mut quiet = |_, _| {};
        let writing = import::apply(&app.pool, &app.ledger, waiting.id, &mut quiet);
        // Dropped in the middle, the file is continued by another instance: each part is decided
        // once.
        let done = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            done = writing => done,
        };
        match done {
            Ok(Some(done)) => {
                let (rows, failed) = (done.total, done.failed);
                tracing::info!(import = done.id, rows, failed, "wrote a file of stock");
            }
            Ok(None) => tracing::debug!(import = waiting.id, "another instance is at it"),
            // The next file may be written all the same.
            Err(error) => {
                tracing::warn!(import = waiting.id, %error, "a file of stock will be written later");
            }
        }
    }
    Ok(())
}
