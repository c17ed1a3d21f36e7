//! Pages of a list: how many items, where a page begins, and whether another follows.
//!
//! A handler reads one item more than was asked for; [`cut`] takes it off again, and knows by it that there
//! is another page.

use super::problem::Problem;

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

/// Where a page begins: the id of the last item seen.
///
/// # Errors
/// 422 for a cursor that this service did not give.
pub fn cursor_of(cursor: Option<&str>) -> Result<Option<u64>, Problem> {
    parse(cursor, |text| text.parse().ok())
}

/// Where a page begins in a list that is ordered by two numbers, `7-0`.
///
/// # Errors
/// 422 for a cursor that this service did not give.
pub fn cursor_pair_of(cursor: Option<&str>) -> Result<Option<(u64, u64)>, Problem> {
    parse(cursor, |text| {
        let (first, second) = text.split_once('-')?;
        Some((first.parse().ok()?, second.parse().ok()?))
    })
}

/// Cuts what was read to a page; its last item, when another page follows it.
pub fn cut<T>(found: &mut Vec<T>, limit: u32) -> Option<&T> {
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    found.last().filter(|_| has_more)
}
