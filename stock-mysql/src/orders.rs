//! Orders and their lines in MySQL.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::{CouponId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;
use stock_domain::coupon::UsedCoupon;
use stock_domain::order::{DeliveryType, OfflineSale, Order, OrderLine, OrderStatus, Path};
use stock_domain::quantity::Quantity;
use stock_domain::sale::Allowance;

use super::buyers::buyer_of;
use super::offline_sales;
use super::rows::{Binding, MultiRow, padded};

static ORDERS: MultiRow = MultiRow::new(
    "INSERT INTO orders (id, user_id, status, path, delivery_type, store_id, total_amount) \
     VALUES",
    "(?, ?, 'SUCCESS', ?, ?, ?, ?)",
    "",
);
/// Orders with a reservation, a checkout, a coupon, points, shared online stock or a reference.
/// Most orders have none of these, and each parameter costs time.
static SPECIAL: MultiRow = MultiRow::new(
    "INSERT INTO orders (id, user_id, status, path, delivery_type, store_id, total_amount, \
     reservation_id, shares_online_stock, coupon_id, coupon_code, coupon_discount_amount, \
     used_points, earned_points, checkout_id, reference) VALUES",
    "(?, ?, 'SUCCESS', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);
static LINES: MultiRow = MultiRow::new(
    "INSERT INTO order_products (order_id, line, product_id, product_name, quantity, price, \
     unit_price) VALUES",
    "(?, ?, ?, ?, ?, ?, ?)",
    "",
);
static LIMITED_LINES: MultiRow = MultiRow::new(
    "INSERT INTO order_products (order_id, line, product_id, product_name, quantity, price, \
     unit_price, sale_id, sale_limit) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);

/// An order as MySQL has it.
#[derive(Debug, Clone)]
pub struct StoredOrder {
    /// The order's id.
    pub id: Position,
    /// The order.
    pub order: Order,
    /// The status of the order.
    pub status: OrderStatus,
}

/// The filter of [`list`].
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Only orders of this user.
    pub user: Option<UserId>,
    /// Only orders with this status.
    pub status: Option<OrderStatus>,
    /// Only orders with ids below this one.
    pub before: Option<Position>,
    /// Largest number of orders.
    pub limit: u32,
}

fn bind_order<'q>(query: Binding<'q>, (id, order): &'q (Position, Order)) -> Binding<'q> {
    query
        .bind(id.get())
        .bind(order.user_id.0)
        .bind(order.path.as_str())
        .bind(order.delivery_type.as_str())
        .bind(order.store_id)
        .bind(order.total_amount.get())
}

/// The id of an order, the number of a line from 1, and the line.
type Numbered<'a> = (Position, u16, &'a OrderLine);

fn bind_line<'q>(query: Binding<'q>, id: Position, line: u16, of: &'q OrderLine) -> Binding<'q> {
    query
        .bind(id.get())
        .bind(line)
        .bind(of.product_id.0)
        .bind(of.product_name.as_str())
        .bind(of.quantity.get())
        .bind(of.price.get())
        .bind(of.unit_price.get())
}

/// Whether the columns of `SPECIAL` are needed for an order.
fn is_special(order: &Order) -> bool {
    let points = order.used_points.max(order.earned_points);
    order.reservation_id.is_some()
        || order.checkout_id.is_some()
        || order.shares_online_stock
        || order.coupon.is_some()
        || order.reference.is_some()
        || points > Money::ZERO
}

/// Inserts orders and their lines.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    placed: &[(Position, Order)],
) -> Result<(), sqlx::Error> {
    let (special, plain): (Vec<_>, Vec<_>) =
        placed.iter().partition(|(_, order)| is_special(order));
    ORDERS
        .execute(connection, &plain, |query, of| bind_order(query, of))
        .await?;
    SPECIAL
        .execute(connection, &special, |query, of| {
            let order = &of.1;
            let points = |points: Money| (points > Money::ZERO).then_some(points.get());
            let coupon = order.coupon.as_ref();
            bind_order(query, of)
                .bind(order.reservation_id.map(Position::get))
                .bind(order.shares_online_stock)
                .bind(coupon.map(|coupon| coupon.coupon_id.0))
                .bind(coupon.map(|coupon| coupon.code.as_str()))
                .bind(coupon.map(|coupon| coupon.discount_amount.get()))
                .bind(points(order.used_points))
                .bind(points(order.earned_points))
                .bind(order.checkout_id.map(Position::get))
                .bind(order.reference.as_deref())
        })
        .await?;
    let lines = placed
        .iter()
        .flat_map(|(id, order)| (1u16..).zip(&order.lines).map(|(line, of)| (*id, line, of)));
    let (limited, plain): (Vec<Numbered<'_>>, Vec<Numbered<'_>>) =
        lines.partition(|(_, _, of)| of.allowance.is_some());
    LINES
        .execute(connection, &plain, |query, (id, line, of)| {
            bind_line(query, *id, *line, of)
        })
        .await?;
    LIMITED_LINES
        .execute(connection, &limited, |query, (id, line, of)| {
            bind_line(query, *id, *line, of)
                .bind(of.allowance.map(|allowance| allowance.sale_id.0))
                .bind(of.allowance.map(|allowance| allowance.limit))
        })
        .await
}

/// Removes an order and its lines.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(connection: &mut MySqlConnection, id: Position) -> Result<(), sqlx::Error> {
    const TABLES: [&str; 2] = [
        "DELETE FROM order_products WHERE order_id = ?",
        "DELETE FROM orders WHERE id = ?",
    ];
    for text in TABLES {
        sqlx::query(text)
            .bind(id.get())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Sets the status of orders; an order that is missing (a dead letter) is skipped. An order that is
/// set to `SUCCESS` counts as never taken back, so its `updated_at` is cleared.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_status(
    connection: &mut MySqlConnection,
    orders: &[Position],
    status: OrderStatus,
) -> Result<(), sqlx::Error> {
    static SET: MultiRow = MultiRow::new(
        "UPDATE orders SET status = ?, updated_at = IF(status = 'SUCCESS', NULL, NOW(3)) WHERE",
        "id = ?",
        "",
    );
    SET.set(connection, status.as_str(), orders).await
}

struct OrderRow {
    id: u64,
    user_id: u64,
    status: String,
    path: String,
    delivery_type: String,
    store_id: Option<u64>,
    total_amount: i64,
    reservation_id: Option<u64>,
    shares_online_stock: bool,
    coupon_id: Option<u64>,
    coupon_code: Option<String>,
    coupon_discount_amount: Option<i64>,
    used_points: Option<i64>,
    earned_points: Option<i64>,
    checkout_id: Option<u64>,
    reference: Option<String>,
    buyer: Option<String>,
}

from_row!(OrderRow {
    id,
    user_id,
    status,
    path,
    delivery_type,
    store_id,
    total_amount,
    reservation_id,
    shares_online_stock,
    coupon_id,
    coupon_code,
    coupon_discount_amount,
    used_points,
    earned_points,
    checkout_id,
    reference,
    buyer
});

type LineRow = (
    u64,
    u64,
    String,
    u32,
    i64,
    i64,
    i64,
    Option<u64>,
    Option<u32>,
);

const COLUMNS: &str = "SELECT id, user_id, CAST(status AS CHAR) AS status, \
     CAST(path AS CHAR) AS path, CAST(delivery_type AS CHAR) AS delivery_type, store_id, \
     total_amount, reservation_id, shares_online_stock, coupon_id, coupon_code, \
     coupon_discount_amount, used_points, earned_points, checkout_id, reference, \
     (SELECT name FROM buyers b WHERE b.user_id = orders.user_id LIMIT 1) AS buyer FROM orders";

/// Finds one order with its lines.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(pool: &MySqlPool, id: Position) -> Result<Option<StoredOrder>, sqlx::Error> {
    let row: Option<OrderRow> = sqlx::query_as(AssertSqlSafe(format!("{COLUMNS} WHERE id = ?")))
        .bind(id.get())
        .fetch_optional(pool)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(with_lines(pool, vec![row]).await?.pop())
}

/// Lists orders, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool, filter: &OrderFilter) -> Result<Vec<StoredOrder>, sqlx::Error> {
    let mut text = format!("{COLUMNS} WHERE id < ?");
    if filter.user.is_some() {
        text.push_str(" AND user_id = ?");
    }
    if filter.status.is_some() {
        text.push_str(" AND status = ?");
    }
    text.push_str(" ORDER BY id DESC LIMIT ?");
    let mut query = sqlx::query_as(AssertSqlSafe(text));
    query = query.bind(filter.before.map_or(u64::MAX, Position::get));
    if let Some(user) = filter.user {
        query = query.bind(user.0);
    }
    if let Some(status) = filter.status {
        query = query.bind(status.as_str());
    }
    let rows: Vec<OrderRow> = query.bind(filter.limit).fetch_all(pool).await?;
    with_lines(pool, rows).await
}

/// The orders between two ids, both included, in order: for `verify`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn between(
    pool: &MySqlPool,
    first: Position,
    last: Position,
) -> Result<Vec<StoredOrder>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id BETWEEN ? AND ? ORDER BY id");
    let rows: Vec<OrderRow> = sqlx::query_as(AssertSqlSafe(text))
        .bind(first.get())
        .bind(last.get())
        .fetch_all(pool)
        .await?;
    with_lines(pool, rows).await
}

async fn with_lines(
    pool: &MySqlPool,
    rows: Vec<OrderRow>,
) -> Result<Vec<StoredOrder>, sqlx::Error> {
    let ids = rows.iter().map(|row| row.id);
    let (Some(first), Some(last)) = (ids.clone().min(), ids.max()) else {
        return Ok(Vec::new());
    };
    let known: Vec<u64> = rows.iter().map(|row| row.id).collect();
    let ids = padded(&known);
    // A short list is read by ids: the range of one user's page would hold everybody else's orders
    // too. A long list is a slice of all orders, and is read by its range.
    let text = if ids.len() <= 128 {
        let ids = vec!["?"; ids.len()].join(", ");
        format!("WHERE order_id IN ({ids})")
    } else {
        "WHERE order_id BETWEEN ? AND ?".to_owned()
    };
    let text = format!(
        "SELECT order_id, product_id, product_name, quantity, price, unit_price, sub_total, \
         sale_id, sale_limit FROM order_products {text} ORDER BY order_id, line"
    );
    let mut query = sqlx::query_as(AssertSqlSafe(text));
    let bounds = [first, last];
    for id in if ids.len() <= 128 {
        ids.as_slice()
    } else {
        &bounds
    } {
        query = query.bind(*id);
    }
    let lines: Vec<LineRow> = query.fetch_all(pool).await?;
    let at_till: Vec<Position> = rows
        .iter()
        .filter(|row| row.path == Path::Till.as_str())
        .map(|row| Position::new(row.id))
        .collect();
    let mut offline: HashMap<Position, OfflineSale> = offline_sales::of_orders(pool, &at_till)
        .await?
        .into_iter()
        .map(|stored| (stored.id, stored.sale))
        .collect();
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let from = lines.partition_point(|line| line.0 < row.id);
            // `lines` is sorted by order, and so is every slice of it.
            let own = lines.iter().skip(from).take_while(|line| line.0 == row.id);
            let offline = offline.remove(&Position::new(row.id));
            stored(&row, own.filter_map(line).collect(), offline)
        })
        .collect())
}

fn line(row: &LineRow) -> Option<OrderLine> {
    Some(OrderLine {
        product_id: ProductId(row.1),
        product_name: row.2.clone(),
        quantity: Quantity::new(row.3).ok()?,
        price: Money::new(row.4).ok()?,
        unit_price: Money::new(row.5).ok()?,
        sub_total: Money::new(row.6).ok()?,
        allowance: row.7.map(SaleId).zip(row.8).map(Allowance::from),
    })
}

fn stored(
    row: &OrderRow,
    lines: Vec<OrderLine>,
    offline: Option<OfflineSale>,
) -> Option<StoredOrder> {
    let money = |units: Option<i64>| Money::new(units.unwrap_or(0)).ok();
    let discount_amount = money(row.coupon_discount_amount)?;
    let coupon = row.coupon_id.zip(row.coupon_code.clone());
    let order = Order {
        user_id: UserId(row.user_id),
        path: Path::parse(&row.path)?,
        delivery_type: DeliveryType::parse(&row.delivery_type)?,
        store_id: row.store_id,
        lines,
        total_amount: Money::new(row.total_amount).ok()?,
        coupon: coupon.map(|(coupon, code)| UsedCoupon {
            code,
            coupon_id: CouponId(coupon),
            discount_amount,
        }),
        used_points: money(row.used_points)?,
        earned_points: money(row.earned_points)?,
        reservation_id: row.reservation_id.map(Position::new),
        checkout_id: row.checkout_id.map(Position::new),
        paid: None,
        shares_online_stock: row.shares_online_stock,
        offline,
        buyer: buyer_of(row.buyer.clone()),
        reference: row.reference.clone(),
    };
    Some(StoredOrder {
        id: Position::new(row.id),
        order,
        status: OrderStatus::parse(&row.status)?,
    })
}

/// When an order was last changed, for `explain`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn updated_at(
    pool: &MySqlPool,
    id: Position,
) -> Result<Option<NaiveDateTime>, sqlx::Error> {
    sqlx::query_scalar("SELECT COALESCE(updated_at, created_at) FROM orders WHERE id = ?")
        .bind(id.get())
        .fetch_optional(pool)
        .await
}
