//! Expiry: releases the holds whose time is over, a bounded number at a time.
//!
//! Any instance may sweep, several at once too: the hold's state lets only one end happen, and the
//! script checks by its own clock whether the time is over. The scheduler sweeps several times a
//! second. A request that is short of stock while expired holds wait sweeps at once
//! ([`Expiry::sweep_for`]), so that they block no buyer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use redis::cmd;
use stock_domain::account::Account;
use stock_domain::branch::Branch;
use stock_domain::hold::{self, Held};
use stock_domain::journal::DraftError;
use stock_domain::verdict::{Refusal, Verdict};
use stock_redis::{DecideError, Ledger, ReadError, Shard, epoch};
use tokio::sync::Mutex;

/// Most holds that a sweep of the scheduler releases.
const SWEEP_MAX: usize = 5_000;
/// Most holds that a sweep releases while a buyer waits for it.
const SWEEP_FOR_MAX: usize = 2_000;
/// Expiries that are decided at the same time: four full batches, behind which a buyer's request
/// waits for some milliseconds.
const AT_ONCE: usize = 1_024;
/// Members of `deadlines` that are searched for holds of a certain account.
const LOOK_MAX: usize = 20_000;

/// How long a hold that cannot be released is left alone.
const POSTPONED_MS: u64 = 600_000;

/// The result of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Holds released.
    pub released: usize,
    /// Whether more expired holds may wait.
    pub has_more: bool,
}

/// Why a sweep did not end.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no verdict.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// An entry cannot be written.
    #[error(transparent)]
    Draft(#[from] DraftError),
}

/// Sweeps on demand, one at a time in this process.
#[derive(Debug, Default)]
pub struct Expiry {
    /// Whether the last sweep covered all expired holds.
    was_complete: Mutex<bool>,
    begun: AtomicU64,
}

impl Expiry {
    /// Releases the expired holds, first those that give back to an account. A caller sweeps no
    /// more if, while it waited, another sweep began and covered all of them.
    ///
    /// # Errors
    /// [`SweepError`]; released holds stay released.
    pub async fn sweep_for(&self, ledger: &Ledger, account: Account) -> Result<(), SweepError> {
        let seen = self.begun.load(Ordering::Acquire);
        let mut was_complete = self.was_complete.lock().await;
        if *was_complete && self.begun.load(Ordering::Acquire) > seen {
            return Ok(());
        }
        self.begun.fetch_add(1, Ordering::AcqRel);
        *was_complete = false;
        let mut due = Vec::new();
        for shard in ledger.shards() {
            // A shard that fails is skipped, so that the holds of the others are still released.
            due.extend(self::due(&shard, LOOK_MAX).await.unwrap_or_default());
        }
        let is_all = due.len() <= SWEEP_FOR_MAX;
        let (first, others): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|(held, _)| held.gives_back_to(account));
        let all = first.into_iter().chain(others).take(SWEEP_FOR_MAX);
        release(ledger, all.collect()).await?;
        *was_complete = is_all;
        Ok(())
    }
}

/// Releases the holds that expired first, at most five thousand on each shard.
///
/// # Errors
/// [`SweepError`]; released holds stay released.
pub async fn sweep(ledger: &Ledger) -> Result<Swept, SweepError> {
    let (mut swept, mut failed) = (Swept::default(), None);
    for shard in ledger.shards() {
        // A shard that fails is skipped, so that the holds of the others are still released.
        let Ok(due) = due(&shard, SWEEP_MAX).await else {
            continue;
        };
        let is_full = due.len() == SWEEP_MAX;
        match release(ledger, due).await {
            Ok(released) => {
                swept.released += released;
                swept.has_more |= is_full && released > 0;
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(swept), Err)
}

/// Live holds whose time is over, each with its deadline, the oldest first.
async fn due(ledger: &Shard, most: usize) -> Result<Vec<(Held, u64)>, ReadError> {
    let mut link = ledger.link()?;
    // Redis' own time: this machine's estimate of it may be earlier than the time at which the
    // script found expired holds.
    let now_ms = epoch::time_ms(&mut link.read).await?;
    let members: Vec<(String, u64)> = cmd("ZRANGEBYSCORE")
        .arg(ledger.keys().deadlines())
        .arg("-inf")
        .arg(now_ms)
        .arg("WITHSCORES")
        .arg("LIMIT")
        .arg(0)
        .arg(most)
        .query_async(&mut link.read)
        .await?;
    let (mut held, mut strange) = (Vec::with_capacity(members.len()), Vec::new());
    for (member, expires_ms) in members {
        match Held::parse(&member) {
            Some(hold) => held.push((hold, expires_ms)),
            // [`crate::cross_shard`] ends these.
            None if Branch::parse_member(&member).is_some() => {}
            None => strange.push(member),
        }
    }
    postpone(ledger, strange).await?;
    Ok(held)
}

/// Defers members that cannot be released, so that they keep no other hold waiting. Meanwhile
/// `verify` reports them.
async fn postpone(ledger: &Shard, members: Vec<String>) -> Result<(), ReadError> {
    if members.is_empty() {
        return Ok(());
    }
    let mut link = ledger.link()?;
    let later_ms = ledger.redis_now_ms() + POSTPONED_MS;
    let mut add = cmd("ZADD");
    add.arg(ledger.keys().deadlines()).arg("XX");
    for member in &members {
        tracing::error!(member, "an expired hold cannot be released: see verify");
        add.arg(later_ms).arg(member);
    }
    let _changed: i64 = add.query_async(&mut link.read).await?;
    Ok(())
}

/// The outcome of an expiry that was not accepted.
enum Left {
    /// The hold has ended otherwise. Its member should be gone with that.
    Stale,
    /// The expiry can never be accepted.
    Wrong,
    /// The hold waits for the next sweep, for example because the backlog is full.
    Waiting,
}

fn left(refusal: &Refusal) -> Left {
    // A request on several shards that is not decided yet may have taken the units or the code for
    // a moment.
    if refusal.passes_by() {
        return Left::Waiting;
    }
    match refusal {
        Refusal::StaleState { transition: 0, .. } => Left::Stale,
        Refusal::Posting { .. } | Refusal::Taken { .. } => Left::Wrong,
        Refusal::StaleState { .. }
        | Refusal::Fenced
        | Refusal::Lost(_)
        | Refusal::KeyReused
        | Refusal::Claimed(_)
        | Refusal::Expired
        | Refusal::Backlog
        | Refusal::Predecided(_)
        | Refusal::NotOpen
        | Refusal::Closed
        | Refusal::SellingStopped
        | Refusal::Changed { .. }
        | Refusal::HoldExpired
        | Refusal::HeldEnough { .. }
        | Refusal::OwnHold => Left::Waiting,
    }
}

/// Sends the expiries together, so that they share script calls.
async fn release(ledger: &Ledger, due: Vec<(Held, u64)>) -> Result<usize, SweepError> {
    let lateness = metrics::histogram!("stock_reservation_expiry_lateness_seconds");
    let expiries = due.into_iter().map(|(held, expires_ms)| {
        let ledger = ledger.clone();
        async move {
            let request = hold::expire(&held, expires_ms)?;
            Ok::<_, SweepError>((held, expires_ms, ledger.decide(request).await))
        }
    });
    let mut expiries = stream::iter(expiries).buffer_unordered(AT_ONCE);
    let (mut released, mut failed) = (0, None);
    let (mut stale, mut wrong) = (Vec::new(), Vec::new());
    while let Some((held, expires_ms, verdict)) = expiries.try_next().await? {
        match verdict {
            Ok(Verdict::Accepted(accepted)) => {
                released += 1;
                let late_ms = accepted.position.unix_ms().saturating_sub(expires_ms);
                lateness.record(Duration::from_millis(late_ms).as_secs_f64());
            }
            Ok(Verdict::Refused(refusal)) => match left(&refusal) {
                Left::Stale => stale.push(held),
                Left::Wrong => wrong.push(held),
                Left::Waiting => {}
            },
            Ok(Verdict::Replayed(_)) => {}
            Err(error) => failed = Some(error),
        }
    }
    for held in wrong {
        postpone(&ledger.shard_of(held.id)?, vec![held.member()]).await?;
    }
    for held in stale {
        let shard = ledger.shard_of(held.id)?;
        let mut link = shard.link()?;
        let _gone: i64 = cmd("ZREM")
            .arg(shard.keys().deadlines())
            .arg(held.member())
            .query_async(&mut link.read)
            .await
            .map_err(ReadError::from)?;
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(released),
    }
}
