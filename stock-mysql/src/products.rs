//! Products in MySQL: names, prices and statuses. The stock of a product is in its accounts.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlExecutor, MySqlPool, QueryBuilder};
use stock_common::id::ProductId;
use stock_common::money::Money;
use stock_domain::catalog::{Part, Product, ProductFields, ProductFilter, ProductStatus};
use stock_domain::journal::Idempotency;
use stock_domain::sku::Sku;

use super::rows::{MultiRow, push_list};
use super::sales;

/// The key of a request that creates something, and the fingerprint of that request; 16 bytes each.
#[derive(Debug, Clone)]
pub struct CreationKey {
    /// Hash of the user and the Idempotency-Key.
    pub key_hash: Vec<u8>,
    /// Hash of the request.
    pub fingerprint: Vec<u8>,
}

impl CreationKey {
    /// The creation key of a request; `None` when its hashes do not have 16 bytes.
    #[must_use]
    pub fn of(known: &Idempotency) -> Option<Self> {
        Some(Self {
            key_hash: super::journal::hash_bytes(&known.key)?,
            fingerprint: super::journal::hash_bytes(&known.fingerprint)?,
        })
    }
}

struct Row {
    id: u64,
    name: String,
    sku: Option<String>,
    description: String,
    price: i64,
    status: String,
    min_stock_level: i64,
    reorder_point: i64,
    revision: u64,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
    is_deleted: bool,
    governed: sales::Governed,
}

from_row!(Row { id, name, sku, description, price, status, min_stock_level, reorder_point, revision, created_at, updated_at, is_deleted; governed });

/// Products with the sale and the discount that govern their price.
static SELECT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT p.id, p.name, p.sku, p.description, p.price, CAST(p.status AS CHAR) AS status, \
         p.min_stock_level, p.reorder_point, p.revision, p.created_at, p.updated_at, \
         p.is_deleted, {} FROM products p {}",
        sales::COLUMNS,
        sales::JOINS
    )
});

fn parse(row: Row) -> Option<Product> {
    Some(Product {
        id: ProductId(row.id),
        fields: ProductFields {
            name: row.name,
            sku: row.sku.and_then(|sku| Sku::try_from(sku).ok()),
            description: row.description,
            price: Money::new(row.price).ok()?,
            status: ProductStatus::parse(&row.status)?,
            min_stock_level: row.min_stock_level,
            reorder_point: row.reorder_point,
        },
        revision: row.revision,
        created_at: row.created_at,
        updated_at: row.updated_at,
        is_deleted: row.is_deleted,
        discount: row.governed.discount(),
        sale: row.governed.sale(),
    })
}

/// Inserts a product and returns its id. A key that was used before violates the unique key
/// `products_key`, and a SKU that another product has violates `products_sku`; both are error 1062.
///
/// # Errors
/// When MySQL does not answer, the key was used before, or the SKU is taken.
pub async fn insert(
    pool: &MySqlPool,
    fields: &ProductFields,
    key: Option<&CreationKey>,
) -> Result<ProductId, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO products (name, sku, description, price, status, min_stock_level, \
         reorder_point, key_hash, fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&fields.name)
    .bind(fields.sku.as_ref().map(Sku::as_str))
    .bind(&fields.description)
    .bind(fields.price.get())
    .bind(fields.status.as_str())
    .bind(fields.min_stock_level)
    .bind(fields.reorder_point)
    .bind(key.map(|key| key.key_hash.as_slice()))
    .bind(key.map(|key| key.fingerprint.as_slice()))
    .execute(pool)
    .await?;
    Ok(ProductId(done.last_insert_id()))
}

/// Finds the product that was created under a key, with the fingerprint of that request.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find_by_key(
    pool: &MySqlPool,
    key: &CreationKey,
) -> Result<Option<(ProductId, Vec<u8>)>, sqlx::Error> {
    let row: Option<(u64, Vec<u8>)> =
        sqlx::query_as("SELECT id, fingerprint FROM products WHERE key_hash = ?")
            .bind(&key.key_hash)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(id, fingerprint)| (ProductId(id), fingerprint)))
}

/// Changes a product if its revision is still `revision`; `false` when it was changed or deleted.
///
/// # Errors
/// When MySQL does not answer.
pub async fn update(
    executor: impl MySqlExecutor<'_>,
    id: ProductId,
    fields: &ProductFields,
    revision: u64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE products SET name = ?, sku = ?, description = ?, price = ?, status = ?, \
         min_stock_level = ?, reorder_point = ?, revision = revision + 1 \
         WHERE id = ? AND revision = ? AND is_deleted = 0",
    )
    .bind(&fields.name)
    .bind(fields.sku.as_ref().map(Sku::as_str))
    .bind(&fields.description)
    .bind(fields.price.get())
    .bind(fields.status.as_str())
    .bind(fields.min_stock_level)
    .bind(fields.reorder_point)
    .bind(id.0)
    .bind(revision)
    .execute(executor)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Sets the deleted flag of a product if its revision is still `revision`; `false` when it was
/// changed or deleted. Its SKU is free from then on.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(
    executor: impl MySqlExecutor<'_>,
    id: ProductId,
    revision: u64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE products SET is_deleted = 1, deleted_at = NOW(3), sku = NULL, \
         revision = revision + 1 WHERE id = ? AND revision = ? AND is_deleted = 0",
    )
    .bind(id.0)
    .bind(revision)
    .execute(executor)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Finds a product that was not deleted.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    executor: impl MySqlExecutor<'_>,
    id: ProductId,
) -> Result<Option<Product>, sqlx::Error> {
    let text = format!("{} WHERE p.id = ? AND p.is_deleted = 0", *SELECT);
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(id.0)
        .fetch_optional(executor)
        .await?;
    Ok(row.and_then(parse))
}

/// Adds the conditions of a filter, its cursor aside.
fn narrow(query: &mut QueryBuilder<MySql>, filter: &ProductFilter) {
    query.push(" WHERE p.is_deleted = 0");
    if let Some(name) = &filter.name {
        let escaped = name
            .replace('\\', "\\\\")
            .replace('%', "\\%")
            .replace('_', "\\_");
        query
            // The server's own collation may take all emoji for equal.
            .push(" AND p.name COLLATE utf8mb4_unicode_520_ci LIKE ")
            .push_bind(format!("%{escaped}%"));
    }
    if let Some(sku) = &filter.sku {
        query.push(" AND p.sku = ").push_bind(sku.as_str());
    }
    if let Some(status) = filter.status {
        query.push(" AND p.status = ").push_bind(status.as_str());
    }
    if let Some(status) = filter.without {
        query.push(" AND p.status <> ").push_bind(status.as_str());
    }
    if let Some(price) = filter.price_gte {
        query.push(" AND p.price >= ").push_bind(price);
    }
    if let Some(price) = filter.price_lte {
        query.push(" AND p.price <= ").push_bind(price);
    }
}

/// A part of the list of products that were not deleted, and the length of the list.
///
/// # Errors
/// When MySQL does not answer.
pub async fn part(
    pool: &MySqlPool,
    filter: &ProductFilter,
    part: Part,
) -> Result<(Vec<Product>, u64), sqlx::Error> {
    let mut query: QueryBuilder<MySql> = QueryBuilder::new("SELECT COUNT(*) FROM products p");
    narrow(&mut query, filter);
    let count: i64 = query.build_query_scalar().fetch_one(pool).await?;
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(SELECT.as_str());
    narrow(&mut query, filter);
    query
        .push(match part.is_rising {
            true => " ORDER BY p.id LIMIT ",
            false => " ORDER BY p.id DESC LIMIT ",
        })
        .push_bind(filter.limit)
        .push(" OFFSET ")
        .push_bind(part.offset);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    let found = rows.into_iter().filter_map(parse).collect();
    Ok((found, u64::try_from(count).unwrap_or_default()))
}

/// Lists products that were not deleted, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool, filter: &ProductFilter) -> Result<Vec<Product>, sqlx::Error> {
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(SELECT.as_str());
    narrow(&mut query, filter);
    if let Some(before) = filter.before {
        query.push(" AND p.id < ").push_bind(before.0);
    }
    query
        .push(" ORDER BY p.id DESC LIMIT ")
        .push_bind(filter.limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// Products that were changed since a moment, deleted ones included, and the moment up to which
/// this list is complete. `None` reads all products.
///
/// # Errors
/// When MySQL does not answer.
pub async fn changed_since(
    pool: &MySqlPool,
    since: Option<NaiveDateTime>,
) -> Result<(Vec<Product>, NaiveDateTime), sqlx::Error> {
    // A transaction that commits late carries an older time than this statement sees, so the moment
    // lies ten seconds back.
    let now: NaiveDateTime = sqlx::query_scalar("SELECT NOW(3) - INTERVAL 10 SECOND")
        .fetch_one(pool)
        .await?;
    let text = format!("{} WHERE p.updated_at >= ?", *SELECT);
    let from = since.unwrap_or_default();
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(from)
        .fetch_all(pool)
        .await?;
    Ok((rows.into_iter().filter_map(parse).collect(), now))
}

/// Products older than 3 seconds whose accounts were not opened, because a crash came between; at
/// most 1,000.
///
/// # Errors
/// When MySQL does not answer.
pub async fn unopened(pool: &MySqlPool) -> Result<Vec<ProductId>, sqlx::Error> {
    let ids: Vec<u64> = sqlx::query_scalar(
        "SELECT id FROM products WHERE opened = 0 AND is_deleted = 0 \
         AND created_at < NOW(3) - INTERVAL 3 SECOND LIMIT 1000",
    )
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(ProductId).collect())
}

/// Notes that accounts were opened. `updated_at` stays, because the catalog need not read this
/// change.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_opened(
    connection: &mut MySqlConnection,
    products: &[ProductId],
) -> Result<(), sqlx::Error> {
    static SET: MultiRow = MultiRow::new(
        "UPDATE products SET opened = 1, updated_at = updated_at WHERE",
        "id = ?",
        "",
    );
    for part in products.chunks(1_024) {
        let ids = super::rows::padded(part);
        let mut query = sqlx::query(AssertSqlSafe(SET.alternatives(ids.len())));
        for id in &ids {
            query = query.bind(id.0);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The name and the SKU of a product.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The name.
    pub name: String,
    /// The SKU; empty without one.
    pub sku: String,
}

/// The names and the SKUs of some products.
///
/// # Errors
/// When MySQL does not answer.
pub async fn words(
    pool: &MySqlPool,
    products: &[ProductId],
) -> Result<HashMap<ProductId, Words>, sqlx::Error> {
    if products.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query: QueryBuilder<MySql> =
        QueryBuilder::new("SELECT id, name, COALESCE(sku, '') FROM products WHERE id IN ");
    let ids: Vec<_> = products.iter().map(|id| id.0).collect();
    push_list(&mut query, &ids);
    let rows: Vec<(u64, String, String)> = query.build_query_as().fetch_all(pool).await?;
    let words = |(id, name, sku)| (ProductId(id), Words { name, sku });
    Ok(rows.into_iter().map(words).collect())
}

/// Whether another product has a SKU.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_taken(
    executor: impl MySqlExecutor<'_>,
    sku: &Sku,
    by_other_than: ProductId,
) -> Result<bool, sqlx::Error> {
    let found: Option<u64> =
        sqlx::query_scalar("SELECT id FROM products WHERE sku = ? AND id <> ?")
            .bind(sku.as_str())
            .bind(by_other_than.0)
            .fetch_optional(executor)
            .await?;
    Ok(found.is_some())
}

/// The products that have a SKU.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_skus(pool: &MySqlPool) -> Result<HashMap<Sku, ProductId>, sqlx::Error> {
    let rows: Vec<(String, u64)> =
        sqlx::query_as("SELECT sku, id FROM products WHERE sku IS NOT NULL")
            .fetch_all(pool)
            .await?;
    let known = rows.into_iter();
    let known = known.filter_map(|(sku, id)| Some((Sku::try_from(sku).ok()?, ProductId(id))));
    Ok(known.collect())
}
