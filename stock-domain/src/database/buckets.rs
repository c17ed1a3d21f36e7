//! Which products' stock is divided, in MySQL.

use std::collections::HashMap;

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::ProductId;

use super::accounts;
use crate::account::{Account, Level};
use crate::bucket::{self, Bucket, Buckets};

/// Reads all of them.
///
/// # Errors
/// When MySQL does not answer.
pub async fn load(connection: &mut MySqlConnection) -> Result<Buckets, sqlx::Error> {
    let rows: Vec<(u64, u16, bool)> =
        sqlx::query_as("SELECT product_id, slot, is_open FROM buckets ORDER BY product_id, slot")
            .fetch_all(connection)
            .await?;
    let mut buckets = Buckets::default();
    for (product, slot, is_open) in rows {
        buckets.add(ProductId(product), Bucket { slot, is_open });
    }
    Ok(buckets)
}

/// Opens these buckets of a product, and closes its others.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set(pool: &MySqlPool, product: ProductId, slots: &[u16]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "UPDATE buckets SET is_open = 0, closed_at = NOW(3) WHERE product_id = ? AND is_open = 1",
    )
    .bind(product.0)
    .execute(&mut *transaction)
    .await?;
    for slot in slots {
        sqlx::query(
            "INSERT INTO buckets (product_id, slot) VALUES (?, ?) ON DUPLICATE KEY UPDATE is_open = 1",
        )
        .bind(product.0)
        .bind(slot)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// Forgets a bucket that was closed more than a minute ago and is empty: nothing that was taken from it is on its way
/// back.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool, product: ProductId, slot: u16) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM buckets WHERE product_id = ? AND slot = ? AND is_open = 0 \
         AND closed_at < NOW(3) - INTERVAL 1 MINUTE AND NOT EXISTS (SELECT 1 FROM branches \
         WHERE state = 'HELD' AND updated_at < NOW(3) - INTERVAL 30 SECOND)",
    )
    .bind(product.0)
    .bind(slot)
    .execute(pool)
    .await?;
    Ok(())
}

/// Reads accounts by name at the watermark, without a lock; a product's stock is what all its shares hold. Accounts that
/// MySQL lacks are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn levels(
    connection: &mut MySqlConnection,
    names: &[Account],
) -> Result<HashMap<Account, Level>, sqlx::Error> {
    let buckets = load(connection).await?;
    let all: Vec<Account> = names
        .iter()
        .flat_map(|name| buckets.shares(*name))
        .collect();
    let levels = accounts::read(connection, &all).await?;
    let level = |name: &Account| Some((*name, bucket::sum(&levels, &buckets.shares(*name))?));
    Ok(names.iter().filter_map(level).collect())
}
