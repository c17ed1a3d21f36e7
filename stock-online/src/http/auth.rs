//! Who is calling: bearer tokens (HS256) and the roles in them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use stock_common::clock::Clock;
use stock_common::error::Code;
use stock_common::id::UserId;

use super::problem::Problem;
use crate::app::App;

const NAME: &str = "stock-flow";

/// What a token's bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Buys.
    User,
    /// Runs one store's till.
    Store,
    /// Writes catalog and stock.
    Admin,
}

/// The claims of an access token, as in API.md.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    #[serde(rename = "storeId", default, skip_serializing_if = "Option::is_none")]
    store_id: Option<u64>,
    iss: String,
    aud: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// Tokens whose signature was found good, remembered at most; then the memory begins anew.
const KNOWN_MAX: usize = 10_000;

/// A token's bearer, and the seconds between which it holds.
#[derive(Debug, Clone, Copy)]
struct Known {
    caller: Caller,
    nbf: i64,
    exp: i64,
}

/// Checks and makes tokens.
///
/// A signature once found good stays good under the same key, so a token seen before is only asked for
/// its time: a tenth of an order's cost (docs/performance.md).
pub struct Tokens {
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
    known: RwLock<HashMap<Box<str>, Known>>,
    clock: Clock,
}

/// Whom a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
    /// The store whose till they run.
    pub store_id: Option<u64>,
}

impl Caller {
    /// Whether they are an admin.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

impl Tokens {
    /// Tokens signed with the bytes of `secret`.
    #[must_use]
    pub fn new(secret: &str, clock: Clock) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_audience(&[NAME]);
        validation.set_issuer(&[NAME]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Self {
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            validation,
            known: RwLock::default(),
            clock,
        }
    }

    /// Makes an access token that holds from `now_ms` for `ttl_seconds`.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn issue(
        &self,
        caller: Caller,
        now_ms: i64,
        ttl_seconds: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = now_ms / 1_000;
        let claims = Claims {
            sub: caller.user.to_string(),
            role: caller.role,
            store_id: caller.store_id,
            iss: NAME.to_owned(),
            aud: NAME.to_owned(),
            iat: now,
            nbf: now,
            exp: now + ttl_seconds,
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    fn check(&self, token: &str) -> Result<Caller, Problem> {
        let now = self.clock.now_ms() / 1_000;
        let known = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(token)
            .copied();
        if let Some(known) = known.filter(|known| known.nbf <= now && now < known.exp) {
            return Ok(known.caller);
        }
        let found = self.verify(token)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(token.into(), found);
        Ok(found.caller)
    }

    fn verify(&self, token: &str) -> Result<Known, Problem> {
        let unauthorized = |detail: &str| Problem::new(Code::Unauthorized, detail);
        let claims = decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| unauthorized(&format!("the token does not hold: {error}")))?
            .claims;
        let user = claims.sub.parse().ok().filter(|user| *user > 0);
        let user = user.ok_or_else(|| unauthorized("the token's subject is not a user"))?;
        let caller = Caller {
            user: UserId(user),
            role: claims.role,
            store_id: claims.store_id,
        };
        Ok(Known {
            caller,
            nbf: claims.nbf,
            exp: claims.exp,
        })
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(*known);
        }
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Problem::of(Code::Unauthorized));
        };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let caller = app
            .tokens
            .check(token.ok_or_else(|| Problem::of(Code::Unauthorized))?)?;
        parts.extensions.insert(caller);
        Ok(caller)
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
