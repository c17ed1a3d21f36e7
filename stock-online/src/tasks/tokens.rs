//! Reads every few seconds what other instances did to tokens, service keys and buyers.
//!
//! That is well within the minute in which a demotion, a deletion or a logout everywhere must take
//! effect.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

const EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take; a broken link may never bring one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after MySQL did not answer.
const RETRY: Duration = Duration::from_millis(500);

async fn refresh(app: &App) -> Result<(), sqlx::Error> {
    app.people.tokens.refresh(&app.pool).await?;
    app.people.service_keys.refresh(&app.pool).await?;
    app.people.buyers.refresh(&app.pool).await
}

/// Reads until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        let asked = tokio::time::timeout(PATIENCE, refresh(&app)).await;
        let wait = match asked {
            Ok(Ok(())) => EVERY,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot ask whose tokens and keys were ended");
                RETRY
            }
            Err(_elapsed) => RETRY,
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
