//! Pages of a list: how many items, where a page begins, and whether another follows.
//!
//! A handler reads one item more than was asked for. [`cut`] removes it again, and its presence
//! shows that there is another page.

use chrono::{Datelike as _, Days, NaiveDate};
use serde::Deserialize;

use super::problem::Problem;

/// Days from the first to the last day shown by default, and the largest number of days.
const DAYS: u64 = 30;
const DAYS_MAX: i64 = 366;

/// A page of a list without filters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageIn {
    /// Number of items.
    pub(super) limit: Option<u32>,
    /// Cursor at which the page begins.
    pub(super) cursor: Option<String>,
}

/// A page's size, 1..=100, 30 when none is asked for.
///
/// # Errors
/// 422 outside the range.
pub fn limit_of(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(30) {
        limit @ 1..=100 => Ok(limit),
        _ => Err(Problem::unprocessable("/limit", "limit is 1 to 100")),
    }
}

fn parse<T>(cursor: Option<&str>, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    cursor
        .map(|text| parse(text).ok_or_else(|| Problem::unprocessable("/cursor", "unknown cursor")))
        .transpose()
}

/// Reads a cursor: the id of the last item seen.
///
/// # Errors
/// 422 for a cursor that this service did not give.
pub fn cursor_of(cursor: Option<&str>) -> Result<Option<u64>, Problem> {
    parse(cursor, |text| text.parse().ok())
}

/// Reads a cursor in a list that is ordered by two numbers, such as `7-0`.
///
/// # Errors
/// 422 for a cursor that this service did not give.
pub fn cursor_pair_of(cursor: Option<&str>) -> Result<Option<(u64, u64)>, Problem> {
    parse(cursor, |text| {
        let (first, second) = text.split_once('-')?;
        Some((first.parse().ok()?, second.parse().ok()?))
    })
}

/// Cuts the items that were read to one page. Returns the page's last item when another page
/// follows.
pub fn cut<T>(found: &mut Vec<T>, limit: u32) -> Option<&T> {
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    found.last().filter(|_| has_more)
}

/// The first and the last day to show, both included. The last day is today unless it is given, the
/// first one 30 days before the last.
///
/// # Errors
/// 422 when they end before they begin, are more than 366, or lie outside the years 1970 to 9998.
pub fn days_of(
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
    today: NaiveDate,
) -> Result<(NaiveDate, NaiveDate), Problem> {
    let to = to.unwrap_or(today);
    let from = from.or(to.checked_sub_days(Days::new(DAYS)));
    let is_year = |day: NaiveDate| (1970..=9998).contains(&day.year());
    let from = from.filter(|from| is_year(*from) && is_year(to));
    let from = from.filter(|from| *from <= to && (to - *from).num_days() < DAYS_MAX);
    from.map(|from| (from, to)).ok_or_else(|| {
        let rule = format!("from is not after to, both are from 1970 to 9998, and at most {DAYS_MAX} days are asked for");
        Problem::unprocessable("/from", rule)
    })
}
