//! Dividing a product's stock into another number of shares, while it is sold.
//!
//! 1. The buckets are opened, empty, each on its shard;
//! 2. MySQL says that they are there;
//! 3. from then on nothing is decided on the product's own shard by anybody who has not heard of them, so whoever
//!    closes the product closes them too;
//! 4. they are closed if the product is, and stock is moved into them, and out of those that are given up
//!    ([`Ledger::balance`]).
//!
//! Cut off anywhere, running it again goes on.

use std::time::Duration;

use sqlx::MySqlPool;
use stock_common::config::Config;
use stock_common::id::{ProductId, UserId};

use super::{Bucket, open, slots};
use crate::account::Account;
use crate::database::{buckets, products};
use crate::journal::DraftError;
use crate::layout::{SHARDS_MAX, product_slot};
use crate::ledger::{DecideError, Ledger, Request};
use crate::reshard::{self, ReshardError};
use crate::verdict::Verdict;

/// How long this process may take to hear of the buckets.
const HEARD_MAX: Duration = Duration::from_secs(5);

/// Why a product was not divided; running it again is right.
#[derive(Debug, thiserror::Error)]
pub enum DivideError {
    /// It makes no sense.
    #[error(
        "a product has 1 to {SHARDS_MAX} shares, each on a shard of its own: there are {0} shards"
    )]
    Number(u64),
    /// There is none.
    #[error("there is no product {0}")]
    NoProduct(ProductId),
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// There is no verdict.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// An entry cannot be written.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The ledger refused.
    #[error("refused: {0:?}")]
    Refused(Verdict),
    /// The instances were not told.
    #[error(transparent)]
    Tell(#[from] ReshardError),
    /// The layout was not read again in time.
    #[error("mysql did not say the new layout in time")]
    Unheard,
}

/// Divides a product's online stock into `count` shares: AVAILABLE on its own shard, and a bucket on each of `count` − 1
/// others. One share is no division. Returns how many units moved.
///
/// # Errors
/// [`DivideError`].
pub async fn divide(
    config: &Config,
    (pool, ledger): (&MySqlPool, &Ledger),
    product: ProductId,
    count: usize,
) -> Result<i64, DivideError> {
    let Some(layout) = ledger.layout() else {
        return Err(
            DecideError::Fenced("mysql has not said yet where everything lies".into()).into(),
        );
    };
    let slots = slots(&layout, product, count.saturating_sub(1));
    if count == 0 || slots.len() + 1 != count {
        return Err(DivideError::Number(layout.shards));
    }
    let known = products::find(pool, product).await?;
    known.ok_or(DivideError::NoProduct(product))?;
    for slot in &slots {
        decide(ledger, open(Account::bucket(product, *slot), UserId(0))?).await?;
    }
    buckets::set(pool, product, &slots).await?;
    reshard::tell(config, pool, layout.owner(product_slot(product))).await?;
    if !ledger.wait_divided(product, &slots, HEARD_MAX).await {
        return Err(DivideError::Unheard);
    }
    Ok(ledger.balance(product).await?)
}

/// Forgets the buckets of a product that were emptied.
///
/// # Errors
/// [`DivideError`].
pub async fn forget_emptied(
    (pool, ledger): (&MySqlPool, &Ledger),
    product: ProductId,
) -> Result<(), DivideError> {
    let Some(layout) = ledger.layout() else {
        return Ok(());
    };
    let closed = layout.buckets.of(product).iter().filter(|of| !of.is_open);
    for Bucket { slot, .. } in closed {
        let account = Account::bucket(product, *slot);
        let levels = ledger
            .own_levels(&[account])
            .await
            .map_err(DecideError::from)?;
        if levels.get(&account).is_none_or(|level| level.balance == 0) {
            buckets::forget(pool, product, *slot).await?;
        }
    }
    Ok(())
}

async fn decide(ledger: &Ledger, request: Request) -> Result<(), DivideError> {
    match ledger.decide(request).await? {
        Verdict::Accepted(_) => Ok(()),
        refused @ (Verdict::Refused(_) | Verdict::Replayed(_)) => {
            Err(DivideError::Refused(refused))
        }
    }
}
