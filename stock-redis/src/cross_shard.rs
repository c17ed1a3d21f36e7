//! Decides a request that lies on several shards: hold, decide at the coordinator, confirm.
//!
//! [`stock_domain::branch`] builds the parts, and this file sends them. The instance that holds
//! branches also ends them. When it does not, because it was killed or a link broke, the sweep of
//! `stock-engine` ends them.

use stock_common::id::Position;
use stock_domain::account::Account;
use stock_domain::branch::{Part, Split};
use stock_domain::journal::DraftError;
use stock_domain::posting::Posting;
use stock_domain::request::Request;
use stock_domain::verdict::{Accepted, Back, Refusal, Verdict, Why};

use super::{DecideError, Ledger};

/// A branch that was held.
struct Held<'a> {
    at: Position,
    part: &'a Part,
}

/// Decides the parts of a request.
pub(super) async fn run(ledger: &Ledger, split: &Split) -> Result<Verdict, DecideError> {
    let mut held = Vec::with_capacity(split.branches.len());
    for part in &split.branches {
        match ledger.send_part(part.shard, part.request()?).await {
            Ok(Verdict::Accepted(Accepted { position, .. })) => {
                held.push(Held { at: position, part });
            }
            Ok(Verdict::Refused(refusal)) => {
                release(ledger, held).await;
                let refusal = refusal.of_whole(&part.postings, &part.transitions);
                let first = first_of(ledger, split, refusal.clone()).await;
                return match first == refusal {
                    true => remember(ledger, split, refusal).await,
                    // The other refusal was only read, and nothing decided it. So it is answered,
                    // but not remembered under the key.
                    false => Ok(Verdict::Refused(first)),
                };
            }
            // A branch has no Idempotency-Key, so this answer should not come. If it does, the
            // outcome is unknown.
            Ok(Verdict::Replayed(_)) => return Err(DecideError::OutcomeUnknown),
            Err(error) => {
                release(ledger, held).await;
                // The entry itself was not sent yet, so its outcome is not unknown.
                let is_unknown = matches!(error, DecideError::OutcomeUnknown);
                return Err(if is_unknown {
                    DecideError::Overloaded
                } else {
                    error
                });
            }
        }
    }
    let coordinator = &split.coordinator;
    let mut request = coordinator.request()?;
    request.draft.branches = held.iter().map(|held| held.at).collect();
    let verdict = ledger.send_part(coordinator.shard, request).await;
    match verdict {
        Ok(Verdict::Accepted(accepted)) => {
            confirm(ledger, held, accepted.position).await;
            Ok(Verdict::Accepted(accepted))
        }
        Ok(Verdict::Refused(refusal)) => {
            release(ledger, held).await;
            Ok(Verdict::Refused(
                refusal.of_whole(&coordinator.postings, &coordinator.transitions),
            ))
        }
        Ok(Verdict::Replayed(replay)) => {
            release(ledger, held).await;
            Ok(Verdict::Replayed(replay))
        }
        // The entry may have been decided. The sweep finds out, and ends the branches.
        Err(DecideError::OutcomeUnknown) => Err(DecideError::OutcomeUnknown),
        Err(error) => {
            release(ledger, held).await;
            Err(error)
        }
    }
}

/// The refusal that a single script would have given, which is the first in the order of the
/// checks. The earlier transitions and postings are only read, because the request is refused in
/// any case.
async fn first_of(ledger: &Ledger, split: &Split, refusal: Refusal) -> Refusal {
    let late = split.late_check();
    let is_late = matches!(refusal, Refusal::Taken { .. });
    let Some(asked) = late.filter(|_| is_late).or(refusal.posting()) else {
        return refusal;
    };
    for (index, transition) in split.judged_first() {
        // The refusing shard has already checked its own transitions.
        let state = ledger.state_of(transition).await.ok().flatten();
        let state = state.unwrap_or_default();
        if state != transition.from {
            return Refusal::StaleState {
                transition: index,
                state,
            };
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
        (left + posting.delta < 0).then_some(Refusal::Posting {
            posting: index,
            account: posting.account,
            why: Why::Insufficient {
                balance: left.max(0),
                back: Back::Nothing,
            },
        })
    };
    before.iter().find_map(short).unwrap_or(refusal)
}

/// Answers a branch's refusal for the whole request, and remembers it under the request's key.
async fn remember(
    ledger: &Ledger,
    split: &Split,
    refusal: Refusal,
) -> Result<Verdict, DecideError> {
    let coordinator = &split.coordinator.request;
    if coordinator.idempotency.is_none()
        || !refusal.is_remembered(coordinator.retried_anew, coordinator.retried_with_new_code)
    {
        return Ok(Verdict::Refused(refusal));
    }
    let request = coordinator.refusing(&refusal);
    ledger.send_part(split.coordinator.shard, request).await
}

/// Releases branches. The sweep ends those that fail here.
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
        Ok(request) => ledger.boxed(request).await,
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(Verdict::Accepted(_)) => {}
        Ok(other) => tracing::warn!(branch = %at, verdict = ?other, "branch not ended now"),
        Err(error) => tracing::warn!(branch = %at, %error, "branch not ended now"),
    }
}
