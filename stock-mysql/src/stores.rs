//! Stores in MySQL: the locations other than the online warehouse.

use sqlx::{MySqlExecutor, MySqlPool};
use stock_common::id::LocationId;
use stock_domain::store::{Store, StoreFields};

type Row = (u64, String, f64, f64, bool);

fn parse((id, name, latitude, longitude, shares_online_stock): Row) -> Store {
    Store {
        id: LocationId(id),
        fields: StoreFields {
            name,
            latitude,
            longitude,
            shares_online_stock,
        },
    }
}

/// All stores, by id.
///
/// # Errors
/// When MySQL does not answer.
pub async fn all(pool: &MySqlPool) -> Result<Vec<Store>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, latitude, longitude, shares_online_stock FROM locations ORDER BY id",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(parse).collect())
}

/// The ids of all stores.
///
/// # Errors
/// When MySQL does not answer.
pub async fn ids(pool: &MySqlPool) -> Result<Vec<LocationId>, sqlx::Error> {
    let ids: Vec<u64> = sqlx::query_scalar("SELECT id FROM locations ORDER BY id")
        .fetch_all(pool)
        .await?;
    Ok(ids.into_iter().map(LocationId).collect())
}

/// A page of stores after an id.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    after: Option<LocationId>,
    limit: u32,
) -> Result<Vec<Store>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, latitude, longitude, shares_online_stock FROM locations WHERE id > ? \
         ORDER BY id LIMIT ?",
    )
    .bind(after.map_or(0, |after| after.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(parse).collect())
}

/// Finds a store.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    executor: impl MySqlExecutor<'_>,
    id: LocationId,
) -> Result<Option<Store>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, name, latitude, longitude, shares_online_stock FROM locations WHERE id = ?",
    )
    .bind(id.0)
    .fetch_optional(executor)
    .await?;
    Ok(row.map(parse))
}

/// Inserts a store under the given number or the next free one, and returns its id.
///
/// # Errors
/// When MySQL does not answer, or the number is taken (error 1062).
pub async fn insert(
    executor: impl MySqlExecutor<'_>,
    id: Option<LocationId>,
    fields: &StoreFields,
) -> Result<LocationId, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO locations (id, name, latitude, longitude, shares_online_stock) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(id.map(|id| id.0))
    .bind(&fields.name)
    .bind(fields.latitude)
    .bind(fields.longitude)
    .bind(fields.shares_online_stock)
    .execute(executor)
    .await?;
    Ok(id.unwrap_or(LocationId(done.last_insert_id())))
}

/// Writes all fields of a store.
///
/// # Errors
/// When MySQL does not answer.
pub async fn update(
    executor: impl MySqlExecutor<'_>,
    id: LocationId,
    fields: &StoreFields,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE locations SET name = ?, latitude = ?, longitude = ?, shares_online_stock = ? \
         WHERE id = ?",
    )
    .bind(&fields.name)
    .bind(fields.latitude)
    .bind(fields.longitude)
    .bind(fields.shares_online_stock)
    .bind(id.0)
    .execute(executor)
    .await?;
    Ok(())
}
