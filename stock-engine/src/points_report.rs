//! Daily reports of points: the movements of each user's points on one whole day of a time zone.
//!
//! A report is written when its day is over and MySQL has settled all of it, by one instance at a
//! time. Writing a day again gives the same reports, so any day may be repeated. The content of a
//! report: [`stock_domain::points`].

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use chrono::{Days, NaiveDate};
use chrono_tz::Tz;
use sqlx::MySqlPool;
use stock_common::clock::{day_begins_ms, day_of};
use stock_common::id::Position;
use stock_mysql::{jobs, point_reports};
use stock_redis::Ledger;

use crate::lookup;

/// The name of the job.
pub const JOB: &str = "daily_points_report";
/// How long to wait for MySQL to settle the day.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// How many past days are checked for missing reports.
const MISSED_MAX: u64 = 31;

/// Why a day has no reports.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The day is not over, or it is no day of the calendar.
    #[error("{0} is not over")]
    NotOver(NaiveDate),
    /// Entries of the day may be missing in MySQL.
    #[error("mysql has not settled the day yet")]
    Unsettled,
    /// MySQL does not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Writes a day's reports, and returns how many users had movements; `None` while another instance
/// writes reports.
///
/// # Errors
/// [`ReportError`] when the day is not over or not settled, or MySQL does not answer.
pub async fn write(
    pool: &MySqlPool,
    ledger: &Ledger,
    zone: Tz,
    date: NaiveDate,
) -> Result<Option<u64>, ReportError> {
    let span = span(zone, date, ledger.redis_now_ms()).ok_or(ReportError::NotOver(date))?;
    if !lookup::catch_up(pool, ledger, CATCH_UP_MAX).await {
        return Err(ReportError::Unsettled);
    }
    let Some(claim) = jobs::claim(pool, JOB).await? else {
        return Ok(None);
    };
    let mut transaction = pool.begin().await?;
    let users = point_reports::write(&mut transaction, date, span).await?;
    transaction.commit().await?;
    claim.succeed().await?;
    Ok(Some(users))
}

/// The range of positions of a day's entries; `None` while the day is not over.
fn span(zone: Tz, date: NaiveDate, now_ms: u64) -> Option<Range<Position>> {
    let next = date.checked_add_days(Days::new(1))?;
    let (begins_ms, ends_ms) = (day_begins_ms(date, zone)?, day_begins_ms(next, zone)?);
    if now_ms < ends_ms {
        return None;
    }
    // A time that is too early for a position becomes position 0: nothing lies before it.
    let first = |ms| Position::from_parts(ms, 0).unwrap_or_default();
    Some(first(begins_ms)..first(ends_ms))
}

/// The days whose reports are missing and due: yesterday, and those of the month before it that
/// have movements.
///
/// # Errors
/// When MySQL does not answer.
pub async fn due(pool: &MySqlPool, zone: Tz, now_ms: u64) -> Result<Vec<NaiveDate>, sqlx::Error> {
    let today = day_of(now_ms, zone);
    let written: HashSet<NaiveDate> = point_reports::dates(pool).await?.into_iter().collect();
    let mut due = Vec::new();
    for ago in (1..=MISSED_MAX).rev() {
        let Some(date) = today.checked_sub_days(Days::new(ago)) else {
            continue;
        };
        let Some(span) = span(zone, date, now_ms).filter(|_| !written.contains(&date)) else {
            continue;
        };
        if ago == 1 || !point_reports::is_empty(pool, span).await? {
            due.push(date);
        }
    }
    Ok(due)
}
