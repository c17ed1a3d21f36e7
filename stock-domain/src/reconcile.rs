//! Reconcile: on a schedule, compare both copies with the postings, report, then correct.
//!
//! The postings are the truth. A level that is not its last posting's is set to it, in Redis by
//! compare-and-set on the value that was read, in MySQL by its seq. On a healthy system, under any
//! load, nothing differs and nothing is changed. A chain that is itself broken is reported and left:
//! no level can be derived from it, that is `recover`'s work.

use std::time::Instant;

use redis::cmd;
use serde::Serialize;
use sqlx::MySqlPool;
use stock_common::clock;

use crate::account::{Account, Level};
use crate::database::ledger_checks::{self, CheckKind, Ended};
use crate::database::{accounts, archives, jobs};
use crate::ledger::keys::Address;
use crate::ledger::scripts::SCRIPTS;
use crate::ledger::units::count_held;
use crate::ledger::{Ledger, ReadError};
use crate::verify::holds::{self, HoldDrift};
use crate::verify::redis::{Compared, Drift, compare};
use crate::verify::units;
use crate::verify::{Difference, VerifyError, noted};

/// The name of the job.
pub const JOB: &str = "reconcile";
/// Accounts read at once.
const PAGE: u32 = 1_000;

/// What one run found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    /// Accepted entries that MySQL had not settled.
    pub lag_entries: u64,
    /// What differed.
    pub differences: Vec<Difference>,
    /// How many of them were corrected.
    pub corrected: usize,
}

/// Compares, reports, and with `apply` corrects; `None` while another instance is at it.
///
/// # Errors
/// [`VerifyError`] when Redis or MySQL does not answer.
pub async fn reconcile(
    pool: &MySqlPool,
    ledger: &Ledger,
    apply: bool,
) -> Result<Option<Reconciled>, VerifyError> {
    let Some(claim) = jobs::claim(pool, JOB).await? else {
        return Ok(None);
    };
    let started = Instant::now();
    let mut done = Reconciled::default();
    // MySQL first: Redis is compared with what is right there.
    for (account, stored, last) in misstated(pool).await? {
        let text = format!("mysql has {stored:?}, its last posting is {last:?}");
        let difference = Difference::new("accounts", account, text);
        let corrected = apply && correct_mysql(pool, account, stored, last).await?;
        report(pool, &difference, corrected).await?;
        done.corrected += usize::from(corrected);
        done.differences.push(difference);
    }
    let Compared {
        lag_entries,
        drifts,
    } = compare(pool, ledger).await?;
    done.lag_entries = lag_entries;
    for drift in drifts {
        let corrected = apply && correct_redis(ledger, &drift).await?;
        report(pool, &drift.difference, corrected).await?;
        done.corrected += usize::from(corrected);
        done.differences.push(drift.difference);
    }
    for drift in holds::compare(pool, ledger).await? {
        let corrected = apply && correct_hold(ledger, &drift).await?;
        report(pool, &drift.difference, corrected).await?;
        done.corrected += usize::from(corrected);
        done.differences.push(drift.difference);
    }
    for drift in units::compare(ledger).await.map_err(VerifyError::from)? {
        let corrected = apply && correct_units(ledger, drift.shard).await?;
        report(pool, &drift.difference, corrected).await?;
        done.corrected += usize::from(corrected);
        done.differences.push(drift.difference);
    }
    let ended = Ended {
        kind: CheckKind::Reconcile,
        took: started.elapsed(),
        differences: done.differences.len(),
        corrected: done.corrected,
        report: &Reconciled {
            differences: noted(&done.differences),
            ..done.clone()
        },
    };
    ledger_checks::note(pool, &ended).await;
    jobs::succeed(claim, JOB).await?;
    Ok(Some(done))
}

/// Accounts in MySQL that are not their last posting.
async fn misstated(pool: &MySqlPool) -> Result<Vec<(Account, Level, Level)>, sqlx::Error> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = accounts::page(&mut *pool.acquire().await?, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = Some(*last);
        for (account, level) in page {
            let balance: Option<i64> = sqlx::query_scalar(
                "SELECT balance_after FROM postings WHERE kind = ? AND owner_id = ? \
                 AND place_id = ? AND seq = ?",
            )
            .bind(account.kind.as_str())
            .bind(account.owner)
            .bind(account.place)
            .bind(level.seq)
            .fetch_optional(pool)
            .await?;
            let balance = match balance {
                None => archived(pool, account, level.seq).await?,
                found => found,
            };
            if let Some(balance) = balance.filter(|balance| *balance != level.balance) {
                found.push((account, level, Level { balance, ..level }));
            }
        }
    }
}

/// The balance after an account's last posting, when that was archived.
async fn archived(
    pool: &MySqlPool,
    account: Account,
    seq: u64,
) -> Result<Option<i64>, sqlx::Error> {
    let levels = archives::levels(&mut *pool.acquire().await?, &[account]).await?;
    let last = levels.get(&account).filter(|level| level.seq == seq);
    Ok(last.map(|level| level.balance))
}

async fn correct_mysql(
    pool: &MySqlPool,
    account: Account,
    stored: Level,
    last: Level,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE accounts SET balance = ?, updated_at = NOW(3) \
         WHERE kind = ? AND owner_id = ? AND place_id = ? AND seq = ? AND balance = ?",
    )
    .bind(last.balance)
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.place)
    .bind(stored.seq)
    .bind(stored.balance)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets a level in Redis if it is still the one that was read: then no posting has come since, and
/// the truth that was computed afterwards is complete.
async fn correct_redis(ledger: &Ledger, drift: &Drift) -> Result<bool, ReadError> {
    let shard = ledger.shard(drift.shard)?;
    let mut link = shard.link()?;
    let Address { key, field } = shard.keys().address(drift.account);
    // A missing book, or a key of another type, is brought back as a whole ([`crate::ledger`]).
    let read = match &field {
        None => cmd("GET").arg(&key).to_owned(),
        Some(field) => cmd("HGET").arg(&key).arg(field).to_owned(),
    };
    let stored: Option<String> = match drift.found {
        Some(level) if field.is_none() => Some(level.to_string()),
        Some(level) => Some(level.in_book()),
        None => read.query_async(&mut link.read).await?,
    };
    let closed = drift.found.map_or(drift.truth.closed, |found| found.closed);
    let truth = Level {
        closed,
        ..drift.truth
    };
    let is_in_book = field.is_some();
    let set: i64 = cmd("EVALSHA")
        .arg(&SCRIPTS.correct.sha)
        .arg(2)
        .arg(shard.keys().epoch())
        .arg(key)
        .arg(&*link.epoch)
        .arg(field.unwrap_or_default())
        .arg(stored.unwrap_or_default())
        .arg(if is_in_book {
            truth.in_book()
        } else {
            truth.to_string()
        })
        .query_async(&mut link.read)
        .await?;
    Ok(set == 1)
}

/// Writes a missing deadline, or removes one of a hold that is over. If the hold ends in this moment, its
/// deadline is looked at once more and removed then.
async fn correct_hold(ledger: &Ledger, drift: &HoldDrift) -> Result<bool, ReadError> {
    let shard = ledger.shard(drift.shard)?;
    let mut link = shard.link()?;
    let command = match drift.expires_ms {
        Some(expires_ms) => cmd("ZADD")
            .arg(shard.keys().deadlines())
            .arg(expires_ms)
            .arg(&drift.member)
            .to_owned(),
        None => cmd("ZREM")
            .arg(shard.keys().deadlines())
            .arg(&drift.member)
            .to_owned(),
    };
    let _changed: i64 = command.query_async(&mut link.read).await?;
    Ok(true)
}

/// Counts anew what the live holds add up to.
async fn correct_units(ledger: &Ledger, shard: u64) -> Result<bool, ReadError> {
    let shard = ledger.shard(shard)?;
    let mut link = shard.link()?;
    count_held(&mut link.read, shard.keys()).await?;
    Ok(true)
}

/// Writes the report before anybody relies on the correction.
async fn report(
    pool: &MySqlPool,
    difference: &Difference,
    corrected: bool,
) -> Result<(), sqlx::Error> {
    tracing::warn!(
        check = difference.check,
        subject = difference.subject,
        detail = difference.detail,
        corrected,
        "drift"
    );
    let detail: String = difference.detail.chars().take(1_000).collect();
    sqlx::query("INSERT INTO drifts (kind, subject, detail, corrected) VALUES (?, ?, ?, ?)")
        .bind(difference.check)
        .bind(&difference.subject)
        .bind(detail)
        .bind(corrected)
        .execute(pool)
        .await?;
    Ok(())
}

/// Seconds since a job last succeeded anywhere; `None` when it never did.
#[must_use]
pub fn age_seconds(last: Option<chrono::NaiveDateTime>, now_ms: i64) -> Option<i64> {
    last.map(|last| (now_ms - clock::unix_ms(last)).max(0) / 1_000)
}
