//! Measures several times a second how far the replicas are behind; [`stock_engine::reads`] asks
//! only replicas that follow.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

const EVERY: Duration = Duration::from_millis(100);
/// How long the primary may take to write a beat; a broken link may never answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures until `shutdown`; does nothing without replicas.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    while app.reads.has_replicas() && !shutdown.is_cancelled() {
        match tokio::time::timeout(PATIENCE, app.reads.probe()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "cannot measure how far replicas follow"),
            Err(_elapsed) => tracing::debug!("the primary does not answer"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
