//! The shop's own issuer of tokens: its public keys (JWKS, RFC 7517), from a file or an address.
//!
//! The keys are kept in memory. They are read again every few minutes, and at once when a token
//! names a key that is not known, because an issuer changes its keys when it likes. An issuer that
//! does not answer takes nothing away: keys that are known go on.

use std::path::PathBuf;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode};
use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use stock_common::config::Config;
use stock_common::lock::{read, write};
use tokio::time::Instant;

use super::{Given, TokenError};
use crate::outgoing;

/// How long an issuer may take to answer. A request with a token of an unknown key waits for that.
const PATIENCE: Duration = Duration::from_secs(1);
/// The least time between two reads for tokens of unknown keys, so that made-up keys cost nothing.
const AGAIN: Duration = Duration::from_secs(2);
/// The size of a key set that is read, far above what issuers publish.
const SET_BYTES_MAX: usize = 1024 * 1024;

/// The signatures that are accepted.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];

/// A set of keys, each read by itself: a key of an unknown kind spoils no other.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// A public key of the issuer.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Key {
    /// Reads a key; `None` for one that signs no tokens of a kind that is accepted.
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if !matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        ) {
            return None;
        }
        let algorithm = if let AlgorithmParameters::RSA(_) = &jwk.algorithm {
            Algorithm::RS256
        } else if let AlgorithmParameters::EllipticCurve(of) = &jwk.algorithm
            && of.curve == EllipticCurve::P256
        {
            Algorithm::ES256
        } else {
            return None;
        };
        let named = jwk.common.key_algorithm.map(|of| of.to_string());
        if named.is_some_and(|named| named != format!("{algorithm:?}")) {
            return None;
        }
        Some(Self {
            decoding: DecodingKey::from_jwk(&jwk).ok()?,
            id: jwk.common.key_id,
            algorithm,
        })
    }
}

/// Why the keys were not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The issuer did not answer.
    #[error("{}", outgoing::describe(.0))]
    Away(#[from] reqwest::Error),
    /// The text is no set of keys.
    #[error("no key set: {0}")]
    NoSet(#[from] serde_json::Error),
    /// The set has no key that is accepted.
    #[error("the key set has no key for RS256 or ES256")]
    NoKey,
    /// The answer is too large.
    #[error("the key set is larger than {SET_BYTES_MAX} bytes")]
    TooLarge,
}

enum Source {
    File(PathBuf),
    Address(String, Client),
}

/// The last attempt to read the keys.
#[derive(Clone)]
struct Attempt {
    at: Instant,
    has_failed: bool,
    /// The text of the last set that was read.
    text: Vec<u8>,
}

/// The shop's own issuer.
pub struct Issuer {
    source: Source,
    audience: String,
    name: String,
    keys: RwLock<Vec<Key>>,
    /// How many times the keys were found changed.
    version: AtomicU64,
    last: tokio::sync::Mutex<Option<Attempt>>,
}

impl Issuer {
    /// The issuer of the settings, if they name one.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(config: &Config) -> Result<Option<Self>, reqwest::Error> {
        let of = &config.people;
        let source = match (of.jwt_jwks_file.as_str(), of.jwt_jwks_url.as_str()) {
            ("", "") => return Ok(None),
            ("", address) => {
                let client = outgoing::builder().timeout(PATIENCE).build()?;
                Source::Address(address.to_owned(), client)
            }
            (file, _) => Source::File(file.into()),
        };
        Ok(Some(Self {
            source,
            audience: of.jwt_audience.clone(),
            name: of.jwt_issuer.clone(),
            keys: RwLock::default(),
            version: AtomicU64::new(0),
            last: tokio::sync::Mutex::default(),
        }))
    }

    /// The claims of a token that this issuer has signed.
    ///
    /// # Errors
    /// [`TokenError`]; a token of an unknown key may hold while the issuer is away.
    pub(crate) async fn verify(&self, token: &str, header: &Header) -> Result<Given, TokenError> {
        if !ALGORITHMS.contains(&header.alg) {
            let text = format!("tokens with {:?} are not accepted", header.alg);
            return Err(TokenError::Invalid(text));
        }
        if let Some(found) = self.verify_with_known(token, header) {
            return found;
        }
        let has_failed = self.read_unless_just_read().await;
        match self.verify_with_known(token, header) {
            Some(found) => found,
            None if has_failed => Err(TokenError::IssuerAway),
            None => {
                let text = "the token's key is not known".to_owned();
                Err(TokenError::Invalid(text))
            }
        }
    }

    /// `None` if no key is known that may have signed the token.
    fn verify_with_known(&self, token: &str, header: &Header) -> Option<Result<Given, TokenError>> {
        let mut validation = Validation::new(header.alg);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.name]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let keys = read(&self.keys);
        let mut last = None;
        let may_be = |key: &&Key| {
            let is_named = header.kid.is_none() || header.kid == key.id;
            key.algorithm == header.alg && is_named
        };
        for key in keys.iter().filter(may_be) {
            match decode(token, &key.decoding, &validation) {
                Ok(found) => return Some(Ok(found.claims)),
                Err(error) => last = Some(Err(TokenError::refused(&error))),
            }
        }
        last
    }

    /// How many times the keys were found changed. A token that was found valid is checked again
    /// after a change, because the key that signed it may have been taken back.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Reads the keys, unless that was done a moment ago; says whether the last attempt failed.
    async fn read_unless_just_read(&self) -> bool {
        // Requests that wait here find what the first of them read.
        let mut last = self.last.lock().await;
        match &*last {
            Some(last) if last.at.elapsed() < AGAIN => last.has_failed,
            _ => self.read_keys(&mut last).await,
        }
    }

    /// Reads the keys; says whether that failed.
    pub async fn refresh(&self) -> bool {
        let mut last = self.last.lock().await;
        self.read_keys(&mut last).await
    }

    async fn read_keys(&self, last: &mut Option<Attempt>) -> bool {
        let found = self.text().await.and_then(|text| {
            let set: KeySet = serde_json::from_slice(&text)?;
            let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
            if keys.is_empty() {
                return Err(Unread::NoKey);
            }
            Ok((text, keys))
        });
        let has_failed = found.is_err();
        metrics::gauge!("stock_dependency_up", "name" => "issuer")
            .set(f64::from(u8::from(!has_failed)));
        let known = last.take();
        let text = match found {
            Ok((text, keys)) => {
                if known.is_none_or(|known| known.text != text) {
                    *write(&self.keys) = keys;
                    self.version.fetch_add(1, Ordering::AcqRel);
                }
                text
            }
            Err(error) => {
                if known.as_ref().is_none_or(|known| !known.has_failed) {
                    tracing::warn!(%error, "the keys of the tokens' issuer cannot be read");
                }
                known.map(|known| known.text).unwrap_or_default()
            }
        };
        *last = Some(Attempt {
            at: Instant::now(),
            has_failed,
            text,
        });
        has_failed
    }

    async fn text(&self) -> Result<Vec<u8>, Unread> {
        let (address, client) = match &self.source {
            Source::File(path) => return Ok(tokio::fs::read(path).await?),
            Source::Address(address, client) => (address, client),
        };
        let mut answer = client.get(address).send().await?.error_for_status()?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if text.len() + chunk.len() > SET_BYTES_MAX {
                return Err(Unread::TooLarge);
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }
}
