//! Keeps the catalog in memory as fresh as MySQL: at once when told, at the latest every few seconds.
//!
//! Only changed rows are read. A product whose accounts were not opened, because a crash came between
//! its row and its entry, is opened here.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDateTime;
use sqlx::MySqlPool;
use stock_common::id::UserId;
use stock_domain::catalog::Catalog;
use stock_domain::database::products;
use stock_domain::product;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How long to wait after MySQL did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Knows up to when the catalog is complete.
#[derive(Default)]
pub struct CatalogRefresher {
    complete_until: Mutex<Option<NaiveDateTime>>,
    /// Rung when another instance says that products have changed.
    pub bell: Notify,
}

impl CatalogRefresher {
    /// Takes over what has changed since the last time.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn refresh(&self, pool: &MySqlPool, catalog: &Catalog) -> Result<(), sqlx::Error> {
        let mut complete_until = self.complete_until.lock().await;
        let (changed, now) = products::changed_since(pool, *complete_until).await?;
        catalog.update(changed);
        *complete_until = Some(now);
        Ok(())
    }
}

/// Refreshes until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = app.catalog_refresher.bell.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        wait = Duration::from_millis(app.config.catalog_refresh_ms);
        if let Err(error) = app.catalog_refresher.refresh(&app.pool, &app.catalog).await {
            tracing::warn!(%error, "the catalog could not be refreshed");
            wait = RETRY;
            continue;
        }
        open_forgotten(&app).await;
    }
}

async fn open_forgotten(app: &App) {
    let forgotten = products::unopened(&app.pool).await.unwrap_or_default();
    for id in forgotten {
        let Ok(request) = product::open(id, UserId(0)) else {
            continue;
        };
        match app.ledger.decide(request).await {
            Ok(verdict) => tracing::info!(product.id = %id, ?verdict, "opened its accounts"),
            Err(error) => tracing::debug!(product.id = %id, %error, "cannot open its accounts yet"),
        }
    }
}
