//! Proves the ledger: each hour what came since the last proof and a part of the rest, so that all of it is proved
//! again within a day; and at once when an admin asks for it.

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
        Ok(Some(held)) => prove(&app, held, false).await,
        Ok(None) => tracing::debug!("another instance is verifying the ledger"),
        Err(error) => tracing::warn!(%error, "verify will be tried again at its next time"),
    }
}

/// Takes the proof for this instance, with connections of its own: a long proof takes none of the jobs'.
///
/// # Errors
/// When MySQL does not answer.
pub async fn claim(app: &App) -> Result<Option<(Claim, MySqlPool)>, sqlx::Error> {
    let pool = stock_mysql::pool(&app.config, Role::Tool)?;
    let claim = jobs::claim(&pool, CheckKind::Verify.as_str()).await?;
    Ok(claim.map(|claim| (claim, pool)))
}

/// Proves it, and says what came of it; the metric and the list of checks follow what MySQL notes.
pub async fn prove(app: &App, (claim, pool): (Claim, MySqlPool), full: bool) {
    let mut progress = |_done, _all| {};
    let proving = verify(&pool, &app.ledger, full, &mut progress);
    let proved = tokio::select! {
        () = app.closing.cancelled() => return,
        proved = proving => proved,
    };
    let differences = match proved {
        Ok(report) => report.differences.len(),
        Err(error) => return tracing::warn!(%error, "the ledger could not be verified"),
    };
    if differences > 0 {
        tracing::error!(differences, "the ledger is not proved");
    }
    if let Err(error) = claim.succeed().await {
        tracing::warn!(%error, "the end of a verify was not noted");
    }
}
