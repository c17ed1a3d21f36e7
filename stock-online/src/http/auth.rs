//! Who is calling: bearer tokens (HS256) or a page's session, and the roles in them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

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
use stock_common::id::UserId;
use stock_common::lock::{read, write};
pub use stock_domain::user::Role;
use stock_domain::user::User;
use stock_mysql::people::users;
use tower_sessions::Session;

use super::cross_site;
use super::problem::Problem;
use super::reader::Writer;
use super::sessions::LOGIN;
use crate::app::App;
use crate::http::code::Code;
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
    /// The user's `tokens_from` when it was made; tokens made without a login have none.
    #[serde(rename = "gen", default, skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    iss: String,
    aud: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// Tokens whose signature was found good, remembered at most; then the memory begins anew.
const KNOWN_MAX: usize = 10_000;

/// The end of a token's signature, by which it is found again; the whole is compared then.
type End = [u8; 16];

fn end_of(token: &str) -> End {
    token.as_bytes().last_chunk().copied().unwrap_or_default()
}

/// A token's bearer, and the seconds between which it holds.
#[derive(Debug, Clone, Copy)]
struct Known {
    caller: Caller,
    generation: i64,
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
    fn new(secret: &str) -> Result<Self, jsonwebtoken::errors::Error> {
        let digest = Sha256::digest(format!("key id of {secret}"));
        let first = digest.first_chunk::<8>().copied().unwrap_or_default();
        Ok(Self {
            id: format!("{:016x}", u64::from_be_bytes(first)),
            decoding: DecodingKey::from_secret(secret.as_bytes())?,
            encoding: EncodingKey::from_secret(secret.as_bytes())?,
        })
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
    known: RwLock<HashMap<End, (Box<str>, Known)>>,
    /// What a user's tokens must carry, of those of whom some were ended; `None` until MySQL was asked.
    from: RwLock<Option<HashMap<UserId, i64>>>,
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
    ///
    /// # Errors
    /// The secret is empty.
    pub fn new(
        secret: &str,
        previous: &str,
        clock: Clock,
    ) -> Result<Self, jsonwebtoken::errors::Error> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_audience(&[NAME]);
        validation.set_issuer(&[NAME]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        let previous = (!previous.is_empty()).then(|| Key::new(previous));
        Ok(Self {
            current: Key::new(secret)?,
            previous: previous.transpose()?,
            validation,
            known: RwLock::default(),
            from: RwLock::default(),
            clock,
        })
    }

    /// Makes an access token that holds for `ttl_seconds` from now on. `generation` is the user's
    /// `tokens_from`; without it the second in which it is made counts.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn issue(
        &self,
        caller: Caller,
        generation: Option<i64>,
        ttl_seconds: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = self.now();
        let claims = Claims {
            sub: caller.user.to_string(),
            role: caller.role,
            store_id: caller.store_id,
            generation,
            iss: NAME.to_owned(),
            aud: NAME.to_owned(),
            iat: now,
            nbf: now,
            exp: now + ttl_seconds,
        };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.current.id.clone());
        encode(&header, &claims, &self.current.encoding)
    }

    /// Makes the `Authorization` headers of a shop's own programs: an hour's tokens of any user in any role.
    #[must_use]
    pub fn into_bearers(self) -> Arc<dyn Fn(u64, Role) -> String + Send + Sync> {
        const TTL_SECONDS: i64 = 3_600;
        Arc::new(move |id, role| {
            let caller = Caller {
                user: UserId(id),
                role,
                store_id: None,
            };
            // A token that could not be made is refused like a wrong one.
            let token = self.issue(caller, None, TTL_SECONDS);
            format!("Bearer {}", token.unwrap_or_default())
        })
    }

    /// Signs a text that is no token.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign(&self, text: &str) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::crypto::sign(text.as_bytes(), &self.current.encoding, Algorithm::HS256)
    }

    /// Whether a text was signed here, or before the secret was changed.
    #[must_use]
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let mut good = keys.map(|key| {
            let (text, key) = (text.as_bytes(), &key.decoding);
            jsonwebtoken::crypto::verify(signature, text, key, Algorithm::HS256)
        });
        good.any(|good| good.unwrap_or(false))
    }

    /// The second it is.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.now_ms() / 1_000
    }

    /// Whether what carries a generation still holds for a user.
    ///
    /// # Errors
    /// 503 until MySQL has said once whose tokens were ended.
    pub fn holds(&self, user: UserId, generation: i64) -> Result<bool, Problem> {
        let from = read(&self.from);
        let from = from.as_ref().ok_or_else(|| {
            let detail = "it is not known yet whose tokens were ended";
            Problem::new(Code::DatabaseUnavailable, detail)
        })?;
        Ok(from.get(&user).is_none_or(|from| generation >= *from))
    }

    /// Whether MySQL has said whose tokens were ended.
    #[must_use]
    pub fn are_known(&self) -> bool {
        let from = read(&self.from);
        from.is_some()
    }

    /// Ends a user's tokens below a generation, here and now.
    pub fn end(&self, user: UserId, tokens_from: i64) {
        let mut from = write(&self.from);
        if let Some(from) = from.as_mut() {
            self.note(from, &[(user, tokens_from)]);
        }
    }

    /// Notes endings, and takes what has ended out of the memory of good tokens.
    fn note(&self, from: &mut HashMap<UserId, i64>, ended: &[(UserId, i64)]) {
        let mut news = HashMap::new();
        for &(user, generation) in ended {
            let known = from.entry(user).or_insert(i64::MIN);
            if *known < generation {
                *known = generation;
                news.insert(user, generation);
            }
        }
        if !news.is_empty() {
            let mut known = write(&self.known);
            known.retain(|_, (_, of)| {
                let from = news.get(&of.caller.user);
                from.is_none_or(|from| of.generation >= *from)
            });
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
        let mut from = write(&self.from);
        self.note(from.get_or_insert_default(), &ended);
        Ok(())
    }

    fn check(&self, token: &str) -> Result<Known, Problem> {
        let now = self.now();
        let end = end_of(token);
        let known = {
            let known = read(&self.known);
            let found = known.get(&end).filter(|(whole, _)| **whole == *token);
            found.map(|(_, known)| *known)
        };
        if let Some(known) = known.filter(|known| known.nbf <= now && now < known.exp) {
            return Ok(known);
        }
        let found = self.verify(token)?;
        self.refuse_ended(&found)?;
        let mut known = write(&self.known);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(end, (token.into(), found));
        drop(known);
        // Asked again: an ending that came in between has looked for it in the memory too early.
        self.refuse_ended(&found).inspect_err(|_| {
            let mut known = write(&self.known);
            known.remove(&end);
        })?;
        Ok(found)
    }

    fn refuse_ended(&self, found: &Known) -> Result<(), Problem> {
        if self.holds(found.caller.user, found.generation)? {
            Ok(())
        } else {
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
            generation: claims.generation.unwrap_or(claims.iat),
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

/// Who logged in with the session's cookie, if they still are.
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
    if !app.tokens.holds(login.user, login.generation)? {
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
        // A browser that still watches has its page open: the session is as good as used.
        exp: session.expiry_date().unix_timestamp(),
    }))
}

/// A caller, and how long what names them holds.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// The caller.
    pub caller: Caller,
    generation: i64,
    /// The Unix second in which the token, or the session, ends.
    exp: i64,
}

impl Lease {
    /// Whether it has neither run out nor been ended.
    #[must_use]
    pub fn holds(&self, app: &App) -> bool {
        let is_known = app.tokens.holds(self.caller.user, self.generation);
        app.tokens.now() < self.exp && is_known.unwrap_or(true)
    }
}

impl FromRequestParts<Arc<App>> for Lease {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let known = parts.extensions.get::<Self>().copied();
        // A page that calls the interface in this process knows its caller already.
        Ok(known.unwrap_or(Self {
            caller,
            generation: i64::MAX,
            exp: i64::MAX,
        }))
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
                let known = app.tokens.check(token)?;
                Lease {
                    caller: known.caller,
                    generation: known.generation,
                    exp: known.exp,
                }
            }
            (None, _) => of_session(parts, app)
                .await?
                .ok_or_else(|| Problem::of(Code::Unauthorized))?,
            (Some(_), Some(_)) => return Err(Problem::of(Code::Unauthorized)),
        };
        let caller = lease.caller;
        app.limits.admit(Subject::User(caller.user.0))?;
        parts.extensions.insert(lease);
        parts.extensions.insert(caller);
        Writer::note(parts, caller.user);
        Ok(caller)
    }
}

/// A caller, if there is one: of what everybody may see, some see more. A token that does not hold is none.
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
