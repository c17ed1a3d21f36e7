//! Keeps the catalog in memory up to date with MySQL: at once when notified, otherwise every few
//! seconds.
//!
//! The task also opens the accounts of products and coupons that a crash left with a row but
//! without an entry.

use std::sync::Arc;
use std::time::Duration;

use stock_common::id::UserId;
use stock_domain::journal::DraftError;
use stock_domain::request::Request;
use stock_domain::verdict::Verdict;
use stock_domain::{coupon, product};
use stock_mysql::{coupons, products};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How long to wait after MySQL did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Refreshes until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = app.selling.catalog_refresher.wake_up.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        wait = Duration::from_millis(app.config.selling.catalog_refresh_ms);
        if let Err(error) = app
            .selling
            .catalog_refresher
            .refresh(&app.pool, &app.selling.catalog)
            .await
        {
            tracing::warn!(%error, "the catalog could not be refreshed");
            wait = RETRY;
            continue;
        }
        open_forgotten(&app).await;
    }
}

/// Sends the ledger a request that a crash kept back.
async fn open(app: &App, what: &str, request: Result<Request, DraftError>) -> Option<Verdict> {
    match app.ledger.decide(request.ok()?).await {
        Ok(verdict) => {
            tracing::info!(what, ?verdict, "opened its accounts");
            Some(verdict)
        }
        Err(error) => {
            tracing::debug!(what, %error, "cannot open its accounts yet");
            None
        }
    }
}

async fn open_forgotten(app: &App) {
    // While MySQL does not answer, nothing is opened; the next refresh asks again.
    for id in products::unopened(&app.pool).await.unwrap_or_default() {
        open(
            app,
            &format!("product {id}"),
            product::open(id, UserId::ENGINE),
        )
        .await;
    }
    for forgotten in coupons::unopened(&app.pool).await.unwrap_or_default() {
        let what = format!("coupon {}", forgotten.id);
        let verdict = open(app, &what, coupon::open(&forgotten, UserId::ENGINE)).await;
        if verdict.is_some_and(|verdict| coupon::is_taken(&forgotten, &verdict))
            && let Err(error) = coupons::delete_unopened(&app.pool, forgotten.id).await
        {
            tracing::warn!(what, %error, "a coupon whose code is another's is still there");
        }
    }
}
