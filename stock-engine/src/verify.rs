//! Verify: the proof that nothing was lost or sold twice, at any time, under full load.
//!
//! Each part works in slices and keeps no table in memory:
//! 1. **journal** ([`pass`], [`entries`], [`late`], [`kept`]): a pass over the entries in the order of their positions. Each has exactly
//!    the postings and rows that it tells of, no row is without an entry, what later entries say of rows is said by
//!    them, and what entries of the last day have set in Redis stands there;
//! 2. **accounts**: per account the postings are 1..n, each balance follows from the one before, and the account is its
//!    last posting;
//! 3. **benefits**: each coupon's codes are as many as were drawn, each daily report of points is the sum of its postings;
//! 4. **strays**: tables that agree with each other, and rows behind the watermark that nothing made;
//! 5. **branches**: what was held on other shards for an entry was confirmed if that entry is there, and only then;
//! 6. **redis**: each level is that of a posting, settled or not yet; head, frames, states, idempotency records, deadlines
//!    and units held say what MySQL and the unsettled entries say, and there is no other key;
//! 7. **trouble**: nothing is listed as lost, and MySQL moves.
//!
//! A full run compares everything. Any other compares what came since the last one, and a part of the rest ([`round`]).
//! Archived entries are no part of it: numbers are dense from the last archived entry, postings chain from each
//! account's archived level. Values that differ only because they moved meanwhile are looked at again ([`again`]). A
//! run reports, notes in `ledger_checks` that it did, and changes nothing else; [`crate::reconcile`] corrects.
//!
//! That it is complete is what a test shows which changes every column and every field (`planted` in the tests of
//! stock-online).

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

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which part found it.
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
    /// Accepted entries that MySQL had not settled when it was read.
    pub lag_entries: u64,
    /// Entries compared in this run that were not verified before, or all in a full one.
    pub entries: u64,
    /// Entries of before that were compared again.
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

/// How long something may be held for an entry on another shard before it is a difference.
const BRANCH_SECONDS_MAX: u64 = 300;

/// Differences listed at most; more of them change nothing about what is to be done.
pub const DIFFERENCES_MAX: usize = 1_000;

/// As many of the differences as a noted run keeps: a person reads no more of them.
pub(crate) fn noted(differences: &[Difference]) -> Vec<Difference> {
    const NOTED_MAX: usize = 100;
    differences.iter().take(NOTED_MAX).cloned().collect()
}

impl Report {
    fn add(&mut self, found: impl IntoIterator<Item = Difference>) {
        let room = DIFFERENCES_MAX.saturating_sub(self.differences.len());
        self.differences.extend(found.into_iter().take(room));
    }

    /// Returns the result, if Redis could be compared; otherwise adds the reason as a difference, once.
    fn unless_shut<T>(&mut self, found: Result<T, VerifyError>) -> Result<Option<T>, VerifyError> {
        let why = match found {
            Ok(found) => return Ok(Some(found)),
            Err(VerifyError::Read(ReadError::Fenced(reason))) => {
                Difference::new("redis", "gate", reason.to_string())
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

/// Why there is no proof.
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

/// Says how far a run is: done and all, in entries and accounts.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Proves the ledger, from where the last proof ended or from zero.
///
/// # Errors
/// [`VerifyError`] when there can be no proof; what differs is in the report.
pub async fn verify(
    pool: &MySqlPool,
    ledger: &Ledger,
    full: bool,
    progress: Progress<'_>,
) -> Result<Report, VerifyError> {
    let started = Instant::now();
    let mut archived = archives::removed(pool).await?;
    let report = loop {
        // It is large: nobody who waits for it should have to hold it.
        let report = Box::pin(prove(pool, ledger, full, progress)).await?;
        // Entries that were being compared may have been archived meanwhile.
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

async fn prove(
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
    journal::verify((pool, ledger), &states, full, &mut report, progress).await?;
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
    prove_redis((pool, ledger), due, &mut report).await?;
    let trouble = trouble::found(pool, ledger).await;
    let trouble = report.unless_shut(trouble)?.unwrap_or_default();
    report.add(trouble);
    report.dead_letters = stock_mysql::dead_letters::unresolved(pool).await?;
    report.lost_entries = sqlx::query_scalar("SELECT COUNT(*) FROM lost_entries")
        .fetch_one(pool)
        .await?;
    report.ok = report.differences.is_empty();
    Ok(report)
}

/// Compares Redis with MySQL. A reason that keeps one part from being compared is named, and the others are compared.
async fn prove_redis(
    (pool, ledger): (&MySqlPool, &Ledger),
    due: Due,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let compared = redis::compare_all(pool, ledger).await;
    let (compared, mut others) = report.unless_shut(compared)?.unwrap_or_default();
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
    let memory = report.unless_shut(memory)?.unwrap_or_default();
    report.add(memory);
    let units = units::compare(ledger).await.map_err(VerifyError::from);
    let units = report.unless_shut(units)?.unwrap_or_default();
    report.add(units.into_iter().map(|drift| drift.difference));
    let holds = holds::compare(pool, ledger).await;
    let holds = report.unless_shut(holds)?.unwrap_or_default();
    report.add(holds.into_iter().map(|drift| drift.difference));
    Ok(())
}

/// Compares the data of Redis besides levels and holds: its head, frames, states and records. No other key may exist.
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
        found.extend(records::differing(pool, ledger, (&shard, due)).await?);
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
