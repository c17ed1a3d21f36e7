//! Verifies the ledger: each hour the entries since the last verification and a part of the rest,
//! so that all entries are verified again within a day; and at once when an admin asks for it.

use std::sync::Arc;

use sqlx::MySqlPool;
use stock_engine::verify::verify;
use stock_mysql::Role;
use stock_mysql::jobs::{self, Claim};
use stock_mysql::ledger_checks::CheckKind;

use crate::app::App;

/// One run by the schedule.
pub(super) async fn run(app: Arc<App>) {
    match claim(&app).await {
        Ok(Some((claim, pool))) => run_claimed(&app, claim, pool, false).await,
        Ok(None) => tracing::debug!("another instance is verifying the ledger"),
        Err(error) => tracing::warn!(%error, "verify will be tried again at its next time"),
    }
}

/// Claims the verification for this instance, with a pool of its own, so that a long verification
/// takes no connections from the jobs.
///
/// # Errors
/// When MySQL does not answer.
pub async fn claim(app: &App) -> Result<Option<(Claim, MySqlPool)>, sqlx::Error> {
    let pool = stock_mysql::pool(&app.config, Role::Tool)?;
    let claim = jobs::claim(&pool, CheckKind::Verify.as_str()).await?;
    Ok(claim.map(|claim| (claim, pool)))
}

/// Verifies the ledger and logs the result. The metric and the list of checks read the result from
/// MySQL.
pub async fn run_claimed(app: &App, claim: Claim, pool: MySqlPool, full: bool) {
    let mut progress = |_done, _all| {};
    let running = verify(&pool, &app.ledger, full, &mut progress);
    let verified = tokio::select! {
        () = app.closing.cancelled() => return,
        verified = running => verified,
    };
    let differences = match verified {
        Ok(report) => report.differences.len(),
        Err(error) => return tracing::warn!(%error, "the ledger could not be verified"),
    };
    if differences > 0 {
        tracing::error!(differences, "the ledger does not agree with itself");
    }
    if let Err(error) = claim.succeed().await {
        tracing::warn!(%error, "the end of a verify was not noted");
    }
}
