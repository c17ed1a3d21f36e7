//! Verifies coupons and points as sums. A coupon has as many codes as its account has lost; a daily
//! report is the sum of its user's postings.

use chrono::NaiveDate;
use sqlx::MySqlPool;
use stock_common::clock::unix_ms;
use stock_common::id::Position;
use stock_mysql::point_reports;

use super::proofs::{Verified, remember, verified};
use super::round::Due;
use super::{Difference, VerifyError};

/// Compares all coupons, and the reports that are not verified yet or are due.
pub(super) async fn verify(pool: &MySqlPool, due: Due) -> Result<Vec<Difference>, VerifyError> {
    let mut found = coupons(pool).await?;
    let dates = point_reports::dates(pool).await?;
    let subjects: Vec<String> = dates
        .iter()
        .map(|date| point_reports::proof_subject(*date))
        .collect();
    let known = verified(pool, &subjects).await?;
    for (date, subject) in dates.into_iter().zip(subjects) {
        if known.contains_key(&subject) && !due.has(&subject) {
            continue;
        }
        let wrong = day(pool, date).await?;
        let differing = point_reports::differing(pool, date).await?;
        let is_right = wrong.is_none() && differing.is_empty();
        found.extend(wrong.map(|text| Difference::new("daily_point_reports", date, text)));
        if is_right {
            remember(pool, &[(subject, Verified::default())]).await?;
        }
        found.extend(differing.into_iter().map(|(user, reported, posted)| {
            let text = format!("the report of {date} says {reported:?}, postings say {posted:?}");
            Difference::new("daily_point_reports", user, text)
        }));
    }
    Ok(found)
}

/// One statement sees one state of all tables. A dead letter has drawn too, and has no row. The
/// archived postings are the two that opened an account (at 0, and by its count), and one for each
/// draw.
async fn coupons(pool: &MySqlPool) -> Result<Vec<Difference>, sqlx::Error> {
    let rows: Vec<(u64, i64, i64)> = sqlx::query_as(
        "SELECT * FROM (SELECT a.owner_id, \
         (SELECT COUNT(*) FROM postings p WHERE p.kind = 'COUPON' AND p.owner_id = a.owner_id \
         AND p.place_id = 0 AND p.delta < 0) \
         + COALESCE((SELECT CAST(l.seq AS SIGNED) - 2 FROM archived_levels l WHERE l.kind = 'COUPON' \
         AND l.owner_id = a.owner_id AND l.place_id = 0), 0) AS drawn, \
         (SELECT COUNT(*) FROM coupon_issues i WHERE i.coupon_id = a.owner_id) \
         + (SELECT COUNT(*) FROM dead_letters d JOIN postings p ON p.journal_id = d.journal_id \
         WHERE p.kind = 'COUPON' AND p.owner_id = a.owner_id AND p.delta < 0 \
         AND d.state <> 'RESOLVED') AS issued \
         FROM accounts a WHERE a.kind = 'COUPON') counted WHERE drawn <> issued",
    )
    .fetch_all(pool)
    .await?;
    let difference = |(coupon, drawn, issued)| {
        let text = format!("{drawn} were drawn, {issued} codes are there");
        Difference::new("coupons", coupon, text)
    };
    Ok(rows.into_iter().map(difference).collect())
}

/// Checks that a date's reports cover one day of some time zone: it begins on a quarter of an hour,
/// lasts about a day and belongs to that date. Returns the text of the difference, if there is one.
async fn day(pool: &MySqlPool, date: NaiveDate) -> Result<Option<String>, sqlx::Error> {
    const QUARTER_MS: u64 = 900_000;
    const HOUR_MS: u64 = 3_600_000;
    let spans: Vec<(u64, u64)> = sqlx::query_as(
        "SELECT DISTINCT first_id, end_id FROM daily_point_reports WHERE report_date = ? LIMIT 2",
    )
    .bind(date)
    .fetch_all(pool)
    .await?;
    let [(first, end)] = spans.as_slice() else {
        return Ok((!spans.is_empty()).then(|| format!("are of several days: {spans:?}")));
    };
    let begins = [*first, *end].map(Position::new);
    let is_begin = |at: &Position| at.low() == 0 && at.unix_ms().is_multiple_of(QUARTER_MS);
    let [first, end] = begins.map(Position::unix_ms);
    let noon = date.and_hms_opt(12, 0, 0).map_or(0, unix_ms);
    let noon = u64::try_from(noon).unwrap_or_default();
    let is_day = begins.iter().all(is_begin)
        && (23 * HOUR_MS..=25 * HOUR_MS).contains(&end.saturating_sub(first))
        && (first + 12 * HOUR_MS).abs_diff(noon) <= 14 * HOUR_MS;
    Ok((!is_day).then(|| format!("are of {first} to {end}, which is no such day")))
}
