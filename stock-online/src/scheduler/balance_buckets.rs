//! Moves stock between the shares of divided products, so that each shard goes on selling: once a second, on one
//! instance.

use std::sync::Arc;
use std::time::Duration;

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
        let units = app.ledger.balance(product).await?;
        if units > 0 {
            tracing::info!(%product, units, "moved stock between shards");
        }
    }
    Ok(jobs::succeed(claim, JOB).await?)
}
