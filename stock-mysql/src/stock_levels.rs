//! Stock levels: available and held units of products at locations, with the thresholds that call
//! for action.

use chrono::NaiveDateTime;
use sqlx::{MySql, MySqlPool, QueryBuilder};
use stock_common::id::{LocationId, ProductId};
use stock_domain::catalog::ProductStatus;

/// The stock of a product at a location, as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockLevel {
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// Units that may be sold.
    pub available: i64,
    /// Units that are held.
    pub reserved: i64,
    /// Level at or below which the stock is low.
    pub min_stock_level: i64,
    /// Level at or below which the product is to be ordered again.
    pub reorder_point: i64,
    /// Number of postings of the `AVAILABLE` account.
    pub seq: u64,
    /// When `AVAILABLE` last moved.
    pub updated_at: NaiveDateTime,
}

/// Bounds of a number, both included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// The least.
    pub least: Option<i64>,
    /// The most.
    pub most: Option<i64>,
}

/// The filter of [`list`] and [`part`].
#[derive(Debug, Clone, Default)]
pub struct StockLevelFilter {
    /// Only stock of this product.
    pub product: Option<ProductId>,
    /// Only stock at this location.
    pub location: Option<LocationId>,
    /// Only stock that is low.
    pub is_low: bool,
    /// Only stock that is to be ordered again.
    pub needs_reorder: bool,
    /// Bounds of the units that may be sold.
    pub available: Bounds,
    /// Bounds of the units that are held.
    pub reserved: Bounds,
    /// Bounds of both together.
    pub physical: Bounds,
    /// Leaves out products in this status.
    pub without: Option<ProductStatus>,
    /// Only stock after this product and location.
    pub after: Option<(ProductId, LocationId)>,
    /// Largest number of rows.
    pub limit: u32,
}

type Row = (u64, u64, i64, Option<i64>, i64, i64, u64, NaiveDateTime);

/// Lists the stock of products that were not deleted, by product and location.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    filter: &StockLevelFilter,
) -> Result<Vec<StockLevel>, sqlx::Error> {
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(COLUMNS);
    narrow(&mut query, filter);
    if let Some((product, location)) = filter.after {
        // The first condition is a range of the key; the second one takes the beginning out of it.
        query
            .push(" AND a.owner_id >= ")
            .push_bind(product.0)
            .push(" AND (a.owner_id > ")
            .push_bind(product.0)
            .push(" OR a.place_id > ")
            .push_bind(location.0)
            .push(")");
    }
    query
        .push(" ORDER BY a.owner_id, a.place_id LIMIT ")
        .push_bind(filter.limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().map(parse).collect())
}

/// A part of the list, and the length of the list. [`StockLevelFilter::after`] does not count.
///
/// # Errors
/// When MySQL does not answer.
pub async fn part(
    pool: &MySqlPool,
    filter: &StockLevelFilter,
    offset: u32,
) -> Result<(Vec<StockLevel>, u64), sqlx::Error> {
    let mut query: QueryBuilder<MySql> = QueryBuilder::new("SELECT COUNT(*)");
    narrow(&mut query, filter);
    let count: i64 = query.build_query_scalar().fetch_one(pool).await?;
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(COLUMNS);
    narrow(&mut query, filter);
    query
        .push(" ORDER BY a.owner_id, a.place_id LIMIT ")
        .push_bind(filter.limit)
        .push(" OFFSET ")
        .push_bind(offset);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    let found = rows.into_iter().map(parse).collect();
    Ok((found, u64::try_from(count).unwrap_or_default()))
}

const COLUMNS: &str = "SELECT a.owner_id, a.place_id, a.balance, r.balance, p.min_stock_level, \
     p.reorder_point, a.seq, a.updated_at";

/// Adds the tables and the conditions of a filter, its cursor aside.
fn narrow(query: &mut QueryBuilder<MySql>, filter: &StockLevelFilter) {
    query.push(
        " FROM accounts a JOIN products p ON p.id = a.owner_id AND p.is_deleted = 0 \
         LEFT JOIN accounts r ON r.kind = 'RESERVED' AND r.owner_id = a.owner_id \
         AND r.place_id = a.place_id WHERE a.kind = 'AVAILABLE'",
    );
    if let Some(product) = filter.product {
        query.push(" AND a.owner_id = ").push_bind(product.0);
    }
    if let Some(location) = filter.location {
        query.push(" AND a.place_id = ").push_bind(location.0);
    }
    if filter.is_low {
        query.push(" AND a.balance <= p.min_stock_level");
    }
    if filter.needs_reorder {
        query.push(" AND a.balance <= p.reorder_point");
    }
    if let Some(status) = filter.without {
        query.push(" AND p.status <> ").push_bind(status.as_str());
    }
    for (number, bounds) in [
        ("a.balance", filter.available),
        ("COALESCE(r.balance, 0)", filter.reserved),
        ("a.balance + COALESCE(r.balance, 0)", filter.physical),
    ] {
        if let Some(least) = bounds.least {
            query.push(format!(" AND {number} >= ")).push_bind(least);
        }
        if let Some(most) = bounds.most {
            query.push(format!(" AND {number} <= ")).push_bind(most);
        }
    }
}

fn parse(row: Row) -> StockLevel {
    let (product, location, available, reserved, min, reorder, seq, updated_at) = row;
    StockLevel {
        product_id: ProductId(product),
        location_id: LocationId(location),
        available,
        reserved: reserved.unwrap_or_default(),
        min_stock_level: min,
        reorder_point: reorder,
        seq,
        updated_at,
    }
}
