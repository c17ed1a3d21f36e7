//! Daily point reports in MySQL, one row per user and day. [`stock_domain::points`] says what a
//! report holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use chrono::NaiveDate;
use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::{Position, UserId};

/// The points of a user on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointReport {
    /// The day.
    pub report_date: NaiveDate,
    /// Points that were earned.
    pub earn_amount: i64,
    /// Points that were used.
    pub use_amount: i64,
    /// Points that were cancelled, in either direction.
    pub cancel_amount: i64,
    /// The change of the balance.
    pub net_amount: i64,
}

from_row!(PointReport {
    report_date,
    earn_amount,
    use_amount,
    cancel_amount,
    net_amount
});

/// The subject under which `verify` notes that it has verified a day's reports.
pub fn proof_subject(date: NaiveDate) -> String {
    format!("report:{date}")
}

/// Writes the reports of a day whose entries lie in `span`. A repeated call writes the same.
/// Returns the number of users with movements.
///
/// # Errors
/// When MySQL does not answer.
pub async fn write(
    connection: &mut MySqlConnection,
    date: NaiveDate,
    span: Range<Position>,
) -> Result<u64, sqlx::Error> {
    // A user without movements in the span has no report; an earlier one may stem from another time
    // zone.
    sqlx::query("DELETE FROM daily_point_reports WHERE report_date = ?")
        .bind(date)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM proofs WHERE subject = ?")
        .bind(proof_subject(date))
        .execute(&mut *connection)
        .await?;
    let done = sqlx::query(
        "INSERT INTO daily_point_reports (user_id, report_date, earn_amount, use_amount, \
         cancel_amount, net_amount, first_id, end_id) \
         SELECT user_id, ?, SUM(IF(type = 'EARN', delta, 0)), SUM(IF(type = 'USED', -delta, 0)), \
         SUM(IF(type = 'CANCELED', ABS(delta), 0)), SUM(delta), ?, ? \
         FROM point_transactions WHERE id >= ? AND id < ? GROUP BY user_id",
    )
    .bind(date)
    .bind(span.start.get())
    .bind(span.end.get())
    .bind(span.start.get())
    .bind(span.end.get())
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A user's reports between two days, both included, in order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_user(
    pool: &MySqlPool,
    user: UserId,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<PointReport>, sqlx::Error> {
    sqlx::query_as(
        "SELECT report_date, earn_amount, use_amount, cancel_amount, net_amount \
         FROM daily_point_reports WHERE user_id = ? AND report_date BETWEEN ? AND ? \
         ORDER BY report_date",
    )
    .bind(user.0)
    .bind(from)
    .bind(to)
    .fetch_all(pool)
    .await
}

/// The days that have reports.
///
/// # Errors
/// When MySQL does not answer.
pub async fn dates(pool: &MySqlPool) -> Result<Vec<NaiveDate>, sqlx::Error> {
    sqlx::query_scalar("SELECT DISTINCT report_date FROM daily_point_reports ORDER BY report_date")
        .fetch_all(pool)
        .await
}

/// The sums of a report: earned, used, cancelled, net.
pub type Sums = (i64, i64, i64, i64);

/// Users whose report of a day is not the sum of their movements, with both; for `verify`.
///
/// Earned, used and cancelled are summed over movements, each of which `verify` compares with its
/// entry. The net is summed over postings, or over movements too when some of the postings were
/// archived. A user who has movements and no report is returned too.
///
/// # Errors
/// When MySQL does not answer.
pub async fn differing(
    pool: &MySqlPool,
    date: NaiveDate,
) -> Result<Vec<(UserId, Option<Sums>, Option<Sums>)>, sqlx::Error> {
    let span: (Option<u64>, Option<u64>) = sqlx::query_as(
        "SELECT MIN(first_id), MAX(end_id) FROM daily_point_reports WHERE report_date = ?",
    )
    .bind(date)
    .fetch_one(pool)
    .await?;
    let (Some(first), Some(end)) = span else {
        return Ok(Vec::new());
    };
    let reported: Vec<(u64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT user_id, earn_amount, use_amount, cancel_amount, net_amount \
         FROM daily_point_reports WHERE report_date = ?",
    )
    .bind(date)
    .fetch_all(pool)
    .await?;
    let is_archived: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM archives WHERE position >= ?)")
            .bind(first)
            .fetch_one(pool)
            .await?;
    let moved: Vec<(u64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT t.user_id, CAST(SUM(IF(type = 'EARN', delta, 0)) AS SIGNED), \
         CAST(SUM(IF(type = 'USED', -delta, 0)) AS SIGNED), \
         CAST(SUM(IF(type = 'CANCELED', ABS(delta), 0)) AS SIGNED), \
         IF(?, CAST(SUM(delta) AS SIGNED), \
         (SELECT CAST(COALESCE(SUM(p.delta), 0) AS SIGNED) FROM postings p \
         WHERE p.kind = 'POINTS' AND p.owner_id = t.user_id AND p.place_id = 0 \
         AND p.journal_id >= ? AND p.journal_id < ?)) \
         FROM point_transactions t WHERE t.id >= ? AND t.id < ? GROUP BY t.user_id",
    )
    .bind(is_archived)
    .bind(first)
    .bind(end)
    .bind(first)
    .bind(end)
    .fetch_all(pool)
    .await?;
    let by_user = |rows: Vec<(u64, i64, i64, i64, i64)>| -> BTreeMap<u64, Sums> {
        let sums = |(user, earned, used, cancelled, net)| (user, (earned, used, cancelled, net));
        rows.into_iter().map(sums).collect()
    };
    let (reported, moved) = (by_user(reported), by_user(moved));
    let users: BTreeSet<u64> = reported.keys().chain(moved.keys()).copied().collect();
    let compared = users.into_iter().map(|user| {
        let sums = (reported.get(&user).copied(), moved.get(&user).copied());
        (UserId(user), sums.0, sums.1)
    });
    Ok(compared.filter(|(_, says, is)| says != is).collect())
}

/// Whether no user moved points between two positions, the second not included.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_empty(pool: &MySqlPool, span: Range<Position>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM point_transactions WHERE id >= ? AND id < ?)",
    )
    .bind(span.start.get())
    .bind(span.end.get())
    .fetch_one(pool)
    .await
}
