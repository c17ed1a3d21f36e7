//! Ledger checks: the result of each run of `verify` and `reconcile`, wherever it ran.

use std::time::Duration;

use chrono::NaiveDateTime;
use serde::Serialize;
use sqlx::MySqlPool;

/// Runs of each check that are kept.
const KEPT: u32 = 3_000;

/// The kind of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// `verify` of `stock-engine`, which only compares.
    Verify,
    /// `reconcile` of `stock-engine`, which corrects levels that drifted.
    Reconcile,
}

impl CheckKind {
    /// The name in the table, and the name of the job.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Reconcile => "reconcile",
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ended<'a, R> {
    /// The kind of the check.
    pub kind: CheckKind,
    /// The duration of the run.
    pub took: Duration,
    /// Number of differences.
    pub differences: usize,
    /// Number of differences that were corrected.
    pub corrected: usize,
    /// The report of the run.
    pub report: &'a R,
}

/// A run as it is stored.
#[derive(Debug, Clone)]
pub struct LedgerCheck {
    /// Rises with every run.
    pub id: u64,
    /// A name of [`CheckKind`].
    pub kind: String,
    /// When the run ended, UTC.
    pub ended_at: NaiveDateTime,
    /// The duration of the run, in ms.
    pub took_ms: u64,
    /// Number of differences.
    pub differences: u32,
    /// Number of differences that were corrected.
    pub corrected: u32,
    /// The report as JSON; none when only the outcome was read.
    pub report: Option<String>,
}

from_row!(LedgerCheck {
    id,
    kind,
    ended_at,
    took_ms,
    differences,
    corrected,
    report
});

/// Notes a run and deletes the oldest ones. An error is only logged, because the result of the run
/// holds without its note.
pub async fn note<R: Serialize + Sync>(pool: &MySqlPool, ended: &Ended<'_, R>) {
    if let Err(error) = insert(pool, ended).await {
        tracing::warn!(%error, kind = ended.kind.as_str(), "the run of a check could not be noted");
    }
}

async fn insert<R: Serialize + Sync>(
    pool: &MySqlPool,
    ended: &Ended<'_, R>,
) -> Result<(), sqlx::Error> {
    let report = serde_json::to_string(ended.report)
        .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    sqlx::query(
        "INSERT INTO ledger_checks (kind, took_ms, differences, corrected, report) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(ended.kind.as_str())
    .bind(u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX))
    .bind(count(ended.differences))
    .bind(count(ended.corrected))
    .bind(report)
    .execute(pool)
    .await?;
    sqlx::query(
        "DELETE FROM ledger_checks WHERE kind = ? AND id < (SELECT COALESCE(MIN(id), 0) FROM \
         (SELECT id FROM ledger_checks WHERE kind = ? ORDER BY id DESC LIMIT ?) AS kept)",
    )
    .bind(ended.kind.as_str())
    .bind(ended.kind.as_str())
    .bind(KEPT)
    .execute(pool)
    .await?;
    Ok(())
}

/// Lists runs, the latest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<LedgerCheck>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, CAST(kind AS CHAR) AS kind, ended_at, took_ms, differences, corrected, report \
         FROM ledger_checks WHERE id < ? ORDER BY id DESC LIMIT ?",
    )
    .bind(before.unwrap_or(u64::MAX))
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The outcome of the latest run of a check, without its report. It is read every second.
///
/// # Errors
/// When MySQL does not answer.
pub async fn latest(pool: &MySqlPool, kind: CheckKind) -> Result<Option<LedgerCheck>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, CAST(kind AS CHAR) AS kind, ended_at, took_ms, differences, corrected, NULL AS report \
         FROM ledger_checks WHERE kind = ? ORDER BY id DESC LIMIT 1",
    )
    .bind(kind.as_str())
    .fetch_optional(pool)
    .await
}
