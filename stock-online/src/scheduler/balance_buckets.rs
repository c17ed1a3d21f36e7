//! Moves stock between the shares of divided products, so that each shard goes on selling: once a second, on one
//! instance.

use std::sync::Arc;
use std::time::Duration;

use stock_domain::bucket::forget_emptied;
use stock_domain::database::jobs;
use tokio_util::sync::CancellationToken;

use crate::app::App;

const JOB: &str = "balance_buckets";
const EVERY: Duration = Duration::from_secs(1);

/// Runs until `shutdown`.
pub(super) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        if let Err(error) = balance(&app).await {
            tracing::warn!(%error, "stock will be moved between shards later");
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn balance(app: &App) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let products = app.ledger.layout().map(|layout| layout.buckets.products());
    let Some(products) = products.filter(|products| !products.is_empty()) else {
        return Ok(());
    };
    let Some(claim) = jobs::claim(&app.jobs_pool, JOB).await? else {
        return Ok(());
    };
    for product in products {
        // A shard that is away is no reason to leave the others' products.
        match app.ledger.balance(product).await {
            Ok(0) => {}
            Ok(units) => tracing::info!(%product, units, "moved stock between shards"),
            Err(error) => tracing::warn!(%product, %error, "stock will be moved later"),
        }
        if let Err(error) = forget_emptied((&app.pool, &app.ledger), product).await {
            tracing::debug!(%product, %error, "emptied buckets are forgotten later");
        }
    }
    Ok(claim.succeed().await?)
}
