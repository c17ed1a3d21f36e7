//! Which products' stock is divided, in MySQL.

use std::collections::HashMap;

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::{LocationId, ProductId};

use super::accounts;
use crate::account::Account;
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
    sqlx::query("UPDATE buckets SET is_open = 0 WHERE product_id = ?")
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

/// What may be sold of each product and place, at the watermark; what has no account is absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn available(
    connection: &mut MySqlConnection,
    names: &[(ProductId, LocationId)],
) -> Result<HashMap<(ProductId, LocationId), i64>, sqlx::Error> {
    let buckets = load(connection).await?;
    let accounts = |&(product, place): &(ProductId, LocationId)| match place {
        LocationId::ONLINE => buckets.accounts(product),
        place => vec![Account::available(product, place)],
    };
    let all: Vec<Account> = names.iter().flat_map(accounts).collect();
    let levels = accounts::read(connection, &all).await?;
    let level = |name: &(ProductId, LocationId)| {
        Some((*name, bucket::sum(&levels, &accounts(name))?.balance))
    };
    Ok(names.iter().filter_map(level).collect())
}
