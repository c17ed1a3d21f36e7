//! Removes rows that nobody needs any more: ended refresh tokens and sessions, which are refused
//! anyway, old webhook deliveries, files of stock whose check was given up, and stored answers of
//! expired Idempotency-Keys.

use std::sync::Arc;

use stock_mysql::people::{refresh_tokens, sessions};
use stock_mysql::{idempotent_requests, imports, jobs, webhooks};

use crate::app::App;

const JOB: &str = "forget_logins";

/// One run.
pub(super) async fn run(app: Arc<App>) {
    match forget(&app).await {
        Ok(Some(removed)) => tracing::info!(removed, "forgot ended logins"),
        Ok(None) => tracing::debug!("another instance is forgetting logins"),
        Err(error) => tracing::warn!(%error, "forgetting logins will be tried again"),
    }
}

async fn forget(app: &App) -> Result<Option<u64>, sqlx::Error> {
    let Some(claim) = jobs::claim(&app.jobs_pool, JOB).await? else {
        return Ok(None);
    };
    let removed = refresh_tokens::forget(&app.pool).await? + sessions::forget(&app.pool).await?;
    let delivered = webhooks::forget(&app.pool, app.config.webhooks.webhook_log_days).await?;
    let files = imports::forget(&app.pool).await?;
    let answers = idempotent_requests::forget(&app.pool).await?;
    tracing::debug!(answers, "forgot answers under idempotency keys");
    tracing::debug!(files, "forgot files of stock whose judging was given up");
    tracing::debug!(delivered, "forgot delivered batches of webhooks");
    claim.succeed().await?;
    Ok(Some(removed))
}
