//! Part two: each account's postings, chained without a gap up to its level.

use sqlx::MySqlPool;

use super::{Difference, Progress, Report, VerifyError, level_text, proved, remember};
use crate::account::{Account, Level};
use crate::database::accounts;

const PAGE: u32 = 1_000;
const SLICE: u64 = 10_000;

/// Walks over all accounts.
pub(super) async fn verify(
    pool: &MySqlPool,
    full: bool,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), VerifyError> {
    let (all,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM accounts")
        .fetch_one(pool)
        .await?;
    let all = u64::try_from(all).unwrap_or_default();
    let mut after = None;
    loop {
        let page = accounts::page(&mut *pool.acquire().await?, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        let subjects: Vec<String> = page
            .iter()
            .map(|(account, _)| account.to_string())
            .collect();
        let known = if full {
            Default::default()
        } else {
            proved(pool, &subjects).await?
        };
        for ((account, level), subject) in page.iter().zip(&subjects) {
            let start = known.get(subject).copied().unwrap_or_default();
            let found = chain(pool, *account, *level, start).await?;
            if found.is_none() && start != (level.seq, level.balance) {
                remember(pool, subject, level.seq, level.balance).await?;
            }
            report.add(found);
            report.accounts += 1;
            progress(report.accounts, all);
        }
    }
}

/// Follows an account's postings from what was proved to its level.
pub(super) async fn chain(
    pool: &MySqlPool,
    account: Account,
    level: Level,
    (mut seq, mut balance): (u64, i64),
) -> Result<Option<Difference>, sqlx::Error> {
    let subject = account.to_string();
    let differs = |text: String| Ok(Some(Difference::new("accounts", &subject, text)));
    while seq < level.seq {
        let upto = level.seq.min(seq + SLICE);
        let rows: Vec<(u64, i64, i64)> = sqlx::query_as(
            "SELECT seq, delta, balance_after FROM postings WHERE kind = ? AND owner_id = ? \
             AND place_id = ? AND seq > ? AND seq <= ? ORDER BY seq",
        )
        .bind(account.kind.as_str())
        .bind(account.owner)
        .bind(account.place)
        .bind(seq)
        .bind(upto)
        .fetch_all(pool)
        .await?;
        for (at, delta, after) in rows {
            if at != seq + 1 {
                return differs(format!("posting {} is missing", seq + 1));
            }
            if balance.checked_add(delta) != Some(after) || after < 0 {
                return differs(format!(
                    "posting {at} moves {balance} by {delta:+} to {after}"
                ));
            }
            (seq, balance) = (at, after);
        }
        if seq < upto {
            return differs(format!("posting {} is missing", seq + 1));
        }
    }
    if (seq, balance) != (level.seq, level.balance) {
        let last = Level {
            seq,
            balance,
            closed: level.closed,
        };
        return differs(format!(
            "is {}, its postings say {}",
            level_text(level),
            level_text(last)
        ));
    }
    Ok(None)
}
