//! Accounts of people: sign-up, tokens, passwords.
//!
//! An action that ends tokens ends them on this instance at once. Other instances learn of it from
//! MySQL within a few seconds. A type that holds a password or a token has no `Debug`, so that no
//! log can show the secret.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stock_common::id::UserId;
use stock_common::text;
use stock_domain::user::{Email, Password, Role, User};
use stock_mysql::people::audit_log::Action;
use stock_mysql::people::refresh_tokens::{self, Redeemed, TokenHash};
use stock_mysql::people::users::{self, Ending, NewUser};
use utoipa::ToSchema;

use super::auth::Caller;
use super::extract::{Anonymous, BodyIn, Keyed};
use super::orders::json;
use super::origin::Origin;
use super::problem::Problem;
use super::users::RoleName;
use super::{audit, devices};
use crate::app::App;
use crate::http::code::Code;
use crate::limits::{Subject, network_of};
use crate::passwords::{Ticket, Urgency};

/// Maximum length of a name, in characters.
const NAME_MAX: usize = 100;

/// The fields of the sign-up form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "email": "one@example.com", "password": "open sesame, please",
    "confirm_password": "open sesame, please" }))]
pub struct SignUpForm {
    /// The email address.
    pub email: String,
    /// The password.
    pub password: String,
    /// The password once more.
    pub confirm_password: String,
    /// The name that others see.
    pub name: Option<String>,
    /// The path to go to afterwards.
    pub next: Option<String>,
}

/// The fields of the login form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "email": "one@example.com", "password": "open sesame, please" }))]
pub struct LoginForm {
    /// The email address.
    pub email: String,
    /// The password.
    pub password: String,
    /// The path to go to afterwards.
    pub next: Option<String>,
}

/// Body of a sign-up.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignUpIn {
    #[schema(max_length = 254)]
    pub(crate) email: String,
    /// The most common passwords are refused.
    #[schema(min_length = 8, max_length = 128)]
    pub(crate) password: String,
    pub(crate) confirm_password: String,
    #[schema(max_length = 100)]
    pub(crate) name: Option<String>,
}

impl BodyIn for SignUpIn {}

/// Body of a login.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsIn {
    pub(crate) email: String,
    pub(crate) password: String,
}

impl BodyIn for CredentialsIn {}

/// Body of a refresh; it uses the refresh token up.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefreshIn {
    refresh: String,
}

impl BodyIn for RefreshIn {}

/// Body of a change of the caller's own password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordIn {
    current_password: String,
    #[schema(min_length = 8, max_length = 128)]
    new_password: String,
    confirm_password: String,
}

impl BodyIn for PasswordIn {}

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

/// An access token, and the refresh token that gets the next one.
#[derive(Serialize, ToSchema)]
pub(super) struct TokensOut {
    access: String,
    refresh: String,
}

/// Checks a new password: both texts must be equal, and the password must be allowed.
fn chosen(password: &str, again: &str, pointer: &str) -> Result<Password, Problem> {
    if password != again {
        let message = "the two passwords differ";
        return Err(Problem::unprocessable("/confirmPassword", message));
    }
    Password::choose(password).map_err(|weak| Problem::unprocessable(pointer, weak.to_string()))
}

/// Creates an account.
///
/// # Errors
/// 409 `EMAIL_TAKEN`, 422, 429.
pub(crate) async fn sign_up(
    app: &Arc<App>,
    origin: &Origin,
    body: SignUpIn,
) -> Result<(UserId, Email), Problem> {
    let email = Email::new(&body.email)
        .map_err(|error| Problem::unprocessable("/email", error.to_string()))?;
    let password = chosen(&body.password, &body.confirm_password, "/password")?;
    let mut name = body.name.unwrap_or_default();
    text::normalize(&mut name);
    let name = if text::is_blank(&name) {
        ""
    } else {
        name.trim()
    };
    if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        let rule = format!("at most {NAME_MAX} characters, none of them a control character");
        return Err(Problem::unprocessable("/name", rule));
    }
    let from = Subject::login_from(origin.address);
    let has_failed = attempt(app, origin, &[from], email.as_str()).await?;
    let ticket = ticket(origin, false, has_failed);
    let password_hash = app.people.passwords.hash(password, ticket).await?;
    let user = NewUser {
        email: &email,
        name,
        role: Role::User,
        password_hash: &password_hash,
    };
    let id = users::insert(&app.pool, &user).await?;
    let id = id.ok_or_else(|| Problem::of(Code::EmailTaken))?;
    audit::note(app, origin, Action::SignedUp, Some(id), email.as_str());
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

/// Counts an attempt for each subject before the password is checked, so that parallel attempts
/// cannot all be checked before one has failed. Returns whether one of the subjects has failed
/// before.
async fn attempt(
    app: &Arc<App>,
    origin: &Origin,
    subjects: &[Subject],
    claimed: &str,
) -> Result<bool, Problem> {
    let mut has_failed = false;
    for (index, subject) in subjects.iter().enumerate() {
        match app.people.limits.attempt(&app.ledger, *subject).await {
            Ok(attempt) => {
                has_failed |= attempt.failures > 0;
                if attempt.begins_delay {
                    audit::note(app, origin, Action::LoginLimited, None, claimed);
                }
            }
            Err(exceeded) => {
                // The password will not be checked, so the attempt must not count for the other
                // subjects.
                for subject in subjects.iter().take(index) {
                    app.people.limits.take_back(&app.ledger, *subject).await;
                }
                return Err(exceeded.into());
            }
        }
    }
    Ok(has_failed)
}

/// Whether a password matches a hash. A fault of the service does not count as an attempt.
async fn is_right(
    app: &App,
    subjects: &[Subject],
    password: &str,
    hash: Option<String>,
    ticket: Ticket,
) -> Result<bool, Problem> {
    let password = Password::claimed(password).unwrap_or_else(Password::nobodys);
    let verified = app.people.passwords.verify(password, hash, ticket).await;
    if verified.is_err() {
        take_back(app, subjects).await;
    }
    Ok(verified?)
}

async fn take_back(app: &App, subjects: &[Subject]) {
    for subject in subjects {
        app.people.limits.take_back(&app.ledger, *subject).await;
    }
}

/// The ticket of a request in the queue before password hashing.
fn ticket(origin: &Origin, is_known: bool, has_failed: bool) -> Ticket {
    Ticket {
        urgency: match (is_known, has_failed) {
            (true, _) => Urgency::Known,
            (false, false) => Urgency::Clean,
            (false, true) => Urgency::Doubtful,
        },
        network: network_of(origin.address),
    }
}

/// Finds the user of these credentials. A wrong password and an unknown address take the same time,
/// count the same, and get the same answer.
///
/// # Errors
/// 401 `INVALID_CREDENTIALS`, 429, 503.
pub(crate) async fn log_in(
    app: &Arc<App>,
    origin: &Origin,
    headers: &HeaderMap,
    CredentialsIn { email, password }: CredentialsIn,
) -> Result<User, Problem> {
    let email = Email::new(&email);
    // A text that is not an email address may be a password, so the log must not show it.
    let claimed = email.as_ref().map_or("no address", Email::as_str);
    let device = email.as_ref().ok();
    let device = device.and_then(|email| devices::known(app, headers, email));
    let from = Subject::login_from(origin.address);
    let subjects = match &device {
        // Failures on other devices do not count against a known device.
        Some(device) => vec![Subject::Device(hash_of(device))],
        None => vec![from, Subject::Login(hash_of(claimed))],
    };
    let has_failed = attempt(app, origin, &subjects, claimed).await?;
    let known = match &email {
        Ok(email) => users::find_by_email(&app.pool, email).await,
        Err(_) => Ok(None),
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            take_back(app, &subjects).await;
            return Err(error.into());
        }
    };
    let (user, hash) = known.map_or((None, None), |(user, hash)| (Some(user), hash));
    let ticket = ticket(origin, device.is_some(), has_failed);
    let is_right = is_right(app, &subjects, &password, hash, ticket).await?;
    match user.filter(|_| is_right) {
        Some(user) => {
            for subject in subjects {
                // Many users share an address: one success must not clear the failures of the
                // others.
                match subject == from {
                    true => app.people.limits.take_back(&app.ledger, subject).await,
                    false => app.people.limits.forgive(&app.ledger, subject).await,
                }
            }
            audit::note(app, origin, Action::LoggedIn, Some(user.id), claimed);
            Ok(user)
        }
        None => {
            audit::note(app, origin, Action::LoginFailed, None, claimed);
            Err(Problem::of(Code::InvalidCredentials))
        }
    }
}

/// 64 bits of a text's hash: enough to tell accounts apart, and Redis sees no email address.
fn hash_of(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// A new refresh token, and its hash, which alone is stored.
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
    let seconds = app.config.people.access_token_seconds;
    let access = app
        .people
        .tokens
        .issue(Caller::from(user), Some(user.tokens_from), seconds)
        .map_err(|error| Problem::internal(&error))?;
    Ok(json(StatusCode::OK, &TokensOut { access, refresh }))
}

fn new_family() -> [u8; 16] {
    rand::random::<u128>().to_be_bytes()
}

/// POST `/api/token`.
///
/// # Errors
/// 401 `INVALID_CREDENTIALS`, 429.
pub async fn token(
    State(app): State<Arc<App>>,
    origin: Origin,
    headers: HeaderMap,
    Anonymous(body): Anonymous<CredentialsIn>,
) -> Result<Response, Problem> {
    let user = log_in(&app, &origin, &headers, body).await?;
    let (refresh, hash) = new_refresh_token();
    let seconds = app.config.people.refresh_token_seconds;
    if !refresh_tokens::begin(&app.pool, &user, new_family(), &hash, seconds).await? {
        // The password or the role was changed, or the user was deleted, while the password was
        // being checked.
        return Err(Problem::of(Code::InvalidCredentials));
    }
    tokens_out(&app, &user, refresh)
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
    let seconds = app.config.people.refresh_token_seconds;
    let user = match refresh_tokens::redeem(&app.pool, &old, &hash, seconds).await? {
        Redeemed::Good(user) => user,
        Redeemed::Reused(user) => {
            let subject = format!("user:{user}");
            audit::note(&app, &origin, Action::RefreshReused, None, &subject);
            return Err(invalid());
        }
        Redeemed::Unknown => return Err(invalid()),
    };
    tokens_out(&app, &user, successor)
}

/// Reads the caller's user and password hash; a token may name a user who never existed.
async fn myself(app: &App, caller: Caller) -> Result<(User, Option<String>), Problem> {
    let found = users::find(&app.pool, caller.user).await?;
    found.ok_or_else(nobody)
}

/// GET `/api/me`.
///
/// # Errors
/// 401 for a token whose user does not exist.
pub async fn me(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    let (user, _) = myself(&app, caller).await?;
    Ok(json(StatusCode::OK, &UserOut::from(&user)))
}

/// Ends all tokens and sessions of a user in one transaction, which also stores the first new
/// refresh token if one is given. Returns the user as changed; `None` when there is no such user.
pub(super) async fn end_tokens(
    app: &App,
    id: UserId,
    ending: Ending<'_>,
    refresh: Option<&TokenHash>,
) -> Result<Option<User>, Problem> {
    let mut transaction = app.pool.begin().await?;
    let now = app.people.tokens.now();
    let Some(user) = users::end_tokens(&mut transaction, id, ending, now).await? else {
        return Ok(None);
    };
    refresh_tokens::delete_of(&mut transaction, id).await?;
    if let Some(hash) = refresh {
        let seconds = app.config.people.refresh_token_seconds;
        refresh_tokens::insert(&mut transaction, id, new_family(), hash, seconds).await?;
    }
    transaction.commit().await?;
    app.people.tokens.end(id, user.tokens_from);
    Ok(Some(user))
}

fn nobody() -> Problem {
    Problem::new(Code::Unauthorized, "the token's user does not exist")
}

/// POST `/api/me/password`: ends all tokens and sessions of the caller, and answers new tokens.
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
    // The caller has a counter of their own, so that guesses by strangers cannot keep a logged-in
    // user from changing the password.
    let own = Subject::Own(user.id.0);
    let has_failed = attempt(&app, &origin, &[own], &user.email).await?;
    let ticket = ticket(&origin, true, has_failed);
    let claimed = body.current_password.as_str();
    if !is_right(&app, &[own], claimed, hash, ticket).await? {
        audit::note(
            &app,
            &origin,
            Action::LoginFailed,
            Some(user.id),
            &user.email,
        );
        return Err(Problem::of(Code::InvalidCredentials));
    }
    app.people.limits.forgive(&app.ledger, own).await;
    let password_hash = app.people.passwords.hash(password, ticket).await?;
    let (refresh, refresh_hash) = new_refresh_token();
    let ending = Ending::NewPassword(&password_hash);
    let changed = end_tokens(&app, user.id, ending, Some(&refresh_hash)).await?;
    audit::note(
        &app,
        &origin,
        Action::PasswordChanged,
        Some(user.id),
        &user.email,
    );
    tokens_out(&app, &changed.ok_or_else(nobody)?, refresh)
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
    let ended = end_tokens(&app, caller.user, Ending::LogoutEverywhere, None).await?;
    ended.ok_or_else(nobody)?;
    let subject = format!("user:{}", caller.user);
    let actor = Some(caller.user);
    audit::note(&app, &origin, Action::LoggedOutEverywhere, actor, &subject);
    Ok(StatusCode::NO_CONTENT.into_response())
}
