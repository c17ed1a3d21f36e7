//! Who is calling: bearer tokens (HS256) or a page's session, and the roles in them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::error::Code;
use stock_common::id::UserId;
use stock_domain::database::users;
pub use stock_domain::user::Role;
use stock_domain::user::User;
use tower_sessions::Session;

use super::cross_site;
use super::problem::Problem;
use super::sessions::LOGIN;
use crate::app::App;
use crate::limits::Subject;

const NAME: &str = "stock-flow";
/// How far back a token may have begun that is still asked whether it was ended: more than a month.
const REMEMBER_SECONDS: i64 = 32 * 86_400;

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
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// A key that signs tokens, and the name by which they say so.
struct Key {
    id: String,
    decoding: DecodingKey,
    encoding: EncodingKey,
}

impl Key {
    /// The id is a part of the secret's hash: whoever changes the secret need not think of another name.
    fn new(secret: &str) -> Self {
        let digest = Sha256::digest(format!("key id of {secret}"));
        let first = digest.first_chunk::<8>().copied().unwrap_or_default();
        Self {
            id: format!("{:016x}", u64::from_be_bytes(first)),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            encoding: EncodingKey::from_secret(secret.as_bytes()),
        }
    }
}

/// Checks and makes tokens.
///
/// A signature once found good stays good under the same key, so a token seen before is only asked for
/// its time: a tenth of an order's cost (docs/performance.md). What ends a user's tokens takes them out
/// of that memory.
pub struct Tokens {
    current: Key,
    previous: Option<Key>,
    validation: Validation,
    known: RwLock<HashMap<Box<str>, Known>>,
    /// From which second on a user's tokens hold, of those of whom some were ended.
    from: RwLock<HashMap<UserId, i64>>,
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

impl From<&User> for Caller {
    fn from(user: &User) -> Self {
        Self {
            user: user.id,
            role: user.role,
            store_id: user.store_id,
        }
    }
}

impl Tokens {
    /// Tokens signed with the bytes of a secret, and those that name the previous one, if there is one.
    #[must_use]
    pub fn new(secret: &str, previous: &str, clock: Clock) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_audience(&[NAME]);
        validation.set_issuer(&[NAME]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Self {
            current: Key::new(secret),
            previous: (!previous.is_empty()).then(|| Key::new(previous)),
            validation,
            known: RwLock::default(),
            from: RwLock::default(),
            clock,
        }
    }

    /// Makes an access token that holds for `ttl_seconds` from now on. `tokens_from` is the second from
    /// which the user's tokens hold.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn issue(
        &self,
        caller: Caller,
        tokens_from: i64,
        ttl_seconds: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = self.now();
        let claims = Claims {
            sub: caller.user.to_string(),
            role: caller.role,
            store_id: caller.store_id,
            iss: NAME.to_owned(),
            aud: NAME.to_owned(),
            // What is made in the second in which others were ended must not look like one of them.
            iat: now.max(tokens_from),
            nbf: now,
            exp: now + ttl_seconds,
        };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.current.id.clone());
        encode(&header, &claims, &self.current.encoding)
    }

    /// The second it is.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.now_ms() / 1_000
    }

    /// Whether what began at a second still holds for a user.
    #[must_use]
    pub fn holds(&self, user: UserId, began: i64) -> bool {
        let from = self.from.read().unwrap_or_else(PoisonError::into_inner);
        from.get(&user).is_none_or(|from| began >= *from)
    }

    /// Ends a user's tokens that began before a second, here and now.
    pub fn end(&self, user: UserId, tokens_from: i64) {
        self.end_all(&[(user, tokens_from)]);
    }

    fn end_all(&self, ended: &[(UserId, i64)]) {
        let mut from = self.from.write().unwrap_or_else(PoisonError::into_inner);
        let mut news = HashMap::new();
        for &(user, second) in ended {
            let known = from.entry(user).or_insert(i64::MIN);
            if *known < second {
                *known = second;
                news.insert(user, second);
            }
        }
        drop(from);
        if !news.is_empty() {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, of| news.get(&of.caller.user).is_none_or(|from| of.iat >= *from));
        }
    }

    /// Learns whose tokens were ended, on any instance.
    ///
    /// # Errors
    /// When MySQL does not answer; then nothing can be ended either.
    pub async fn refresh(&self, pool: &MySqlPool) -> Result<(), sqlx::Error> {
        let ended = users::tokens_from(pool, self.now() - REMEMBER_SECONDS).await?;
        let ended: Vec<(UserId, i64)> = ended
            .into_iter()
            .map(|(user, from)| (UserId(user), from))
            .collect();
        self.end_all(&ended);
        Ok(())
    }

    fn check(&self, token: &str) -> Result<Caller, Problem> {
        let now = self.now();
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
        drop(known);
        // Asked last: what is ended after this takes the token out of the memory again.
        if self.holds(found.caller.user, found.iat) {
            Ok(found.caller)
        } else {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.remove(token);
            Err(Problem::new(Code::Unauthorized, "the token was ended"))
        }
    }

    fn verify(&self, token: &str) -> Result<Known, Problem> {
        let unauthorized = |detail: &str| Problem::new(Code::Unauthorized, detail);
        let refused = |error: jsonwebtoken::errors::Error| {
            unauthorized(&format!("the token does not hold: {error}"))
        };
        // A token without a key's id is meant for the current one.
        let named = decode_header(token).map_err(refused)?.kid;
        let previous = self.previous.as_ref();
        let key = match named {
            None => &self.current,
            Some(id) if id == self.current.id => &self.current,
            Some(id) => previous
                .filter(|key| key.id == id)
                .ok_or_else(|| unauthorized("the token's key is not known"))?,
        };
        let claims = decode::<Claims>(token, &key.decoding, &self.validation)
            .map_err(refused)?
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
            iat: claims.iat,
            nbf: claims.nbf,
            exp: claims.exp,
        })
    }
}

/// What a session remembers of a login.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Login {
    user: UserId,
    role: Role,
    store_id: Option<u64>,
    /// The second in which it began.
    began: i64,
}

impl Login {
    /// A login that begins now.
    #[must_use]
    pub fn new(user: &User, now: i64) -> Self {
        Self {
            user: user.id,
            role: user.role,
            store_id: user.store_id,
            began: now.max(user.tokens_from),
        }
    }
}

/// Who logged in with the session's cookie, if they still are.
///
/// # Errors
/// 403 from another site's page; 503 when MySQL does not answer.
async fn of_session(parts: &Parts, app: &App) -> Result<Option<Caller>, Problem> {
    let Some(session) = parts.extensions.get::<Session>() else {
        return Ok(None);
    };
    let login = session.get::<Login>(LOGIN).await.map_err(|error| {
        tracing::warn!(%error, "cannot read a session");
        Problem::of(Code::DatabaseUnavailable)
    })?;
    let Some(login) = login.filter(|login| app.tokens.holds(login.user, login.began)) else {
        return Ok(None);
    };
    cross_site::check(&parts.method, &parts.headers)?;
    Ok(Some(Caller {
        user: login.user,
        role: login.role,
        store_id: login.store_id,
    }))
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(*known);
        }
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let caller = match (values.next(), values.next()) {
            (Some(value), None) => {
                let token = value.to_str().ok().and_then(|value| {
                    let (scheme, token) = value.split_once(' ')?;
                    scheme
                        .eq_ignore_ascii_case("bearer")
                        .then_some(token.trim())
                });
                let token = token.ok_or_else(|| Problem::of(Code::Unauthorized))?;
                app.tokens.check(token)?
            }
            (None, _) => of_session(parts, app)
                .await?
                .ok_or_else(|| Problem::of(Code::Unauthorized))?,
            (Some(_), Some(_)) => return Err(Problem::of(Code::Unauthorized)),
        };
        app.limits.admit(Subject::User(caller.user.0))?;
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
