//! Ends the branches that were held for an entry over several shards.
//!
//! The instance that holds a branch also ends it ([`stock_domain::branch`]). If that instance does
//! not, because it was killed or a link broke, [`sweep`] on any instance asks the coordinator
//! whether the entry was committed, or sees to it that it never will be, and ends the branch
//! accordingly.

use redis::cmd;
use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_domain::branch::{Branch, COMMITTED};
use stock_domain::journal::DraftError;
use stock_domain::request::Request;
use stock_domain::verdict::{Refusal, Verdict};
use stock_mysql::branches;
use stock_redis::{DecideError, Ledger, ReadError, Shard, epoch};

use crate::lookup::{self, LookupError};

/// Most branches that one sweep ends on each shard.
const SWEEP_MAX: usize = 500;
/// How long a branch that cannot be ended yet is left alone.
const POSTPONED_MS: u64 = 1_000;

/// Why branches could not be ended.
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
    /// The body of a branch cannot be read.
    #[error("what branch {0} holds cannot be read: {1}")]
    Body(Position, serde_json::Error),
}

/// Ends the branches whose deadline has passed, on every shard; returns how many.
///
/// # Errors
/// None at present: a shard that does not answer and a branch that cannot be ended wait for the
/// next sweep.
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

/// Ends a branch as its coordinator says; returns whether it has ended.
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
    // MySQL names the coordinator's entry once it is settled there, even if its state is forgotten.
    if let Some(entry) = branches::entry_of(pool, at).await? {
        return finish(ledger, shard, at, branch.confirm(at, entry)?).await;
    }
    let request = match ledger.decide(branch.abort()?).await? {
        Verdict::Refused(Refusal::StaleState { state, .. }) if state == COMMITTED => {
            return Ok(false);
        }
        // The entry will never be committed: this abort, or an earlier one, has seen to that.
        Verdict::Accepted(_) | Verdict::Refused(Refusal::StaleState { .. }) => {
            branch.release(at)?
        }
        Verdict::Refused(_) | Verdict::Replayed(_) => return Ok(false),
    };
    finish(ledger, shard, at, request).await
}

async fn finish(
    ledger: &Ledger,
    shard: &Shard,
    at: Position,
    request: Request,
) -> Result<bool, SweepError> {
    Ok(match ledger.decide(request).await? {
        Verdict::Accepted(_) => true,
        // The branch has ended meanwhile. Its member should be gone with that.
        Verdict::Refused(Refusal::StaleState { transition: 0, .. }) => {
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
