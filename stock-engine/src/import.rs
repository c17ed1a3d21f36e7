//! Imports: files of stock, checked as a whole, then written in parts.
//!
//! 1. [`judge`] reads the rows once, in bounded memory, and checks each against MySQL at one
//!    watermark. A row says by how much a level changes, or what was counted; then the change is
//!    the count less the level at the watermark. Units that are sold meanwhile stay sold. If any
//!    row is wrong, no row is taken.
//! 2. [`apply`] writes the checked rows, a few hundred in one entry. The transaction that records
//!    the entry also moves its rows to APPLIED, so after a crash anywhere a new run continues with
//!    the rest. A row that would fall below zero by then is noted as failed; the others are
//!    written.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{Connection, Executor, MySqlConnection, MySqlPool};
use stock_common::id::{LocationId, ProductId};
use stock_domain::account::Account;
use stock_domain::journal::DraftError;
use stock_domain::product;
use stock_domain::stock::{self, CHANGE_MAX, ImportedRow};
use stock_domain::verdict::{Refusal, Verdict, Why};
use stock_mysql::imports::{self, Import, ImportState, StagedRow};
use stock_mysql::{accounts, shards, stores};
use stock_redis::{DecideError, Ledger, ReadError};
use tokio::sync::mpsc;

use crate::lookup;

/// Errors of a file that are listed; a longer list would not change what is to be done.
pub const ERRORS_MAX: usize = 100;
/// Rows of one entry.
const ENTRY_ROWS: u32 = 200;
/// How long to wait for MySQL to catch up, before its progress is checked.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How long to wait when the ledger is full.
const PAUSE: Duration = Duration::from_millis(100);

/// How a row's quantity is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The quantity is a change of the available stock.
    Delta,
    /// The quantity is the available stock that was counted.
    Set,
}

/// A row as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRow {
    /// Its line, from 1.
    pub line: u64,
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// ±1..=10^12 as a change, 0..=10^12 as a count.
    pub quantity: i64,
    /// How the quantity is meant.
    pub mode: Mode,
}

/// Why a row cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Its line, from 1.
    pub line: u64,
    /// The error, as a text for people.
    pub message: String,
}

/// Rows as they are read, some hundred at a time.
pub type Rows = mpsc::Receiver<Vec<Result<FileRow, RowError>>>;

/// The result of checking a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// Rows read.
    pub rows: u64,
    /// Rows that change something.
    pub changes: u64,
    /// The errors, at most [`ERRORS_MAX`].
    pub errors: Vec<RowError>,
    /// The number of errors, the unlisted ones included.
    pub error_count: u64,
}

impl Judged {
    fn wrong(&mut self, line: u64, message: String) {
        self.error_count += 1;
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(RowError { line, message });
        }
    }
}

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// There is no verdict.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// An entry cannot be written.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A part was refused for a reason that concerns no row.
    #[error("the ledger refuses it: {0}")]
    Refused(&'static str),
    /// MySQL settles nothing more of the accepted entries.
    #[error("mysql does not follow")]
    Behind,
}

/// Checks a file and stages its rows, as a draft that nobody writes yet.
///
/// # Errors
/// When MySQL does not answer.
pub async fn judge(pool: &MySqlPool, import: u64, mut rows: Rows) -> Result<Judged, sqlx::Error> {
    let locations: HashSet<LocationId> = stores::ids(pool)
        .await?
        .into_iter()
        .chain([LocationId::ONLINE])
        .collect();
    // One moment for the whole file: the watermark of this transaction's first read.
    let mut snapshot = pool.acquire().await?;
    snapshot
        .execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .await?;
    let mut snapshot = snapshot.begin().await?;
    let mut staging = pool.acquire().await?;
    let mut judged = Judged::default();
    while let Some(part) = rows.recv().await {
        let mut good = Vec::with_capacity(part.len());
        for row in part {
            judged.rows += 1;
            match row.and_then(|row| check(row, &locations)) {
                Ok(row) => good.push(row),
                Err(RowError { line, message }) => judged.wrong(line, message),
            }
        }
        let staged = deltas(&mut snapshot, &good, &mut judged).await?;
        if judged.error_count == 0 {
            imports::stage(&mut staging, import, &staged).await?;
        }
    }
    snapshot.rollback().await?;
    drop(staging);
    for (product, location, first, last) in
        imports::twice(pool, import, u32::try_from(ERRORS_MAX).unwrap_or(u32::MAX)).await?
    {
        let text =
            format!("product {product} at location {location} stands on line {first} already");
        judged.wrong(last, text);
    }
    if judged.rows == 0 {
        judged.wrong(1, "the file has no rows".to_owned());
    }
    judged.errors.sort_by_key(|error| error.line);
    Ok(judged)
}

/// Lets a file that was found good be written from now on; removes any other.
///
/// # Errors
/// When MySQL does not answer. A draft that stays then is never written.
pub async fn settle_judgement(
    pool: &MySqlPool,
    import: u64,
    good: Option<&Judged>,
) -> Result<(), sqlx::Error> {
    match good {
        Some(judged) => imports::set_applying(pool, import, judged.rows).await,
        None => imports::remove(pool, import).await,
    }
}

/// Checks a row by itself.
fn check(row: FileRow, locations: &HashSet<LocationId>) -> Result<FileRow, RowError> {
    let (least, most) = match row.mode {
        Mode::Delta => (-CHANGE_MAX, CHANGE_MAX),
        Mode::Set => (0, CHANGE_MAX),
    };
    let message = if !(least..=most).contains(&row.quantity) {
        format!("a quantity is {least} to {most}, not {}", row.quantity)
    } else if row.mode == Mode::Delta && row.quantity == 0 {
        "a change of 0 changes nothing".to_owned()
    } else if !locations.contains(&row.location_id) {
        format!("there is no location {}", row.location_id)
    } else {
        return Ok(row);
    };
    let line = row.line;
    Err(RowError { line, message })
}

/// Computes by how much each row changes its level at the snapshot's moment.
async fn deltas(
    snapshot: &mut MySqlConnection,
    rows: &[FileRow],
    judged: &mut Judged,
) -> Result<Vec<StagedRow>, sqlx::Error> {
    let mut ids: Vec<u64> = rows.iter().map(|row| row.product_id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    let known: HashSet<u64> = imports::known_products(snapshot, &ids)
        .await?
        .into_iter()
        .collect();
    let account = |row: &FileRow| Account::available(row.product_id, row.location_id);
    let names: Vec<Account> = rows.iter().map(account).collect();
    let levels = accounts::read(snapshot, &names).await?;
    let mut staged = Vec::with_capacity(rows.len());
    for row in rows {
        if !known.contains(&row.product_id.0) {
            judged.wrong(row.line, format!("there is no product {}", row.product_id));
            continue;
        }
        let level = levels.get(&account(row)).map_or(0, |level| level.balance);
        let delta = match row.mode {
            Mode::Delta => row.quantity,
            Mode::Set => row.quantity - level,
        };
        if level + delta < 0 {
            let text = format!("{level} are available: {delta:+} would be below 0");
            judged.wrong(row.line, text);
        } else if !(-CHANGE_MAX..=CHANGE_MAX).contains(&delta) {
            let text = format!("{level} are available: {delta:+} is more than one change may be");
            judged.wrong(row.line, text);
        } else {
            judged.changes += u64::from(delta != 0);
            staged.push(StagedRow {
                line: row.line,
                product_id: row.product_id,
                location_id: row.location_id,
                delta,
            });
        }
    }
    Ok(staged)
}

/// Is told how many lines of a file are done, and how many there are.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Writes the rest of a file; `None` when there is no such file or another instance writes it.
///
/// Callers need not exclude each other: the file's state lets only one of several continue.
///
/// # Errors
/// [`ImportError`]. A new call continues.
pub async fn apply(
    pool: &MySqlPool,
    ledger: &Ledger,
    import: u64,
    progress: Progress<'_>,
) -> Result<Option<Import>, ImportError> {
    loop {
        let Some(now) = imports::find(pool, import).await? else {
            return Ok(None);
        };
        if now.state != ImportState::Applying {
            return Ok(Some(now));
        }
        // In this order: entries accepted before the state was read are settled, so their rows are
        // no longer staged.
        let reached = ledger.state(&stock::import_state_id(import)).await?;
        settle(pool, ledger).await?;
        if imports::waiting(pool, import).await? == 0 {
            follow_statuses(pool, ledger, &now).await?;
            imports::finish(pool, import).await?;
        } else if !write(pool, ledger, &now, reached, &mut *progress).await? {
            return Ok(None);
        }
    }
}

/// Makes the stores' accounts follow products that were stopped, or put on sale again, while the
/// file was written.
async fn follow_statuses(
    pool: &MySqlPool,
    ledger: &Ledger,
    import: &Import,
) -> Result<(), ImportError> {
    let locations = stores::ids(pool).await?;
    for (product, is_off_sale) in imports::restated(pool, import.id).await? {
        let request = product::switch(product, is_off_sale, &locations, import.actor)?;
        if let Verdict::Refused(refusal) = ledger.decide(request).await? {
            return Err(ImportError::Refused(refusal.name()));
        }
    }
    Ok(())
}

/// Waits until MySQL has settled what the ledger has accepted, for as long as MySQL makes progress.
async fn settle(pool: &MySqlPool, ledger: &Ledger) -> Result<(), ImportError> {
    let mut before = None;
    while !lookup::catch_up(pool, ledger, CATCH_UP).await {
        let now = Some(shards::settled(pool).await?);
        if now == before {
            return Err(ImportError::Behind);
        }
        before = now;
    }
    Ok(())
}

/// Sends every staged row once, in the order of the lines. Each part names, in the file's state,
/// the line that the part before it reached, so only one of several writers continues; `false` when
/// it was not this one.
async fn write(
    pool: &MySqlPool,
    ledger: &Ledger,
    import: &Import,
    mut reached: Option<String>,
    progress: Progress<'_>,
) -> Result<bool, ImportError> {
    let mut after = 0;
    loop {
        let mut rows = imports::staged(pool, import.id, after, ENTRY_ROWS).await?;
        let Some(last) = rows.last().map(|row| row.line) else {
            return Ok(true);
        };
        after = last;
        while !rows.is_empty() {
            let request = stock::import(import.id, reached.as_deref(), &rows, import.actor)?;
            let refusal = match ledger.decide(request).await? {
                Verdict::Accepted(_) | Verdict::Replayed(_) => {
                    reached = rows.last().map(|row| row.line.to_string());
                    break;
                }
                Verdict::Refused(refusal) => refusal,
            };
            match (blame(&rows, &refusal), &refusal) {
                (Some((line, note)), _) => {
                    imports::fail(pool, import.id, line, &note).await?;
                    rows.retain(|row| row.line != line);
                }
                (None, Refusal::StaleState { .. }) => return Ok(false),
                (None, Refusal::Backlog | Refusal::Expired) => tokio::time::sleep(PAUSE).await,
                (None, refusal) => return Err(ImportError::Refused(refusal.name())),
            }
        }
        progress(last.min(import.total), import.total);
    }
}

/// The row that a refusal is about, and the note about it.
fn blame(rows: &[ImportedRow], refusal: &Refusal) -> Option<(u64, String)> {
    let Refusal::Posting { posting, why, .. } = refusal else {
        return None;
    };
    let note = match why {
        Why::Insufficient { balance, .. } => format!("{balance} are available by now"),
        Why::Unknown => "0 are available by now".to_owned(),
        Why::Overflow => "the level would become too large".to_owned(),
        Why::Closed | Why::Broken => return None,
    };
    let row = stock::imported_row(rows, *posting)?;
    Some((row.line, note))
}
