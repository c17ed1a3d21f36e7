//! Checkouts and their lines in MySQL.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlPool, QueryBuilder};
use stock_common::id::{CouponId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;
use stock_domain::checkout::{Checkout, CheckoutExtended, CheckoutStatus, Course, Extended};
use stock_domain::coupon::UsedCoupon;
use stock_domain::order::{DeliveryType, Order, OrderLine, Path};
use stock_domain::quantity::Quantity;
use stock_domain::sale::Allowance;

use super::buyers::buyer_of;
use super::rows::{MultiRow, push_list};

static CHECKOUTS: MultiRow = MultiRow::new(
    "INSERT INTO checkouts (id, user_id, delivery_type, store_id, total_amount, coupon_id, \
     coupon_code, coupon_discount_amount, used_points, earned_points, ttl_ms, hold_limit, \
     reference, expires_ms) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);
static LINES: MultiRow = MultiRow::new(
    "INSERT INTO checkout_lines (checkout_id, line, product_id, product_name, quantity, price, \
     unit_price, sale_id, sale_limit) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);

/// A checkout as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckout {
    /// The id of the checkout.
    pub id: Position,
    /// The checkout as it was opened.
    pub checkout: Checkout,
    /// How far it has come.
    pub course: Course,
    /// How far its deadline was moved.
    pub extended: Extended,
}

/// The filter of [`list`].
#[derive(Debug, Clone, Default)]
pub struct CheckoutFilter {
    /// Only checkouts of this user.
    pub user: Option<UserId>,
    /// Only checkouts with this status.
    pub status: Option<CheckoutStatus>,
    /// Only checkouts with ids below this one.
    pub before: Option<Position>,
    /// Largest number of checkouts.
    pub limit: u32,
}

/// Inserts checkouts that were opened, and their lines.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    opened: &[(Position, Checkout)],
) -> Result<(), sqlx::Error> {
    CHECKOUTS
        .execute(connection, opened, |query, (id, of)| {
            let (order, coupon) = (&of.order, of.order.coupon.as_ref());
            query
                .bind(id.get())
                .bind(order.user_id.0)
                .bind(order.delivery_type.as_str())
                .bind(order.store_id)
                .bind(order.total_amount.get())
                .bind(coupon.map(|coupon| coupon.coupon_id.0))
                .bind(coupon.map(|coupon| coupon.code.as_str()))
                .bind(coupon.map(|coupon| coupon.discount_amount.get()))
                .bind(order.used_points.get())
                .bind(order.earned_points.get())
                .bind(of.ttl_ms)
                .bind(of.hold_limit)
                .bind(order.reference.as_deref())
                .bind(of.expires_ms(*id))
        })
        .await?;
    let lines: Vec<(Position, u16, &OrderLine)> = opened
        .iter()
        .flat_map(|(id, of)| {
            (1u16..)
                .zip(&of.order.lines)
                .map(|(at, line)| (*id, at, line))
        })
        .collect();
    LINES
        .execute(connection, &lines, |query, (id, line, of)| {
            query
                .bind(id.get())
                .bind(*line)
                .bind(of.product_id.0)
                .bind(of.product_name.as_str())
                .bind(of.quantity.get())
                .bind(of.price.get())
                .bind(of.unit_price.get())
                .bind(of.allowance.map(|allowance| allowance.sale_id.0))
                .bind(of.allowance.map(|allowance| allowance.limit))
        })
        .await
}

/// Sets the status of checkouts; a checkout that is missing (a dead letter) is skipped.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_status(
    connection: &mut MySqlConnection,
    ended: &[Position],
    status: CheckoutStatus,
) -> Result<(), sqlx::Error> {
    static SET: MultiRow = MultiRow::new(
        "UPDATE checkouts SET status = ?, ended_at = NOW(3) WHERE",
        "id = ?",
        "",
    );
    SET.set(connection, status.as_str(), ended).await
}

/// Notes which orders checkouts became, and whether they were paid late.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_ordered(
    connection: &mut MySqlConnection,
    orders: &[(Position, Position, bool)],
) -> Result<(), sqlx::Error> {
    for (checkout, order, is_late) in orders {
        sqlx::query(
            "UPDATE checkouts SET status = 'CONFIRMED', order_id = ?, is_late = ?, \
             ended_at = NOW(3) WHERE id = ?",
        )
        .bind(order.get())
        .bind(*is_late)
        .bind(checkout.get())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Notes how far deadlines were moved.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_extended(
    connection: &mut MySqlConnection,
    moved: &[CheckoutExtended],
) -> Result<(), sqlx::Error> {
    for of in moved {
        sqlx::query(
            "UPDATE checkouts SET expires_ms = ?, times_extended = ?, payment_extended = ?, \
             extended_at = NOW(3) WHERE id = ?",
        )
        .bind(of.extended.until_ms)
        .bind(of.extended.times)
        .bind(of.extended.by_payment)
        .bind(of.checkout_id.get())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

struct Row {
    id: u64,
    user_id: u64,
    delivery_type: String,
    store_id: Option<u64>,
    total_amount: i64,
    coupon_id: Option<u64>,
    coupon_code: Option<String>,
    coupon_discount_amount: Option<i64>,
    used_points: i64,
    earned_points: i64,
    ttl_ms: u64,
    hold_limit: u32,
    reference: Option<String>,
    buyer: Option<String>,
    status: String,
    expires_ms: u64,
    times_extended: u32,
    payment_extended: bool,
    order_id: Option<u64>,
    is_late: bool,
}

from_row!(Row {
    id,
    user_id,
    delivery_type,
    store_id,
    total_amount,
    coupon_id,
    coupon_code,
    coupon_discount_amount,
    used_points,
    earned_points,
    ttl_ms,
    hold_limit,
    reference,
    buyer,
    status,
    expires_ms,
    times_extended,
    payment_extended,
    order_id,
    is_late
});

const COLUMNS: &str = "SELECT id, user_id, CAST(delivery_type AS CHAR) AS delivery_type, store_id, \
     total_amount, coupon_id, coupon_code, coupon_discount_amount, used_points, earned_points, \
     ttl_ms, hold_limit, reference, CAST(status AS CHAR) AS status, expires_ms, times_extended, \
     payment_extended, order_id, is_late, \
     (SELECT name FROM buyers b WHERE b.user_id = checkouts.user_id LIMIT 1) AS buyer \
     FROM checkouts";

type LineRow = (u64, u64, String, u32, i64, i64, Option<u64>, Option<u32>);

fn line(row: LineRow) -> Option<(Position, OrderLine)> {
    let (checkout, product, product_name, quantity, price, unit_price, sale, limit) = row;
    let (quantity, unit_price) = (Quantity::new(quantity).ok()?, Money::new(unit_price).ok()?);
    let line = OrderLine {
        product_id: ProductId(product),
        product_name,
        quantity,
        price: Money::new(price).ok()?,
        unit_price,
        sub_total: unit_price.times(quantity.get())?,
        allowance: sale.map(SaleId).zip(limit).map(Allowance::from),
    };
    Some((Position::new(checkout), line))
}

fn stored(row: Row, lines: Vec<OrderLine>) -> Option<StoredCheckout> {
    let money = |units: i64| Money::new(units).ok();
    let discount_amount = money(row.coupon_discount_amount.unwrap_or(0))?;
    let coupon = row.coupon_id.zip(row.coupon_code);
    let order = Order {
        user_id: UserId(row.user_id),
        path: Path::Redis,
        delivery_type: DeliveryType::parse(&row.delivery_type)?,
        store_id: row.store_id,
        lines,
        total_amount: money(row.total_amount)?,
        coupon: coupon.map(|(coupon, code)| UsedCoupon {
            code,
            coupon_id: CouponId(coupon),
            discount_amount,
        }),
        used_points: money(row.used_points)?,
        earned_points: money(row.earned_points)?,
        reservation_id: None,
        checkout_id: None,
        paid: None,
        shares_online_stock: false,
        offline: None,
        buyer: buyer_of(row.buyer),
        reference: row.reference,
    };
    Some(StoredCheckout {
        id: Position::new(row.id),
        checkout: Checkout {
            order,
            ttl_ms: row.ttl_ms,
            hold_limit: row.hold_limit,
        },
        course: Course {
            status: CheckoutStatus::parse(&row.status)?,
            order_id: row.order_id.map(Position::new),
            is_late: row.is_late,
        },
        extended: Extended {
            times: row.times_extended,
            by_payment: row.payment_extended,
            until_ms: row.expires_ms,
        },
    })
}

async fn with_lines(
    connection: &mut MySqlConnection,
    rows: Vec<Row>,
) -> Result<Vec<StoredCheckout>, sqlx::Error> {
    let mut lines: HashMap<Position, Vec<OrderLine>> = HashMap::new();
    for part in rows.chunks(500) {
        let ids: Vec<u64> = part.iter().map(|row| row.id).collect();
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "SELECT checkout_id, product_id, product_name, quantity, price, unit_price, sale_id, \
             sale_limit FROM checkout_lines WHERE checkout_id IN ",
        );
        push_list(&mut query, &ids);
        query.push(" ORDER BY checkout_id, line");
        let found: Vec<LineRow> = query.build_query_as().fetch_all(&mut *connection).await?;
        for (id, line) in found.into_iter().filter_map(line) {
            lines.entry(id).or_default().push(line);
        }
    }
    let all = rows.into_iter().filter_map(|row| {
        let own = lines.remove(&Position::new(row.id))?;
        stored(row, own)
    });
    Ok(all.collect())
}

/// Finds one checkout.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(pool: &MySqlPool, id: Position) -> Result<Option<StoredCheckout>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!("{COLUMNS} WHERE id = ?")))
        .bind(id.get())
        .fetch_all(&mut *connection)
        .await?;
    Ok(with_lines(&mut connection, rows).await?.pop())
}

/// Lists checkouts, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    filter: &CheckoutFilter,
) -> Result<Vec<StoredCheckout>, sqlx::Error> {
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(COLUMNS);
    let before = filter.before.map_or(u64::MAX, Position::get);
    query.push(" WHERE id < ").push_bind(before);
    if let Some(user) = filter.user {
        query.push(" AND user_id = ").push_bind(user.0);
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    query
        .push(" ORDER BY id DESC LIMIT ")
        .push_bind(filter.limit);
    let mut connection = pool.acquire().await?;
    let rows: Vec<Row> = query.build_query_as().fetch_all(&mut *connection).await?;
    with_lines(&mut connection, rows).await
}

/// Open checkouts after an id, in order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn open(
    connection: &mut MySqlConnection,
    after: Position,
    limit: u32,
) -> Result<Vec<StoredCheckout>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE status = 'OPEN' AND id > ? ORDER BY id LIMIT ?");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(after.get())
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
    with_lines(connection, rows).await
}
