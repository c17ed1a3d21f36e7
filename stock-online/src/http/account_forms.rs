//! What the pages' forms post: sign up, log in, log out. A browser is always sent on to a page.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use stock_common::error::Code;
use stock_domain::database::audit_log::Action;
use tower_sessions::Session;
use utoipa::ToSchema;

use super::accounts::{self, CredentialsIn, SignUpIn};
use super::audit;
use super::auth::{Caller, Login};
use super::extract::Form;
use super::origin::Origin;
use super::problem::Problem;
use super::sessions::LOGIN;
use crate::app::App;

/// The fields of the sign-up form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUpForm {
    email: String,
    password: String,
    confirm_password: String,
    name: Option<String>,
}

/// The fields of the login form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginForm {
    email: String,
    password: String,
}

/// To a page that says what went wrong, by its code; a fault stays a problem.
fn back(page: &str, problem: Problem) -> Result<Response, Problem> {
    match problem.code.status() {
        500.. | 429 => Err(problem),
        _ => Ok(Redirect::to(&format!("{page}?problem={}", problem.code.as_str())).into_response()),
    }
}

/// POST `/account/signup`.
///
/// # Errors
/// 403 from another site's page, 429, 503.
pub async fn sign_up(
    State(app): State<Arc<App>>,
    origin: Origin,
    Form(form): Form<SignUpForm>,
) -> Result<Response, Problem> {
    let body = SignUpIn {
        email: form.email,
        password: form.password,
        confirm_password: form.confirm_password,
        name: form.name,
    };
    match accounts::sign_up(&app, &origin, body).await {
        Ok(_) => Ok(Redirect::to("/login").into_response()),
        Err(problem) => back("/signup", problem),
    }
}

/// POST `/account/login`: the session gets another id, so that one that was planted is worth nothing.
///
/// # Errors
/// 403 from another site's page, 429, 503.
pub async fn log_in(
    State(app): State<Arc<App>>,
    session: Session,
    origin: Origin,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    let credentials = CredentialsIn {
        email: form.email,
        password: form.password,
    };
    let user = match accounts::log_in(&app, &origin, credentials).await {
        Ok(user) => user,
        Err(problem) => return back("/login", problem),
    };
    let begun = async {
        session.cycle_id().await?;
        session.insert(LOGIN, Login::from(&user)).await?;
        session.save().await
    };
    begun.await.map_err(|error| {
        tracing::warn!(%error, "cannot write a session");
        Problem::of(Code::DatabaseUnavailable)
    })?;
    Ok(Redirect::to("/").into_response())
}

/// POST `/account/logout`.
///
/// # Errors
/// 401 without a login, 403 from another site's page, 503.
pub async fn log_out(
    State(app): State<Arc<App>>,
    caller: Caller,
    session: Session,
    origin: Origin,
) -> Result<Response, Problem> {
    session.flush().await.map_err(|error| {
        tracing::warn!(%error, "cannot end a session");
        Problem::of(Code::DatabaseUnavailable)
    })?;
    let subject = format!("user:{}", caller.user);
    audit::note(
        &app,
        &origin,
        Action::LoggedOut,
        (Some(caller.user), &subject),
    );
    Ok(Redirect::to("/").into_response())
}
