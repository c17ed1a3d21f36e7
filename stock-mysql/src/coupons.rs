//! Coupons in MySQL, with the worth of each. The number of coupons left is the balance of an
//! account.

use std::collections::HashSet;
use std::time::Duration;

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlPool, QueryBuilder};
use stock_common::clock::{datetime, unix_ms};
use stock_common::id::{CouponId, UserId};
use stock_common::money::Money;
use stock_domain::coupon::{Benefit, Coupon, Personal};
use stock_domain::discount::Percentage;

use super::products::CreationKey;

/// The fields of a coupon that an admin enters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponFields {
    /// The name, at most 100 characters.
    pub name: String,
    /// The amount or rate that the coupon takes off.
    pub benefit: Benefit,
    /// Number of codes that may be drawn; none means no limit.
    pub count: Option<i64>,
    /// Start and end of the time in which the coupon may be drawn and used, in Unix ms; 0 is no
    /// bound.
    pub window_ms: (u64, u64),
    /// The user and the code of a personal coupon; none for a campaign.
    pub personal: Option<Personal>,
}

pub(super) const COLUMNS: &str = "c.id AS coupon_id, c.name, c.discount_amount, \
     c.discount_hundredths, c.count, c.valid_from, c.valid_to, c.code AS personal_code, \
     c.user_id AS personal_user";

pub(super) struct Row {
    coupon_id: u64,
    name: String,
    discount_amount: Option<i64>,
    discount_hundredths: Option<u32>,
    count: Option<i64>,
    valid_from: Option<NaiveDateTime>,
    valid_to: Option<NaiveDateTime>,
    personal_code: Option<String>,
    personal_user: Option<u64>,
}

from_row!(Row {
    coupon_id,
    name,
    discount_amount,
    discount_hundredths,
    count,
    valid_from,
    valid_to,
    personal_code,
    personal_user
});

impl Row {
    pub(super) fn parse(self) -> Option<Coupon> {
        let amount = self.discount_amount.map(|units| Money::new(units).ok());
        let rate = self
            .discount_hundredths
            .map(|hundredths| Percentage::from_hundredths(hundredths).ok());
        let benefit = match (amount, rate) {
            (Some(amount), _) => Benefit::Amount(amount?),
            (None, rate) => Benefit::Rate(rate??),
        };
        let bound = |at: Option<NaiveDateTime>| at.map_or(0, |at| unix_ms(at).unsigned_abs());
        let personal = self.personal_user.zip(self.personal_code);
        Some(Coupon {
            id: CouponId(self.coupon_id),
            name: self.name,
            benefit,
            count: self.count,
            window_ms: (bound(self.valid_from), bound(self.valid_to)),
            personal: personal.map(|(user, code)| Personal {
                user_id: UserId(user),
                code,
            }),
        })
    }
}

/// Inserts a coupon and returns its id. A creation key that was used before violates `coupons_key`,
/// and a code that another coupon has violates `coupons_code`; both are error 1062.
///
/// # Errors
/// When MySQL does not answer, or the key or the code is taken.
pub async fn insert(
    pool: &MySqlPool,
    fields: &CouponFields,
    key: Option<&CreationKey>,
) -> Result<CouponId, sqlx::Error> {
    let (amount, hundredths) = match fields.benefit {
        Benefit::Amount(amount) => (Some(amount.get()), None),
        Benefit::Rate(rate) => (None, Some(rate.hundredths())),
    };
    let bound = |ms: u64| (ms > 0).then(|| datetime(ms));
    let personal = fields.personal.as_ref();
    let done = sqlx::query(
        "INSERT INTO coupons (name, discount_amount, discount_hundredths, count, valid_from, \
         valid_to, code, user_id, key_hash, fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&fields.name)
    .bind(amount)
    .bind(hundredths)
    .bind(fields.count)
    .bind(bound(fields.window_ms.0))
    .bind(bound(fields.window_ms.1))
    .bind(personal.map(|of| of.code.as_str()))
    .bind(personal.map(|of| of.user_id.0))
    .bind(key.map(|key| key.key_hash.as_slice()))
    .bind(key.map(|key| key.fingerprint.as_slice()))
    .execute(pool)
    .await?;
    Ok(CouponId(done.last_insert_id()))
}

/// Removes a coupon that the ledger never opened, because its code belongs to another coupon.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete_unopened(pool: &MySqlPool, id: CouponId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM coupons WHERE id = ? AND opened = 0")
        .bind(id.0)
        .execute(pool)
        .await?;
    Ok(())
}

/// Finds the coupon that was created under a key, with the fingerprint of that request.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find_by_key(
    pool: &MySqlPool,
    key: &CreationKey,
) -> Result<Option<(CouponId, Vec<u8>)>, sqlx::Error> {
    let row: Option<(u64, Vec<u8>)> =
        sqlx::query_as("SELECT id, fingerprint FROM coupons WHERE key_hash = ?")
            .bind(&key.key_hash)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(id, fingerprint)| (CouponId(id), fingerprint)))
}

/// Finds a coupon.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(pool: &MySqlPool, id: CouponId) -> Result<Option<Coupon>, sqlx::Error> {
    let text = format!("SELECT {COLUMNS} FROM coupons c WHERE c.id = ?");
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(id.0)
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(Row::parse))
}

/// Lists coupons, newest first; `campaigns_only` leaves out personal coupons.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    campaigns_only: bool,
    before: Option<CouponId>,
    limit: u32,
) -> Result<Vec<Coupon>, sqlx::Error> {
    let text = format!("SELECT {COLUMNS} FROM coupons c WHERE c.id < ");
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(text);
    query.push_bind(before.map_or(u64::MAX, |before| before.0));
    if campaigns_only {
        query.push(" AND c.user_id IS NULL");
    }
    query.push(" ORDER BY c.id DESC LIMIT ").push_bind(limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(Row::parse).collect())
}

/// Coupons older than 3 seconds that the ledger has not opened, because a crash came between; at
/// most 1,000.
///
/// # Errors
/// When MySQL does not answer.
pub async fn unopened(pool: &MySqlPool) -> Result<Vec<Coupon>, sqlx::Error> {
    let text = format!(
        "SELECT {COLUMNS} FROM coupons c WHERE c.opened = 0 \
         AND c.created_at < NOW(3) - INTERVAL 3 SECOND LIMIT 1000"
    );
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text)).fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(Row::parse).collect())
}

/// Coupons that ended longer ago than `since`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn over(pool: &MySqlPool, since: Duration) -> Result<HashSet<CouponId>, sqlx::Error> {
    let seconds = since.as_secs();
    let ids: Vec<u64> =
        sqlx::query_scalar("SELECT id FROM coupons WHERE valid_to < NOW(3) - INTERVAL ? SECOND")
            .bind(seconds)
            .fetch_all(pool)
            .await?;
    Ok(ids.into_iter().map(CouponId).collect())
}

/// Notes that the ledger has opened coupons.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_opened(
    connection: &mut MySqlConnection,
    coupons: &[CouponId],
) -> Result<(), sqlx::Error> {
    for id in coupons {
        sqlx::query("UPDATE coupons SET opened = 1 WHERE id = ?")
            .bind(id.0)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
