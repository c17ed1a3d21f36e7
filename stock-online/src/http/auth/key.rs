//! Callers with a service key: what the key may do, and for whom it acts.
//!
//! The table of operations says which scopes allow an operation. An operation without one is for
//! people only, unless anybody may call it.

use std::sync::Arc;

use axum::extract::MatchedPath;
use axum::http::request::Parts;
use stock_common::id::UserId;
use stock_domain::buyer::Buyer;
use stock_domain::service_key::Scope;

use super::{Caller, Lease, Role};
use crate::app::App;
use crate::buyers;
use crate::http::code::Code;
use crate::http::openapi;
use crate::http::problem::Problem;

/// The header in which a key names the buyer for whom it acts.
const BUYER: &str = "stock-buyer";

/// The key with which a request came.
#[derive(Debug, Clone, Copy)]
struct WithKey;

/// Whether a request came with a key.
pub(in crate::http) fn came_with_key(parts: &Parts) -> bool {
    parts.extensions.get::<WithKey>().is_some()
}

/// The caller of a secret: the buyer who is named in the header, or the key itself, which may do
/// what an admin may, where one of its scopes allows the operation.
pub(super) async fn caller(
    parts: &mut Parts,
    app: &Arc<App>,
    secret: &str,
) -> Result<Lease, Problem> {
    let key = app.people.service_keys.check(&app.pool, secret).await?;
    let key = key.ok_or_else(|| Problem::of(Code::Unauthorized))?;
    let path = parts.extensions.get::<MatchedPath>();
    let access = path.and_then(|path| openapi::access(&parts.method, path.as_str()));
    let (scopes, is_open) = access.map_or((&[][..], false), |of| (of.scopes, of.is_open));
    let role = match scopes {
        [] if is_open => Role::User,
        [] => {
            let text = "no service key may do this";
            return Err(Problem::new(Code::Forbidden, text));
        }
        scopes if key.may(scopes) => Role::Admin,
        [scope, ..] => return Err(missing(*scope)),
    };
    let lease = Lease::until(
        Caller {
            user: key.actor,
            role,
            store_id: None,
        },
        key.ends_at(),
    );
    parts.extensions.insert(WithKey);
    match named_buyer(parts)?.filter(|_| access.is_some_and(|of| !of.is_admins)) {
        None => Ok(lease),
        Some(name) => Ok(Lease {
            caller: as_user(number_of(parts, app, &name).await?),
            ..lease
        }),
    }
}

/// The number of a buyer, who is noted at the first request that may change something.
pub(super) async fn number_of(parts: &Parts, app: &App, name: &Buyer) -> Result<UserId, Problem> {
    if parts.method.is_safe() {
        return Ok(app.people.buyers.number_of(name));
    }
    Ok(as_buyer(app, name).await?.user)
}

/// The buyer who is named in the header.
///
/// # Errors
/// 400 for a text that is no name.
pub(in crate::http) fn named_buyer(parts: &Parts) -> Result<Option<Buyer>, Problem> {
    let Some(name) = parts.headers.get(BUYER) else {
        return Ok(None);
    };
    let name = buyers::parse(name.as_bytes()).map(Some);
    name.map_err(|error| Problem::new(Code::BadRequest, format!("Stock-Buyer: {error}")))
}

fn missing(scope: Scope) -> Problem {
    let text = format!("the service key lacks the scope {}", scope.as_str());
    Problem::new(Code::ScopeMissing, text).with("scope", scope.as_str())
}

/// The person of a buyer's name.
///
/// # Errors
/// When the first sight of the buyer cannot be noted.
pub(in crate::http) async fn as_buyer(app: &App, name: &Buyer) -> Result<Caller, Problem> {
    let number = app.people.buyers.number(&app.pool, &app.ledger, name);
    Ok(as_user(number.await?))
}

/// A person of a number.
pub(in crate::http) const fn as_user(user: UserId) -> Caller {
    Caller {
        user,
        role: Role::User,
        store_id: None,
    }
}
