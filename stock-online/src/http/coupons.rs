//! Coupons: create, list, draw (first come, first served), and list one's own.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`list`] | GET `/api/coupons` | campaigns, newest first; to an admin also personal coupons |
//! | [`create`] | POST `/api/coupons` | 201, for admins |
//! | [`issue`] | POST `/api/coupons/{id}/issue` | 201 with a code: decided, MySQL follows |
//! | [`mine`] | GET `/api/coupons/mine` | the caller's codes, newest first |
//!
//! An order uses a coupon ([`super::orders`]).

mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use stock_common::id::{CouponId, Position, WorkId};
use stock_domain::account::{Account, Level};
use stock_domain::coupon::{self, CodeState, Coupon, CouponIssued};
use stock_domain::journal::Idempotency;
use stock_domain::verdict::{Refusal, Replay, Verdict, Why};
use stock_engine::lookup;
use stock_mysql::coupons::{self as table, CouponFields};
use stock_mysql::people::audit_log::Action;
use stock_mysql::people::users;
use stock_mysql::products::CreationKey;
use stock_mysql::{accounts, coupon_issues, error_number};

pub use self::wire::{CouponIn, IssueIn};
pub(super) use self::wire::{
    CouponListOut, CouponOut, IssueOut, OwnCouponListOut, OwnCouponOut, WorthOut,
};
use super::audit;
use super::auth::{Admin, AnyCaller, Caller};
use super::extract::{Filter, Keyed, PathId};
use super::orders::{json, replayed};
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::same_request;
use super::verdicts::{refuse, replayed_entry};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;

/// Maximum number of draws for one request. A code that somebody has is drawn again; with two
/// million codes out, that happens once in 10^8 draws.
const DRAWS_MAX: usize = 5;

/// The remaining counts of coupons, from Redis, or from MySQL while Redis does not answer.
async fn remaining(app: &App, coupons: &[Coupon]) -> Result<HashMap<Account, Level>, Problem> {
    let counted = coupons.iter().filter(|coupon| coupon.count.is_some());
    let names: Vec<Account> = counted.map(|coupon| Account::coupon(coupon.id)).collect();
    match app.ledger.levels(&names).await {
        Ok(levels) => Ok(levels),
        Err(_) => Ok(accounts::levels(&app.pool, &names).await?),
    }
}

/// GET `/api/coupons`.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    AnyCaller(caller): AnyCaller,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(CouponId);
    let campaigns_only = !caller.is_some_and(|caller| caller.is_admin());
    let mut found = table::list(&app.pool, campaigns_only, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let levels = remaining(&app, &found).await?;
    let item = |coupon| CouponOut::new(coupon, &levels);
    let items = found.iter().map(item).collect();
    Ok(json(StatusCode::OK, &CouponListOut { items, next_cursor }))
}

/// POST `/api/coupons`.
///
/// # Errors
/// 404 for a user who does not exist, 409 when another coupon has the code, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        body, idempotency, ..
    }: Keyed<CouponIn>,
) -> Result<Response, Problem> {
    let is_drawn = body.code.is_none();
    let mut fields = body.check()?;
    // Without a verified Redis the coupon could not be opened in the ledger.
    app.ledger.live_link().await?;
    if let Some(of) = &fields.personal
        && users::find(&app.pool, of.user_id).await?.is_none()
    {
        return Err(Problem::new(Code::NotFound, "there is no such user"));
    }
    let key = idempotency.as_ref().and_then(CreationKey::of);
    let mut made = make(&app, admin, &fields, key.as_ref()).await;
    for _ in 1..DRAWS_MAX {
        // A code that the admin did not choose is drawn again if another coupon has it.
        match (&made, &mut fields.personal) {
            (Err(problem), Some(of)) if is_drawn && problem.code == Code::CouponCodeTaken => {
                of.code = coupon::draw_code();
            }
            _ => break,
        }
        made = make(&app, admin, &fields, key.as_ref()).await;
    }
    let (created, is_replayed) = made?;
    app.live.lists.forget_all();
    if let Some(of) = &created.personal {
        // The best price of its user counts it from now on.
        lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
        app.selling.benefits.forget(&of.user_id).await;
    }
    if !is_replayed {
        let subject = format!("coupon:{}", created.id);
        let action = Action::CouponCreated;
        audit::note(&app, &origin, action, Some(admin.user), &subject);
    }
    // The answer shows the full count, so that a replay repeats the first answer.
    let first = Level {
        balance: created.count.unwrap_or_default(),
        ..Level::default()
    };
    let levels = HashMap::from([(Account::coupon(created.id), first)]);
    let response = json(StatusCode::CREATED, &CouponOut::new(&created, &levels));
    Ok(if is_replayed {
        replayed(response)
    } else {
        response
    })
}

/// Writes a coupon and opens it in the ledger. Returns whether a request with the same key has done
/// so before.
async fn make(
    app: &App,
    admin: Caller,
    fields: &CouponFields,
    key: Option<&CreationKey>,
) -> Result<(Arc<Coupon>, bool), Problem> {
    let (id, is_replayed) = match table::insert(&app.pool, fields, key).await {
        Ok(id) => (id, false),
        Err(error) => (created_before(app, key, error).await?, true),
    };
    let opened = open(app, admin, id).await;
    Ok((opened.map_err(Problem::behind_a_change)?, is_replayed))
}

/// Opens an inserted coupon in the ledger.
async fn open(app: &App, admin: Caller, id: CouponId) -> Result<Arc<Coupon>, Problem> {
    app.selling.coupons.made(id).await;
    let created = app.selling.coupons.find(&app.pool, id).await?;
    let created = created.ok_or_else(|| Problem::of(Code::CouponNotFound))?;
    if is_code_of_another(app, &created).await? {
        table::delete_unopened(&app.pool, id).await?;
        return Err(Problem::of(Code::CouponCodeTaken));
    }
    // Repeated for a replay, because the first attempt may have ended before this step.
    match app
        .ledger
        .decide(coupon::open(&created, admin.user)?)
        .await?
    {
        verdict if coupon::is_taken(&created, &verdict) => {
            table::delete_unopened(&app.pool, id).await?;
            Err(Problem::of(Code::CouponCodeTaken))
        }
        // A parallel attempt was faster.
        Verdict::Accepted(_)
        | Verdict::Replayed(_)
        | Verdict::Refused(Refusal::StaleState { .. }) => Ok(created),
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

/// Whether another coupon has this code. The script checks this for coupons of one shard; this
/// function checks it for the other shards.
async fn is_code_of_another(app: &App, created: &Coupon) -> Result<bool, Problem> {
    let Some(of) = &created.personal else {
        return Ok(false);
    };
    let state = app.ledger.state(&coupon::code_state_id(&of.code)).await?;
    let known = state.as_deref().and_then(CodeState::parse);
    Ok(known.is_some_and(|known| known.coupon_id != created.id))
}

/// The coupon that an earlier request with the same key created. If there was no such request, the
/// code belongs to another coupon: `COUPON_CODE_TAKEN`.
async fn created_before(
    app: &App,
    key: Option<&CreationKey>,
    error: sqlx::Error,
) -> Result<CouponId, Problem> {
    if error_number(&error) != Some(1062) {
        return Err(error.into());
    }
    let taken = || Problem::of(Code::CouponCodeTaken);
    let key = key.ok_or_else(taken)?;
    match table::find_by_key(&app.pool, key).await? {
        None => Err(taken()),
        found => same_request(found, key),
    }
}

/// Translates the refusal of a draw.
fn undrawn(refusal: Refusal) -> Problem {
    let code = if matches!(refusal, Refusal::StaleState { .. }) {
        Code::CouponAlreadyIssued
    } else if matches!(refusal, Refusal::NotOpen) {
        Code::CouponNotOpen
    } else if matches!(refusal, Refusal::Closed) {
        Code::CouponClosed
    } else if matches!(
        refusal,
        Refusal::Taken { .. }
            | Refusal::Posting {
                why: Why::Unknown,
                ..
            }
    ) {
        // Every drawn code was taken, and the next request draws others. Or a crash kept the coupon
        // from the ledger, which will know it in a few seconds.
        Code::Overloaded
    } else {
        return refusal.into();
    };
    Problem::of(code)
}

/// Draws codes until one is free, at most [`DRAWS_MAX`] times.
async fn draw(
    app: &App,
    window_ms: (u64, u64),
    wanted: &mut CouponIssued,
    idempotency: Option<&Idempotency>,
) -> Result<Verdict, Problem> {
    let mut drawn = 0;
    loop {
        wanted.code = coupon::draw_code();
        let request = coupon::issue(wanted, window_ms, idempotency.cloned())?;
        let verdict = app.ledger.decide(request).await?;
        drawn += 1;
        let is_taken = matches!(&verdict, Verdict::Refused(Refusal::Taken { .. }));
        if !is_taken || drawn == DRAWS_MAX {
            return Ok(verdict);
        }
    }
}

/// The campaign coupon to draw from.
async fn find_campaign(
    app: &App,
    id: Result<PathId, Problem>,
    work: Option<WorkId>,
) -> Result<Arc<Coupon>, Problem> {
    let missing = || Problem::of(Code::CouponNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let coupon = app.selling.coupons.find(&app.pool, CouponId(id)).await?;
    let campaign = coupon.filter(|coupon| coupon.personal.is_none());
    let campaign = campaign.ok_or_else(missing)?;
    if !app.selling.catalog.is_read() {
        return Err(Problem::of(Code::DatabaseUnavailable));
    }
    if work.is_some_and(|work| !app.selling.catalog.has_work(work)) {
        return Err(Problem::of(Code::WorkNotFound));
    }
    Ok(campaign)
}

fn count(verdict: &Verdict) {
    metrics::counter!("stock_coupon_issues_total", "verdict" => verdict.name()).increment(1);
}

/// POST `/api/coupons/{id}/issue`.
///
/// # Errors
/// 404, 409 when the caller has it already, when none is left, before and after its time.
pub async fn issue(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body,
        idempotency,
        ..
    }: Keyed<IssueIn>,
) -> Result<Response, Problem> {
    if body.user_id.is_some_and(|user| user != caller.user.0) {
        return Err(Problem::of(Code::UserMismatch));
    }
    let work_id = body.work_id.map(WorkId);
    let mut wanted = CouponIssued {
        coupon_id: CouponId(0),
        user_id: caller.user,
        work_id,
        code: String::new(),
    };
    let verdict = match find_campaign(&app, id, work_id).await {
        Ok(campaign) => {
            wanted.coupon_id = campaign.id;
            draw(&app, campaign.window_ms, &mut wanted, idempotency.as_ref()).await?
        }
        Err(problem) => refuse(&app, idempotency, problem).await?,
    };
    count(&verdict);
    match verdict {
        Verdict::Accepted(accepted) => {
            let body = IssueOut::new(accepted.position, &wanted, false);
            Ok(json(StatusCode::CREATED, &body))
        }
        Verdict::Replayed(Replay::Accepted(position)) => {
            let entry = replayed_entry(&app, position).await?;
            let issued = entry.body().map_err(|error| Problem::internal(&error))?;
            let body = IssueOut::new(position, &issued, false);
            Ok(replayed(json(StatusCode::CREATED, &body)))
        }
        Verdict::Replayed(Replay::Refused(refusal)) => Err(undrawn(refusal).replayed()),
        Verdict::Refused(refusal) => Err(undrawn(refusal)),
    }
}

/// GET `/api/coupons/mine`.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn mine(
    State(app): State<Arc<App>>,
    caller: Caller,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(Position::new);
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut found = coupon_issues::of_user(&app.pool, caller.user, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.issue.id.to_string());
    let items = found.iter().map(OwnCouponOut::new).collect();
    Ok(json(
        StatusCode::OK,
        &OwnCouponListOut { items, next_cursor },
    ))
}
