//! Looks at a shop from outside while it is under load: how far MySQL is behind Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::cmd;
use stock_common::id::Position;

use crate::Failure;
use crate::shop::Shop;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(250);

/// One look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Seconds since the watch began.
    pub second: f64,
    /// Entries that Redis has accepted.
    pub accepted: u64,
    /// Entries that MySQL has settled.
    pub settled: u64,
    /// Time between the last accepted and the last settled entry, in seconds.
    pub lag_seconds: f64,
}

impl Look {
    /// Looks once, at Redis first. Entries that are settled in between make the lag seem smaller.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn take(
        redis: &mut redis::aio::MultiplexedConnection,
        pool: &sqlx::MySqlPool,
        prefix: &str,
        began: Instant,
    ) -> Result<Self, Failure> {
        let (accepted, ms): (u64, u64) = cmd("HMGET")
            .arg(format!("{prefix}:{{0}}:epoch"))
            .arg("number")
            .arg("ms")
            .query_async(redis)
            .await?;
        let (settled, watermark): (u64, u64) =
            sqlx::query_as("SELECT number, watermark FROM shards")
                .fetch_one(pool)
                .await?;
        let behind = ms.saturating_sub(Position::new(watermark).unix_ms());
        Ok(Self {
            second: began.elapsed().as_secs_f64(),
            accepted,
            settled,
            lag_seconds: Duration::from_millis(behind).as_secs_f64(),
        })
    }
}

/// A task that looks until it is told to stop.
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Vec<Look>, Failure>>,
}

impl Watch {
    /// Starts to look.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn start(shop: &Shop) -> Result<Self, Failure> {
        let pool = shop.pool().await?;
        let mut redis = redis::Client::open(shop.redis_url.as_str())?
            .get_multiplexed_async_connection()
            .await?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, prefix) = (Arc::clone(&stop), shop.prefix.clone());
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let mut looks = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                looks.push(Look::take(&mut redis, &pool, &prefix, began).await?);
                tokio::time::sleep(EVERY).await;
            }
            pool.close().await;
            Ok(looks)
        });
        Ok(Self { stop, task })
    }

    /// All looks.
    ///
    /// # Errors
    /// When a server did not answer.
    pub async fn stop(self) -> Result<Vec<Look>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}
