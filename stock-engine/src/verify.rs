//! Verify: checks that nothing was lost or sold twice, at any time, under full load.
//!
//! Each part reads in slices and keeps no table in memory:
//! 1. **journal** ([`pass`], [`entries`], [`late`], [`kept`]): reads the entries in the order of
//!    their positions. Each entry has exactly its postings and rows, and each row has an entry.
//!    Rows that later entries change say what those entries say. Redis still has what entries of
//!    the last day have set;
//! 2. **accounts**: the postings of an account are numbered 1..n, each balance follows from the one
//!    before, and the account's row equals its last posting;
//! 3. **benefits**: a coupon has as many codes as were drawn, and each daily report of points is
//!    the sum of its postings;
//! 4. **strays**: tables agree with each other, and no row after the watermark lacks an entry;
//! 5. **branches**: what was held on other shards for an entry was confirmed if that entry exists,
//!    and only then;
//! 6. **redis**: each level is that of a posting, settled or not. Head, frames, states, idempotency
//!    records, deadlines and held units agree with MySQL and the unsettled entries, and there is no
//!    other key;
//! 7. **trouble**: no entry is listed as lost, no account is under quarantine, and MySQL moves.
//!
//! A full run compares everything. Any other run compares what came since the last one, and a part
//! of the rest ([`round`]). Archived entries are left out: numbers continue from the last archived
//! entry, and postings from each account's archived level. A value that differs may only have moved
//! meanwhile, so it is looked at again ([`again`]). A run reports, notes its result, and changes no
//! account; [`crate::reconcile`] corrects.
//!
//! A test shows that the checks are complete: it changes every column and every field (`planted` in
//! the tests of stock-online).

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use sqlx::MySqlPool;
use stock_domain::account::Level;
use stock_domain::journal::EntryError;
use stock_mysql::ledger_checks::{self, CheckKind, Ended};
use stock_mysql::{archives, branches, shards};
use stock_redis::{Ledger, ReadError};

mod accounts;
mod again;
mod benefits;
mod ends;
mod entries;
mod frames;
mod head;
pub mod holds;
mod journal;
mod kept;
mod keyspace;
mod late;
mod pass;
mod proofs;
mod records;
pub mod redis;
mod round;
mod rows;
mod states;
mod strays;
mod tail;
mod tally;
mod told;
pub mod trouble;
pub mod units;
mod used;

use self::again::Look;
pub(crate) use self::journal::proved_number;
use self::round::Due;

/// One disagreement that a run found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The check that found it.
    pub check: &'static str,
    /// The account or entry.
    pub subject: String,
    /// A text that says what is there and what should be.
    pub detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.check, self.subject, self.detail)
    }
}

impl Difference {
    pub(crate) fn new(check: &'static str, subject: impl ToString, detail: String) -> Self {
        Self {
            check,
            subject: subject.to_string(),
            detail,
        }
    }
}

/// The result of a run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether nothing differs.
    pub ok: bool,
    /// Accepted entries that MySQL had not settled when the run read them.
    pub lag_entries: u64,
    /// Entries that this run compared for the first time; in a full run, all.
    pub entries: u64,
    /// Entries verified earlier that this run compared again.
    pub reproved_entries: u64,
    /// Accounts compared in this run.
    pub accounts: u64,
    /// Dead letters that wait for a compensation or a person.
    pub dead_letters: i64,
    /// Entries that an instance accepted and that are in no journal.
    pub lost_entries: i64,
    /// The differences that were found, at most [`DIFFERENCES_MAX`].
    pub differences: Vec<Difference>,
}

/// Seconds for which a branch may be held before it counts as a difference.
const BRANCH_SECONDS_MAX: u64 = 300;

/// Most differences that a report lists; a longer list would not change what is to be done.
pub const DIFFERENCES_MAX: usize = 1_000;

/// The differences that a noted run keeps: nobody reads more of them.
pub(crate) fn noted(differences: &[Difference]) -> Vec<Difference> {
    const NOTED_MAX: usize = 100;
    differences.iter().take(NOTED_MAX).cloned().collect()
}

impl Report {
    fn add(&mut self, found: impl IntoIterator<Item = Difference>) {
        let room = DIFFERENCES_MAX.saturating_sub(self.differences.len());
        self.differences.extend(found.into_iter().take(room));
    }

    /// Returns the result if Redis could be compared; otherwise adds the reason as a difference,
    /// once.
    fn unless_fenced<T>(
        &mut self,
        found: Result<T, VerifyError>,
    ) -> Result<Option<T>, VerifyError> {
        let why = match found {
            Ok(found) => return Ok(Some(found)),
            Err(VerifyError::Read(ReadError::Fenced(reason))) => {
                Difference::new("redis", "fence", reason.to_string())
            }
            Err(VerifyError::Read(ReadError::Entry(error))) => unreadable(&error),
            Err(VerifyError::NoEpoch) => {
                let text = "mysql lacks the state or the epoch of a shard".to_owned();
                Difference::new("shards", "epoch", text)
            }
            Err(error) => return Err(error),
        };
        if !self.differences.contains(&why) {
            self.add([why]);
        }
        Ok(None)
    }
}

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// MySQL has no epoch yet.
    #[error("mysql has no epoch: run `stock-online migrate`")]
    NoEpoch,
}

/// Is told how far a run is: done and total, in entries or accounts.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Verifies the ledger, from where the last run ended or, with `full`, from the beginning.
///
/// # Errors
/// [`VerifyError`] when nothing can be compared. Differences are in the report.
pub async fn verify(
    pool: &MySqlPool,
    ledger: &Ledger,
    full: bool,
    progress: Progress<'_>,
) -> Result<Report, VerifyError> {
    let started = Instant::now();
    let mut archived = archives::removed(pool).await?;
    let report = loop {
        // Boxed, because the future is large and its callers would have to hold it.
        let report = Box::pin(compare(pool, ledger, full, progress)).await?;
        // Entries may have been archived while they were compared.
        let before = std::mem::replace(&mut archived, archives::removed(pool).await?);
        if report.ok || archived == before {
            break report;
        }
    };
    let ended = Ended {
        kind: CheckKind::Verify,
        took: started.elapsed(),
        differences: report.differences.len(),
        corrected: 0,
        report: &Report {
            differences: noted(&report.differences),
            ..report.clone()
        },
    };
    ledger_checks::note(pool, &ended).await;
    Ok(report)
}

/// Verifies what a rebuild of Redis from MySQL relies on, as far as it came since the last run.
///
/// These are the entries, their postings and rows, and the levels. Redis' other data is not
/// compared, because the rebuild replaces it.
///
/// # Errors
/// [`VerifyError`] when nothing can be compared.
pub async fn verify_before_rebuild(
    pool: &MySqlPool,
    ledger: &Ledger,
    progress: Progress<'_>,
) -> Result<Vec<Difference>, VerifyError> {
    let mut report = Report::default();
    let states = shards::all_since(pool).await?;
    journal::verify(pool, ledger, &states, false, &mut report, progress).await?;
    accounts::verify(pool, Due::NONE, &mut report, progress).await?;
    let (compared, others) = redis::compare_all(pool, ledger).await?;
    report.add(compared.drifts.into_iter().map(|drift| drift.difference));
    report.add(others);
    Ok(report.differences)
}

async fn compare(
    pool: &MySqlPool,
    ledger: &Ledger,
    full: bool,
    progress: Progress<'_>,
) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    let states = shards::all_since(pool).await?;
    if states.is_empty() {
        return Err(VerifyError::NoEpoch);
    }
    journal::verify(pool, ledger, &states, full, &mut report, progress).await?;
    let due = match full {
        true => Due::ALL,
        false => Due::take(pool, ledger.redis_now_ms()).await?,
    };
    accounts::verify(pool, due, &mut report, progress).await?;
    report.add(benefits::verify(pool, due).await?);
    report.add(again::twice(pool, ledger, Look::Strays { full }).await?);
    let wrong = branches::wrong(pool, BRANCH_SECONDS_MAX).await?;
    let wrong = wrong.into_iter();
    report.add(wrong.map(|(id, text)| Difference::new("branches", id, text)));
    compare_redis(pool, ledger, due, &mut report).await?;
    let trouble = trouble::found(pool, ledger).await;
    let trouble = report.unless_fenced(trouble)?.unwrap_or_default();
    report.add(trouble);
    report.dead_letters = stock_mysql::dead_letters::unresolved(pool).await?;
    report.lost_entries = sqlx::query_scalar("SELECT COUNT(*) FROM lost_entries")
        .fetch_one(pool)
        .await?;
    report.ok = report.differences.is_empty();
    Ok(report)
}

/// Compares Redis with MySQL. If one part cannot be compared, the reason is reported, and the other
/// parts are still compared.
async fn compare_redis(
    pool: &MySqlPool,
    ledger: &Ledger,
    due: Due,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let compared = redis::compare_all(pool, ledger).await;
    let (compared, mut others) = report.unless_fenced(compared)?.unwrap_or_default();
    report.lag_entries = compared.lag_entries;
    if !others.is_empty() {
        again::settle(pool, ledger).await;
        if let Ok((_, later)) = redis::compare_all(pool, ledger).await {
            again::keep(&mut others, &later);
        }
    }
    report.add(compared.drifts.into_iter().map(|drift| drift.difference));
    report.add(others);
    let memory = again::twice(pool, ledger, Look::Memory(due)).await;
    let memory = report.unless_fenced(memory)?.unwrap_or_default();
    report.add(memory);
    let units = units::compare(ledger).await.map_err(VerifyError::from);
    let units = report.unless_fenced(units)?.unwrap_or_default();
    report.add(units.into_iter().map(|drift| drift.difference));
    let holds = holds::compare(pool, ledger).await;
    let holds = report.unless_fenced(holds)?.unwrap_or_default();
    report.add(holds.into_iter().map(|drift| drift.difference));
    Ok(())
}

/// Compares the rest of Redis' data, besides levels and holds: head, frames, states, records. No
/// other key may exist.
async fn memory(
    pool: &MySqlPool,
    ledger: &Ledger,
    due: Due,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = match due.is_all() {
        true => states::missing(pool, ledger).await?,
        false => Vec::new(),
    };
    for shard in ledger.shards() {
        found.extend(head::differing(pool, &shard).await?);
        found.extend(frames::differing(pool, &shard).await?);
        found.extend(states::differing(pool, &shard, due).await?);
        found.extend(records::differing(pool, ledger, &shard, due).await?);
        found.extend(keyspace::differing(pool, &shard, due).await?);
    }
    Ok(found)
}

fn unreadable(error: &EntryError) -> Difference {
    let (EntryError::Newer { position, .. } | EntryError::Malformed { position, .. }) = error;
    Difference::new("journal", position, error.to_string())
}

fn level_text(level: Level) -> String {
    format!("balance {} at seq {}", level.balance, level.seq)
}
