//! Points: earn, use, cancel; balance, history and daily reports.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`earn_lock`], [`earn_redis`] | POST `/api/v1/points/earn`, `/api/v2/…` | 201 `EARN`, for admins |
//! | [`use_lock`], [`use_redis`] | POST `/api/v1/points/use`, `/api/v2/…` | 201 `USED`, for the points' owner |
//! | [`cancel_lock`], [`cancel_redis`] | POST `/api/v1/points/{id}/cancel`, `/api/v2/…` | 200 `CANCELED`, once |
//! | [`balance`] | GET `…/users/{userId}/balance` | the current balance |
//! | [`history`] | GET `…/users/{userId}/history` | every movement, newest first |
//! | [`reports`] | GET `…/users/{userId}/reports` | per day |
//!
//! v1 answers when MySQL has the movement; if MySQL fails after the decision, the subscriber
//! records it. v2 answers when Redis has decided. The rules are the same
//! ([`stock_domain::points`]).

mod read;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use stock_common::clock::rfc3339;
use stock_common::id::{Position, UserId};
use stock_domain::account::Account;
use stock_domain::buyer::Buyer;
use stock_domain::journal::{Entry, Idempotency};
use stock_domain::order::Path;
use stock_domain::points::{
    self, AMOUNT_MAX, PointTransaction, PointType, PointsCancelled, PointsMoved,
};
use stock_domain::request::Request;
use stock_domain::verdict::{Refusal, Replay, Verdict};
use stock_engine::lookup;
use stock_mysql::people::audit_log::Action;
use stock_mysql::people::users;
use stock_mysql::point_transactions as table;
use utoipa::ToSchema;

pub(crate) use self::read::part_of;
pub(super) use self::read::{BalanceOut, PointListOut, PointReportListOut, PointReportOut};
pub use self::read::{balance, history, reports};
use super::audit;
use super::auth::{Admin, Caller};
use super::extract::{BodyIn, Keyed, PathId, Person};
use super::orders::{NothingIn, json, replayed};
use super::origin::Origin;
use super::problem::Problem;
use super::products::check_text;
use super::verdicts::{ask_locked, refuse, replayed_entry};
use crate::app::App;
use crate::http::code::Code;

/// Points to earn or to use.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "userId": 2, "amount": 1_000, "description": "welcome" }))]
pub struct PointsIn {
    /// The user whose points move, unless `buyer` says it; when points are used, it must be the
    /// token's user.
    user_id: Option<u64>,
    /// The shop's own name of the buyer; for a service key or an admin.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    buyer: Option<Buyer>,
    #[schema(minimum = 1, maximum = 1_000_000_000_000_i64)]
    amount: i64,
    #[schema(max_length = 255)]
    description: String,
}

impl BodyIn for PointsIn {
    const IS_FOR_A_PERSON: bool = true;

    fn person(&self) -> Person<'_> {
        Person {
            buyer: self.buyer.as_ref(),
            user_id: self.user_id,
        }
    }
}

/// The type of a movement of points.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(super) enum PointTypeName {
    Earn,
    Used,
    Canceled,
}

/// A movement of points.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct PointOut {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    id: Position,
    user_id: u64,
    amount: i64,
    #[serde(rename = "type")]
    #[schema(value_type = PointTypeName)]
    point_type: PointType,
    description: String,
    /// The balance after the movement.
    balance_snapshot: i64,
    /// The order that moved the points.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    order_id: Option<Position>,
    /// The movement that this one cancels.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    cancels_id: Option<Position>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

impl From<PointTransaction> for PointOut {
    fn from(of: PointTransaction) -> Self {
        Self {
            id: of.id,
            user_id: of.user_id.0,
            amount: of.delta.abs(),
            point_type: of.point_type,
            description: of.description,
            balance_snapshot: of.balance_snapshot,
            order_id: of.order_id,
            cancels_id: of.cancels_id,
            created_at: rfc3339(of.id.unix_ms()),
        }
    }
}

impl PointsIn {
    /// `named` is the buyer whom the request names.
    fn check(mut self, named: Option<UserId>) -> Result<PointsMoved, Problem> {
        let user_id = match (self.user_id, named) {
            (Some(user), Some(named)) if user != named.0 => {
                return Err(Problem::of(Code::UserMismatch));
            }
            (user, named) => named.or(user.map(UserId)),
        };
        let user_id =
            user_id.ok_or_else(|| Problem::unprocessable("/userId", "missing field `userId`"))?;
        if !(1..=AMOUNT_MAX).contains(&self.amount) {
            let rule = format!("a whole number from 1 to {AMOUNT_MAX}");
            return Err(Problem::unprocessable("/amount", rule));
        }
        check_text(&mut self.description, 255, "/description", 0)?;
        Ok(PointsMoved {
            user_id,
            amount: self.amount,
            description: self.description,
        })
    }
}

/// Decides a movement. The entries `before` must be in MySQL first.
async fn move_points(
    app: &Arc<App>,
    path: Path,
    request: Request,
    before: Vec<Entry>,
) -> Result<Verdict, Problem> {
    Ok(match path {
        Path::Redis => app.ledger.decide(request).await?,
        Path::Lock | Path::Till => ask_locked(app, request, before).await?.verdict,
    })
}

/// A movement that a person makes.
struct Wanted {
    point_type: PointType,
    moved: PointsMoved,
    cancels_id: Option<Position>,
}

/// Answers with the movement that a verdict made.
async fn answer(
    app: &App,
    status: StatusCode,
    verdict: Verdict,
    wanted: Wanted,
) -> Result<Response, Problem> {
    let Verdict::Accepted(accepted) = verdict else {
        return answer_unmoved(app, status, verdict).await;
    };
    // The account's last posting is the movement; the posting that opened the account may come
    // before it.
    let last = accepted.postings.last();
    let last = last.ok_or_else(|| Problem::of(Code::Internal))?;
    let moved = PointTransaction {
        id: accepted.position,
        user_id: wanted.moved.user_id,
        seq: last.seq,
        point_type: wanted.point_type,
        delta: last.delta,
        balance_snapshot: last.balance_after,
        description: wanted.moved.description,
        order_id: None,
        cancels_id: wanted.cancels_id,
    };
    Ok(json(status, &PointOut::from(moved)))
}

/// Answers a verdict that made no new movement.
async fn answer_unmoved(
    app: &App,
    status: StatusCode,
    verdict: Verdict,
) -> Result<Response, Problem> {
    match verdict {
        Verdict::Replayed(Replay::Accepted(position)) => {
            let entry = replayed_entry(app, position).await?;
            let moved = points::transactions(&entry).map_err(|error| Problem::internal(&error))?;
            let moved = moved.into_iter().next();
            let moved = moved.ok_or_else(|| Problem::of(Code::OutcomeUnknown))?;
            Ok(replayed(json(status, &PointOut::from(moved))))
        }
        Verdict::Replayed(Replay::Refused(refusal)) => Err(unmoved(refusal).replayed()),
        Verdict::Refused(refusal) => Err(unmoved(refusal)),
        Verdict::Accepted(_) => Err(Problem::of(Code::Internal)),
    }
}

/// Translates the refusal of a movement.
fn unmoved(refusal: Refusal) -> Problem {
    if matches!(refusal, Refusal::StaleState { .. }) {
        Problem::of(Code::PointAlreadyCanceled)
    } else {
        refusal.into()
    }
}

async fn earn(
    app: &Arc<App>,
    path: Path,
    admin: Caller,
    origin: &Origin,
    (body, named): (PointsIn, Option<UserId>),
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    let is_named = named.is_some();
    let moved = body.check(named)?;
    let account = Account::points(moved.user_id);
    let opens = !app.ledger.levels(&[account]).await?.contains_key(&account);
    let is_known = async || {
        let user = moved.user_id;
        Ok::<_, Problem>(is_named || users::find(&app.pool, user).await?.is_some())
    };
    let verdict = if opens && !is_known().await? {
        refuse(app, idempotency, no_user()).await?
    } else {
        let request = points::earn(&moved, opens, admin.user, idempotency)?;
        move_points(app, path, request, Vec::new()).await?
    };
    if matches!(verdict, Verdict::Accepted(_)) {
        let subject = format!("user:{} +{}", moved.user_id, moved.amount);
        let action = Action::PointsEarned;
        audit::note(app, origin, action, Some(admin.user), &subject);
    }
    let wanted = Wanted {
        point_type: PointType::Earn,
        moved,
        cancels_id: None,
    };
    answer(app, StatusCode::CREATED, verdict, wanted).await
}

async fn spend(
    app: &Arc<App>,
    path: Path,
    Keyed {
        caller,
        body,
        idempotency,
        buyer,
    }: Keyed<PointsIn>,
) -> Result<Response, Problem> {
    let moved = body.check(buyer.map(|_| caller.user))?;
    if moved.user_id != caller.user {
        return Err(Problem::of(Code::UserMismatch));
    }
    let request = points::spend(&moved, caller.user, idempotency)?;
    let verdict = move_points(app, path, request, Vec::new()).await?;
    let wanted = Wanted {
        point_type: PointType::Used,
        moved,
        cancels_id: None,
    };
    answer(app, StatusCode::CREATED, verdict, wanted).await
}

/// A movement that a person made and that is to be cancelled.
struct Cancelable {
    id: Position,
    /// `None` when the entry was archived.
    entry: Option<Entry>,
    moved: PointsMoved,
    point_type: PointType,
}

/// Finds a movement that the caller may cancel. Other users' movements answer 404.
async fn find_cancelable(
    app: &App,
    caller: Caller,
    id: Result<PathId, Problem>,
) -> Result<Cancelable, Problem> {
    let missing = || Problem::of(Code::PointNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let id = Position::new(id);
    let entry = lookup::entry(&app.pool, &app.ledger, id).await?;
    let moved = match &entry {
        Some(entry) => points::transactions(entry).map_err(|error| Problem::internal(&error))?,
        None => table::of_entry(&app.pool, id).await?,
    };
    let own = |of: &&PointTransaction| caller.is_admin() || of.user_id == caller.user;
    let moved = moved.into_iter().find(|of| own(&of)).ok_or_else(missing)?;
    let is_final = moved.order_id.is_some() || moved.point_type == PointType::Canceled;
    if is_final {
        // Points that an order moved go back with the order, and a cancel is final.
        return Err(Problem::of(Code::PointNotCancelable));
    }
    if moved.point_type == PointType::Earn && !caller.is_admin() {
        return Err(Problem::of(Code::Forbidden));
    }
    // Redis keeps a state for `marks_keep_ms`. The cancel of an older movement may be known to
    // MySQL only.
    let is_remembered = id.unix_ms() + app.config.decide.marks_keep_ms > app.ledger.redis_now_ms();
    if !is_remembered && table::is_cancelled(&app.pool, id).await? {
        return Err(Problem::of(Code::PointAlreadyCanceled));
    }
    Ok(Cancelable {
        id,
        entry,
        point_type: moved.point_type,
        moved: PointsMoved {
            user_id: moved.user_id,
            amount: moved.delta.abs(),
            description: moved.description,
        },
    })
}

/// The owner and the amount of a movement that the caller may cancel.
///
/// # Errors
/// As a cancel.
pub(crate) async fn cancelable(
    app: &App,
    caller: Caller,
    id: Option<u64>,
) -> Result<(UserId, i64), Problem> {
    let id = id
        .map(PathId)
        .ok_or_else(|| Problem::of(Code::PointNotFound));
    let found = find_cancelable(app, caller, id).await?;
    Ok((found.moved.user_id, found.moved.amount))
}

async fn cancel(
    app: &Arc<App>,
    path: Path,
    caller: Caller,
    origin: &Origin,
    id: Result<PathId, Problem>,
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    let found = match find_cancelable(app, caller, id).await {
        Ok(found) => found,
        Err(problem) => {
            let verdict = refuse(app, idempotency, problem).await?;
            return answer_unmoved(app, StatusCode::OK, verdict).await;
        }
    };
    let cancelled = PointsCancelled {
        point_id: found.id,
        of: found.moved,
    };
    let request = points::cancel(&cancelled, found.point_type, caller.user, idempotency)?;
    let verdict = move_points(app, path, request, found.entry.into_iter().collect()).await?;
    if matches!(verdict, Verdict::Accepted(_)) && caller.is_admin() {
        let PointsCancelled { point_id, of } = &cancelled;
        let subject = format!("user:{} point:{point_id}", of.user_id);
        let action = Action::PointsCancelled;
        audit::note(app, origin, action, Some(caller.user), &subject);
    }
    let wanted = Wanted {
        point_type: PointType::Canceled,
        moved: cancelled.of,
        cancels_id: Some(cancelled.point_id),
    };
    answer(app, StatusCode::OK, verdict, wanted).await
}

/// POST `/api/v1/points/earn`.
///
/// # Errors
/// 403, 404 for a user who does not exist, 422.
pub async fn earn_lock(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        caller,
        body,
        idempotency,
        buyer,
    }: Keyed<PointsIn>,
) -> Result<Response, Problem> {
    let body = (body, buyer.map(|_| caller.user));
    earn(&app, Path::Lock, admin, &origin, body, idempotency).await
}

/// POST `/api/v2/points/earn`.
///
/// # Errors
/// 403, 404 for a user who does not exist, 422.
pub async fn earn_redis(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        caller,
        body,
        idempotency,
        buyer,
    }: Keyed<PointsIn>,
) -> Result<Response, Problem> {
    let body = (body, buyer.map(|_| caller.user));
    earn(&app, Path::Redis, admin, &origin, body, idempotency).await
}

/// POST `/api/v1/points/use`.
///
/// # Errors
/// 403 for another user's points, 409 when there are too few, 422.
pub async fn use_lock(
    State(app): State<Arc<App>>,
    asked: Keyed<PointsIn>,
) -> Result<Response, Problem> {
    spend(&app, Path::Lock, asked).await
}

/// POST `/api/v2/points/use`.
///
/// # Errors
/// 403 for another user's points, 409 when there are too few, 422.
pub async fn use_redis(
    State(app): State<Arc<App>>,
    asked: Keyed<PointsIn>,
) -> Result<Response, Problem> {
    spend(&app, Path::Redis, asked).await
}

/// POST `/api/v1/points/{id}/cancel`.
///
/// # Errors
/// 403 for a user who cancels an EARN, 404, 409 when it was cancelled before or its points are
/// spent.
pub async fn cancel_lock(
    State(app): State<Arc<App>>,
    origin: Origin,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body: NothingIn {},
        idempotency,
        ..
    }: Keyed<NothingIn>,
) -> Result<Response, Problem> {
    cancel(&app, Path::Lock, caller, &origin, id, idempotency).await
}

/// POST `/api/v2/points/{id}/cancel`.
///
/// # Errors
/// 403 for a user who cancels an EARN, 404, 409 when it was cancelled before or its points are
/// spent.
pub async fn cancel_redis(
    State(app): State<Arc<App>>,
    origin: Origin,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body: NothingIn {},
        idempotency,
        ..
    }: Keyed<NothingIn>,
) -> Result<Response, Problem> {
    cancel(&app, Path::Redis, caller, &origin, id, idempotency).await
}

fn no_user() -> Problem {
    Problem::new(Code::NotFound, "there is no such user")
}
