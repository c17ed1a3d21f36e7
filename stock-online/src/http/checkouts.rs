//! Checkouts: hold a cart at a frozen total, extend it, pay it, or give it back.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`open`] | POST `/api/checkouts` | 201 `OPEN` |
//! | [`show`] | GET `/api/checkouts/{id}` | 200 |
//! | [`list`] | GET `/api/checkouts` | 200, newest first |
//! | [`extend`] | POST `/api/checkouts/{id}/extend` | 200 with the new deadline |
//! | [`confirm`] | POST `/api/checkouts/{id}/confirm` | 200 `CONFIRMED` with the order |
//! | [`cancel`] | POST `/api/checkouts/{id}/cancel` | 200 `CANCELLED` |
//!
//! [`super::payments`] says what a payment does.

pub(in crate::http) mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use stock_common::id::{Position, UserId};
use stock_domain::checkout::{
    self, Budget, Checkout, CheckoutExtended, CheckoutStatus, Course, OpenTerms, Payment,
    TTL_SECONDS,
};
use stock_domain::hold;
use stock_domain::journal::Idempotency;
use stock_domain::order::Path;
use stock_domain::reservation::TTL_SECONDS_MIN;
use stock_domain::verdict::{Refusal, Replay, Verdict};
use stock_engine::lookup::{self, LocatedCheckout};
use stock_mysql::checkouts::{self as table, CheckoutFilter};

pub use self::wire::{CheckoutIn, ConfirmIn, ExtendIn, ListIn};
use self::wire::{CheckoutOut, ConfirmedOut, ListOut};
use super::auth::{Admin, Caller};
use super::extract::{Filter, Keyed, PathId};
use super::orders::{self, NothingIn, json, located, replayed};
use super::page::{cursor_of, cut, limit_of};
use super::payments::{self, Settled};
use super::problem::Problem;
use super::verdicts::{Round, decide_stock, refuse, replayed_entry};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;

/// How many times a change is made anew because the checkout was changed meanwhile.
pub(super) const ROUNDS: usize = 5;

/// Waits between two rounds: this process' estimate of Redis' time may be some milliseconds off,
/// and without a pause all rounds would find the same.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

pub(super) fn count(step: &'static str) {
    metrics::counter!("stock_checkouts_total", "step" => step).increment(1);
}

/// How far a checkout may be extended.
pub(super) fn budget(app: &App) -> Budget {
    Budget {
        times_max: app.config.selling.checkout_extensions_max,
        life_ms_max: app
            .config
            .selling
            .checkout_life_seconds_max
            .saturating_mul(1_000),
    }
}

/// The time to live that a caller asks for, in ms.
fn ttl_ms(app: &App, asked: Option<u64>) -> Result<u64, Problem> {
    let most = app.config.selling.hold_ttl_seconds_max;
    let seconds = asked.unwrap_or(TTL_SECONDS.min(most));
    if (TTL_SECONDS_MIN..=most).contains(&seconds) {
        return Ok(seconds * 1_000);
    }
    let rule = format!("a whole number from {TTL_SECONDS_MIN} to {most}");
    Err(Problem::unprocessable("/ttlSeconds", rule))
}

fn out<'a>(app: &App, of: &'a LocatedCheckout) -> CheckoutOut<'a> {
    CheckoutOut::new(of, app.config.selling.checkout_extensions_max)
}

fn opened(app: &App, id: Position, checkout: Checkout) -> Response {
    let course = Course::without_order(CheckoutStatus::Open);
    let of = LocatedCheckout::live(id, checkout, course, None);
    let response = json(StatusCode::CREATED, &out(app, &of));
    located(response, format!("/api/checkouts/{id}"))
}

/// POST `/api/checkouts`.
///
/// # Errors
/// As for an order, and 409 for too many holds.
pub async fn open(
    State(app): State<Arc<App>>,
    Keyed {
        caller,
        body,
        idempotency,
        buyer,
    }: Keyed<CheckoutIn>,
) -> Result<Response, Problem> {
    let ttl_ms = ttl_ms(&app, body.ttl_seconds)?;
    let order = body.into_order();
    let benefits = order.benefits()?;
    let asked = order.into_asked(caller, buyer, Path::Redis, &app.selling.catalog)?;
    let key = idempotency.as_ref();
    let mut round = Round::first(&app);
    loop {
        let pricing = orders::price(&app, &asked, &benefits, key, round.now_ms);
        let placing = match Box::pin(pricing).await? {
            Ok(placing) => placing,
            Err(verdict) => return answer_open(&app, None, verdict).await,
        };
        let terms = OpenTerms {
            window_ms: placing.window_ms,
            retried_anew: placing.is_repriced && !round.is_last(),
            units_max: app.config.selling.hold_units_per_user_max,
        };
        let checkout = Checkout {
            order: placing.order,
            ttl_ms,
            hold_limit: app.config.selling.holds_per_user_max,
        };
        let build = || checkout::open(&checkout, terms, idempotency.clone());
        let verdict = decide_stock(&app, build).await?;
        if terms.retried_anew
            && let Some(next) = round.next(&app, &verdict, terms.window_ms)
        {
            round = next;
            continue;
        }
        let name = verdict.name();
        metrics::counter!("stock_checkouts_opened_total", "verdict" => name).increment(1);
        return answer_open(&app, Some(checkout), verdict).await;
    }
}

async fn answer_open(
    app: &App,
    checkout: Option<Checkout>,
    verdict: Verdict,
) -> Result<Response, Problem> {
    let translate = |refusal: Refusal| Problem::of_refusal(&app.selling.catalog, refusal);
    match (verdict, checkout) {
        (Verdict::Accepted(accepted), Some(checkout)) => {
            count("opened");
            Ok(opened(app, accepted.position, checkout))
        }
        (Verdict::Accepted(_), None) => Err(Problem::of(Code::Internal)),
        (Verdict::Replayed(Replay::Accepted(position)), _) => {
            let entry = replayed_entry(app, position).await?;
            let checkout: Checkout = entry.body().map_err(|error| Problem::internal(&error))?;
            Ok(replayed(opened(app, position, checkout)))
        }
        (Verdict::Replayed(Replay::Refused(refusal)), _) => Err(translate(refusal).replayed()),
        (Verdict::Refused(refusal), _) => Err(translate(refusal)),
    }
}

/// Finds a checkout. One whose time is over is given back first, so that its end is on record.
pub(super) async fn find(app: &App, id: Position) -> Result<Option<LocatedCheckout>, Problem> {
    let found = lookup::checkout(&app.pool, &app.ledger, id).await?;
    let is_due =
        |of: &LocatedCheckout| of.course.status == CheckoutStatus::Expired && !of.has_ended;
    let Some(due) = found.as_ref().filter(|of| is_due(of)) else {
        return Ok(found);
    };
    let expiring = app.ledger.decide(checkout::expire(due.changed())?);
    if let Err(error) = expiring.await {
        tracing::warn!(%error, checkout.id = %id, "an expired checkout could not be given back");
    }
    Ok(lookup::checkout(&app.pool, &app.ledger, id).await?)
}

/// Finds a checkout that the caller may see. Other users' checkouts answer 404.
async fn find_own(
    app: &App,
    caller: Caller,
    id: Result<PathId, Problem>,
) -> Result<LocatedCheckout, Problem> {
    let missing = || Problem::of(Code::CheckoutNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let found = lookup::checkout(&app.pool, &app.ledger, Position::new(id)).await?;
    found
        .filter(|found| caller.is_admin() || found.checkout.order.user_id == caller.user)
        .ok_or_else(missing)
}

/// The problem of a checkout that is over.
pub(super) fn over(status: CheckoutStatus) -> Problem {
    let text = format!("the checkout is {}", status.as_str());
    Problem::new(Code::CheckoutOver, text).with("checkoutStatus", status.as_str())
}

/// The meaning of a refusal for a checkout that was changed meanwhile.
enum Meanwhile {
    /// It is over.
    Over(CheckoutStatus),
    /// It was changed otherwise: the change is made anew.
    Changed,
    /// Another reason.
    Other(Refusal),
}

fn meanwhile(refusal: Refusal) -> Meanwhile {
    if let Refusal::StaleState {
        transition: 0,
        state,
    } = &refusal
        && let Some(course) = Course::of_state(state)
    {
        return Meanwhile::Over(course.status);
    }
    if refusal.passes_by() {
        return Meanwhile::Changed;
    }
    match refusal {
        Refusal::StaleState { .. } | Refusal::HoldExpired => Meanwhile::Changed,
        other @ (Refusal::Fenced
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
        | Refusal::HeldEnough { .. }
        | Refusal::OwnHold
        | Refusal::Posting { .. }
        | Refusal::Taken { .. }) => Meanwhile::Other(other),
    }
}

/// GET `/api/checkouts/{id}`.
///
/// # Errors
/// 404 for one that is not the caller's.
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let found = find_own(&app, caller, id).await?;
    Ok(json(StatusCode::OK, &out(&app, &found)))
}

/// GET `/api/checkouts`.
///
/// # Errors
/// 422 for an invalid filter.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let filter = CheckoutFilter {
        user: (!caller.is_admin()).then_some(caller.user),
        status: query.status,
        before: cursor_of(query.cursor.as_deref())?.map(Position::new),
        limit: limit + 1,
    };
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut found = table::list(&app.pool, &filter).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let found: Vec<LocatedCheckout> = found.into_iter().map(LocatedCheckout::from).collect();
    let items = found.iter().map(|of| out(&app, of)).collect();
    Ok(json(StatusCode::OK, &ListOut { items, next_cursor }))
}

/// POST `/api/checkouts/{id}/extend`.
///
/// # Errors
/// 404, 409 when it is over or may not be extended any further.
pub async fn extend(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body,
        idempotency,
        ..
    }: Keyed<ExtendIn>,
) -> Result<Response, Problem> {
    let ttl_ms = ttl_ms(&app, Some(body.ttl_seconds))?;
    let mut found = find_own(&app, caller, id).await?;
    for _ in 0..ROUNDS {
        let now_ms = app.ledger.redis_now_ms();
        let next = found
            .checkout
            .extend(found.id, found.extended, now_ms, ttl_ms, budget(&app));
        let verdict = match (found.course.status, next) {
            (CheckoutStatus::Open, Some(next)) => {
                let key = idempotency.clone();
                let request = checkout::extend(found.changed(), next, caller.user, key)?;
                app.ledger.decide(request).await?
            }
            (CheckoutStatus::Open, None) => {
                let spent = Problem::of(Code::CheckoutExtensionsSpent);
                refuse(&app, idempotency.clone(), spent).await?
            }
            (status, _) => refuse(&app, idempotency.clone(), over(status)).await?,
        };
        match verdict {
            Verdict::Accepted(_) => {
                count("extended");
                let of = LocatedCheckout {
                    extended: next,
                    ..found
                };
                return Ok(json(StatusCode::OK, &out(&app, &of)));
            }
            Verdict::Replayed(Replay::Accepted(position)) => {
                let entry = replayed_entry(&app, position).await?;
                let body = entry.body::<CheckoutExtended>();
                let body = body.map_err(|error| Problem::internal(&error))?;
                let course = Course::without_order(CheckoutStatus::Open);
                let of = LocatedCheckout {
                    extended: Some(body.extended),
                    course,
                    ..found
                };
                return Ok(replayed(json(StatusCode::OK, &out(&app, &of))));
            }
            Verdict::Replayed(Replay::Refused(refusal)) => {
                return Err(Problem::from(refusal).replayed());
            }
            Verdict::Refused(refusal) => match meanwhile(refusal) {
                Meanwhile::Over(status) => return Err(over(status)),
                Meanwhile::Changed => {}
                Meanwhile::Other(refusal) => return Err(refusal.into()),
            },
        }
        found = again(&app, found.id).await?;
    }
    Err(Problem::of(Code::Overloaded))
}

/// Looks a checkout up again that was there a moment ago.
pub(super) async fn again(app: &App, id: Position) -> Result<LocatedCheckout, Problem> {
    pause().await;
    let found = find(app, id).await?;
    found.ok_or_else(|| Problem::of(Code::CheckoutNotFound))
}

/// POST `/api/checkouts/{id}/confirm`.
///
/// # Errors
/// 404, 409 for another amount, for one that is over, and when the payment is to be refunded.
pub async fn confirm(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<ConfirmIn>,
) -> Result<Response, Problem> {
    let payment = Payment {
        id: body.payment_id()?,
        amount: body.amount,
    };
    let found = find_own(&app, admin, id).await?;
    let total = found.checkout.order.total_amount;
    let settled = payments::settle(&app, found.id, &payment, admin.user, idempotency).await?;
    match settled {
        Settled::Confirmed {
            checkout_id,
            order_id,
            is_late,
            is_new,
        } => {
            let body = ConfirmedOut::new(checkout_id, order_id, is_late);
            let response = json(StatusCode::OK, &body);
            Ok(match is_new {
                true => response,
                false => replayed(response),
            })
        }
        Settled::Unused { outcome, .. } => Err(payments::problem(outcome, total)),
    }
}

/// POST `/api/checkouts/{id}/cancel`.
///
/// # Errors
/// 404, 409 when it is over.
pub async fn cancel(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body: NothingIn {},
        idempotency,
        ..
    }: Keyed<NothingIn>,
) -> Result<Response, Problem> {
    let mut found = find_own(&app, caller, id).await?;
    for _ in 0..ROUNDS {
        let verdict = ask_cancel(&app, &found, caller.user, idempotency.clone()).await?;
        let cancelled = || {
            let course = Course::without_order(CheckoutStatus::Cancelled);
            let of = LocatedCheckout {
                course,
                ..found.clone()
            };
            json(StatusCode::OK, &out(&app, &of))
        };
        match verdict {
            Verdict::Accepted(_) => {
                count("cancelled");
                return Ok(cancelled());
            }
            Verdict::Replayed(Replay::Accepted(_)) => return Ok(replayed(cancelled())),
            Verdict::Replayed(Replay::Refused(refusal)) => {
                return Err(Problem::from(refusal).replayed());
            }
            Verdict::Refused(refusal) => match meanwhile(refusal) {
                Meanwhile::Over(status) => return Err(over(status)),
                Meanwhile::Changed => {}
                Meanwhile::Other(refusal) => return Err(refusal.into()),
            },
        }
        found = again(&app, found.id).await?;
    }
    Err(Problem::of(Code::Overloaded))
}

async fn ask_cancel(
    app: &App,
    found: &LocatedCheckout,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Verdict, Problem> {
    if found.course.status != CheckoutStatus::Open {
        return refuse(app, idempotency, over(found.course.status)).await;
    }
    let (held, expires_ms) = (found.checkout.held(found.id), found.expires_ms());
    let request = hold::cancel(&held, expires_ms, actor, idempotency)?;
    Ok(app.ledger.decide(request).await?)
}
