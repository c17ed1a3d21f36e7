//! The state that selling needs: the catalog, coupons, row locks and files of stock.

use std::sync::Arc;

use sqlx::MySqlPool;
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_domain::catalog::Catalog;
use stock_domain::coupon::Benefit;
use stock_domain::discount::Percentage;
use stock_engine::expiry::Expiry;
use stock_engine::row_lock::RowLocks;
use tokio::sync::{Notify, Semaphore};

use super::people::USERS_KEPT;
use crate::catalog_refresher::CatalogRefresher;
use crate::coupons::Coupons;
use crate::kept::{Kept, Silence};

/// The state that selling needs.
pub struct Selling {
    /// Products and prices in memory.
    pub catalog: Catalog,
    /// Keeps the catalog up to date.
    pub catalog_refresher: CatalogRefresher,
    /// Coupons in memory.
    pub coupons: Coupons,
    /// The benefits that a user's coupons give.
    pub benefits: Kept<UserId, Arc<[Benefit]>>,
    /// The share of an order's payment that its buyer earns as points.
    pub earn_rate: Option<Percentage>,
    /// Orders under row locks.
    pub row_locks: RowLocks,
    /// Releases expired holds when a request is refused for want of stock.
    pub expiry: Expiry,
    /// Lets one file of stock be checked at a time; a check holds two connections of the jobs'
    /// pool.
    pub imports: Semaphore,
    /// Notified when a file of stock is ready to be written.
    pub imports_wake_up: Notify,
}

impl Selling {
    pub(super) fn new(config: &Config, locking: MySqlPool, silence: &Arc<Silence>) -> Self {
        Self {
            catalog: Catalog::default(),
            catalog_refresher: CatalogRefresher::default(),
            coupons: Coupons::default(),
            benefits: Kept::new(USERS_KEPT, silence),
            // 0 is not a percentage; then nothing is earned.
            earn_rate: Percentage::from_hundredths(config.selling.points_earn_hundredths).ok(),
            row_locks: RowLocks::new(locking, config.mysql.synchronous_orders_max),
            expiry: Expiry::default(),
            imports: Semaphore::new(1),
            imports_wake_up: Notify::new(),
        }
    }
}
