//! Archive: moves months of the journal that nobody needs any more from MySQL into files.
//!
//! A file holds consecutive entries of one shard and one month (UTC, by positions). It is complete,
//! on disk and noted in `archives` before the first row is removed. Only entries that were read
//! back from the file are removed. They are removed in parts, each in one transaction that also
//! writes the levels at which the part leaves its accounts. So a run may be killed anywhere: the
//! next run finishes it, and no entry is archived twice or lost.
//!
//! An entry stays while it is not verified, and while somebody still waits for it: a webhook that
//! has not sent it, a dead letter, or an oversold sale that a person has yet to resolve. Entries
//! are removed in order, so every later entry of its shard stays too. [`crate::verify`] continues
//! from the last entry that was removed. `file` writes and reads the files,
//! [`stock_mysql::archives`] the tables.

mod file;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use chrono::{Datelike as _, Months, NaiveDate, NaiveTime};
use serde::{Serialize, Serializer};
use sqlx::MySqlPool;
use stock_common::clock::{datetime, unix_ms};
use stock_common::config::Config;
use stock_common::id::Position;
use stock_domain::account::Account;
use stock_domain::journal::EntryError;
use stock_domain::shard_state::ShardState;
use stock_mysql::archives::{self, Archive, ArchivedLevel, Reached};
use stock_mysql::jobs::{self, Claim};
use stock_mysql::{branches, dead_letters, journal, offline_sales, shards, webhooks};

pub use self::file::{ArchivedEntry, read};
use crate::verify::{Progress, proved_number};

/// The name of the job: one process archives at a time.
pub const JOB: &str = "archive";
/// Entries that are read at once, and removed in one transaction.
const PART: u32 = 1_000;
/// Entries younger than this, in ms, are never removed: retries, late cancels and `recover` look
/// for them.
const KEEP_MS: u64 = 7 * 86_400_000;

/// Why a run ended early. A new run continues where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// A file cannot be written or read.
    #[error("{0}: {1}")]
    File(String, #[source] std::io::Error),
    /// An entry cannot be read, so it cannot be archived.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Another process is archiving.
    #[error("another process is archiving at the moment")]
    Busy,
    /// MySQL has no epoch yet.
    #[error("mysql has no epoch: run `stock-online migrate`")]
    NoEpoch,
    /// The month ended too recently.
    #[error("entries of the last {0} days are still needed: name an earlier month")]
    TooYoung(u64),
    /// The folder has a file of this name with other entries.
    #[error("{0} is there already and holds another journal: name another folder")]
    Foreign(String),
    /// The file of a run that was killed is not in the folder, or was changed.
    #[error("{0}, which an earlier run wrote, is not in this folder as it was")]
    Missing(String),
    /// The file and MySQL do not agree; nothing is removed.
    #[error("entry {number} of shard {shard}: {what}; run `stock-online verify --full`")]
    Differs {
        /// The shard.
        shard: u64,
        /// The entry.
        number: u64,
        /// The disagreement.
        what: String,
    },
}

/// A month of the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(NaiveDate);

impl Month {
    /// The month in which a moment lies, in Unix ms.
    #[must_use]
    pub fn of(unix_ms: u64) -> Self {
        let day = datetime(unix_ms).date();
        Self(day.with_day(1).unwrap_or(day))
    }

    /// The first moment of the month, in Unix ms.
    #[must_use]
    pub fn begins_ms(self) -> u64 {
        u64::try_from(unix_ms(self.0.and_time(NaiveTime::MIN))).unwrap_or_default()
    }

    fn next(self) -> Option<Self> {
        self.0.checked_add_months(Months::new(1)).map(Self)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

/// The text is not a month.
#[derive(Debug, thiserror::Error)]
#[error("not a month: 2026-01 is expected")]
pub struct MonthError;

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let day = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d");
        day.map(Self).or(Err(MonthError))
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The moment before which entries are archived, in Unix ms: the beginning of the month `before`.
///
/// # Errors
/// [`ArchiveError::TooYoung`] when that would remove entries that are still looked for.
pub fn cut_off_ms(before: Month, now_ms: u64, config: &Config) -> Result<u64, ArchiveError> {
    let keep_ms = KEEP_MS
        .max(config.decide.idempotency_accepted_ms)
        .max(config.decide.marks_keep_ms);
    let begins_ms = before.begins_ms();
    if begins_ms.saturating_add(keep_ms) > now_ms {
        return Err(ArchiveError::TooYoung(keep_ms.div_ceil(86_400_000)));
    }
    Ok(begins_ms)
}

/// Entries of a shard that were decided in one month and go into one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stretch {
    /// The shard.
    pub shard: u64,
    /// The month.
    pub month: Month,
    /// The first entry's number.
    pub first_number: u64,
    /// The last entry's number.
    pub last_number: u64,
}

impl Stretch {
    const fn entries(&self) -> u64 {
        self.last_number + 1 - self.first_number
    }

    fn file(&self) -> String {
        let (shard, month, first) = (self.shard, self.month, self.first_number);
        format!("journal-{shard}-{month}-{first}.jsonl.gz")
    }
}

/// Why entries that are old enough stay in MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// They are not verified yet.
    Verify,
    /// This webhook has not delivered them yet.
    Webhook(u64),
    /// A dead letter that waits for a compensation or a person.
    DeadLetter(Position),
    /// An oversold sale that nobody has resolved.
    Oversold(Position),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verify => f.write_str("not verified yet: run `stock-online verify`"),
            Self::Webhook(id) => write!(f, "webhook {id} has not delivered them"),
            Self::DeadLetter(position) => write!(f, "{position} is a dead letter"),
            Self::Oversold(position) => write!(f, "the oversold sale {position} is not resolved"),
        }
    }
}

/// Entries that are old enough to go, and stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The shard.
    pub shard: u64,
    /// Number of the first of them.
    pub first_number: u64,
    /// Number of the last of them.
    pub last_number: u64,
    /// Why they stay.
    pub reason: String,
}

/// The plan of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The stretches that would go.
    pub stretches: Vec<Stretch>,
    /// The entries that would stay although they are old enough.
    pub held: Vec<Held>,
}

/// The result of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Archived {
    /// The files whose entries are in no table any more.
    pub files: Vec<Archive>,
    /// The entries that stay although they are old enough.
    pub held: Vec<Held>,
}

/// Plans what [`archive`] would do, and changes nothing.
///
/// # Errors
/// [`ArchiveError`] when MySQL does not answer.
pub async fn plan(pool: &MySqlPool, before_ms: u64) -> Result<Plan, ArchiveError> {
    let mut plan = Plan::default();
    for ShardState { shard, .. } in shards::all(pool).await? {
        plan_shard(pool, shard, before_ms, &mut plan).await?;
    }
    Ok(plan)
}

/// Writes the entries that were decided before a moment to files in a folder, and removes them from
/// MySQL. Before that, it finishes what an earlier run began.
///
/// # Errors
/// [`ArchiveError`]. A new run continues where this one stopped.
pub async fn archive(
    pool: &MySqlPool,
    folder: &Path,
    before_ms: u64,
    progress: Progress<'_>,
) -> Result<Archived, ArchiveError> {
    let claim = jobs::claim(pool, JOB).await?.ok_or(ArchiveError::Busy)?;
    std::fs::create_dir_all(folder).map_err(file::at(folder))?;
    let mut done = Archived::default();
    for ShardState { shard, .. } in shards::all(pool).await? {
        if let Some(begun) = archives::unfinished(pool, shard).await? {
            let before = begun.first_number - 1;
            let mut reached = |number| progress(number - before, begun.entries);
            remove(pool, &claim, folder, &begun, &mut reached).await?;
            done.files.push(begun);
        }
    }
    let Plan { stretches, held } = plan(pool, before_ms).await?;
    done.held = held;
    // Each entry is written once and removed once.
    let all: u64 = stretches.iter().map(|of| 2 * of.entries()).sum();
    let mut earlier = 0;
    for stretch in stretches {
        let (before, entries) = (stretch.first_number - 1, stretch.entries());
        let mut reached = |number| progress(earlier + number - before, all);
        let begun = write(pool, &claim, folder, &stretch, &mut reached).await?;
        earlier += entries;
        let mut reached = |number| progress(earlier + number - before, all);
        remove(pool, &claim, folder, &begun, &mut reached).await?;
        earlier += entries;
        done.files.push(begun);
    }
    // The outcomes of branches are needed only while their entries are in MySQL.
    let mut reached = Vec::new();
    for ShardState { shard, .. } in shards::all(pool).await? {
        reached.push((shard, archives::reached(pool, shard).await?.position));
    }
    branches::forget(pool, &reached).await?;
    claim.succeed().await?;
    Ok(done)
}

async fn plan_shard(
    pool: &MySqlPool,
    shard: u64,
    before_ms: u64,
    plan: &mut Plan,
) -> Result<(), ArchiveError> {
    let state = shards::load(pool, shard).await?;
    let state = state.ok_or(ArchiveError::NoEpoch)?;
    let before = |position: Position| async move {
        let last = journal::last_before(pool, shard, position).await?;
        Ok::<u64, sqlx::Error>(last.unwrap_or_default().number)
    };
    let first = match archives::unfinished(pool, shard).await? {
        Some(begun) => begun.last_number + 1,
        None => archives::reached(pool, shard).await?.number + 1,
    };
    let cut_off = Position::from_parts(before_ms, 0).unwrap_or_default();
    let wanted = before(cut_off).await?.min(state.number);
    let mut limits = vec![(proved_number(pool, shard).await?, Holder::Verify)];
    if let Some((webhook, sent)) = webhooks::slowest(pool, shard).await? {
        limits.push((sent, Holder::Webhook(webhook)));
    }
    if let Some(letter) = dead_letters::oldest_unresolved(pool, shard).await? {
        limits.push((before(letter).await?, Holder::DeadLetter(letter)));
    }
    if let Some(sale) = offline_sales::oldest_unresolved(pool, shard).await? {
        limits.push((before(sale).await?, Holder::Oversold(sale)));
    }
    let limit = limits.into_iter().min_by_key(|(number, _)| *number);
    let mut last = wanted;
    if let Some((number, holder)) = limit.filter(|(number, _)| *number < wanted) {
        last = number;
        plan.held.push(Held {
            shard,
            first_number: first.max(number + 1),
            last_number: wanted,
            reason: holder.to_string(),
        });
    }
    let mut next = first;
    while next <= last {
        let position = journal::position_of(pool, shard, next).await?;
        let position = position.ok_or_else(|| differs(shard, next, "is missing"))?;
        let month = Month::of(position.unix_ms());
        let end = month.next().map_or(u64::MAX, Month::begins_ms);
        let end = Position::from_parts(end, 0).unwrap_or(Position::new(u64::MAX));
        let last_number = before(end).await?.min(last);
        plan.stretches.push(Stretch {
            shard,
            month,
            first_number: next,
            last_number,
        });
        next = last_number + 1;
    }
    Ok(())
}

fn differs(shard: u64, number: u64, what: impl Into<String>) -> ArchiveError {
    let what = what.into();
    ArchiveError::Differs {
        shard,
        number,
        what,
    }
}

/// Writes a stretch to its file, and notes the file in MySQL.
async fn write(
    pool: &MySqlPool,
    claim: &Claim,
    folder: &Path,
    stretch: &Stretch,
    reached: &mut (dyn FnMut(u64) + Send),
) -> Result<Archive, ArchiveError> {
    let (shard, name) = (stretch.shard, stretch.file());
    let mut connection = pool.acquire().await?;
    let mut out = file::Writer::create(folder, &name)?;
    let mut next = stretch.first_number;
    while next <= stretch.last_number {
        let last_number = stretch.last_number;
        for entry in journal::page(&mut connection, shard, next - 1, last_number, PART).await? {
            let entry = entry?;
            if entry.number != next {
                return Err(differs(shard, next, "is missing"));
            }
            out.write(&entry)?;
            next += 1;
        }
        claim.check()?;
        reached(next - 1);
    }
    drop(connection);
    let checksum = out.finish()?;
    let archive = Archive {
        file: name,
        shard,
        month: stretch.month.to_string(),
        first_number: stretch.first_number,
        last_number: stretch.last_number,
        entries: stretch.entries(),
        checksum,
    };
    file::list(folder, &archive)?;
    let before = archives::reached(pool, shard).await?;
    archives::insert(pool, &archive, before).await?;
    Ok(archive)
}

/// Removes from MySQL the entries that are read back from a file.
async fn remove(
    pool: &MySqlPool,
    claim: &Claim,
    folder: &Path,
    archive: &Archive,
    reached: &mut (dyn FnMut(u64) + Send),
) -> Result<(), ArchiveError> {
    let path = folder.join(&archive.file);
    if file::checksum(&path).ok().as_ref() != Some(&archive.checksum) {
        return Err(ArchiveError::Missing(archive.file.clone()));
    }
    let mut entries = read(&path).map_err(file::at(&path))?;
    loop {
        let part = entries.by_ref().take(PART as usize);
        let part: Vec<ArchivedEntry> = part.collect::<Result<_, _>>().map_err(file::at(&path))?;
        let Some(last) = part.last().map(|entry| entry.number) else {
            return Ok(());
        };
        remove_part(pool, archive, part).await?;
        claim.check()?;
        reached(last);
    }
}

/// Removes the next entries, and notes the levels at which they leave their accounts. Entries that
/// are already removed are skipped.
async fn remove_part(
    pool: &MySqlPool,
    archive: &Archive,
    mut part: Vec<ArchivedEntry>,
) -> Result<(), ArchiveError> {
    let Archive {
        shard,
        first_number,
        ..
    } = *archive;
    let mut transaction = pool.begin().await?;
    let done = archives::lock(&mut transaction, shard, first_number).await?;
    part.retain(|entry| entry.number > done);
    let (Some(first), Some(last)) = (part.first(), part.last()) else {
        return Ok(());
    };
    let (first, last, position) = (first.number, last.number, last.position);
    if first != done + 1 {
        return Err(differs(shard, done + 1, "is not in the file"));
    }
    let touched = part.iter().flat_map(|entry| &entry.postings);
    let touched: HashSet<Account> = touched.map(|posted| posted.account).collect();
    let touched: Vec<Account> = touched.into_iter().collect();
    let mut levels = archives::levels(&mut transaction, &touched).await?;
    for entry in &part {
        follow(&mut levels, entry).map_err(|what| differs(shard, entry.number, what))?;
    }
    let postings: usize = part.iter().map(|entry| entry.postings.len()).sum();
    let expected = (part.len() as u64, postings as u64);
    let removed = archives::remove(&mut transaction, shard, first, last).await?;
    if removed != expected {
        let text = format!(
            "mysql has {removed:?} entries and postings up to {last}, the file {expected:?}"
        );
        return Err(differs(shard, first, text));
    }
    let levels: Vec<(Account, ArchivedLevel)> = levels.into_iter().collect();
    archives::write_levels(&mut transaction, &levels).await?;
    let reached = Reached {
        number: last,
        position,
    };
    archives::advance(&mut transaction, shard, first_number, reached).await?;
    transaction.commit().await?;
    Ok(())
}

/// Advances levels by an entry's postings, which must continue them.
fn follow(
    levels: &mut HashMap<Account, ArchivedLevel>,
    entry: &ArchivedEntry,
) -> Result<(), String> {
    for posted in &entry.postings {
        let level = levels.entry(posted.account).or_default();
        let chains = posted.seq == level.seq + 1
            && level.balance.checked_add(posted.delta) == Some(posted.balance_after);
        if !chains {
            let account = posted.account;
            return Err(format!("{posted:?} does not follow {account} at {level:?}"));
        }
        *level = ArchivedLevel {
            seq: posted.seq,
            balance: posted.balance_after,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use stock_common::config::Config;

    use super::{Month, cut_off_ms};

    #[test]
    fn a_month_begins_at_its_first_moment_and_only_months_are_months() {
        let month: Month = "2026-02".parse().unwrap();
        assert_eq!(month.begins_ms(), 1_769_904_000_000);
        assert_eq!(Month::of(month.begins_ms()), month);
        assert_eq!(Month::of(month.begins_ms() - 1).to_string(), "2026-01");
        assert_eq!(Month::of(month.begins_ms() - 1).next(), Some(month));
        for text in ["", "2026", "2026-13", "2026-1-1", "2026-01-01", "x"] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_month_that_ended_within_seven_days_is_not_archived() {
        let month: Month = "2026-02".parse().unwrap();
        let (config, week) = (Config::default(), 7 * 86_400_000);
        let at = |after: u64| cut_off_ms(month, month.begins_ms() + after, &config);
        assert_eq!(at(week).unwrap(), month.begins_ms());
        assert!(at(week - 1).is_err());
        let config = config.with(|config| {
            config.decide.marks_keep_ms = 2 * week;
        });
        assert!(cut_off_ms(month, month.begins_ms() + week, &config).is_err());
    }
}
