//! Shares the counts of requests with the other instances, by Redis.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often counts are sent to Redis.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Sends counts to Redis until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(TELL_EVERY) => {}
        }
        if let Err(error) = app.people.limits.tell(&app.ledger).await {
            tracing::debug!(%error, "requests are counted here only");
        }
    }
}
