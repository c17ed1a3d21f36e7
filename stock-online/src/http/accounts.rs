//! Accounts of people: sign-up, tokens, passwords; and what an admin may do with users.
//!
//! Whatever ends tokens, ends them on this instance at once, and on others as soon as they ask MySQL,
//! which they do every few seconds. What holds a password or a token has no `Debug`: no log can show it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::Connection;
use stock_common::error::Code;
use stock_common::id::UserId;
use stock_domain::database::audit_log::Action;
use stock_domain::database::refresh_tokens::{self, Redeemed, TokenHash};
use stock_domain::database::users::{self, NewUser};
use stock_domain::user::{Email, Password, Role, User};
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, Caller};
use super::extract::{Anonymous, BodyIn, Filter, Keyed, PathId, cursor_of, limit_of};
use super::orders::json;
use super::origin::Origin;
use super::problem::Problem;
use crate::app::App;
use crate::limits::Subject;

/// Characters of a name.
const NAME_MAX: usize = 100;

/// Somebody who wants an account.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignUpIn {
    #[schema(max_length = 254)]
    pub(super) email: String,
    /// Not among the most common ones.
    #[schema(min_length = 8, max_length = 128)]
    pub(super) password: String,
    pub(super) confirm_password: String,
    #[schema(max_length = 100)]
    pub(super) name: Option<String>,
}

impl BodyIn for SignUpIn {}

/// Somebody who has one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsIn {
    pub(super) email: String,
    pub(super) password: String,
}

impl BodyIn for CredentialsIn {}

/// A refresh token, to be used up.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefreshIn {
    refresh: String,
}

impl BodyIn for RefreshIn {}

/// A change of one's own password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordIn {
    current_password: String,
    #[schema(min_length = 8, max_length = 128)]
    new_password: String,
    confirm_password: String,
}

impl BodyIn for PasswordIn {}

/// What an admin makes of a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleIn {
    #[schema(value_type = RoleName)]
    role: Role,
    /// The store whose till they run; with role `store`, and only then.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    store_id: Option<u64>,
}

impl BodyIn for RoleIn {}

/// What somebody may do.
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

/// Which users to list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsersIn {
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SignedUpOut<'a> {
    #[schema(value_type = u64)]
    id: UserId,
    email: &'a str,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserOut<'a> {
    #[schema(value_type = u64)]
    id: UserId,
    email: &'a str,
    name: &'a str,
    #[schema(value_type = RoleName)]
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_id: Option<u64>,
}

impl<'a> From<&'a User> for UserOut<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            id: user.id,
            email: &user.email,
            name: &user.name,
            role: user.role,
            store_id: user.store_id,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserListOut<'a> {
    items: Vec<UserOut<'a>>,
    next_cursor: Option<String>,
}

/// An access token and the refresh token that gets the next one.
#[derive(Serialize, ToSchema)]
pub(super) struct TokensOut {
    access: String,
    refresh: String,
}

/// A password that may be chosen, written twice the same.
fn chosen(password: &str, again: &str, pointer: &str) -> Result<Password, Problem> {
    if password != again {
        let message = "the two passwords differ";
        return Err(Problem::unprocessable("/confirmPassword", message));
    }
    Password::choose(password).map_err(|weak| Problem::unprocessable(pointer, weak.to_string()))
}

/// Makes an account.
///
/// # Errors
/// 409 `EMAIL_TAKEN`, 422, 429.
pub(super) async fn sign_up(
    app: &App,
    origin: &Origin,
    body: SignUpIn,
) -> Result<(UserId, Email), Problem> {
    let email = Email::new(&body.email)
        .map_err(|error| Problem::unprocessable("/email", error.to_string()))?;
    let password = chosen(&body.password, &body.confirm_password, "/password")?;
    let name = body.name.as_deref().unwrap_or("").trim();
    if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        let rule = format!("at most {NAME_MAX} characters, none of them a control character");
        return Err(Problem::unprocessable("/name", rule));
    }
    let from = Subject::LoginAddress(origin.address);
    app.limits.attempt(&app.ledger, from).await?;
    let password_hash = app.passwords.hash(password).await?;
    let user = NewUser {
        email: &email,
        name,
        role: Role::User,
        password_hash: &password_hash,
    };
    let id = users::insert(&app.pool, &user).await?;
    let id = id.ok_or_else(|| Problem::of(Code::EmailTaken))?;
    audit::note(app, origin, Action::SignedUp, (Some(id), email.as_str())).await;
    Ok((id, email))
}

/// POST `/api/auth/signup`.
///
/// # Errors
/// 409 `EMAIL_TAKEN`, 422, 429.
pub async fn post_sign_up(
    State(app): State<Arc<App>>,
    origin: Origin,
    Anonymous(body): Anonymous<SignUpIn>,
) -> Result<Response, Problem> {
    let (id, email) = sign_up(&app, &origin, body).await?;
    let email = email.as_str();
    Ok(json(StatusCode::CREATED, &SignedUpOut { id, email }))
}

/// Who has these credentials. A wrong password and an unknown address take as long, count as much, and
/// are answered alike.
///
/// # Errors
/// 401 `INVALID_CREDENTIALS`, 429, 503.
pub(super) async fn log_in(
    app: &App,
    origin: &Origin,
    CredentialsIn { email, password }: CredentialsIn,
) -> Result<User, Problem> {
    let claimed = email.trim().to_lowercase();
    let account = Subject::Login(hash_of(&claimed));
    for subject in [Subject::LoginAddress(origin.address), account] {
        if let Err(exceeded) = app.limits.attempt(&app.ledger, subject).await {
            audit::note(app, origin, Action::LoginLimited, (None, &claimed)).await;
            return Err(exceeded.into());
        }
    }
    let known = match Email::new(&claimed) {
        Ok(email) => users::find_by_email(&app.pool, &email).await?,
        Err(_) => None,
    };
    let (user, hash) = known.map_or((None, None), |(user, hash)| (Some(user), hash));
    let password = Password::claimed(&password).unwrap_or_else(Password::nobodys);
    let is_right = app.passwords.verify(password, hash).await?;
    match user.filter(|_| is_right) {
        Some(user) => {
            app.limits.forgive(&app.ledger, account).await;
            audit::note(app, origin, Action::LoggedIn, (Some(user.id), &claimed)).await;
            Ok(user)
        }
        None => {
            audit::note(app, origin, Action::LoginFailed, (None, &claimed)).await;
            Err(Problem::of(Code::InvalidCredentials))
        }
    }
}

/// 64 bits of a text's hash: enough to tell accounts apart, and no address in Redis.
fn hash_of(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// A new refresh token, and what is stored of it.
fn new_refresh_token() -> (String, TokenHash) {
    let token = format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    );
    let hash = Sha256::digest(&token).into();
    (token, hash)
}

fn tokens_out(app: &App, user: &User, refresh: String) -> Result<Response, Problem> {
    let seconds = app.config.access_token_seconds;
    let access = app
        .tokens
        .issue(Caller::from(user), user.tokens_from, seconds)
        .map_err(|error| Problem::internal(&error))?;
    Ok(json(StatusCode::OK, &TokensOut { access, refresh }))
}

/// Begins a family of refresh tokens.
async fn first_tokens(app: &App, user: &User) -> Result<Response, Problem> {
    let (refresh, hash) = new_refresh_token();
    let family = rand::random::<u128>().to_be_bytes();
    let mut connection = app.pool.acquire().await?;
    let lasting = (&hash, app.config.refresh_token_seconds);
    refresh_tokens::insert(&mut connection, user.id, family, lasting).await?;
    tokens_out(app, user, refresh)
}

/// POST `/api/token`.
///
/// # Errors
/// 401 `INVALID_CREDENTIALS`, 429.
pub async fn token(
    State(app): State<Arc<App>>,
    origin: Origin,
    Anonymous(body): Anonymous<CredentialsIn>,
) -> Result<Response, Problem> {
    let user = log_in(&app, &origin, body).await?;
    first_tokens(&app, &user).await
}

/// POST `/api/token/refresh`.
///
/// # Errors
/// 401 `REFRESH_TOKEN_INVALID`.
pub async fn refresh(
    State(app): State<Arc<App>>,
    origin: Origin,
    Anonymous(body): Anonymous<RefreshIn>,
) -> Result<Response, Problem> {
    let invalid = || Problem::of(Code::RefreshTokenInvalid);
    let (successor, hash) = new_refresh_token();
    let old = Sha256::digest(&body.refresh).into();
    let lasting = (&hash, app.config.refresh_token_seconds);
    let user = match refresh_tokens::redeem(&app.pool, &old, lasting).await? {
        Redeemed::Good(user) => user,
        Redeemed::Reused(user) => {
            let subject = format!("user:{user}");
            audit::note(&app, &origin, Action::RefreshReused, (None, &subject)).await;
            return Err(invalid());
        }
        Redeemed::Unknown => return Err(invalid()),
    };
    let (user, _) = users::find(&app.pool, user).await?.ok_or_else(invalid)?;
    tokens_out(&app, &user, successor)
}

/// The caller as MySQL knows them; a token may name somebody who never was.
async fn myself(app: &App, caller: Caller) -> Result<(User, Option<String>), Problem> {
    let found = users::find(&app.pool, caller.user).await?;
    found.ok_or_else(|| Problem::new(Code::Unauthorized, "the token's user does not exist"))
}

/// GET `/api/me`.
///
/// # Errors
/// 401 for a token whose user does not exist.
pub async fn me(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    let (user, _) = myself(&app, caller).await?;
    Ok(json(StatusCode::OK, &UserOut::from(&user)))
}

/// What ends a user's tokens.
enum Ending<'a> {
    LogoutEverywhere,
    NewPassword(&'a str),
    NewRole(Role, Option<u64>),
    Deletion,
}

/// Ends all tokens and sessions of a user; `false` when there is no such user.
async fn end_tokens(app: &App, id: UserId, ending: Ending<'_>) -> Result<bool, Problem> {
    // What began in this second ends too.
    let from = app.tokens.now() + 1;
    let mut connection = app.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let found = match ending {
        Ending::LogoutEverywhere => {
            users::end_tokens(&mut transaction, id, from).await?;
            true
        }
        Ending::NewPassword(hash) => {
            users::set_password(&mut transaction, id, hash, from).await?;
            true
        }
        Ending::NewRole(role, store) => {
            users::set_role(&mut transaction, id, (role, store), from).await?
        }
        Ending::Deletion => users::delete(&mut transaction, id, from).await?,
    };
    refresh_tokens::delete_of(&mut transaction, id).await?;
    transaction.commit().await?;
    app.tokens.end(id, from);
    Ok(found)
}

/// POST `/api/me/password`: ends all tokens and sessions, and begins anew.
///
/// # Errors
/// 401 `INVALID_CREDENTIALS`, 422, 429.
pub async fn change_password(
    State(app): State<Arc<App>>,
    origin: Origin,
    Keyed { caller, body, .. }: Keyed<PasswordIn>,
) -> Result<Response, Problem> {
    let password = chosen(&body.new_password, &body.confirm_password, "/newPassword")?;
    let (user, hash) = myself(&app, caller).await?;
    let account = Subject::Login(hash_of(&user.email));
    app.limits.attempt(&app.ledger, account).await?;
    let current = Password::claimed(&body.current_password).unwrap_or_else(Password::nobodys);
    if !app.passwords.verify(current, hash).await? {
        audit::note(
            &app,
            &origin,
            Action::LoginFailed,
            (Some(user.id), &user.email),
        )
        .await;
        return Err(Problem::of(Code::InvalidCredentials));
    }
    app.limits.forgive(&app.ledger, account).await;
    let hash = app.passwords.hash(password).await?;
    end_tokens(&app, user.id, Ending::NewPassword(&hash)).await?;
    audit::note(
        &app,
        &origin,
        Action::PasswordChanged,
        (Some(user.id), &user.email),
    )
    .await;
    let (user, _) = myself(&app, caller).await?;
    first_tokens(&app, &user).await
}

/// POST `/api/auth/logout-everywhere`: ends all tokens and sessions of the caller.
///
/// # Errors
/// When MySQL does not answer.
pub async fn logout_everywhere(
    State(app): State<Arc<App>>,
    origin: Origin,
    caller: Caller,
) -> Result<Response, Problem> {
    end_tokens(&app, caller.user, Ending::LogoutEverywhere).await?;
    let subject = format!("user:{}", caller.user);
    let who = (Some(caller.user), subject.as_str());
    audit::note(&app, &origin, Action::LoggedOutEverywhere, who).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// GET `/api/users`: admin.
///
/// # Errors
/// 422 for a page that cannot be.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Filter(asked): Filter<UsersIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(asked.limit)?;
    let after = cursor_of(asked.cursor.as_deref())?.unwrap_or(0);
    let mut found = users::list(&app.pool, after, limit + 1).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let last = found.last().filter(|_| has_more);
    let page = UserListOut {
        next_cursor: last.map(|user| user.id.to_string()),
        items: found.iter().map(UserOut::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}

fn no_such_user() -> Problem {
    Problem::new(Code::NotFound, "there is no such user")
}

/// PATCH `/api/users/{id}`: admin gives another role; the user has to log in again.
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
    if (body.role == Role::Store) != body.store_id.is_some() {
        let rule = "a store's user needs the store, and nobody else has one";
        return Err(Problem::unprocessable("/storeId", rule));
    }
    let id = UserId(id.map_err(|_malformed| no_such_user())?.0);
    if !end_tokens(&app, id, Ending::NewRole(body.role, body.store_id)).await? {
        return Err(no_such_user());
    }
    let subject = format!("user:{id} is {}", body.role.as_str());
    audit::note(
        &app,
        &origin,
        Action::RoleChanged,
        (Some(admin.user), &subject),
    )
    .await;
    let (user, _) = users::find(&app.pool, id).await?.ok_or_else(no_such_user)?;
    Ok(json(StatusCode::OK, &UserOut::from(&user)))
}

/// DELETE `/api/users/{id}`: admin; their orders stay.
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
    if !end_tokens(&app, id, Ending::Deletion).await? {
        return Err(no_such_user());
    }
    let subject = format!("user:{id}");
    audit::note(
        &app,
        &origin,
        Action::UserDeleted,
        (Some(admin.user), &subject),
    )
    .await;
    Ok(StatusCode::NO_CONTENT.into_response())
}
