//! Releases expired reservations several times a second, a bounded number at a time.
//!
//! Every scheduler does this. A hold's state lets it end only once, so no row in `jobs` has to keep
//! others out.

use std::sync::Arc;
use std::time::Duration;

use stock_engine::{cross_shard, expiry};
use stock_redis::FenceState;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How long to wait after Redis did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until `shutdown`.
pub(super) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let every = Duration::from_millis(app.config.selling.expire_reservations_ms);
    while !shutdown.is_cancelled() {
        let wait = match app.ledger.fence_state() {
            FenceState::Fenced(_) => RETRY,
            FenceState::Mending(_) => every,
            FenceState::Open(_) => match expiry::sweep(&app.ledger).await {
                // The sweep was full, so there may be more.
                Ok(swept) if swept.has_more => Duration::ZERO,
                Ok(_) => every,
                Err(error) => {
                    tracing::warn!(%error, "expired reservations will be released later");
                    RETRY
                }
            },
        };
        // Ends branches that a killed instance left held.
        if let Err(error) = cross_shard::sweep(&app.pool, &app.ledger).await {
            tracing::warn!(%error, "branches will be ended later");
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
