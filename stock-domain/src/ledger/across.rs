//! Deciding a request that lies on several shards: hold, decide at home, confirm.
//!
//! [`crate::branch`] says what the parts are; here they are sent. Whoever holds comes back; if it does not, because it
//! was killed or a link broke, [`sweep`] on any instance asks the home what became of the entry, or sees to it
//! that nothing will, and ends the branch accordingly.

use redis::cmd;
use sqlx::MySqlPool;
use stock_common::id::Position;

use super::{DecideError, Ledger, ReadError, Request, Shard, epoch};
use crate::account::Account;
use crate::branch::{Branch, COMMITTED, Part, Split};
use crate::database::branches;
use crate::journal::{DraftError, Posting};
use crate::lookup::{self, LookupError};
use crate::verdict::{Accepted, Back, Refusal, Verdict};

/// Branches that one sweep ends.
const SWEEP_MAX: usize = 500;
/// How long a branch that cannot be ended yet is left alone.
const POSTPONED_MS: u64 = 1_000;

/// A branch that was held.
struct Held<'a> {
    at: Position,
    part: &'a Part,
}

/// Decides the parts of a request.
pub(super) async fn decide(ledger: &Ledger, split: &Split) -> Result<Verdict, DecideError> {
    let mut held = Vec::with_capacity(split.branches.len());
    for part in &split.branches {
        match ledger.decide_part(part.shard, part.request()?).await {
            Ok(Verdict::Accepted(Accepted { position, .. })) => {
                held.push(Held { at: position, part });
            }
            Ok(Verdict::Refused(refusal)) => {
                release(ledger, held).await;
                let refusal = refusal.of_whole(&part.postings, &part.marks);
                let first = first_of(ledger, split, refusal.clone()).await;
                return match first == refusal {
                    true => remember(ledger, split, refusal).await,
                    // It was read beside what was decided: it is told, and stands under no key.
                    false => Ok(Verdict::Refused(first)),
                };
            }
            // A branch has no key.
            Ok(Verdict::Replayed(_)) => return Err(DecideError::OutcomeUnknown),
            Err(error) => {
                release(ledger, held).await;
                // The entry itself was never asked for.
                let is_unknown = matches!(error, DecideError::OutcomeUnknown);
                return Err(if is_unknown {
                    DecideError::Overloaded
                } else {
                    error
                });
            }
        }
    }
    let home = &split.home;
    let mut request = home.request()?;
    request.draft.branches = held.iter().map(|held| held.at).collect();
    let verdict = ledger.decide_part(home.shard, request).await;
    match verdict {
        Ok(Verdict::Accepted(accepted)) => {
            confirm(ledger, held, accepted.position).await;
            Ok(Verdict::Accepted(accepted))
        }
        Ok(Verdict::Refused(refusal)) => {
            release(ledger, held).await;
            Ok(Verdict::Refused(
                refusal.of_whole(&home.postings, &home.marks),
            ))
        }
        Ok(Verdict::Replayed(replay)) => {
            release(ledger, held).await;
            Ok(Verdict::Replayed(replay))
        }
        // It may have been decided: the sweep finds out, and ends the branches.
        Err(DecideError::OutcomeUnknown) => Err(DecideError::OutcomeUnknown),
        Err(error) => {
            release(ledger, held).await;
            Err(error)
        }
    }
}

/// The refusal that one script would have given: that of the first posting which cannot be. What was not asked for is
/// only looked at; the request is refused in any case.
async fn first_of(ledger: &Ledger, split: &Split, refusal: Refusal) -> Refusal {
    let late = split.late_mark();
    let is_late = matches!(refusal, Refusal::Taken { .. });
    let Some(asked) = late.filter(|_| is_late).or(refusal.posting()) else {
        return refusal;
    };
    for (index, mark) in split.judged_first() {
        // Those of this refusal's own part were judged by it.
        let state = ledger.state_of(mark).await.ok().flatten();
        let state = state.unwrap_or_default();
        if state != mark.expected {
            return Refusal::StaleState { mark: index, state };
        }
    }
    let before = split.taken().filter(|(index, _)| *index < asked);
    let before: Vec<(usize, Posting)> = before.collect();
    let names: Vec<Account> = before.iter().map(|(_, posting)| posting.account).collect();
    let Ok(levels) = ledger.levels(&names).await else {
        return refusal;
    };
    let short = |&(index, posting): &(usize, Posting)| {
        let level = levels.get(&posting.account).map(|level| level.balance);
        let left = level.or(posting.open)? - posting.least;
        (left + posting.delta < 0).then_some(Refusal::Insufficient {
            posting: index,
            account: posting.account,
            balance: left.max(0),
            back: Back::Nothing,
        })
    };
    before.iter().find_map(short).unwrap_or(refusal)
}

/// A branch's refusal is the whole's, under its key too.
async fn remember(
    ledger: &Ledger,
    split: &Split,
    refusal: Refusal,
) -> Result<Verdict, DecideError> {
    let home = &split.home.request;
    if home.idempotency.is_none() || !refusal.is_remembered(home.reprices, home.redraws) {
        return Ok(Verdict::Refused(refusal));
    }
    let request = home.refusing(&refusal);
    ledger.decide_part(split.home.shard, request).await
}

/// Ends branches; what fails is ended by the sweep.
async fn release(ledger: &Ledger, held: Vec<Held<'_>>) {
    for Held { at, part } in held {
        if let Some(branch) = &part.branch {
            end(ledger, at, branch.release(at)).await;
        }
    }
}

async fn confirm(ledger: &Ledger, held: Vec<Held<'_>>, entry: Position) {
    for Held { at, part } in held {
        if let Some(branch) = &part.branch {
            end(ledger, at, branch.confirm(at, entry)).await;
        }
    }
}

async fn end(ledger: &Ledger, at: Position, request: Result<Request, DraftError>) {
    let ended = match request {
        Ok(request) => ledger.decide_boxed(request).await,
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(Verdict::Accepted(_)) => {}
        Ok(other) => tracing::warn!(branch = %at, verdict = ?other, "branch not ended now"),
        Err(error) => tracing::warn!(branch = %at, %error, "branch not ended now"),
    }
}

/// Why branches could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// The branch's entry cannot be read.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// There is no verdict.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// An entry cannot be written.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// What is held cannot be read.
    #[error("what branch {0} holds cannot be read: {1}")]
    Body(Position, serde_json::Error),
}

/// Ends the branches whose deadline has passed, on every shard; returns how many.
///
/// # Errors
/// [`SweepError`] when nothing could be looked at; a branch that cannot be ended waits for the next sweep.
pub async fn sweep(pool: &MySqlPool, ledger: &Ledger) -> Result<usize, SweepError> {
    let mut ended = 0;
    for shard in ledger.shards() {
        let Ok(due) = due(&shard).await else {
            continue;
        };
        for at in due {
            match end_of(pool, ledger, &shard, at).await {
                Ok(true) => {
                    ended += 1;
                    continue;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(branch = %at, %error, "branch not ended yet"),
            }
            if let Err(error) = postpone(&shard, at).await {
                tracing::warn!(branch = %at, %error, "branch not postponed");
            }
        }
    }
    Ok(ended)
}

async fn due(shard: &Shard) -> Result<Vec<Position>, ReadError> {
    let mut link = shard.live_link().await?;
    let now_ms = epoch::time_ms(&mut link.read).await?;
    let members: Vec<String> = cmd("ZRANGEBYSCORE")
        .arg(shard.keys().deadlines())
        .arg("-inf")
        .arg(now_ms)
        .arg("LIMIT")
        .arg(0)
        .arg(SWEEP_MAX)
        .query_async(&mut link.read)
        .await?;
    let positions = members.iter().filter_map(|text| Branch::parse_member(text));
    Ok(positions.collect())
}

async fn postpone(shard: &Shard, at: Position) -> Result<(), ReadError> {
    let mut link = shard.live_link().await?;
    let _changed: i64 = cmd("ZADD")
        .arg(shard.keys().deadlines())
        .arg("XX")
        .arg(shard.redis_now_ms() + POSTPONED_MS)
        .arg(Branch::member(at))
        .query_async(&mut link.read)
        .await?;
    Ok(())
}

/// Ends a branch as its home says; returns whether it has ended.
async fn end_of(
    pool: &MySqlPool,
    ledger: &Ledger,
    shard: &Shard,
    at: Position,
) -> Result<bool, SweepError> {
    let Some(entry) = lookup::entry(pool, ledger, at).await? else {
        return Ok(false);
    };
    let branch = Branch::of(&entry).map_err(|error| SweepError::Body(at, error))?;
    // The home's entry is named by MySQL, as soon as it is settled there; also when its mark is forgotten.
    if let Some(entry) = branches::entry_of(pool, at).await? {
        return finish(ledger, shard, (at, branch.confirm(at, entry)?)).await;
    }
    let request = match ledger.decide(branch.abort()?).await? {
        Verdict::Refused(Refusal::StaleState { state, .. }) if state == COMMITTED => {
            return Ok(false);
        }
        // It will never be committed: from now on, or since before.
        Verdict::Accepted(_) | Verdict::Refused(Refusal::StaleState { .. }) => {
            branch.release(at)?
        }
        Verdict::Refused(_) | Verdict::Replayed(_) => return Ok(false),
    };
    finish(ledger, shard, (at, request)).await
}

async fn finish(
    ledger: &Ledger,
    shard: &Shard,
    (at, request): (Position, Request),
) -> Result<bool, SweepError> {
    Ok(match ledger.decide(request).await? {
        Verdict::Accepted(_) => true,
        // It has ended meanwhile; its member went with that.
        Verdict::Refused(Refusal::StaleState { mark: 0, .. }) => {
            forget(shard, at).await?;
            true
        }
        Verdict::Refused(_) | Verdict::Replayed(_) => false,
    })
}

async fn forget(shard: &Shard, at: Position) -> Result<(), ReadError> {
    let mut link = shard.live_link().await?;
    let _gone: i64 = cmd("ZREM")
        .arg(shard.keys().deadlines())
        .arg(Branch::member(at))
        .query_async(&mut link.read)
        .await?;
    Ok(())
}
