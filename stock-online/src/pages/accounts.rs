//! `/login`, `/signup`, and the routes of their forms. A browser sees an error beside its field,
//! and is redirected on success. A client that does not ask for HTML gets the interface's problem.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use stock_domain::user::{Email, User};
use stock_mysql::people::audit_log::Action;
use tower_sessions::Session;

use super::context::{PageContext, page, page_as};
use super::failure::asks_for_html;
use crate::app::App;
use crate::http::accounts::{self, CredentialsIn, LoginForm, SignUpForm, SignUpIn};
use crate::http::auth::{Caller, Login};
use crate::http::code::Code;
use crate::http::extract::Form;
use crate::http::origin::Origin;
use crate::http::problem::Problem;
use crate::http::sessions::LOGIN;
use crate::http::{audit, devices};

/// The query of an account page: where to go after a login.
#[derive(Debug, Default, Deserialize)]
struct NextIn {
    #[serde(default)]
    next: String,
    /// Whether the reader has just signed up.
    #[serde(default)]
    new: bool,
}

impl NextIn {
    fn of(uri: &Uri) -> Self {
        let asked =
            Query::<Self>::try_from_uri(uri).map_or_else(|_| Self::default(), |asked| asked.0);
        Self {
            next: local(&asked.next).to_owned(),
            ..asked
        }
    }
}

/// A path of this site, otherwise `/`, so that a login leads to no other site.
fn local(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//");
    let is_plain = next
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_path && is_plain { next } else { "/" }
}

/// An error of a form, and the field that it concerns.
struct Wrong {
    field: &'static str,
    text: String,
}

impl Wrong {
    fn of(context: &PageContext, problem: &Problem) -> Self {
        let code = problem.code;
        let field = if code == Code::EmailTaken {
            "email"
        } else if code == Code::InvalidCredentials {
            "password"
        } else {
            field_of(problem)
        };
        // A 422 has a text for each field, which states the field's rule.
        let id = if code == Code::Unprocessable {
            format!("rule-{field}")
        } else {
            format!("problem-{}", code.as_str())
        };
        let text = context.lang.find(&id);
        Self {
            field,
            text: text.unwrap_or_else(|| problem.detail.clone()),
        }
    }
}

/// The field that a 422 points at.
fn field_of(problem: &Problem) -> &'static str {
    let pointer = problem
        .members
        .get("errors")
        .and_then(|errors| errors.pointer("/0/pointer")?.as_str());
    match pointer {
        Some("/email") => "email",
        Some("/password") => "password",
        Some("/confirmPassword") => "confirm_password",
        Some("/name") => "name",
        _ => "",
    }
}

#[derive(Template)]
#[template(path = "accounts/login.html")]
struct LoginPage {
    context: PageContext,
    next: String,
    is_new: bool,
    email: String,
    wrong: Option<Wrong>,
}

impl LoginPage {
    fn wrong(&self, field: &str) -> Option<&str> {
        let wrong = self.wrong.as_ref().filter(|wrong| wrong.field == field);
        wrong.map(|wrong| wrong.text.as_str())
    }
}

#[derive(Template)]
#[template(path = "accounts/signup.html")]
struct SignUpPage {
    context: PageContext,
    next: String,
    email: String,
    name: String,
    wrong: Option<Wrong>,
}

impl SignUpPage {
    fn wrong(&self, field: &str) -> Option<&str> {
        let wrong = self.wrong.as_ref().filter(|wrong| wrong.field == field);
        wrong.map(|wrong| wrong.text.as_str())
    }
}

/// The context of an account page. A login there leads on to the page that the reader wanted, and
/// the link to another language leads to the form, whatever was posted.
fn with_path(mut context: PageContext, path: &str, next: &str) -> PageContext {
    path.clone_into(&mut context.path);
    context.query = serde_urlencoded::to_string([("next", next)]).unwrap_or_default();
    next.clone_into(&mut context.back);
    context
}

/// GET `/login`; a reader who has logged in is redirected.
pub async fn login(context: PageContext, uri: Uri) -> Response {
    let NextIn { next, new } = NextIn::of(&uri);
    if context.caller.is_some() {
        return Redirect::to(&next).into_response();
    }
    page(&LoginPage {
        context: with_path(context, "/login", &next),
        next,
        is_new: new,
        email: String::new(),
        wrong: None,
    })
}

/// GET `/signup`.
pub async fn signup(context: PageContext, uri: Uri) -> Response {
    let next = NextIn::of(&uri).next;
    page(&SignUpPage {
        context: with_path(context, "/signup", &next),
        next,
        email: String::new(),
        name: String::new(),
        wrong: None,
    })
}

/// Whether a problem is shown in the form. A 429 and a fault of the service get a page of their
/// own.
fn is_shown(problem: &Problem, headers: &HeaderMap) -> bool {
    problem.code.status() < 500 && problem.code != Code::TooManyRequests && asks_for_html(headers)
}

fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY)
}

/// POST `/account/signup`.
///
/// # Errors
/// 403 from another site's page, 409, 422, 429, 503.
pub async fn sign_up(
    State(app): State<Arc<App>>,
    context: PageContext,
    origin: Origin,
    headers: HeaderMap,
    Form(form): Form<SignUpForm>,
) -> Result<Response, Problem> {
    let (email, name) = (form.email.clone(), form.name.clone());
    let body = SignUpIn {
        email: form.email,
        password: form.password,
        confirm_password: form.confirm_password,
        name: form.name,
    };
    let next = local(form.next.as_deref().unwrap_or("/")).to_owned();
    match accounts::sign_up(&app, &origin, body).await {
        Ok(_) if next == "/" => Ok(Redirect::to("/login?new=true").into_response()),
        Ok(_) => {
            let query = [("new", "true"), ("next", &next)];
            let query = serde_urlencoded::to_string(query).unwrap_or_default();
            Ok(Redirect::to(&format!("/login?{query}")).into_response())
        }
        Err(problem) if is_shown(&problem, &headers) => {
            let wrong = Some(Wrong::of(&context, &problem));
            let shown = SignUpPage {
                context: with_path(context, "/signup", &next),
                next,
                email,
                name: name.unwrap_or_default(),
                wrong,
            };
            Ok(page_as(status(&problem), &shown))
        }
        Err(problem) => Err(problem),
    }
}

/// POST `/account/login`: the session gets a new id, so that an id planted by an attacker is
/// worthless.
///
/// # Errors
/// 401, 403 from another site's page, 429, 503.
pub async fn log_in(
    State(app): State<Arc<App>>,
    session: Session,
    context: PageContext,
    origin: Origin,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    let email = form.email.clone();
    let next = local(form.next.as_deref().unwrap_or("/")).to_owned();
    let credentials = CredentialsIn {
        email: form.email,
        password: form.password,
    };
    let user = match accounts::log_in(&app, &origin, &headers, credentials).await {
        Ok(user) => user,
        Err(problem) if is_shown(&problem, &headers) => {
            let wrong = Some(Wrong::of(&context, &problem));
            let shown = LoginPage {
                context: with_path(context, "/login", &next),
                next,
                is_new: false,
                email,
                wrong,
            };
            return Ok(page_as(status(&problem), &shown));
        }
        Err(problem) => return Err(problem),
    };
    begin(&session, &user).await?;
    let mut response = Redirect::to(&next).into_response();
    remember(&app, &headers, &email, &mut response);
    Ok(response)
}

/// Logs a user in to a session.
///
/// # Errors
/// 503 when MySQL does not answer.
pub(crate) async fn begin(session: &Session, user: &User) -> Result<(), Problem> {
    let begun = async {
        session.cycle_id().await?;
        session.insert(LOGIN, Login::from(user)).await?;
        session.save().await
    };
    begun.await.map_err(|error| {
        tracing::warn!(%error, "cannot write a session");
        Problem::of(Code::DatabaseUnavailable)
    })
}

/// Remembers the device of a login, if it is new.
pub(crate) fn remember(app: &App, headers: &HeaderMap, email: &str, response: &mut Response) {
    if let Ok(email) = Email::new(email)
        && devices::known(app, headers, &email).is_none()
    {
        devices::remember(app, response, &email);
    }
}

/// Ends the caller's session.
///
/// # Errors
/// 503 when MySQL does not answer.
pub(crate) async fn end(
    app: &Arc<App>,
    origin: &Origin,
    caller: Caller,
    session: &Session,
) -> Result<(), Problem> {
    session.flush().await.map_err(|error| {
        tracing::warn!(%error, "cannot end a session");
        Problem::of(Code::DatabaseUnavailable)
    })?;
    let subject = format!("user:{}", caller.user);
    let action = Action::LoggedOut;
    audit::note(app, origin, action, Some(caller.user), &subject);
    Ok(())
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
    end(&app, &origin, caller, &session).await?;
    Ok(Redirect::to("/").into_response())
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn a_login_leads_nowhere_else() {
        for (next, expected) in [
            ("/event", "/event"),
            ("/orders/7?lang=ko", "/orders/7?lang=ko"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
        ] {
            assert_eq!(local(next), expected, "{next}");
        }
    }
}
