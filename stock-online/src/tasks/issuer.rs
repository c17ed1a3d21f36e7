//! Reads the keys of the shop's own issuer of tokens, again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// A key that an issuer took back is refused after this time at the latest.
const EVERY: Duration = Duration::from_secs(300);
/// How long to wait after the keys were not read.
const RETRY: Duration = Duration::from_secs(5);

/// Reads until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let Some(issuer) = &app.people.tokens.issuer else {
        return shutdown.cancelled().await;
    };
    loop {
        let wait = if issuer.refresh().await { RETRY } else { EVERY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
