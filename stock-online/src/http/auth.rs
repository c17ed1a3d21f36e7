//! Callers: identified by a bearer token, a service key, or a page's session, each with a role.

mod key;

use std::sync::Arc;

pub(super) use self::key::{as_buyer, as_user, came_with_key, named_buyer};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use stock_common::id::UserId;
use stock_domain::buyer::Buyer;
pub use stock_domain::user::Role;
use stock_domain::user::User;
use tower_sessions::Session;

use super::cross_site;
use super::problem::Problem;
use super::reader::Writer;
use super::sessions::LOGIN;
use crate::app::App;
use crate::http::code::Code;
use crate::limits::Subject;
use crate::service_keys;
pub use crate::tokens::Caller;
use crate::tokens::Known;

/// The data of a login that a session keeps.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Login {
    user: UserId,
    role: Role,
    store_id: Option<u64>,
    generation: i64,
}

impl From<&User> for Login {
    fn from(user: &User) -> Self {
        Self {
            user: user.id,
            role: user.role,
            store_id: user.store_id,
            generation: user.tokens_from,
        }
    }
}

/// The caller of the session's cookie, if the login is still valid.
///
/// # Errors
/// 403 from another site's page; 503 when MySQL does not answer.
async fn of_session(parts: &Parts, app: &App) -> Result<Option<Lease>, Problem> {
    let Some(session) = parts.extensions.get::<Session>() else {
        return Ok(None);
    };
    let login = session.get::<Login>(LOGIN).await.map_err(|error| {
        tracing::warn!(%error, "cannot read a session");
        Problem::of(Code::DatabaseUnavailable)
    })?;
    let Some(login) = login else {
        return Ok(None);
    };
    if !app.people.tokens.holds(login.user, login.generation)? {
        return Ok(None);
    }
    cross_site::check(&parts.method, &parts.headers)?;
    Ok(Some(Lease {
        caller: Caller {
            user: login.user,
            role: login.role,
            store_id: login.store_id,
        },
        generation: login.generation,
        // The request counts as use of the session, so the lease lasts a full idle time from now.
        exp: session.expiry_date().unix_timestamp(),
    }))
}

/// A caller, and how long their token or session is valid.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// The caller.
    pub caller: Caller,
    generation: i64,
    /// The Unix second in which the token, or the session, ends.
    exp: i64,
}

impl Lease {
    /// A lease of a caller without a login, until a Unix second.
    const fn until(caller: Caller, exp: i64) -> Self {
        Self {
            caller,
            generation: i64::MAX,
            exp,
        }
    }

    /// Whether the token or session has neither expired nor been ended.
    #[must_use]
    pub fn holds(&self, app: &App) -> bool {
        let is_known = app.people.tokens.holds(self.caller.user, self.generation);
        app.people.tokens.now() < self.exp && is_known.unwrap_or(true)
    }
}

impl From<Known> for Lease {
    fn from(known: Known) -> Self {
        Self {
            caller: known.caller,
            generation: known.generation,
            exp: known.exp,
        }
    }
}

/// The buyer's name that is the subject of the caller's token.
#[derive(Debug, Clone)]
struct Named(Arc<Buyer>);

/// The buyer's name in the caller's token, if its subject is no number.
pub(super) fn buyer_of_token(parts: &Parts) -> Option<&Buyer> {
    parts.extensions.get::<Named>().map(|of| &*of.0)
}

/// The lease of a token whose subject is a buyer's name.
async fn of_buyer(
    parts: &mut Parts,
    app: &App,
    known: Known,
    name: Arc<Buyer>,
) -> Result<Lease, Problem> {
    let user = key::number_of(parts, app, &name).await?;
    parts.extensions.insert(Named(name));
    let lease = Lease::from(known);
    Ok(Lease {
        caller: Caller {
            user,
            ..lease.caller
        },
        ..lease
    })
}

/// The mark of a request that was counted against its user's limits before.
#[derive(Debug, Clone, Copy)]
pub struct Counted;

impl FromRequestParts<Arc<App>> for Lease {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let known = parts.extensions.get::<Self>().copied();
        // A page that calls the interface in this process has set its caller, but no lease.
        Ok(known.unwrap_or(Self::until(caller, i64::MAX)))
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(known) = parts.extensions.get::<Self>().copied() {
            Writer::note(parts, known.user);
            return Ok(known);
        }
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let lease = match (values.next(), values.next()) {
            (Some(value), None) => {
                let token = value.to_str().ok().and_then(|value| {
                    let (scheme, token) = value.split_once(' ')?;
                    scheme
                        .eq_ignore_ascii_case("bearer")
                        .then_some(token.trim())
                });
                let token = token.ok_or_else(|| Problem::of(Code::Unauthorized))?;
                if token.starts_with(service_keys::PREFIX) {
                    let token = token.to_owned();
                    Box::pin(key::caller(parts, app, &token)).await?
                } else {
                    let known = app.people.tokens.check(token).await?;
                    match known.buyer.clone() {
                        None => Lease::from(known),
                        Some(name) => Box::pin(of_buyer(parts, app, known, name)).await?,
                    }
                }
            }
            (None, _) => of_session(parts, app)
                .await?
                .ok_or_else(|| Problem::of(Code::Unauthorized))?,
            (Some(_), Some(_)) => return Err(Problem::of(Code::Unauthorized)),
        };
        let caller = lease.caller;
        // A shop's back end counts its own buyers.
        if parts.extensions.get::<Counted>().is_none() && !came_with_key(parts) {
            app.people.limits.admit(Subject::User(caller.user.0))?;
        }
        parts.extensions.insert(lease);
        parts.extensions.insert(caller);
        Writer::note(parts, caller.user);
        Ok(caller)
    }
}

/// The caller, if there is one, for routes that show more to some callers. An invalid token counts
/// as no caller.
#[derive(Debug, Clone, Copy)]
pub struct AnyCaller(pub Option<Caller>);

impl FromRequestParts<Arc<App>> for AnyCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, app).await {
            Ok(caller) => Ok(Self(Some(caller))),
            Err(problem) if problem.code == Code::Unauthorized => Ok(Self(None)),
            Err(problem) => Err(problem),
        }
    }
}

/// A caller who is an admin; anybody else is refused with 403.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub Caller);

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.is_admin() {
            Ok(Self(caller))
        } else {
            Err(Problem::of(Code::Forbidden))
        }
    }
}
