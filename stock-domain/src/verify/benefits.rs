//! Part five: coupons and points as sums. Each coupon's codes are as many as its account has lost; each daily
//! report is the sum of its user's postings.

use sqlx::MySqlPool;

use super::{Difference, Proved, VerifyError, proved, remember};
use crate::database::point_reports;

/// Compares coupons, and the reports that were not proved before.
pub(super) async fn verify(pool: &MySqlPool, full: bool) -> Result<Vec<Difference>, VerifyError> {
    let mut found = coupons(pool).await?;
    let dates = point_reports::dates(pool).await?;
    let subjects: Vec<String> = dates
        .iter()
        .map(|date| point_reports::proof_subject(*date))
        .collect();
    let known = match full {
        true => std::collections::HashMap::new(),
        false => proved(pool, &subjects).await?,
    };
    for (date, subject) in dates.into_iter().zip(subjects) {
        if known.contains_key(&subject) {
            continue;
        }
        let differing = point_reports::differing(pool, date).await?;
        if differing.is_empty() {
            remember(pool, &[(subject, Proved::default())]).await?;
        }
        found.extend(differing.into_iter().map(|(user, reported, posted)| {
            let text = format!("the report of {date} says {reported:?}, postings say {posted:?}");
            Difference::new("daily_point_reports", user, text)
        }));
    }
    Ok(found)
}

/// One statement, so one state of all tables. A dead letter has drawn too, and has no row. What was archived are the
/// two postings that opened an account (at 0, and by its count), and one for each draw.
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
