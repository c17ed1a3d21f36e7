//! Reconcile: compares the copies of each level on a schedule, reports differences, then corrects
//! them.
//!
//! A few statements compare each page of accounts, in Redis and in MySQL. On a healthy system,
//! under any load, nothing differs and nothing is changed. A level that differs is examined by
//! itself ([`crate::evidence`]). It is corrected when the chain of its postings holds from end to
//! end and another copy agrees with it; in Redis by compare-and-set on the value that was read.
//! Contradictions are reported and left. The deadline of a hold follows the journal: it is removed
//! when an entry ended the hold, and written again when none did.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::{RedisError, cmd};
use serde::Serialize;
use sqlx::MySqlPool;
use stock_common::clock;
use stock_domain::account::{Account, AccountKind, Level};
use stock_domain::hold::{Held, HoldKind};
use stock_domain::order::Order;
use stock_domain::posting::Posted;
use stock_mysql::ledger_checks::{self, CheckKind, Ended};
use stock_mysql::{accounts, holds as live_holds, jobs, journal, quarantine, settle, shards};
use stock_redis::units::count_held;
use stock_redis::{Ledger, ReadError};

use crate::evidence::{Contradiction, Evidence, EvidenceError, Seen};
use crate::quarantine::{ReleaseError, release};
use crate::verify::holds::{self, HoldDrift};
use crate::verify::redis::{Compared, compare};
use crate::verify::{Difference, VerifyError, noted, units};

/// The name of the job.
pub const JOB: &str = "reconcile";
/// Accounts read at once.
const PAGE: u32 = 2_000;
/// How often the correction of a moving level is tried.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The findings of one run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    /// Accepted entries that MySQL had not settled.
    pub lag_entries: u64,
    /// Everything that differed.
    pub differences: Vec<Difference>,
    /// How many of them were corrected.
    pub corrected: usize,
}

/// Compares and reports, and corrects if `apply` is set; `None` while another instance reconciles.
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
    let suspects = misstated(pool).await?;
    let Compared {
        lag_entries,
        drifts,
    } = compare(pool, ledger).await?;
    done.lag_entries = lag_entries;
    let drifts = drifts
        .into_iter()
        .map(|drift| (drift.account, drift.difference));
    let mut suspects: BTreeMap<Account, Difference> = suspects.into_iter().chain(drifts).collect();
    for of in quarantine::list(pool).await? {
        let text = format!("is under quarantine: {}", of.broken.reason);
        let account = of.broken.account;
        suspects.insert(account, Difference::new("quarantine", account, text));
    }
    for (account, mut difference) in suspects {
        let corrected = match apply {
            false => false,
            true => match repair(pool, ledger, account).await {
                Ok(corrected) => corrected,
                Err(left) => {
                    difference.detail = format!("{}; not corrected: {left}", difference.detail);
                    false
                }
            },
        };
        report(pool, &difference, corrected).await?;
        done.corrected += usize::from(corrected);
        done.differences.push(difference);
    }
    for drift in holds::compare(pool, ledger).await? {
        let corrected = apply && correct_hold(pool, ledger, &drift).await?;
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
    claim.succeed().await?;
    Ok(Some(done))
}

/// Accounts in MySQL whose row differs from their last posting; one statement for each page.
async fn misstated(pool: &MySqlPool) -> Result<Vec<(Account, Difference)>, sqlx::Error> {
    type Row = (String, u64, u64, i64, u64, Option<i64>);
    const TEXT: &str = "SELECT CAST(a.kind AS CHAR), a.owner_id, a.place_id, a.balance, a.seq, \
         COALESCE(p.balance_after, l.balance_after) FROM accounts a \
         LEFT JOIN postings p ON p.kind = a.kind AND p.owner_id = a.owner_id \
         AND p.place_id = a.place_id AND p.seq = a.seq \
         LEFT JOIN archived_levels l ON l.kind = a.kind AND l.owner_id = a.owner_id \
         AND l.place_id = a.place_id AND l.seq = a.seq \
         WHERE a.kind = ? AND a.owner_id BETWEEN ? AND ? AND a.place_id BETWEEN ? AND ? \
         AND (COALESCE(p.balance_after, l.balance_after) IS NULL \
         OR COALESCE(p.balance_after, l.balance_after) <> a.balance)";
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = accounts::page(&mut *pool.acquire().await?, after, PAGE).await?;
        let (Some((first, _)), Some((last, _))) = (page.first(), page.last()) else {
            return Ok(found);
        };
        after = Some(*last);
        // A page of one owner is limited to its locations. A page of several owners takes all
        // locations of each.
        let places = match first.owner == last.owner {
            true => (first.location, last.location),
            false => (0, u64::MAX),
        };
        let rows: Vec<Row> = sqlx::query_as(TEXT)
            .bind(first.kind.as_str())
            .bind(first.owner)
            .bind(last.owner)
            .bind(places.0)
            .bind(places.1)
            .fetch_all(pool)
            .await?;
        for (kind, owner, location, balance, seq, posted) in rows {
            let Some(kind) = AccountKind::parse(&kind) else {
                continue;
            };
            let account = Account {
                kind,
                owner,
                location,
            };
            let text = format!("mysql has {balance} at posting {seq}, which says {posted:?}");
            found.push((account, Difference::new("accounts", account, text)));
        }
    }
}

/// Why a difference was not corrected.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error("the journal does not chain from what mysql has")]
    Unchained,
    #[error("another process holds the shard, or the level is moving")]
    Busy,
    #[error(transparent)]
    Quarantine(#[from] ReleaseError),
}

impl From<sqlx::Error> for Left {
    fn from(error: sqlx::Error) -> Self {
        Self::Evidence(error.into())
    }
}

impl From<ReadError> for Left {
    fn from(error: ReadError) -> Self {
        Self::Evidence(error.into())
    }
}

/// Corrects the copies of an account's level that differ from the agreed one. Returns `false` when
/// none differs any more.
async fn repair(pool: &MySqlPool, ledger: &Ledger, account: Account) -> Result<bool, Left> {
    let is_kept = quarantine::find(&mut *pool.acquire().await?, account).await?;
    if is_kept.is_some() {
        release(pool, ledger, account, false).await?;
        return Ok(true);
    }
    let seen = Seen::read(&mut *pool.acquire().await?, account).await?;
    for _ in 0..ATTEMPTS {
        match try_repair(pool, ledger, account, &seen).await {
            Err(Left::Busy) => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
    Err(Left::Busy)
}

async fn try_repair(
    pool: &MySqlPool,
    ledger: &Ledger,
    account: Account,
    seen: &Seen,
) -> Result<bool, Left> {
    let lies = accounts::shards_of(pool, &[account]).await?;
    let Some(&number) = lies.get(&account) else {
        return Ok(false);
    };
    let mut transaction = pool.begin().await?;
    let state = shards::try_lock(&mut transaction, number).await?;
    let (state, shard) = (state.ok_or(Left::Busy)?, ledger.shard(number)?);
    let evidence = Evidence::gather(&mut transaction, &shard, &state, account, seen).await?;
    let settled = evidence.agreed(&evidence.unsettled)?;
    let follow = |level: Level, posted: &Posted| settle::follow(level, posted);
    let truth = evidence.unsettled.iter().try_fold(settled, follow);
    let truth = truth.ok_or(Left::Unchained)?;
    let mut corrected = false;
    let found = Level::parse(&evidence.in_redis);
    if found.is_none_or(|found| (found.balance, found.seq) != (truth.balance, truth.seq)) {
        let level = Level {
            closed: found.map_or(truth.closed, |found| found.closed),
            ..truth
        };
        if !shard.correct(account, &evidence.in_redis, level).await? {
            return Err(Left::Busy);
        }
        corrected = true;
    }
    if (settled.balance, settled.seq) != (evidence.stored.balance, evidence.stored.seq) {
        accounts::write(&mut transaction, number, &[(account, settled)]).await?;
        corrected = true;
    }
    transaction.commit().await?;
    Ok(corrected)
}

/// Writes the deadline of a hold that no entry has ended. Removes the deadline of a hold that an
/// entry has ended, or that neither an entry nor a row knows. A row alone is no evidence.
async fn correct_hold(
    pool: &MySqlPool,
    ledger: &Ledger,
    drift: &HoldDrift,
) -> Result<bool, VerifyError> {
    let Some(held) = Held::parse(&drift.member) else {
        return Ok(false);
    };
    let is_made = journal::missing(pool, &[held.id]).await?.is_empty();
    let is_nobodys = !is_made && !live_holds::is_known(pool, &held).await?;
    let is_over = is_nobodys || is_over(pool, &held).await?;
    let shard = ledger.shard(drift.shard)?;
    let command = match drift.expires_ms {
        Some(expires_ms) if is_made && !is_over => cmd("ZADD")
            .arg(shard.keys().deadlines())
            .arg(expires_ms)
            .arg(&drift.member)
            .to_owned(),
        None if is_over => cmd("ZREM")
            .arg(shard.keys().deadlines())
            .arg(&drift.member)
            .to_owned(),
        Some(_) | None => return Ok(false),
    };
    let mut link = shard.link()?;
    let changed: Result<i64, RedisError> = command.query_async(&mut link.read).await;
    changed.map_err(ReadError::from)?;
    Ok(true)
}

/// Whether an entry has ended a hold, an order on another shard included.
async fn is_over(pool: &MySqlPool, held: &Held) -> Result<bool, sqlx::Error> {
    if live_holds::ended_by(pool, held).await?.is_some() {
        return Ok(true);
    }
    let Some(order) = live_holds::order_of(pool, held).await? else {
        return Ok(false);
    };
    let entry = journal::find(&mut *pool.acquire().await?, order).await?;
    let order = entry.and_then(|entry| entry.ok()?.body::<Order>().ok());
    Ok(order.is_some_and(|order| match held.kind {
        HoldKind::Reservation => order.reservation_id == Some(held.id),
        HoldKind::Checkout => order.checkout_id == Some(held.id),
    }))
}

/// Counts the units of the live holds anew.
async fn correct_units(ledger: &Ledger, shard: u64) -> Result<bool, ReadError> {
    let shard = ledger.shard(shard)?;
    let mut link = shard.link()?;
    count_held(&mut link.read, shard.keys()).await?;
    Ok(true)
}

/// Notes a difference in the log and in `drifts`, and whether it was corrected.
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
