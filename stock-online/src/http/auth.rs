//! Who is calling: bearer tokens (HS256) and the roles in them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
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

/// Checks and makes tokens.
pub struct Tokens {
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
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
    pub fn new(secret: &str) -> Self {
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
        let unauthorized = |detail: &str| Problem::new(Code::Unauthorized, detail);
        let claims = decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| unauthorized(&format!("the token does not hold: {error}")))?
            .claims;
        let user = claims.sub.parse().ok().filter(|user| *user > 0);
        let user = user.ok_or_else(|| unauthorized("the token's subject is not a user"))?;
        Ok(Caller {
            user: UserId(user),
            role: claims.role,
            store_id: claims.store_id,
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
