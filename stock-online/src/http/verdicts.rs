//! Verdicts: asking the ledger on behalf of a handler, and what handlers do alike with its answers.

use std::sync::Arc;

use stock_common::error::Code;
use stock_common::id::Position;
use stock_domain::database::row_lock::{self, Decided};
use stock_domain::journal::{Draft, DraftError, Entry, Idempotency, Kind};
use stock_domain::ledger::Request;
use stock_domain::lookup::{self, LookupError};
use stock_domain::verdict::{Refusal, Verdict};

use super::problem::Problem;
use crate::app::App;

/// Answers a refusal that was decided here; under a key the script remembers the answer, and whichever
/// attempt reached Redis first is the answer of both.
pub(super) async fn refuse(
    app: &App,
    idempotency: Option<Idempotency>,
    problem: Problem,
) -> Result<Verdict, Problem> {
    let Some(idempotency) = idempotency else {
        return Err(problem);
    };
    // What the request decides by itself, and what passes by, is not remembered.
    if problem.code == Code::Unprocessable || problem.code.status() >= 500 {
        return Err(problem);
    }
    // Nothing becomes of it: the kind is of no account.
    let draft = Draft::new(Kind::OrderPlaced, idempotency.user, &())?;
    let mut request = Request::new(draft);
    request.refuse = Some(problem.to_remember());
    request.idempotency = Some(idempotency);
    Ok(app.ledger.decide(request).await?)
}

/// Decides a request that takes stock. If it is short while expired holds wait to be released, they are
/// released and it is asked once more; `build` is told whether that is the last time.
pub(super) async fn decide_stock(
    app: &App,
    build: impl Fn(bool) -> Result<Request, DraftError>,
) -> Result<Verdict, Problem> {
    let verdict = app.ledger.decide(build(false)?).await?;
    match short_while_due(&verdict) {
        None => Ok(verdict),
        Some(posting) => Ok(app.ledger.decide(sweep(app, posting, build).await?).await?),
    }
}

/// The same under row locks in MySQL.
pub(super) async fn decide_stock_locked(
    app: &Arc<App>,
    build: impl Fn(bool) -> Result<Request, DraftError>,
) -> Result<Decided, Problem> {
    let decided = decide_locked(app, build(false)?, None).await?;
    match short_while_due(&decided.verdict) {
        None => Ok(decided),
        Some(posting) => decide_locked(app, sweep(app, posting, build).await?, None).await,
    }
}

fn short_while_due(verdict: &Verdict) -> Option<usize> {
    match verdict {
        Verdict::Refused(Refusal::Insufficient {
            posting, due: true, ..
        }) => Some(*posting),
        Verdict::Accepted(_) | Verdict::Replayed(_) | Verdict::Refused(_) => None,
    }
}

/// Releases the holds that the posting's account waits for, and builds the request anew.
async fn sweep(
    app: &App,
    posting: usize,
    build: impl Fn(bool) -> Result<Request, DraftError>,
) -> Result<Request, Problem> {
    let request = build(true)?;
    if let Some(posting) = request.draft.postings.get(posting)
        && let Err(error) = app.expiry.sweep_for(&app.ledger, posting.account).await
    {
        // The request is decided all the same: if stock is still short, that is the answer.
        tracing::warn!(%error, "expired holds could not be released");
    }
    Ok(request)
}

/// Runs the synchronous path in a task of its own: a client that leaves cancels nothing halfway.
pub(super) async fn decide_locked(
    app: &Arc<App>,
    request: Request,
    before: Option<Entry>,
) -> Result<Decided, Problem> {
    let permit = Arc::clone(&app.synchronous_orders);
    let permit = permit
        .acquire_owned()
        .await
        .map_err(|error| Problem::internal(&error))?;
    let task = {
        let app = Arc::clone(app);
        async move {
            let decided = row_lock::decide(&app.pool, &app.ledger, request, before).await;
            drop(permit);
            decided
        }
    };
    Ok(app.tasks.spawn(task).await??)
}

/// The entry that an earlier request under the same key became.
pub(super) async fn replayed_entry(app: &App, position: Position) -> Result<Entry, Problem> {
    lookup::entry(&app.pool, &app.ledger, position)
        .await?
        .ok_or_else(|| Problem::of(Code::OutcomeUnknown))
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Database(error) => error.into(),
            LookupError::Read(error) => error.into(),
            error @ (LookupError::Entry(_) | LookupError::Body(..)) => Self::internal(&error),
        }
    }
}
