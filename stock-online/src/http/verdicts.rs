//! Verdicts: asking the ledger on behalf of a handler, and what handlers do alike with its answers.

use std::sync::Arc;

use stock_common::id::Position;
use stock_domain::account::Account;
use stock_domain::journal::{Draft, DraftError, Entry, Idempotency, Kind};
use stock_domain::request::Request;
use stock_domain::verdict::{Back, Refusal, Verdict, Why};
use stock_engine::lookup::{self, LookupError};
use stock_engine::row_lock::Decided;

use super::problem::Problem;
use crate::app::App;
use crate::http::code::Code;

/// Answers a refusal that was decided here; under a key the script remembers the answer, and
/// whichever attempt reached Redis first is the answer of both.
pub(super) async fn refuse(
    app: &App,
    idempotency: Option<Idempotency>,
    problem: Problem,
) -> Result<Verdict, Problem> {
    // What the request decides by itself, and what passes by, is not remembered.
    let is_remembered = !matches!(problem.code, Code::Unprocessable | Code::Forbidden);
    if !is_remembered || problem.code.status() >= 500 {
        return Err(problem);
    }
    remember(app, idempotency, problem).await
}

/// The same for a refusal that depends on the catalog, whatever its code.
pub(super) async fn remember(
    app: &App,
    idempotency: Option<Idempotency>,
    problem: Problem,
) -> Result<Verdict, Problem> {
    let Some(idempotency) = idempotency else {
        return Err(problem);
    };
    // Nothing becomes of it: the kind is of no account.
    let draft = Draft::new(Kind::OrderPlaced, idempotency.user, &())?;
    let mut request = Request::new(draft);
    request.refuse = Some(problem.to_remember());
    request.idempotency = Some(idempotency);
    Ok(app.ledger.decide(request).await?)
}

/// One pricing of a request. A price that holds on one side of a sale's window only is found anew
/// when the script says that it is the other side's turn: the script's clock is right, the one that
/// the price was found by may not be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The time for which it is priced, in Unix ms.
    pub(super) now_ms: u64,
    left: u8,
}

impl Round {
    /// Further pricings of one request: a window may both open and close while it is asked.
    const FURTHER: u8 = 2;

    /// Priced for what the time seems to be.
    pub(super) fn first(app: &App) -> Self {
        Self {
            now_ms: app.ledger.redis_now_ms(),
            left: Self::FURTHER,
        }
    }

    /// Whether what the script says now is the answer in any case.
    pub(super) const fn is_last(self) -> bool {
        self.left == 0
    }

    /// The next pricing, on the other side of the bound that refused this one; `None` for any other
    /// verdict.
    pub(super) fn next(
        self,
        app: &App,
        verdict: &Verdict,
        window_ms: Option<(u64, u64)>,
    ) -> Option<Self> {
        let (opens, closes) = window_ms?;
        let seems_ms = app.ledger.redis_now_ms();
        let now_ms = match verdict {
            Verdict::Refused(Refusal::NotOpen) => seems_ms.min(opens.saturating_sub(1)),
            Verdict::Refused(Refusal::Closed) => seems_ms.max(closes),
            Verdict::Accepted(_) | Verdict::Replayed(_) | Verdict::Refused(_) => return None,
        };
        Some(Self {
            now_ms,
            left: self.left.checked_sub(1)?,
        })
    }
}

/// Decides a request that takes stock. If it is short while expired holds wait to be released, they
/// are released and it is built and asked once more.
pub(super) async fn decide_stock(
    app: &App,
    build: impl Fn() -> Result<Request, DraftError>,
) -> Result<Verdict, Problem> {
    let request = build()?;
    let first = first_account(&request);
    let verdict = app.ledger.decide(request).await?;
    match short_while_due(&verdict, first) {
        None => Ok(verdict),
        Some(account) => {
            Box::pin(sweep(app, account)).await;
            Ok(app.ledger.decide(build()?).await?)
        }
    }
}

/// The same under row locks in MySQL, which must have the entries `before` first.
pub(super) async fn sell_locked(
    app: &Arc<App>,
    build: impl Fn() -> Result<Request, DraftError>,
    before: Vec<Entry>,
) -> Result<Decided, Problem> {
    let request = build()?;
    let first = first_account(&request);
    let decided = ask_locked(app, request, before.clone()).await?;
    match short_while_due(&decided.verdict, first) {
        None => Ok(decided),
        Some(account) => {
            sweep(app, account).await;
            ask_locked(app, build()?, before).await
        }
    }
}

fn first_account(request: &Request) -> Option<Account> {
    let first = request.draft.postings.first();
    first.map(|posting| posting.account)
}

/// The account that expired holds would raise; of one that held too much, the stock that it would
/// take first.
fn short_while_due(verdict: &Verdict, first: Option<Account>) -> Option<Account> {
    match verdict {
        Verdict::Refused(Refusal::Posting {
            account,
            why: Why::Insufficient {
                back: Back::Due, ..
            },
            ..
        }) => Some(*account),
        Verdict::Refused(Refusal::HeldEnough {
            back: Back::Due, ..
        }) => first,
        Verdict::Accepted(_) | Verdict::Replayed(_) | Verdict::Refused(_) => None,
    }
}

/// Releases the holds that an account waits for.
async fn sweep(app: &App, account: Account) {
    if let Err(error) = app.selling.expiry.sweep_for(&app.ledger, account).await {
        // The request is decided all the same: if stock is still short, that is the answer.
        tracing::warn!(%error, "expired holds could not be released");
    }
}

/// Runs the synchronous path in a task of its own: a client that leaves cancels nothing halfway.
pub(super) async fn ask_locked(
    app: &Arc<App>,
    request: Request,
    before: Vec<Entry>,
) -> Result<Decided, Problem> {
    let task = {
        let app = Arc::clone(app);
        async move {
            app.selling
                .row_locks
                .decide(&app.ledger, request, before)
                .await
        }
    };
    Ok(app.start(task).await??)
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
