//! Verdicts: asks the ledger on behalf of a handler, and handles its answers where all handlers do
//! the same.

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

/// Answers a predecided refusal. Under a key the script remembers the answer, and the attempt that
/// reached Redis first decides the answer of all.
pub(super) async fn refuse(
    app: &App,
    idempotency: Option<Idempotency>,
    problem: Problem,
) -> Result<Verdict, Problem> {
    // A refusal that follows from the request alone, or that passes by itself, is not remembered.
    let is_remembered = !matches!(problem.code, Code::Unprocessable | Code::Forbidden);
    if !is_remembered || problem.code.status() >= 500 {
        return Err(problem);
    }
    remember(app, idempotency, problem).await
}

/// Like [`refuse`], for a refusal that depends on the catalog: it is remembered whatever its code.
pub(super) async fn remember(
    app: &App,
    idempotency: Option<Idempotency>,
    problem: Problem,
) -> Result<Verdict, Problem> {
    let Some(idempotency) = idempotency else {
        return Err(problem);
    };
    // A predecided refusal makes no entry, so the kind does not matter.
    let draft = Draft::new(Kind::OrderPlaced, idempotency.user, &())?;
    let mut request = Request::new(draft);
    request.refuse = Some(problem.to_remember());
    request.idempotency = Some(idempotency);
    Ok(app.ledger.decide(request).await?)
}

/// One pricing of a request. A price may hold only on one side of a sale's window. When the script
/// says that the time is on the other side, the request is priced again: the script's clock is
/// right, and the clock of the first pricing may be wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The time for which the request is priced, in Unix ms.
    pub(super) now_ms: u64,
    left: u8,
}

impl Round {
    /// Further pricings of one request: a window may both open and close meanwhile.
    const FURTHER: u8 = 2;

    /// The first pricing, for the time that this instance takes Redis' clock to show.
    pub(super) fn first(app: &App) -> Self {
        Self {
            now_ms: app.ledger.redis_now_ms(),
            left: Self::FURTHER,
        }
    }

    /// Whether the script's next verdict is the answer in any case.
    pub(super) const fn is_last(self) -> bool {
        self.left == 0
    }

    /// The next pricing, on the other side of the bound that refused this one; `None` for any other
    /// verdict, and when none is left.
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

/// Decides a request that takes stock. If stock is short while expired holds wait to be released,
/// the holds are released, and the request is built and decided once more.
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

/// Does the same under row locks in MySQL, which must have the entries `before` first.
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

/// The account that a release of expired holds would raise. When a user holds too many units, it is
/// the request's first account.
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

/// Releases the expired holds that an account waits for.
async fn sweep(app: &App, account: Account) {
    if let Err(error) = app.selling.expiry.sweep_for(&app.ledger, account).await {
        // The request is decided all the same: if stock is still short, that is the answer.
        tracing::warn!(%error, "expired holds could not be released");
    }
}

/// Runs the synchronous path in a task of its own, so that a client that leaves cancels nothing
/// halfway.
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
