//! Stock levels: available and held units of products at locations, with the thresholds that call
//! for action.

use chrono::NaiveDateTime;
use sqlx::{MySql, MySqlPool, QueryBuilder};
use stock_common::id::{LocationId, ProductId};

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

/// The filter of [`list`].
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
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(
        "SELECT a.owner_id, a.place_id, a.balance, r.balance, p.min_stock_level, \
         p.reorder_point, a.seq, a.updated_at FROM accounts a \
         JOIN products p ON p.id = a.owner_id AND p.is_deleted = 0 \
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
    Ok(rows
        .into_iter()
        .map(
            |(product, location, available, reserved, min, reorder, seq, updated_at)| StockLevel {
                product_id: ProductId(product),
                location_id: LocationId(location),
                available,
                reserved: reserved.unwrap_or_default(),
                min_stock_level: min,
                reorder_point: reorder,
                seq,
                updated_at,
            },
        )
        .collect())
}
