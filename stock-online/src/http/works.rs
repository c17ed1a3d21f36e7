//! Works: the campaign items that coupons are drawn for.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`list`] | GET `/api/works` | every work, newest first |
//! | [`create`], [`replace`], [`delete`] | POST `/api/works`, PUT and DELETE `/api/works/{id}` | for admins |

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use stock_common::id::WorkId;
use stock_mysql::error_number;
use stock_mysql::people::audit_log::Action;
use stock_mysql::works::{self as table, DatedWork, Work};
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, Caller};
use super::extract::{Bodiless, BodyIn, Filter, Keyed, PathId};
use super::once::{Begun, Once};
use super::orders::{json, located};
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::{check_text, publish};
use crate::app::App;
use crate::http::code::Code;

/// A work as an admin writes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "title": "Winter concert" }))]
pub struct WorkIn {
    /// Unique among works.
    #[schema(min_length = 1, max_length = 100)]
    title: String,
}

impl BodyIn for WorkIn {}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkOut {
    id: u64,
    title: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkListOut {
    items: Vec<WorkOut>,
    next_cursor: Option<String>,
}

impl From<Work> for WorkOut {
    fn from(work: Work) -> Self {
        Self {
            id: work.id.0,
            title: work.title,
        }
    }
}

/// GET `/api/works`.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(WorkId);
    let mut found = table::list(&app.pool, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let items = found.into_iter().map(WorkOut::from).collect();
    Ok(json(StatusCode::OK, &WorkListOut { items, next_cursor }))
}

/// Maximum number of works in a list without pages.
const FIRST: u32 = 10_000;

/// The works, the oldest first.
///
/// # Errors
/// 503 when MySQL does not answer.
pub(crate) async fn first(app: &App) -> Result<Vec<DatedWork>, Problem> {
    Ok(table::first(&app.pool, FIRST).await?)
}

fn work_id(id: Result<PathId, Problem>) -> Result<WorkId, Problem> {
    id.map(|PathId(id)| WorkId(id))
        .map_err(|_not_a_number| Problem::of(Code::WorkNotFound))
}

fn written<T>(done: Result<T, sqlx::Error>) -> Result<T, Problem> {
    match done {
        // Another work has the title.
        Err(error) if error_number(&error) == Some(1062) => Err(Problem::of(Code::WorkTitleTaken)),
        done => Ok(done?),
    }
}

/// Publishes the change, and notes the admin in the audit log.
async fn changed(
    app: &Arc<App>,
    origin: &Origin,
    action: Action,
    admin: Caller,
    id: WorkId,
) -> Result<(), Problem> {
    app.live.lists.forget_all();
    publish(app).await?;
    audit::note(app, origin, action, Some(admin.user), &format!("work:{id}"));
    Ok(())
}

/// POST `/api/works`.
///
/// # Errors
/// 409 when another work has the title, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        mut body,
        idempotency,
        ..
    }: Keyed<WorkIn>,
) -> Result<Response, Problem> {
    check_text(&mut body.title, 100, "/title", 1)?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let title = body.title;
    let made = written(table::insert(once.connection(), &title).await);
    let created = made.map(|id| {
        let body = json(StatusCode::CREATED, &WorkOut { id: id.0, title });
        (located(body, format!("/api/works/{id}")), id)
    });
    let (response, id) = once.end(created).await?;
    changed(&app, &origin, Action::WorkCreated, admin, id).await?;
    Ok(response)
}

/// PUT `/api/works/{id}`.
///
/// # Errors
/// 404, 409 when another work has the title, 422.
pub async fn replace(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed {
        mut body,
        idempotency,
        ..
    }: Keyed<WorkIn>,
) -> Result<Response, Problem> {
    check_text(&mut body.title, 100, "/title", 1)?;
    let id = work_id(id)?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let title = body.title;
    let done = match written(table::update(once.connection(), id, &title).await) {
        Ok(true) => Ok((json(StatusCode::OK, &WorkOut { id: id.0, title }), ())),
        Ok(false) => Err(Problem::of(Code::WorkNotFound)),
        Err(problem) => Err(problem),
    };
    let (response, ()) = once.end(done).await?;
    changed(&app, &origin, Action::WorkChanged, admin, id).await?;
    Ok(response)
}

/// DELETE `/api/works/{id}`: no more coupons are drawn for it; drawn codes stay.
///
/// # Errors
/// 404.
pub async fn delete(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Bodiless { idempotency, .. }: Bodiless,
) -> Result<Response, Problem> {
    let id = work_id(id)?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let done = match table::delete(once.connection(), id).await {
        Ok(true) => Ok((StatusCode::NO_CONTENT.into_response(), ())),
        Ok(false) => Err(Problem::of(Code::WorkNotFound)),
        Err(error) => Err(error.into()),
    };
    let (response, ()) = once.end(done).await?;
    changed(&app, &origin, Action::WorkDeleted, admin, id).await?;
    Ok(response)
}
