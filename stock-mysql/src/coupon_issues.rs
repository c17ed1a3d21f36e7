//! Coupon codes that were issued to users, in MySQL. The state of a code in the ledger decides
//! whether it may be used now.

use std::collections::HashMap;

use sqlx::{
    AssertSqlSafe, FromRow as _, MySql, MySqlConnection, MySqlPool, QueryBuilder, Row as _,
};
use stock_common::clock::datetime;
use stock_common::id::{CouponId, Position, UserId, WorkId};
use stock_common::money::Money;
use stock_domain::coupon::{Benefit, Coupon, CouponIssued, UsedCoupon};
use stock_domain::discount::Percentage;

use super::coupons::{COLUMNS, Row};
use super::rows::{MultiRow, push_list};

static INSERT: MultiRow = MultiRow::new(
    "INSERT INTO coupon_issues (id, coupon_id, user_id, work_id, code) VALUES",
    "(?, ?, ?, ?, ?)",
    "",
);

/// A code as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredIssue {
    /// The position of the entry that issued the code.
    pub id: Position,
    /// The code, its coupon and its user.
    pub issued: CouponIssued,
    /// The order that used the code and was not taken back.
    pub order_id: Option<Position>,
}

/// A user's code with its coupon.
#[derive(Debug, Clone)]
pub struct OwnCoupon {
    /// The code.
    pub issue: StoredIssue,
    /// The coupon that the code belongs to.
    pub coupon: Coupon,
}

/// Inserts codes that were issued.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    issued: &[(Position, CouponIssued)],
) -> Result<(), sqlx::Error> {
    INSERT
        .execute(connection, issued, |query, (id, of)| {
            query
                .bind(id.get())
                .bind(of.coupon_id.0)
                .bind(of.user_id.0)
                .bind(of.work_id.map(|work| work.0))
                .bind(of.code.as_str())
        })
        .await
}

/// Notes that stored orders used the codes that they name. An order that is recorded late does not
/// replace a later order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_used(
    connection: &mut MySqlConnection,
    orders: &[Position],
) -> Result<(), sqlx::Error> {
    for part in orders.chunks(500) {
        let ids: Vec<u64> = part.iter().map(|id| id.get()).collect();
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "UPDATE orders o JOIN coupon_issues i ON i.code = o.coupon_code \
             AND i.coupon_id = o.coupon_id SET i.order_id = o.id \
             WHERE (i.order_id IS NULL OR i.order_id < o.id) AND o.id IN ",
        );
        push_list(&mut query, &ids);
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Notes the use of a code by an order that is not stored, or that lies on another shard; see
/// [`set_used`].
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_used_by(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    code: &str,
    order: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE coupon_issues SET order_id = ? WHERE code = ? AND coupon_id = ? \
         AND (order_id IS NULL OR order_id < ?)",
    )
    .bind(order.get())
    .bind(code)
    .bind(coupon.0)
    .bind(order.get())
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether MySQL knows the code that an order uses.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_known(pool: &MySqlPool, used: &UsedCoupon) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM coupon_issues WHERE code = ? AND coupon_id = ?)",
    )
    .bind(&used.code)
    .bind(used.coupon_id.0)
    .fetch_one(pool)
    .await
}

/// Frees the codes of orders that were taken back.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_free(
    connection: &mut MySqlConnection,
    orders: &[Position],
) -> Result<(), sqlx::Error> {
    for part in orders.chunks(500) {
        let ids: Vec<u64> = part.iter().map(|id| id.get()).collect();
        let mut query: QueryBuilder<MySql> =
            QueryBuilder::new("UPDATE coupon_issues SET order_id = NULL WHERE order_id IN ");
        push_list(&mut query, &ids);
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

fn issue(row: &sqlx::mysql::MySqlRow) -> Result<StoredIssue, sqlx::Error> {
    let work: Option<u64> = row.try_get("work_id")?;
    let order: Option<u64> = row.try_get("order_id")?;
    Ok(StoredIssue {
        id: Position::new(row.try_get("id")?),
        issued: CouponIssued {
            coupon_id: CouponId(row.try_get("issued_coupon")?),
            user_id: UserId(row.try_get("user_id")?),
            work_id: work.map(WorkId),
            code: row.try_get("code")?,
        },
        order_id: order.map(Position::new),
    })
}

const ISSUE_COLUMNS: &str =
    "i.id, i.coupon_id AS issued_coupon, i.user_id, i.work_id, i.code, i.order_id";

/// A user's codes, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_user(
    pool: &MySqlPool,
    user: UserId,
    before: Option<Position>,
    limit: u32,
) -> Result<Vec<OwnCoupon>, sqlx::Error> {
    let text = format!(
        "SELECT {ISSUE_COLUMNS}, {COLUMNS} FROM coupon_issues i JOIN coupons c \
         ON c.id = i.coupon_id WHERE i.user_id = ? AND i.id < ? ORDER BY i.id DESC LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(text))
        .bind(user.0)
        .bind(before.map_or(u64::MAX, Position::get))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let issue = issue(row)?;
        if let Some(coupon) = Row::from_row(row)?.parse() {
            found.push(OwnCoupon { issue, coupon });
        }
    }
    Ok(found)
}

/// The largest amount and the largest rate among a user's codes that may be used at `now_ms` (Unix
/// ms), as far as MySQL knows.
///
/// # Errors
/// When MySQL does not answer.
pub async fn best_of(
    pool: &MySqlPool,
    user: UserId,
    now_ms: u64,
) -> Result<Vec<Benefit>, sqlx::Error> {
    let now = datetime(now_ms);
    let (amount, hundredths): (Option<i64>, Option<u32>) = sqlx::query_as(
        "SELECT MAX(c.discount_amount), MAX(c.discount_hundredths) FROM coupon_issues i \
         JOIN coupons c ON c.id = i.coupon_id WHERE i.user_id = ? AND i.order_id IS NULL \
         AND (c.valid_from IS NULL OR c.valid_from <= ?) AND (c.valid_to IS NULL OR c.valid_to > ?)",
    )
    .bind(user.0)
    .bind(now)
    .bind(now)
    .fetch_one(pool)
    .await?;
    let amount = amount.and_then(|units| Money::new(units).ok());
    let rate = hundredths.and_then(|hundredths| Percentage::from_hundredths(hundredths).ok());
    let benefits = [amount.map(Benefit::Amount), rate.map(Benefit::Rate)];
    Ok(benefits.into_iter().flatten().collect())
}

/// The codes between two ids, both included, in order; for `verify`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn between(
    pool: &MySqlPool,
    first: Position,
    last: Position,
) -> Result<Vec<StoredIssue>, sqlx::Error> {
    let text = format!(
        "SELECT {ISSUE_COLUMNS} FROM coupon_issues i WHERE i.id BETWEEN ? AND ? ORDER BY i.id"
    );
    let rows = sqlx::query(AssertSqlSafe(text))
        .bind(first.get())
        .bind(last.get())
        .fetch_all(pool)
        .await?;
    rows.iter().map(issue).collect()
}

/// The order that used each of some codes; codes that no order has used are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn orders_of(
    pool: &MySqlPool,
    codes: &[String],
) -> Result<HashMap<(CouponId, String), Position>, sqlx::Error> {
    let mut found = HashMap::new();
    for part in codes.chunks(500) {
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "SELECT coupon_id, code, order_id FROM coupon_issues \
             WHERE order_id IS NOT NULL AND code IN ",
        );
        let codes: Vec<&str> = part.iter().map(String::as_str).collect();
        push_list(&mut query, &codes);
        let rows: Vec<(u64, String, u64)> = query.build_query_as().fetch_all(pool).await?;
        let of = |(coupon, code, order)| ((CouponId(coupon), code), Position::new(order));
        found.extend(rows.into_iter().map(of));
    }
    Ok(found)
}
