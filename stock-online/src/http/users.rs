//! Users, as an admin sees and changes them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use stock_common::id::UserId;
use stock_domain::user::Role;
use stock_mysql::people::audit_log::Action;
use stock_mysql::people::users::{self as table, Ending};
use utoipa::ToSchema;

use super::accounts::{UserOut, end_tokens};
use super::audit;
use super::auth::Admin;
use super::extract::{BodyIn, Filter, ID_MAX, Keyed, PathId};
use super::orders::json;
use super::origin::Origin;
use super::page::{cursor_of, cut, limit_of};
use super::problem::Problem;
use crate::app::App;
use crate::http::code::Code;

/// The role that an admin gives a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleIn {
    #[schema(value_type = RoleName)]
    role: Role,
    /// The store whose till the user runs; with the role `store`, and only then.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    store_id: Option<u64>,
}

impl BodyIn for RoleIn {}

/// The role of a user.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(super) enum RoleName {
    User,
    Store,
    Admin,
}

/// The page of a list of users.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsersIn {
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserListOut<'a> {
    items: Vec<UserOut<'a>>,
    next_cursor: Option<String>,
}

/// GET `/api/users`: admin.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Filter(asked): Filter<UsersIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(asked.limit)?;
    let after = cursor_of(asked.cursor.as_deref())?.unwrap_or(0);
    let mut found = table::list(&app.pool, after, limit + 1).await?;
    let page = UserListOut {
        next_cursor: cut(&mut found, limit).map(|user| user.id.to_string()),
        items: found.iter().map(UserOut::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}

fn no_such_user() -> Problem {
    Problem::new(Code::NotFound, "there is no such user")
}

/// PATCH `/api/users/{id}`: admin; changes the role, and the user has to log in again.
///
/// # Errors
/// 404, 422.
pub async fn set_role(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    origin: Origin,
    id: Result<PathId, Problem>,
    Keyed { body, .. }: Keyed<RoleIn>,
) -> Result<Response, Problem> {
    let is_store = body.store_id.is_some_and(|id| (1..=ID_MAX).contains(&id));
    if (body.role == Role::Store) != is_store || is_store != body.store_id.is_some() {
        let rule = "a store's user needs the store, and nobody else has one";
        return Err(Problem::unprocessable("/storeId", rule));
    }
    let id = UserId(id.map_err(|_malformed| no_such_user())?.0);
    let ending = Ending::NewRole(body.role, body.store_id);
    let user = end_tokens(&app, id, ending, None).await?;
    let user = user.ok_or_else(no_such_user)?;
    let subject = format!("user:{id} is {}", body.role.as_str());
    audit::note(
        &app,
        &origin,
        Action::RoleChanged,
        Some(admin.user),
        &subject,
    );
    Ok(json(StatusCode::OK, &UserOut::from(&user)))
}

/// DELETE `/api/users/{id}`: admin; the user's orders stay.
///
/// # Errors
/// 404.
pub async fn delete(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    origin: Origin,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let id = UserId(id.map_err(|_malformed| no_such_user())?.0);
    let user = end_tokens(&app, id, Ending::Deletion, None).await?;
    user.ok_or_else(no_such_user)?;
    let subject = format!("user:{id}");
    audit::note(
        &app,
        &origin,
        Action::UserDeleted,
        Some(admin.user),
        &subject,
    );
    Ok(StatusCode::NO_CONTENT.into_response())
}
