//! Chooses the stretch of the journal that a run compares, and notes how far it is verified.
//!
//! A full run compares everything that is not archived. Any other run compares what came since the
//! last one, and then a part of the rest, so that every row is compared again within a day
//! ([`super::round`]).

use std::collections::HashMap;

use sqlx::MySqlPool;
use stock_common::id::{Position, Span};
use stock_domain::shard_state::ShardState;
use stock_mysql::{archives, journal};
use stock_redis::Ledger;

use super::again::{self, Look};
use super::pass::{Course, Courses, Pass, courses};
use super::proofs::{Verified, remember, verified};
use super::rows::LETTERS;
use super::tally::Tally;
use super::{Difference, Progress, Report, VerifyError, round};

const SUBJECT: &str = "journal:";
/// Dead letters read at once.
const PAGE: u32 = 1_000;

/// The number up to which a shard's entries were verified.
///
/// # Errors
/// When MySQL does not answer.
pub(crate) async fn proved_number(pool: &MySqlPool, shard: u64) -> Result<u64, sqlx::Error> {
    let subject = format!("{SUBJECT}{shard}");
    let known = verified(pool, std::slice::from_ref(&subject)).await?;
    Ok(known.get(&subject).map_or(0, |known| known.upto))
}

/// The shards when a run begins, each with the time at which it was last settled.
pub(super) type States = [(ShardState, String)];

/// The last settled position of all shards.
pub(super) fn end_of(states: &States) -> Position {
    let watermarks = states.iter().map(|(state, _)| state.watermark);
    watermarks.max().unwrap_or_default()
}

/// Compares the stretch of a run.
pub(super) async fn verify(
    pool: &MySqlPool,
    ledger: &Ledger,
    states: &States,
    full: bool,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), VerifyError> {
    let start = match full {
        true => archived_position(pool, states).await?,
        false => proved_position(pool, states).await?,
    };
    let mut pass = Pass {
        pool,
        ledger,
        courses: courses(pool, states, start).await?,
        tally: full.then(Tally::new),
        rowless: HashMap::new(),
    };
    let end = end_of(states);
    let before: u64 = pass.courses.values().map(|of| of.done.number).sum();
    let all: u64 = states.iter().map(|(state, _)| state.number).sum();
    let (mut at, mut done, mut is_right) = (start, 0, true);
    while at < end {
        let step = pass
            .step(
                Span {
                    after: at,
                    upto: end,
                },
                report,
            )
            .await?;
        at = step.at;
        done += step.entries;
        is_right &= step.is_right;
        progress(done, all.saturating_sub(before));
        if is_right {
            note(pool, &pass.courses).await?;
        }
    }
    report.entries = done;
    report.add(pass.courses.values().filter_map(Course::missing));
    if let Some(tally) = &pass.tally {
        let left = tally.left();
        report.add(again::twice(pool, ledger, Look::Ends(&left)).await?);
        let letters = Look::Letters(&pass.courses, &pass.rowless);
        report.add(again::twice(pool, ledger, letters).await?);
        report.add(pass.courses.values().flat_map(Course::switched));
        return Ok(());
    }
    round::verify(pool, ledger, states, start, report).await
}

/// The position after which some entry is not archived.
pub(super) async fn archived_position(
    pool: &MySqlPool,
    states: &States,
) -> Result<Position, sqlx::Error> {
    let mut start = end_of(states);
    for (state, _) in states {
        start = start.min(archives::reached(pool, state.shard).await?.position);
    }
    Ok(start)
}

/// The position after which some entry is not verified.
async fn proved_position(pool: &MySqlPool, states: &States) -> Result<Position, sqlx::Error> {
    let mut start = end_of(states);
    for (state, _) in states {
        let number = proved_number(pool, state.shard).await?;
        if number < state.number {
            let position = journal::position_of(pool, state.shard, number).await?;
            let archived = archives::reached(pool, state.shard).await?.position;
            start = start.min(position.unwrap_or_default().max(archived));
        }
    }
    Ok(start)
}

async fn note(pool: &MySqlPool, courses: &Courses) -> Result<(), sqlx::Error> {
    let upto = courses.values().map(|course| {
        let upto = Verified {
            upto: course.done.number,
            balance: 0,
        };
        (format!("{SUBJECT}{}", course.state.shard), upto)
    });
    remember(pool, &upto.collect::<Vec<_>>()).await
}

/// Checks that each dead letter of an order says whether the order was taken back, and how.
pub(super) async fn letters(
    pool: &MySqlPool,
    courses: &Courses,
    rowless: &HashMap<Position, &'static str>,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = Vec::new();
    let mut at = Position::ZERO;
    loop {
        let condition = "kind = 'order_placed' AND state <> 'RESOLVED'";
        let page = LETTERS.page(pool, condition, at, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        at = last.at;
        for row in page {
            let course = courses.get(&row.at.shard());
            if !course.is_some_and(|course| course.has(row.at)) {
                continue;
            }
            let (is, expected) = (row.late(1), rowless.get(&row.at).copied());
            let is_right = match expected {
                Some(expected) => is == Some(expected),
                None => matches!(is, Some("OPEN" | "KEPT")),
            };
            if !is_right {
                let text = format!("is {is:?}, its entries say {expected:?}");
                found.push(Difference::new("dead_letters", row.at, text));
            }
        }
    }
}
