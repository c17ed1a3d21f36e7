//! Apply: records and settles one batch of the journal in one transaction.
//!
//! The watermark moves in the same transaction as the rows, so each entry takes effect exactly
//! once, however often and by however many instances it is read. An error is one of three kinds:
//!
//! | kind | cause | consequence |
//! |---|---|---|
//! | passing | a connection, a lock, a full disk, a missing table | the step is tried again |
//! | poison | an entry's own tables refuse its data | it becomes a dead letter; its postings are settled |
//! | broken chain | a posting does not continue its account's level, or another posting occupies its row | the account comes under quarantine ([`stock_mysql::quarantine`]); all other postings are settled |
//!
//! Applying stops only for what concerns the whole shard: another epoch, a gap in the numbers, an
//! entry of a newer program, a schema that refuses most entries. The subscriber calls this module,
//! and decides when.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{Connection, MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::account::Account;
use stock_domain::journal::{Entry, EntryError};
use stock_domain::posting::Posted;
use stock_domain::shard_state::ShardState;
use stock_mysql::account_queue::{AccountQueue, Ticket};
use stock_mysql::settle::{self, Ahead, Gap, Levels, Quarantine};
use stock_mysql::{dead_letters, journal, quarantine, record, shards};
use stock_redis::journal_stream::Tail;
use stock_redis::{ReadError, Shard};

/// The result of one step.
#[derive(Debug)]
pub enum Applied {
    /// There was nothing to apply.
    Nothing(ShardState),
    /// Another instance is applying.
    Busy,
    /// Entries were applied.
    Settled {
        /// Where MySQL is now.
        state: ShardState,
        /// How many entries were settled.
        entries: usize,
        /// How many of them became dead letters.
        dead_letters: usize,
        /// How many accounts came under quarantine.
        quarantined: usize,
        /// Where the frame of the last entry begins. The journal must keep everything from there
        /// on.
        last_frame: Position,
    },
}

/// Why a step did nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// MySQL did not answer, or rolled the transaction back: try again.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer: try again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// MySQL did not answer in time: try again on another connection.
    #[error("mysql did not answer in time; its connection is given up")]
    Stalled,
    /// Redis holds another epoch, or lacks the watermark's entry.
    #[error("the journal is not the one that belongs to this database: {0}")]
    Fenced(String),
    /// The journal does not continue MySQL's state: applying stops.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// An entry cannot be read: applying stops.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The journal's tables refuse a row, and no account is to blame: applying stops.
    #[error("mysql refuses a row of the journal: {0}")]
    Refused(#[source] sqlx::Error),
    /// Most entries of the last minute became dead letters for one reason. Applying stops, and lets
    /// through only as many dead letters a minute as the setting says.
    #[error(
        "{0} entries within a minute were refused for one reason, most of all: the schema, not the entries, is wrong"
    )]
    Circuit(u64),
}

impl ApplyError {
    /// Whether another transaction had the same rows, or is to have them first.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if stock_mysql::is_passing(error))
    }

    /// Whether a retry can help without anybody's action.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Read(_) | Self::Stalled)
    }
}

/// Entries that were read ahead of the watermark while MySQL was at work.
#[derive(Debug, Default)]
pub struct ReadAhead(Option<Tail>);

/// The result of a transaction.
enum Step {
    Done(Applied),
    /// It must queue for tickets of these accounts, and holds nothing.
    Waits(Vec<Account>),
}

/// Applies at most `entries_max` entries, and reads on while MySQL writes them. `rows` are the
/// account queues of this process.
///
/// # Errors
/// [`ApplyError`]; nothing was changed.
pub async fn apply(
    pool: &MySqlPool,
    shard: &Shard,
    rows: &AccountQueue,
    entries_max: usize,
    ahead: &mut ReadAhead,
) -> Result<Applied, ApplyError> {
    let limit = Duration::from_millis(shard.config().mysql.database_transaction_timeout_ms);
    let (mut ticket, mut care) = (Ticket::default(), Care::Trusting);
    loop {
        let mut connection = pool.acquire().await?;
        let applying = async {
            let asked = Asked {
                shard,
                entries_max,
                care,
            };
            let step = apply_on(&mut connection, &asked, rows, &mut ticket, ahead).await;
            if step.is_err() {
                // The ping rolls the open transaction back before its ticket passes to the next
                // one.
                drop(connection.ping().await);
            }
            step
        };
        let Ok(step) = tokio::time::timeout(limit, applying).await else {
            // The connection does not go back to the pool: it may swallow the next statement too.
            drop(connection.detach());
            return Err(ApplyError::Stalled);
        };
        drop(connection);
        match step {
            Ok(Step::Done(applied)) => return Ok(applied),
            // The shard is not locked meanwhile, so another instance may be quicker.
            Ok(Step::Waits(accounts)) => ticket = rows.ticket(&accounts).await,
            // A row already has the key of a posting. The next try finds out which.
            Err(ApplyError::Refused(_)) if care == Care::Trusting => care = Care::Looking,
            Err(error) => return Err(error),
        }
    }
}

/// Whether to look first if the rows of the postings are free. They always should be, so a batch
/// begins without looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    Trusting,
    Looking,
}

/// The parameters of a step.
struct Asked<'a> {
    shard: &'a Shard,
    entries_max: usize,
    care: Care,
}

async fn apply_on(
    connection: &mut MySqlConnection,
    &Asked {
        shard,
        entries_max,
        care,
    }: &Asked<'_>,
    rows: &AccountQueue,
    ticket: &mut Ticket,
    ahead: &mut ReadAhead,
) -> Result<Step, ApplyError> {
    let mut transaction = connection.begin().await?;
    let Some(mut state) = shards::try_lock(&mut transaction, shard.keys().shard()).await? else {
        return Ok(Step::Done(Applied::Busy));
    };
    // Entries never change, so what was read ahead under the same epoch is as good as what is read
    // now.
    let known = ahead.0.take().filter(|tail| tail.after == state.watermark);
    let mut tail = match known {
        Some(tail) => tail,
        None => shard.tail(state.watermark, entries_max).await?,
    };
    check(&state, &tail)?;
    let Some(last) = tail.entries.last().map(|entry| entry.position) else {
        return match tail.broken {
            Some(error) => Err(error.into()),
            None => Ok(Step::Done(Applied::Nothing(state))),
        };
    };
    let locked = settle::lock_ahead(&mut transaction, &tail.entries, rows, ticket).await?;
    let (levels, ours) = match locked {
        Ahead::Locked(levels, ours) => (levels, ours),
        Ahead::Queued(accounts) => {
            transaction.rollback().await?;
            ahead.0 = Some(tail);
            return Ok(Step::Waits(accounts));
        }
    };
    let rest = tail.split_off(ours);
    let written = async {
        let written =
            write_locked(&mut transaction, &mut state, &tail.entries, levels, care).await?;
        if written.dead_letters > 0 {
            let limit = u64::from(shard.config().apply.dead_letters_per_minute_max);
            let alike = dead_letters::alike_if_most(&mut transaction, &state).await?;
            if alike > limit {
                return Err(ApplyError::Circuit(alike));
            }
        }
        transaction.commit().await?;
        Ok(written)
    };
    let read_on = async {
        // Worth it only under a backlog; a short tail will have grown by the time it is needed.
        match rest.is_none() && tail.entries.len() >= entries_max {
            true => shard.tail(last, entries_max).await.ok(),
            false => None,
        }
    };
    let (written, next) = tokio::join!(written, read_on);
    let next = next.filter(|next| next.entries.len() >= entries_max && next.broken.is_none());
    ahead.0 = rest.or(next);
    let (entries, last_frame, written) = (tail.entries.len(), tail.last_frame, written?);
    Ok(Step::Done(Applied::Settled {
        state,
        entries,
        dead_letters: written.dead_letters,
        quarantined: written.quarantined,
        last_frame,
    }))
}

/// Checks that the journal is the one that MySQL knows, and that it holds the watermark's entry.
fn check(state: &ShardState, tail: &Tail) -> Result<(), ApplyError> {
    if tail.epoch.as_deref() != Some(state.epoch.as_str()) {
        return Err(ApplyError::Fenced(
            "redis holds another epoch, or none".to_owned(),
        ));
    }
    if tail.number != Some(state.number) {
        let text = format!(
            "entry {} of the watermark is not in the journal",
            state.watermark
        );
        return Err(ApplyError::Fenced(text));
    }
    Ok(())
}

/// The outcome of writing entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// How many became dead letters.
    pub dead_letters: usize,
    /// How many accounts came under quarantine.
    pub quarantined: usize,
}

/// Records and settles entries that follow the state. The caller holds the shard's lock and
/// commits.
///
/// # Errors
/// [`ApplyError`]; the caller rolls back.
pub async fn write(
    transaction: &mut MySqlConnection,
    state: &mut ShardState,
    entries: &[Entry],
) -> Result<Written, ApplyError> {
    let levels = settle::lock(transaction, entries).await?;
    write_locked(transaction, state, entries, levels, Care::Looking).await
}

/// Like [`write()`], for entries whose accounts are locked. The locks come before the question
/// which rows exist, because a synchronous order holds its accounts until its rows are committed.
async fn write_locked(
    transaction: &mut MySqlConnection,
    state: &mut ShardState,
    entries: &[Entry],
    mut levels: Levels,
    care: Care,
) -> Result<Written, ApplyError> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(Written::default());
    };
    let (first, last) = (first.position, last.position);
    let existing: HashSet<Position> = journal::existing(transaction, state.shard, first, last)
        .await?
        .into_iter()
        .collect();
    let missing: Vec<&Entry> = entries
        .iter()
        .filter(|entry| !existing.contains(&entry.position))
        .collect();
    let mut broken = Quarantine::default();
    if state.has_quarantine {
        broken.accounts = quarantine::of_shard(transaction, state.shard).await?;
    }
    if care == Care::Looking {
        let mut wanted: Vec<(Position, Posted)> = Vec::new();
        for entry in &missing {
            wanted.extend(
                entry
                    .postings
                    .iter()
                    .map(|posted| (entry.position, *posted)),
            );
        }
        let occupied = quarantine::occupied(transaction, &wanted).await?;
        occupied.into_iter().for_each(|found| broken.begin(found));
    }
    for entry in entries {
        settle::advance(&mut levels, state, entry, &mut broken)?;
    }
    record_journal(transaction, state.shard, &missing, &broken).await?;
    let dead_letters = record_own(transaction, &missing).await?;
    settle::settle(transaction, &levels, state, entries).await?;
    for found in &broken.begun {
        let (account, reason) = (found.account, &found.reason);
        tracing::error!(%account, %reason, "an account comes under quarantine");
    }
    Ok(Written {
        dead_letters,
        quarantined: broken.begun.len(),
    })
}

/// Writes journal rows and postings. Postings of accounts under quarantine are kept aside.
async fn record_journal(
    transaction: &mut MySqlConnection,
    shard: u64,
    missing: &[&Entry],
    broken: &Quarantine,
) -> Result<(), ApplyError> {
    let aside: HashSet<(Position, Account)> = broken
        .kept
        .iter()
        .map(|(position, posted)| (*position, posted.account))
        .collect();
    let recorded = journal::insert(transaction, missing, &aside).await;
    recorded.map_err(|error| match stock_mysql::is_data_error(&error) {
        true => ApplyError::Refused(error),
        false => ApplyError::Database(error),
    })?;
    if !broken.kept.is_empty() {
        quarantine::keep(transaction, &broken.kept).await?;
    }
    if !broken.begun.is_empty() {
        quarantine::begin(transaction, shard, &broken.begun).await?;
    }
    Ok(())
}

/// Records the effects of a dead letter on other rows. If MySQL refuses those too, `verify` names
/// what is missing.
async fn record_taken(transaction: &mut MySqlConnection, entry: &Entry) -> Result<(), ApplyError> {
    let mut savepoint = transaction.begin().await?;
    match record::record_taken(&mut savepoint, entry).await {
        Ok(()) => savepoint.commit().await?,
        Err(poison) if stock_mysql::is_data_error(&poison) => {
            savepoint.rollback().await?;
            tracing::error!(position = %entry.position, %poison, "what it took is not noted");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Writes the own tables of all entries together; if that meets poison, entry by entry.
async fn record_own(
    transaction: &mut MySqlConnection,
    entries: &[&Entry],
) -> Result<usize, ApplyError> {
    let mut savepoint = transaction.begin().await?;
    match record::record_own(&mut savepoint, entries).await {
        Ok(()) => {
            savepoint.commit().await?;
            return Ok(0);
        }
        Err(error) if error.is_poison() => savepoint.rollback().await?,
        Err(record::RecordError::Database(error)) => return Err(error.into()),
        Err(record::RecordError::Body(_)) => savepoint.rollback().await?,
    }
    let mut dead = 0;
    for entry in entries {
        let mut savepoint = transaction.begin().await?;
        match record::record_own(&mut savepoint, &[entry]).await {
            Ok(()) => savepoint.commit().await?,
            Err(record::RecordError::Database(error)) if !stock_mysql::is_data_error(&error) => {
                return Err(error.into());
            }
            Err(poison) => {
                savepoint.rollback().await?;
                tracing::error!(position = %entry.position, %poison, "entry is a dead letter");
                dead_letters::insert(transaction, entry, &poison.to_string()).await?;
                record_taken(transaction, entry).await?;
                dead += 1;
            }
        }
    }
    Ok(dead)
}
