//! Writes the daily reports of points: of the day before, and of days that were missed.

use std::sync::Arc;
use std::time::Duration;

use stock_engine::points_report::{self, ReportError};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How long to wait at a time for the fence to open.
const PATIENCE: Duration = Duration::from_secs(60);
/// Attempts of one run, and the pause between them.
const ATTEMPTS: u32 = 240;
const RETRY: Duration = Duration::from_secs(60);

/// Writes at start the reports of days that ended while no scheduler ran.
pub(super) async fn at_start(app: Arc<App>, shutdown: CancellationToken) {
    let reporting = async {
        while !app.ledger.wait_open(PATIENCE).await {}
        run(Arc::clone(&app)).await;
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = reporting => {}
    }
}

/// Writes the reports that are due; tries again until all are written.
pub(super) async fn run(app: Arc<App>) {
    for _ in 0..ATTEMPTS {
        match write_due(&app).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "reports of points will be written later"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn write_due(app: &App) -> Result<(), ReportError> {
    let (zone, now_ms) = (app.config.tz(), app.ledger.redis_now_ms());
    for date in points_report::due(&app.pool, zone, now_ms).await? {
        match points_report::write(&app.jobs_pool, &app.ledger, zone, date).await? {
            Some(users) => tracing::info!(%date, users, "wrote the day's reports of points"),
            None => tracing::debug!(%date, "another instance is writing reports of points"),
        }
    }
    Ok(())
}
