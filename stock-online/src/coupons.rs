//! Coupons in memory. A coupon never changes, so a coupon that was read once stays right.
//!
//! Only coupons that are drawn or used are kept, and concurrent requests for one coupon share one
//! read. When a campaign opens, each instance asks MySQL once; a running campaign does not need
//! MySQL.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use sqlx::MySqlPool;
use stock_common::id::CouponId;
use stock_domain::coupon::Coupon;
use stock_mysql::coupons as table;

/// Coupons kept; about 300 bytes each.
const KEPT: u64 = 20_000;

/// A coupon is not in memory, and MySQL does not answer.
#[derive(Debug, thiserror::Error)]
#[error("a coupon cannot be read: {0}")]
pub struct Unread(Arc<sqlx::Error>);

/// How long an id without a coupon is not looked up again.
const ABSENT: Duration = Duration::from_secs(1);

/// The coupons in memory, and the ids that were found to have none.
#[derive(Debug)]
pub struct Coupons {
    known: Cache<CouponId, Arc<Coupon>>,
    absent: Cache<CouponId, ()>,
}

impl Default for Coupons {
    fn default() -> Self {
        Self {
            known: Cache::new(KEPT),
            absent: Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(ABSENT)
                .build(),
        }
    }
}

impl Coupons {
    /// Forgets that there was no coupon with this id: somebody may have asked for it a moment
    /// before the coupon was made.
    pub async fn made(&self, id: CouponId) {
        self.absent.invalidate(&id).await;
    }

    /// Finds a coupon; `None` when there is none with this id.
    ///
    /// # Errors
    /// [`Unread`] when the coupon is not in memory and MySQL does not answer.
    pub async fn find(
        &self,
        pool: &MySqlPool,
        id: CouponId,
    ) -> Result<Option<Arc<Coupon>>, Unread> {
        if self.absent.contains_key(&id) {
            return Ok(None);
        }
        let read = async {
            let found = table::find(pool, id).await?;
            found.map(Arc::new).ok_or(sqlx::Error::RowNotFound)
        };
        match self.known.try_get_with(id, read).await {
            Ok(coupon) => Ok(Some(coupon)),
            Err(error) if matches!(*error, sqlx::Error::RowNotFound) => {
                self.absent.insert(id, ()).await;
                Ok(None)
            }
            Err(error) => Err(Unread(error)),
        }
    }
}
