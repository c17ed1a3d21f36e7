//! Steps in which parts of orders were taken back, in MySQL.

use std::collections::HashMap;

use sqlx::{MySql, MySqlConnection, MySqlPool, QueryBuilder};
use stock_common::id::{LocationId, Position};
use stock_domain::order::{Shares, Step, Units, Way};

use super::rows::{MultiRow, push_list};

static INSERT: MultiRow = MultiRow::new(
    "INSERT INTO order_changes (id, order_id, way, location_id, left_units, \
     coupon_discount_amount, used_points, earned_points) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);

/// A step as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChange {
    /// The position of its entry.
    pub id: Position,
    /// The order.
    pub order_id: Position,
    /// The step.
    pub step: Step,
}

/// Inserts steps.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    changes: &[StoredChange],
) -> Result<(), sqlx::Error> {
    INSERT
        .execute(connection, changes, |query, of| {
            let Shares {
                coupon_discount,
                used_points,
                earned_points,
            } = of.step.shares;
            query
                .bind(of.id.get())
                .bind(of.order_id.get())
                .bind(of.step.way.as_str())
                .bind(of.step.location.map(|location| location.0))
                .bind(of.step.left.as_str())
                .bind(coupon_discount)
                .bind(used_points)
                .bind(earned_points)
        })
        .await
}

/// Removes the step of an entry that never takes effect.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(connection: &mut MySqlConnection, id: Position) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM order_changes WHERE id = ?")
        .bind(id.get())
        .execute(connection)
        .await?;
    Ok(())
}

type Row = (u64, u64, String, Option<u64>, String, i64, i64, i64);

fn parse(row: Row) -> Option<StoredChange> {
    let (id, order, way, location, left, coupon_discount, used_points, earned_points) = row;
    Some(StoredChange {
        id: Position::new(id),
        order_id: Position::new(order),
        step: Step {
            way: Way::parse(&way)?,
            location: location.map(LocationId),
            left,
            shares: Shares {
                coupon_discount,
                used_points,
                earned_points,
            },
        },
    })
}

/// The steps of some orders, in order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_orders(
    pool: &MySqlPool,
    orders: &[Position],
) -> Result<HashMap<Position, Vec<StoredChange>>, sqlx::Error> {
    let mut found: HashMap<Position, Vec<StoredChange>> = HashMap::new();
    for part in orders.chunks(500) {
        let ids: Vec<u64> = part.iter().map(|id| id.get()).collect();
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "SELECT id, order_id, CAST(way AS CHAR), location_id, left_units, \
             coupon_discount_amount, used_points, earned_points FROM order_changes \
             WHERE order_id IN ",
        );
        push_list(&mut query, &ids);
        query.push(" ORDER BY order_id, id");
        let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
        for change in rows.into_iter().filter_map(parse) {
            found.entry(change.order_id).or_default().push(change);
        }
    }
    Ok(found)
}

/// The units that are left after the last of some steps.
#[must_use]
pub fn left(changes: &[StoredChange]) -> Option<Units> {
    Units::parse(&changes.last()?.step.left)
}
