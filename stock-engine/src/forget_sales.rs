//! Forgetting sales: removes the limits of a sale that ended long ago from Redis and from MySQL's
//! accounts.
//!
//! First MySQL notes that the sale is forgotten, so that an order that is taken back no longer
//! gives to its limit ([`crate::lookup`]). Then its book leaves Redis, so that nothing can be
//! posted to it. When MySQL has settled everything before, its accounts are archived. If a run is
//! cut off anywhere, the next run continues it.

use std::time::Duration;

use redis::cmd;
use sqlx::MySqlPool;
use stock_common::id::SaleId;
use stock_domain::account::Book;
use stock_mysql::sales;
use stock_redis::{Ledger, ReadError};

use crate::lookup;

/// How many days after its end the limit of a sale is kept.
pub const OVER_DAYS: u32 = 7;
/// How long a run waits for MySQL to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a sale was not forgotten; the next run tries again.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// MySQL is far behind.
    #[error("mysql has not settled what was accepted before")]
    Behind,
}

/// Forgets the sales whose limits nobody needs any more; returns how many.
///
/// # Errors
/// [`ForgetError`]. A new run continues.
pub async fn forget_sales(
    pool: &MySqlPool,
    ledger: &Ledger,
    over_days: u32,
) -> Result<usize, ForgetError> {
    let over = sales::to_be_forgotten(pool, over_days).await?;
    if over.is_empty() {
        return Ok(0);
    }
    for sale in &over {
        sales::forget(pool, *sale).await?;
    }
    unlink(ledger, &over).await?;
    if !lookup::catch_up(pool, ledger, PATIENCE).await {
        return Err(ForgetError::Behind);
    }
    // An instance may have restored a book just after it was removed.
    unlink(ledger, &over).await?;
    for sale in &over {
        let accounts = sales::archive_allowances(pool, *sale).await?;
        tracing::info!(sale.id = %sale, accounts, "forgot what its buyers may still have");
    }
    Ok(over.len())
}

async fn unlink(ledger: &Ledger, over: &[SaleId]) -> Result<(), ReadError> {
    for shard in ledger.shards() {
        let mut link = shard.link()?;
        for part in over.chunks(100) {
            let books = part.iter().map(|sale| Book::Allowances(*sale));
            let keys: Vec<String> = books.map(|book| shard.keys().book(book)).collect();
            let _gone: i64 = cmd("UNLINK").arg(&keys).query_async(&mut link.read).await?;
        }
    }
    Ok(())
}
