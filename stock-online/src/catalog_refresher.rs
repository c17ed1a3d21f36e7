//! The part of the catalog in memory that MySQL has changed. Only changed rows are read.
//! [`crate::tasks::catalog`] calls it.

use chrono::NaiveDateTime;
use sqlx::MySqlPool;
use stock_domain::catalog::Catalog;
use stock_mysql::{products, works};
use tokio::sync::{Mutex, Notify};

/// Keeps the time up to which the catalog is complete.
#[derive(Default)]
pub struct CatalogRefresher {
    complete_until: Mutex<Option<NaiveDateTime>>,
    /// Notified when another instance says that products have changed.
    pub wake_up: Notify,
}

impl CatalogRefresher {
    /// Takes over the rows that changed since the last refresh.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn refresh(&self, pool: &MySqlPool, catalog: &Catalog) -> Result<(), sqlx::Error> {
        let mut complete_until = self.complete_until.lock().await;
        let since = *complete_until;
        // `now` was read before both queries, so a change in between is read again.
        let (changed, now) = products::changed_since(pool, since).await?;
        let works = works::changed_since(pool, since).await?;
        catalog.update(changed, works);
        *complete_until = Some(now);
        Ok(())
    }
}
