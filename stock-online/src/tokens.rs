//! Access tokens: makes, checks and remembers them, and ends them before their time.
//!
//! A token is signed with `jwt_secret`, or by the shop's own issuer ([`issuer`]). Its subject
//! is a user's number, or a buyer's name.
//!
//! A signature that was found valid stays valid under the same key. So a token that was seen before
//! is only checked for its time, which saves about a tenth of an order's cost
//! (docs/performance.md). Ending a user's tokens removes them from that memory.
//! [`crate::http::auth`] reads the token of a request.

pub mod issuer;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::id::UserId;
use stock_common::lock::{read, write};
use stock_domain::buyer::Buyer;
use stock_domain::user::{Role, User};
use stock_mysql::people::users;

use self::issuer::Issuer;

const NAME: &str = "stock-flow";
/// How far back endings of tokens are read from MySQL: more than a month.
const REMEMBER_SECONDS: i64 = 32 * 86_400;

/// The claims of an access token that is made here, as in API.md.
#[derive(Debug, Serialize)]
struct Claims {
    sub: String,
    role: Role,
    #[serde(rename = "storeId", skip_serializing_if = "Option::is_none")]
    store_id: Option<u64>,
    /// The user's `tokens_from` when the token was made; tokens made without a login have none.
    #[serde(rename = "gen", skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    iss: &'static str,
    aud: &'static str,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// The claims of a token that holds, whoever made it. Other makers give several audiences, which
/// the library has checked, and times with a fraction.
#[derive(Debug, Deserialize)]
pub(crate) struct Given {
    sub: String,
    #[serde(default)]
    role: Option<String>,
    #[serde(rename = "storeId", default)]
    store_id: Option<u64>,
    #[serde(rename = "gen", default)]
    generation: Option<i64>,
    #[serde(default, deserialize_with = "seconds")]
    iat: Option<i64>,
    #[serde(default, deserialize_with = "seconds")]
    nbf: Option<i64>,
    #[serde(deserialize_with = "seconds")]
    exp: Option<i64>,
}

/// The whole seconds of a time (RFC 7519 §2, `NumericDate`).
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let time = std::time::Duration::try_from_secs_f64(f64::deserialize(from)?);
    let seconds = time.map_err(D::Error::custom)?.as_secs();
    i64::try_from(seconds).map(Some).map_err(D::Error::custom)
}

/// Maximum of remembered tokens; when it is reached, the memory begins anew.
const KNOWN_MAX: usize = 10_000;

/// The end of a token's signature, by which the token is found again. The whole token is compared
/// then.
type End = [u8; 16];

fn end_of(token: &str) -> End {
    token.as_bytes().last_chunk().copied().unwrap_or_default()
}

/// A token's bearer, and the Unix seconds between which the token is valid.
#[derive(Debug, Clone)]
pub struct Known {
    /// The bearer; of a buyer without a number.
    pub caller: Caller,
    /// The bearer's name, if the subject is no number.
    pub buyer: Option<Arc<Buyer>>,
    /// The user's `tokens_from` when the token was made.
    pub generation: i64,
    nbf: i64,
    /// The Unix second in which the token ends.
    pub exp: i64,
    /// The version of the issuer's keys with which the token was checked.
    checked_with: u64,
}

/// A key that signs tokens, and the id by which tokens name it.
struct Key {
    id: String,
    decoding: DecodingKey,
    encoding: EncodingKey,
}

impl Key {
    /// The id is a part of the secret's hash, so that a changed secret needs no new name.
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

/// Why a token does not let its bearer in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// MySQL has not said since the start whose tokens were ended.
    #[error("it is not known yet whose tokens were ended")]
    NotKnownYet,
    /// The issuer's keys cannot be read, so the token may hold.
    #[error("the keys of the tokens' issuer cannot be read")]
    IssuerAway,
    /// The user's tokens were ended after this one was made.
    #[error("the token was ended")]
    Ended,
    /// The signature, the key or a claim is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl TokenError {
    /// A token that the library refuses.
    pub(crate) fn refused(error: &jsonwebtoken::errors::Error) -> Self {
        Self::Invalid(format!("the token does not hold: {error}"))
    }
}

/// The keys that sign tokens, and the memory of tokens that were found valid.
pub struct Tokens {
    current: Key,
    previous: Option<Key>,
    /// The shop's own issuer.
    pub issuer: Option<Issuer>,
    validation: Validation,
    known: RwLock<HashMap<End, (Box<str>, Known)>>,
    /// The lowest valid generation of each user whose tokens were ended; `None` until MySQL was
    /// asked.
    from: RwLock<Option<HashMap<UserId, i64>>>,
    clock: Clock,
}

/// The bearer of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The user's role.
    pub role: Role,
    /// The store whose till the user runs.
    pub store_id: Option<u64>,
}

impl Caller {
    /// Whether the user is an admin.
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
    /// Tokens signed with `secret`; tokens that name the key of `previous` are accepted too, unless
    /// it is empty, and those of `issuer`.
    ///
    /// # Errors
    /// The secret is empty.
    pub fn new(
        secret: &str,
        previous: &str,
        issuer: Option<Issuer>,
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
            issuer,
            validation,
            known: RwLock::default(),
            from: RwLock::default(),
            clock,
        })
    }

    /// Makes an access token that is valid for `ttl_seconds` from now on. `generation` is the
    /// user's `tokens_from`; without it, the second in which the token is made counts.
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
            iss: NAME,
            aud: NAME,
            iat: now,
            nbf: now,
            exp: now + ttl_seconds,
        };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.current.id.clone());
        encode(&header, &claims, &self.current.encoding)
    }

    /// Makes `Authorization` headers for a shop's own programs: tokens of an hour for any user in
    /// any role.
    #[must_use]
    pub fn into_bearers(self) -> Arc<dyn Fn(u64, Role) -> String + Send + Sync> {
        const TTL_SECONDS: i64 = 3_600;
        Arc::new(move |id, role| {
            let caller = Caller {
                user: UserId(id),
                role,
                store_id: None,
            };
            // A token that could not be made is refused like a wrong token.
            let token = self.issue(caller, None, TTL_SECONDS);
            format!("Bearer {}", token.unwrap_or_default())
        })
    }

    /// Signs a text other than a token.
    ///
    /// # Errors
    /// When the text cannot be signed.
    pub fn sign(&self, text: &str) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::crypto::sign(text.as_bytes(), &self.current.encoding, Algorithm::HS256)
    }

    /// Whether a text was signed with the current secret or with the previous one.
    #[must_use]
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let mut good = keys.map(|key| {
            let (text, key) = (text.as_bytes(), &key.decoding);
            jsonwebtoken::crypto::verify(signature, text, key, Algorithm::HS256)
        });
        good.any(|good| good.unwrap_or(false))
    }

    /// The current Unix second.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.now_ms() / 1_000
    }

    /// Whether a token or session of this generation is still valid for a user.
    ///
    /// # Errors
    /// [`TokenError::NotKnownYet`] until MySQL has said once whose tokens were ended.
    pub fn holds(&self, user: UserId, generation: i64) -> Result<bool, TokenError> {
        let from = read(&self.from);
        let from = from.as_ref().ok_or(TokenError::NotKnownYet)?;
        Ok(from.get(&user).is_none_or(|from| generation >= *from))
    }

    /// Whether MySQL has said whose tokens were ended.
    #[must_use]
    pub fn are_known(&self) -> bool {
        let from = read(&self.from);
        from.is_some()
    }

    /// Ends a user's tokens below a generation, at once, in this process.
    pub fn end(&self, user: UserId, tokens_from: i64) {
        let mut from = write(&self.from);
        if let Some(from) = from.as_mut() {
            self.note(from, &[(user, tokens_from)]);
        }
    }

    /// Notes endings, and removes the ended tokens from the memory of valid ones.
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

    /// Reads from MySQL whose tokens were ended on any instance.
    ///
    /// # Errors
    /// When MySQL does not answer; then no instance can end tokens either.
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

    /// The bearer of a token, and the seconds between which the token is valid.
    ///
    /// # Errors
    /// [`TokenError`]; callers answer 503 or 401.
    pub async fn check(&self, token: &str) -> Result<Known, TokenError> {
        let now = self.now();
        let end = end_of(token);
        let known = {
            let known = read(&self.known);
            let found = known.get(&end).filter(|(whole, _)| **whole == *token);
            found.map(|(_, known)| known.clone())
        };
        let version = self.issuer.as_ref().map_or(0, Issuer::version);
        let holds =
            |known: &Known| known.nbf <= now && now < known.exp && known.checked_with == version;
        if let Some(known) = known.filter(holds) {
            return Ok(known);
        }
        let found = Known {
            checked_with: version,
            ..self.verify(token).await?
        };
        self.refuse_ended(&found)?;
        let mut known = write(&self.known);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(end, (token.into(), found.clone()));
        drop(known);
        // Checked again: an ending in between looked for this token before it was in the memory.
        self.refuse_ended(&found).inspect_err(|_| {
            let mut known = write(&self.known);
            known.remove(&end);
        })?;
        Ok(found)
    }

    fn refuse_ended(&self, found: &Known) -> Result<(), TokenError> {
        if self.holds(found.caller.user, found.generation)? {
            Ok(())
        } else {
            Err(TokenError::Ended)
        }
    }

    async fn verify(&self, token: &str) -> Result<Known, TokenError> {
        let header = decode_header(token).map_err(|error| TokenError::refused(&error))?;
        match &self.issuer {
            Some(issuer) if header.alg != Algorithm::HS256 => {
                let given = Box::pin(issuer.verify(token, &header)).await?;
                let role = given.role.as_deref().and_then(|role| role.parse().ok());
                given.known(role.unwrap_or(Role::User))
            }
            Some(_) | None => {
                let given = self.verify_own(token, header.kid.as_deref())?;
                let role = given.role.as_deref().and_then(|role| role.parse().ok());
                given.known(role.ok_or_else(|| invalid("the token's role is not known"))?)
            }
        }
    }

    fn verify_own(&self, token: &str, kid: Option<&str>) -> Result<Given, TokenError> {
        // A token without a key's id belongs to the current key.
        let previous = self.previous.as_ref();
        let key = match kid {
            None => &self.current,
            Some(id) if id == self.current.id => &self.current,
            Some(id) => previous
                .filter(|key| key.id == id)
                .ok_or_else(|| invalid("the token's key is not known"))?,
        };
        let found = decode(token, &key.decoding, &self.validation);
        Ok(found.map_err(|error| TokenError::refused(&error))?.claims)
    }
}

fn invalid(detail: &str) -> TokenError {
    TokenError::Invalid(detail.to_owned())
}

impl Given {
    fn known(self, role: Role) -> Result<Known, TokenError> {
        // The numbers of users end where those of keys and buyers begin. A larger number is the
        // name that another system gave.
        let number = self.sub.parse().ok().map(UserId);
        let (user, buyer) = match number.filter(|user| *user < UserId::of_service_key(0)) {
            Some(UserId(0)) => return Err(invalid("the token's subject is not a user")),
            Some(user) => (user, None),
            None => {
                let name = Buyer::try_from(self.sub);
                let name =
                    name.map_err(|error| invalid(&format!("the token's subject: {error}")))?;
                (UserId(0), Some(Arc::new(name)))
            }
        };
        let exp = self.exp.unwrap_or_default();
        Ok(Known {
            caller: Caller {
                user,
                role,
                store_id: self.store_id,
            },
            buyer,
            // A token without a time of its making counts as made before any ending.
            generation: self.generation.or(self.iat).unwrap_or(i64::MIN),
            nbf: self.nbf.unwrap_or(i64::MIN),
            exp,
            checked_with: 0,
        })
    }
}
