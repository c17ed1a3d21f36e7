//! Orders: place and cancel on both paths, read one, list one's own.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`place_redis`] | POST `/api/redis/orders` | 201 `ORDER_PENDING`: decided, MySQL follows |
//! | [`place_lock`] | POST `/api/orders` | 201 `SUCCESS`: decided and stored under row locks |
//! | [`cancel_redis`] | PATCH `/api/redis/orders/{orderId}/cancel` | 200 `CANCEL_REQUESTED` |
//! | [`cancel_lock`] | PATCH `/api/orders/{orderId}/cancel` | 200 `CANCEL` |
//! | [`show`] | GET `/api/orders/{orderId}` | 200 |
//! | [`list`] | GET `/api/orders` | 200, newest first |

mod refusals;
mod wire;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use stock_common::error::Code;
use stock_common::id::{Position, UserId};
use stock_domain::database::orders::{self as table, OrderFilter};
use stock_domain::database::row_lock;
use stock_domain::journal::{Draft, Entry, Idempotency, Kind};
use stock_domain::ledger::Request;
use stock_domain::lookup::{self, Located, LookupError};
use stock_domain::order::{self, Order, OrderStatus, Path};
use stock_domain::pricing;
use stock_domain::verdict::{Refusal, Replay, Verdict};

use self::refusals::{refused, unpriced};
pub(super) use self::wire::{
    DeliveryTypeName, LineIn, LineOut, ListOut as OrderListOut, OrderOut as OrderBody,
    OrderStatusName, json, replayed,
};
pub use self::wire::{ListIn, NothingIn, OrderIn};
use self::wire::{ListOut, OrderOut, created};
use super::auth::Caller;
use super::extract::{Filter, ID_MAX, Keyed, PathId, cursor_of, limit_of};
use super::problem::Problem;
use crate::app::App;

/// Answers a refusal that was decided here; under a key the script remembers the answer, and whichever
/// attempt reached Redis first is the answer of both.
async fn refuse(
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
    let draft = Draft::new(Kind::OrderPlaced, idempotency.user, &())?;
    let mut request = Request::new(draft);
    request.refuse = Some(problem.to_remember());
    request.idempotency = Some(idempotency);
    Ok(app.ledger.decide(request).await?)
}

fn count(path: Path, verdict: &Verdict) {
    let path = match path {
        Path::Redis => "redis",
        Path::Lock => "lock",
    };
    match (path, verdict) {
        ("redis", Verdict::Accepted(_)) => {
            metrics::counter!("stock_orders_total", "path" => "redis", "verdict" => "ACCEPTED")
        }
        (_, Verdict::Accepted(_)) => {
            metrics::counter!("stock_orders_total", "path" => "lock", "verdict" => "ACCEPTED")
        }
        (_, Verdict::Replayed(_)) => {
            metrics::counter!("stock_orders_total", "path" => path, "verdict" => "REPLAYED")
        }
        (_, Verdict::Refused(refusal)) => {
            metrics::counter!("stock_orders_total", "path" => path, "verdict" => refusal.name())
        }
    }
    .increment(1);
}

/// Prices what was asked for, or answers why it has no price.
async fn price(
    app: &App,
    body: OrderIn,
    caller: Caller,
    path: Path,
    idempotency: Option<&Idempotency>,
) -> Result<Result<Order, Verdict>, Problem> {
    let benefits = body.refuse_benefits();
    let asked = body.into_asked(caller, path)?;
    let problem = match pricing::price(&asked, &app.catalog) {
        Ok(order) => match benefits {
            None => return Ok(Ok(order)),
            Some(problem) => problem,
        },
        Err(reason) => unpriced(reason),
    };
    Ok(Err(refuse(app, idempotency.cloned(), problem).await?))
}

/// POST `/api/redis/orders`.
///
/// # Errors
/// The order's problem.
pub async fn place_redis(
    State(app): State<Arc<App>>,
    Keyed {
        caller,
        body,
        idempotency,
    }: Keyed<OrderIn>,
) -> Result<Response, Problem> {
    let order = match price(&app, body, caller, Path::Redis, idempotency.as_ref()).await? {
        Ok(order) => order,
        Err(verdict) => return answer_unplaced(&app, None, verdict).await,
    };
    let verdict = app
        .ledger
        .decide(order::place(&order, idempotency)?)
        .await?;
    count(Path::Redis, &verdict);
    match verdict {
        Verdict::Accepted(accepted) => Ok(created(
            accepted.position,
            &order,
            OrderStatus::OrderPending,
        )),
        other @ (Verdict::Replayed(_) | Verdict::Refused(_)) => {
            answer_unplaced(&app, Some(&order), other).await
        }
    }
}

/// POST `/api/orders`.
///
/// # Errors
/// The order's problem.
pub async fn place_lock(
    State(app): State<Arc<App>>,
    Keyed {
        caller,
        body,
        idempotency,
    }: Keyed<OrderIn>,
) -> Result<Response, Problem> {
    let order = match price(&app, body, caller, Path::Lock, idempotency.as_ref()).await? {
        Ok(order) => order,
        Err(verdict) => return answer_unplaced(&app, None, verdict).await,
    };
    let request = order::place(&order, idempotency)?;
    let decided = decide_locked(&app, request, None).await?;
    count(Path::Lock, &decided.verdict);
    match decided.verdict {
        Verdict::Accepted(accepted) => {
            let status = match decided.is_recorded {
                true => OrderStatus::Success,
                false => OrderStatus::OrderPending,
            };
            Ok(created(accepted.position, &order, status))
        }
        other @ (Verdict::Replayed(_) | Verdict::Refused(_)) => {
            answer_unplaced(&app, Some(&order), other).await
        }
    }
}

/// Runs the synchronous path in a task of its own: a client that leaves cancels nothing halfway.
async fn decide_locked(
    app: &Arc<App>,
    request: Request,
    before: Option<Entry>,
) -> Result<row_lock::Decided, Problem> {
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

/// Answers a verdict that placed no order now. `order` is what was asked for, if it had a price.
async fn answer_unplaced(
    app: &App,
    order: Option<&Order>,
    verdict: Verdict,
) -> Result<Response, Problem> {
    let translate = |refusal: Refusal| match order {
        Some(order) => refused(app, order, refusal),
        None => refusal.into(),
    };
    match verdict {
        Verdict::Replayed(Replay::Accepted(position)) => {
            let entry = lookup::entry(&app.pool, &app.ledger, position)
                .await
                .map_err(lost)?;
            let entry = entry.ok_or_else(|| Problem::of(Code::OutcomeUnknown))?;
            let order: Order = entry.body().map_err(|error| Problem::internal(&error))?;
            let status = match order.path {
                Path::Redis => OrderStatus::OrderPending,
                Path::Lock => OrderStatus::Success,
            };
            Ok(replayed(created(position, &order, status)))
        }
        Verdict::Replayed(Replay::Refused(refusal)) => Err(translate(refusal).replayed()),
        Verdict::Refused(refusal) => Err(translate(refusal)),
        Verdict::Accepted(_) => Err(Problem::of(Code::Internal)),
    }
}

fn lost(error: LookupError) -> Problem {
    match error {
        LookupError::Database(error) => error.into(),
        LookupError::Read(error) => error.into(),
        error @ (LookupError::Entry(_) | LookupError::Body(..)) => Problem::internal(&error),
    }
}

/// Finds an order that the caller may see; another's is a 404 like one that does not exist.
async fn find_own(app: &App, caller: Caller, id: u64) -> Result<Located, Problem> {
    let found = lookup::find(&app.pool, &app.ledger, Position::new(id))
        .await
        .map_err(lost)?;
    found
        .filter(|found| caller.is_admin() || found.order.user_id == caller.user)
        .ok_or_else(|| Problem::of(Code::OrderNotFound))
}

/// An order's path id, asked for after the caller; a malformed one is a 404.
fn order_id(id: Result<PathId, Problem>) -> Result<u64, Problem> {
    id.map(|PathId(id)| id)
        .map_err(|_not_a_number| Problem::of(Code::OrderNotFound))
}

/// PATCH `/api/redis/orders/{orderId}/cancel`.
///
/// # Errors
/// The order's problem.
pub async fn cancel_redis(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body: NothingIn {},
        idempotency,
    }: Keyed<NothingIn>,
) -> Result<Response, Problem> {
    let found = find_own(&app, caller, order_id(id)?).await?;
    let verdict = match refuse_cancel(&app, &found, idempotency.as_ref()).await? {
        Some(verdict) => verdict,
        None => {
            let request = order::cancel(found.id, &found.order, caller.user, idempotency)?;
            app.ledger.decide(request).await?
        }
    };
    answer_cancel(&found, verdict, OrderStatus::CancelRequested)
}

/// PATCH `/api/orders/{orderId}/cancel`.
///
/// # Errors
/// The order's problem.
pub async fn cancel_lock(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body: NothingIn {},
        idempotency,
    }: Keyed<NothingIn>,
) -> Result<Response, Problem> {
    let mut found = find_own(&app, caller, order_id(id)?).await?;
    let mut status = OrderStatus::Cancel;
    let verdict = match refuse_cancel(&app, &found, idempotency.as_ref()).await? {
        Some(verdict) => verdict,
        None => {
            let request = order::cancel(found.id, &found.order, caller.user, idempotency)?;
            // MySQL must have the order before it can have its cancel.
            let decided = decide_locked(&app, request, found.entry.take()).await?;
            if !decided.is_recorded {
                status = OrderStatus::CancelRequested;
            }
            decided.verdict
        }
    };
    answer_cancel(&found, verdict, status)
}

/// An order that is final in MySQL may have no mark any more: its state decides.
async fn refuse_cancel(
    app: &App,
    found: &Located,
    idempotency: Option<&Idempotency>,
) -> Result<Option<Verdict>, Problem> {
    if found.status.may_become(OrderStatus::CancelRequested) {
        return Ok(None);
    }
    let text = format!(
        "an order that is {} cannot be cancelled",
        found.status.as_str()
    );
    let problem = Problem::new(Code::InvalidOrderStatus, text);
    refuse(app, idempotency.cloned(), problem).await.map(Some)
}

fn answer_cancel(
    found: &Located,
    verdict: Verdict,
    status: OrderStatus,
) -> Result<Response, Problem> {
    let response = || {
        json(
            StatusCode::OK,
            &OrderOut::new(found.id, &found.order, status),
        )
    };
    match verdict {
        Verdict::Accepted(_) => Ok(response()),
        Verdict::Replayed(Replay::Accepted(_)) => Ok(replayed(response())),
        Verdict::Replayed(Replay::Refused(refusal)) => Err(Problem::from(refusal).replayed()),
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

/// GET `/api/orders/{orderId}`.
///
/// # Errors
/// 404 for an order that is not the caller's.
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let found = find_own(&app, caller, order_id(id)?).await?;
    Ok(json(
        StatusCode::OK,
        &OrderOut::new(found.id, &found.order, found.status),
    ))
}

/// GET `/api/orders`.
///
/// # Errors
/// 403 when a user asks for another's orders.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(Position::new);
    let asked = match query.user_id {
        Some(id) if id > ID_MAX => {
            let rule = format!("an id is at most {ID_MAX}");
            return Err(Problem::unprocessable("/userId", rule));
        }
        id => id.map(UserId),
    };
    if !caller.is_admin() && asked.is_some_and(|user| user != caller.user) {
        return Err(Problem::of(Code::Forbidden));
    }
    let user = if caller.is_admin() {
        asked
    } else {
        Some(caller.user)
    };
    let filter = OrderFilter {
        user,
        status: query.status,
        before,
        limit: limit + 1,
    };
    let mut found = table::list(&app.pool, &filter).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found
        .last()
        .filter(|_| has_more)
        .map(|last| last.id.to_string());
    let items = found
        .iter()
        .map(|o| OrderOut::new(o.id, &o.order, o.status))
        .collect();
    Ok(json(
        StatusCode::OK,
        &ListOut {
            items,
            next_cursor: next,
        },
    ))
}
