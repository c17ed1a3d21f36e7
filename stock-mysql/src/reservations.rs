//! Reservations in MySQL.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlPool, QueryBuilder};
use stock_common::id::{LocationId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;
use stock_domain::quantity::Quantity;
use stock_domain::reservation::{FrozenPrice, Reservation, ReservationStatus};
use stock_domain::sale::Allowance;

use super::rows::{MultiRow, push_list};

static INSERT: MultiRow = MultiRow::new(
    "INSERT INTO reservations (id, user_id, product_id, location_id, quantity, ttl_ms, sale_id, \
     sale_limit, hold_limit, price, unit_price) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);

/// A reservation as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReservation {
    /// The id of the reservation.
    pub id: Position,
    /// The reservation as it was made.
    pub reservation: Reservation,
    /// The status of the reservation.
    pub status: ReservationStatus,
    /// The order that took the reservation.
    pub order_id: Option<Position>,
}

/// The filter of [`list`].
#[derive(Debug, Clone, Default)]
pub struct ReservationFilter {
    /// Only reservations of this user.
    pub user: Option<UserId>,
    /// Only reservations of this product.
    pub product: Option<ProductId>,
    /// Only reservations with this status.
    pub status: Option<ReservationStatus>,
    /// Only reservations with ids below this one.
    pub before: Option<Position>,
    /// Largest number of reservations.
    pub limit: u32,
}

/// Inserts reservations that were made.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    made: &[(Position, Reservation)],
) -> Result<(), sqlx::Error> {
    INSERT
        .execute(connection, made, |query, (id, of)| {
            let limited = of.allowance.map(|allowance| allowance.sale_id);
            let sale = of.frozen.map_or(limited, |frozen| frozen.sale_id);
            query
                .bind(id.get())
                .bind(of.user_id.0)
                .bind(of.product_id.0)
                .bind(of.location_id.0)
                .bind(of.quantity.get())
                .bind(of.ttl_ms)
                .bind(sale.map(|sale| sale.0))
                .bind(of.allowance.map(|allowance| allowance.limit))
                .bind(of.hold_limit)
                .bind(of.frozen.map(|frozen| frozen.price.get()))
                .bind(of.frozen.map(|frozen| frozen.unit_price.get()))
        })
        .await
}

/// Sets the status of reservations; a reservation that is missing (a dead letter) is skipped.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_status(
    connection: &mut MySqlConnection,
    ended: &[Position],
    status: ReservationStatus,
) -> Result<(), sqlx::Error> {
    static SET: MultiRow = MultiRow::new(
        "UPDATE reservations SET status = ?, ended_at = NOW(3) WHERE",
        "id = ?",
        "",
    );
    SET.set(connection, status.as_str(), ended).await
}

/// Notes which orders took reservations.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_ordered(
    connection: &mut MySqlConnection,
    orders: &[(Position, Position)],
) -> Result<(), sqlx::Error> {
    for (reservation, order) in orders {
        sqlx::query(
            "UPDATE reservations SET status = 'CONFIRMED', order_id = ?, ended_at = NOW(3) \
             WHERE id = ?",
        )
        .bind(order.get())
        .bind(reservation.get())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Makes the reservation of an order that never takes effect live again.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget_order(
    connection: &mut MySqlConnection,
    order: Position,
    reservation: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE reservations SET status = 'PENDING', order_id = NULL, ended_at = NULL \
         WHERE id = ? AND order_id = ?",
    )
    .bind(reservation.get())
    .bind(order.get())
    .execute(connection)
    .await?;
    Ok(())
}

struct Row {
    id: u64,
    user_id: u64,
    product_id: u64,
    location_id: u64,
    quantity: u32,
    ttl_ms: u64,
    sale_id: Option<u64>,
    sale_limit: Option<u32>,
    hold_limit: u32,
    price: Option<i64>,
    unit_price: Option<i64>,
    status: String,
    order_id: Option<u64>,
}

from_row!(Row {
    id,
    user_id,
    product_id,
    location_id,
    quantity,
    ttl_ms,
    sale_id,
    sale_limit,
    hold_limit,
    price,
    unit_price,
    status,
    order_id
});

const COLUMNS: &str = "SELECT id, user_id, product_id, location_id, quantity, ttl_ms, sale_id, \
     sale_limit, hold_limit, price, unit_price, CAST(status AS CHAR) AS status, order_id \
     FROM reservations";

fn parse(row: Row) -> Option<StoredReservation> {
    let sale_id = row.sale_id.map(SaleId);
    let frozen = match row.price.zip(row.unit_price) {
        None => None,
        Some((price, unit_price)) => Some(FrozenPrice {
            price: Money::new(price).ok()?,
            unit_price: Money::new(unit_price).ok()?,
            sale_id,
        }),
    };
    Some(StoredReservation {
        id: Position::new(row.id),
        reservation: Reservation {
            user_id: UserId(row.user_id),
            product_id: ProductId(row.product_id),
            location_id: LocationId(row.location_id),
            quantity: Quantity::new(row.quantity).ok()?,
            ttl_ms: row.ttl_ms,
            allowance: sale_id.zip(row.sale_limit).map(Allowance::from),
            hold_limit: row.hold_limit,
            frozen,
        },
        status: ReservationStatus::parse(&row.status)?,
        order_id: row.order_id.map(Position::new),
    })
}

/// Finds one reservation.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    pool: &MySqlPool,
    id: Position,
) -> Result<Option<StoredReservation>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{COLUMNS} WHERE id = ?")))
        .bind(id.get())
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(parse))
}

/// Lists reservations, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    filter: &ReservationFilter,
) -> Result<Vec<StoredReservation>, sqlx::Error> {
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(COLUMNS);
    let before = filter.before.map_or(u64::MAX, Position::get);
    query.push(" WHERE id < ").push_bind(before);
    if let Some(user) = filter.user {
        query.push(" AND user_id = ").push_bind(user.0);
    }
    if let Some(product) = filter.product {
        query.push(" AND product_id = ").push_bind(product.0);
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    query
        .push(" ORDER BY id DESC LIMIT ")
        .push_bind(filter.limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// The reservations between two ids, both included, in order: for `verify`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn between(
    pool: &MySqlPool,
    first: Position,
    last: Position,
) -> Result<Vec<StoredReservation>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id BETWEEN ? AND ? ORDER BY id");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(first.get())
        .bind(last.get())
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// Live reservations after an id, in order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn pending(
    connection: &mut MySqlConnection,
    after: Position,
    limit: u32,
) -> Result<Vec<StoredReservation>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE status = 'PENDING' AND id > ? ORDER BY id LIMIT ?");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(after.get())
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// The status of each of some reservations; missing ones are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_ids(
    pool: &MySqlPool,
    ids: &[Position],
) -> Result<HashMap<Position, ReservationStatus>, sqlx::Error> {
    let mut found = HashMap::with_capacity(ids.len());
    for part in ids.chunks(500) {
        let mut query: QueryBuilder<MySql> =
            QueryBuilder::new("SELECT id, CAST(status AS CHAR) FROM reservations WHERE id IN ");
        let ids: Vec<_> = part.iter().map(|id| id.get()).collect();
        push_list(&mut query, &ids);
        let rows: Vec<(u64, String)> = query.build_query_as().fetch_all(pool).await?;
        let read = |(id, status): (u64, String)| {
            Some((Position::new(id), ReservationStatus::parse(&status)?))
        };
        found.extend(rows.into_iter().filter_map(read));
    }
    Ok(found)
}
