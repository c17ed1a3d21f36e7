//! The synchronous path: lock the account rows, decide, record, commit, answer.
//!
//! Tills use this path, and the benchmark compares Redis-first with it. Redis stays the one
//! authority for stock, so both paths sell the same stock and can never oversell together. The
//! subscriber moves the balances and the watermark later, in journal order.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{Connection, MySql, MySqlConnection, MySqlPool, Transaction};
use stock_domain::account::Account;
use stock_domain::journal::Entry;
use stock_domain::request::Request;
use stock_domain::verdict::Verdict;
use stock_mysql::account_queue::AccountQueue;
use stock_mysql::{accounts, archives, journal, record, shards};
use stock_redis::{DecideError, Ledger, Undecided};
use tokio::sync::Semaphore;

/// How often recording an accepted decision is tried before it is left to the subscriber.
const RECORD_ATTEMPTS: usize = 3;

/// Why a synchronous request was not decided.
#[derive(Debug, thiserror::Error)]
pub enum RowLockError {
    /// MySQL did not answer or did not give the locks; nothing was sent to Redis.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// There is no verdict.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// MySQL did not answer in time, so it is not known here whether the request was decided. If it
    /// was, the entry is in the journal, and the subscriber records it.
    #[error("mysql did not answer in time; its connection is given up")]
    Stalled,
}

impl Undecided for RowLockError {
    fn undecided(&self) -> Option<&DecideError> {
        match self {
            Self::Decide(error) => Some(error),
            Self::Database(_) | Self::Stalled => None,
        }
    }
}

/// A verdict, and whether MySQL has the entry.
#[derive(Debug)]
pub struct Decided {
    /// The script's answer.
    pub verdict: Verdict,
    /// Whether the entry is recorded; if not, the subscriber will do it.
    pub is_recorded: bool,
}

impl Decided {
    const fn unrecorded(verdict: Verdict) -> Self {
        Self {
            verdict,
            is_recorded: false,
        }
    }
}

/// The state that the row-locked requests of a process share.
pub struct RowLocks {
    /// Connections to MySQL. The server soon ends a transaction of theirs in which nothing is
    /// asked.
    pool: MySqlPool,
    /// The queues that say which transaction of this process may lock an account's row next.
    queue: AccountQueue,
    /// The transactions that may run at once. A permit is taken after the ticket, so that
    /// transactions that queue for one row keep no permit from the others.
    permits: Semaphore,
}

impl RowLocks {
    /// Row locks for at most `transactions_max` transactions at once.
    #[must_use]
    pub fn new(pool: MySqlPool, transactions_max: usize) -> Self {
        Self {
            pool,
            queue: AccountQueue::default(),
            permits: Semaphore::new(transactions_max),
        }
    }

    /// The account queues, which applying the journal needs too.
    #[must_use]
    pub const fn queue(&self) -> &AccountQueue {
        &self.queue
    }

    /// Decides a request under row locks and records the accepted entry. `before` are entries that
    /// MySQL must have first, such as the order that a cancel refers to.
    ///
    /// # Errors
    /// [`RowLockError`] when there is no verdict.
    pub async fn decide(
        &self,
        ledger: &Ledger,
        request: Request,
        before: Vec<Entry>,
    ) -> Result<Decided, RowLockError> {
        // Each attempt takes its locks anew. So none is held while the keys move to another server,
        // or while units are held for an undecided order.
        let attempt = || self.attempt(ledger, request.clone(), before.clone());
        ledger.retry(attempt).await
    }

    async fn attempt(
        &self,
        ledger: &Ledger,
        request: Request,
        before: Vec<Entry>,
    ) -> Result<Decided, RowLockError> {
        let config = ledger.config();
        let limit = Duration::from_millis(config.mysql.database_transaction_timeout_ms);
        let wait_max = Duration::from_millis(config.decide.queue_wait_ms_max);
        let mut touched: Vec<Account> = request.draft.postings.iter().map(|p| p.account).collect();
        touched.sort_unstable();
        let waiting = async {
            let ticket = self.queue.ticket(&touched).await;
            (ticket, self.permits.acquire().await)
        };
        let waited = tokio::time::timeout(wait_max, waiting).await;
        let _ticket_and_permit = waited.map_err(|_elapsed| DecideError::Overloaded)?;
        let mut connection = self.pool.acquire().await?;
        let deciding = record_under_locks(
            &mut connection,
            &self.pool,
            ledger,
            request,
            &touched,
            before,
        );
        match tokio::time::timeout(limit, deciding).await {
            Ok(decided) => decided,
            Err(_elapsed) => {
                // The connection does not go back to the pool: it may swallow the next statement
                // too.
                drop(connection.detach());
                Err(RowLockError::Stalled)
            }
        }
    }
}

async fn record_under_locks(
    connection: &mut MySqlConnection,
    pool: &MySqlPool,
    ledger: &Ledger,
    request: Request,
    touched: &[Account],
    before: Vec<Entry>,
) -> Result<Decided, RowLockError> {
    let mut transaction = connection.begin().await?;
    let judged = judge(&mut transaction, ledger, request, touched).await;
    let (verdict, entry) = match judged {
        Ok((verdict, Some(entry))) => (verdict, entry),
        nothing => {
            end(transaction).await;
            return nothing.map(|(verdict, _)| Decided::unrecorded(verdict));
        }
    };
    let entries: Vec<&Entry> = before.iter().chain([&entry]).collect();
    let mut done = match record_missing(&mut transaction, &entries).await {
        Ok(()) => transaction
            .commit()
            .await
            .map_err(record::RecordError::from),
        Err(error) => {
            end(transaction).await;
            Err(error)
        }
    };
    // The decision stands; only recording it is tried again.
    for _ in 1..RECORD_ATTEMPTS {
        match &done {
            Err(record::RecordError::Database(error)) if !stock_mysql::is_data_error(error) => {}
            Err(record::RecordError::Database(error)) if stock_mysql::is_passing(error) => {}
            Err(_) | Ok(()) => break,
        }
        done = record_again(pool, &entries).await;
    }
    if let Err(error) = &done {
        tracing::warn!(position = %entry.position, %error, "left to the subscriber");
    }
    Ok(Decided {
        verdict,
        is_recorded: done.is_ok(),
    })
}

/// Locks the rows and decides. Returns the verdict, and the entry that is to be recorded here.
async fn judge(
    transaction: &mut MySqlConnection,
    ledger: &Ledger,
    request: Request,
    touched: &[Account],
) -> Result<(Verdict, Option<Entry>), RowLockError> {
    let draft = request.draft.clone();
    let idempotency = request.idempotency.clone();
    let payload = draft
        .payload(idempotency.as_ref())
        .map_err(DecideError::from)?;
    let coordinator = ledger.coordinator_of(&request)?;
    let epoch = shards::share_epoch(transaction, coordinator.keys().shard()).await?;
    match coordinator.live_link().await {
        Ok(link) if *link.epoch == *epoch => {}
        Ok(_) => return Err(DecideError::Fenced("mysql holds another epoch".into()).into()),
        Err(error) => return Err(DecideError::Fenced(error.to_string().into()).into()),
    }
    accounts::lock(transaction, touched).await?;
    let verdict = ledger.ask_once(request).await?;
    let entry = match &verdict {
        Verdict::Accepted(accepted) if accepted.is_whole => {
            Some(Entry::accepted(draft, idempotency, payload, accepted))
        }
        // A cross-shard order: the subscribers of the other shards record its branches. Its own
        // entry stands in the coordinator's journal.
        Verdict::Accepted(accepted) => ledger.find(accepted.position).await.ok().flatten(),
        Verdict::Replayed(_) | Verdict::Refused(_) => None,
    };
    Ok((verdict, entry))
}

/// Rolls back a transaction before its ticket passes to the next one. A link that broke has ended
/// it too.
async fn end(transaction: Transaction<'_, MySql>) {
    drop(transaction.rollback().await);
}

async fn record_again(pool: &MySqlPool, entries: &[&Entry]) -> Result<(), record::RecordError> {
    let mut transaction = pool.begin().await?;
    record_missing(&mut transaction, entries).await?;
    Ok(transaction.commit().await?)
}

/// Records the entries that MySQL lacks.
async fn record_missing(
    connection: &mut MySqlConnection,
    entries: &[&Entry],
) -> Result<(), record::RecordError> {
    let mut missing = Vec::with_capacity(entries.len());
    for entry in entries {
        let (at, shard) = (entry.position, entry.position.shard());
        let is_there = !journal::existing(connection, shard, at, at)
            .await?
            .is_empty();
        // In a quiet shop Redis' journal still has entries that are archived.
        if !is_there && !archives::is_removed(connection, at).await? {
            missing.push(*entry);
        }
    }
    journal::insert(connection, &missing, &HashSet::new()).await?;
    record::record_own(connection, &missing).await
}
