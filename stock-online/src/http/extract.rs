//! Typed input: JSON bodies, Idempotency-Keys, queries and ids, each refused with its own code.
//!
//! The checks run in the order that the contract demands: 413, 415, 400, 422. A body that is not
//! JSON is answered 400, even when an earlier part of it would be a 422.

mod whole_numbers;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use sha2::{Digest, Sha256};
use stock_common::id::UserId;
use stock_domain::buyer::Buyer;
use stock_domain::journal::Idempotency;

use super::auth::{Caller, Counted, as_buyer, as_user, buyer_of_token, came_with_key, named_buyer};
use super::cross_site;
use super::problem::Problem;
use crate::app::App;
use crate::http::code::Code;

/// 2^53 − 1, the largest integer that every JSON reader keeps exact. No larger id is ever given.
pub const ID_MAX: u64 = (1 << 53) - 1;
/// The media types of bodies: of the interface, and of the forms of pages.
pub(crate) const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// Time that a body may take to arrive after its headers.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Start of the year 9999 in Unix ms; MySQL's times end a year later.
const TIME_END_MS: i64 = 253_370_764_800_000;
/// Limits of reading on through a body that is too large: in bytes, and in time.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;
const LINGER: Duration = Duration::from_millis(500);

/// A type that is read from a JSON body, and the rules for that body.
pub trait BodyIn: DeserializeOwned + Send {
    /// Whether a missing body means the same as `{}`.
    const MAY_BE_MISSING: bool = false;
    /// Largest body in bytes, where it is larger than other bodies may be.
    const BYTES_MAX: Option<usize> = None;
    /// Whether a service key must say for whom it asks.
    const IS_FOR_A_PERSON: bool = false;

    /// The person for whom it asks, if it names one.
    fn person(&self) -> Person<'_> {
        Person::default()
    }
}

/// The person whom a body names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Person<'a> {
    /// By the shop's own name.
    pub buyer: Option<&'a Buyer>,
    /// By number.
    pub user_id: Option<u64>,
}

/// A caller's JSON body, and the key under which its answer is remembered.
pub struct Keyed<T> {
    /// The caller who sent it.
    pub caller: Caller,
    /// The parsed body.
    pub body: T,
    /// The key, if one was sent.
    pub idempotency: Option<Idempotency>,
    /// The shop's name of the caller, if it was given.
    pub buyer: Option<Buyer>,
}

/// The JSON body of a request that needs no caller.
pub struct Anonymous<T>(pub T);

impl<T: BodyIn> FromRequest<Arc<App>> for Anonymous<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_json::<T>(&parts, body, app).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Reads the bytes of a body that is declared as JSON.
async fn read_json<T: BodyIn>(
    parts: &Parts,
    body: axum::body::Body,
    app: &App,
) -> Result<Bytes, Problem> {
    let max = T::BYTES_MAX.unwrap_or(app.config.http.http_body_bytes_max);
    let bytes = read_body(parts, body, max).await?;
    if bytes.is_empty() && T::MAY_BE_MISSING {
        return Ok(Bytes::from_static(b"{}"));
    }
    check_type(&parts.headers, JSON)?;
    Ok(bytes)
}

/// The fields of a page's form.
pub struct Form<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        // A browser posts forms to any site. This check keeps another site from logging the user
        // in.
        cross_site::check(&parts.method, &parts.headers)?;
        let bytes = read_body(&parts, body, app.config.http.http_body_bytes_max).await?;
        check_type(&parts.headers, FORM)?;
        serde_urlencoded::from_bytes(&bytes)
            .map(Self)
            .map_err(|error| Problem::new(Code::Unprocessable, error.to_string()))
    }
}

impl<T: BodyIn> FromRequest<Arc<App>> for Keyed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let bytes = read_json::<T>(&parts, body, app).await?;
        let parsed = parse_json(&bytes);
        if let Err(problem) = &parsed
            && problem.code == Code::MalformedJson
        {
            return Err(problem.clone());
        }
        let whom = match &parsed {
            Ok(body) => whom(&parts, caller, body)?,
            Err(_) => Whom::Caller,
        };
        let (caller, buyer) = whom.caller(app, caller).await?;
        let idempotency = keyed(app, caller, &parts, &bytes)?;
        Ok(Self {
            caller,
            body: parsed?,
            idempotency,
            buyer,
        })
    }
}

/// The person for whom a caller asks.
enum Whom {
    Caller,
    /// The caller, a buyer by their token.
    Own(Buyer),
    Buyer(Buyer),
    User(UserId),
}

/// Reads for whom a caller asks. An admin and a service key may name a person.
fn whom<T: BodyIn>(parts: &Parts, caller: Caller, body: &T) -> Result<Whom, Problem> {
    let (named, with_key) = (body.person(), came_with_key(parts));
    let in_header = named_buyer(parts)?.filter(|_| with_key);
    match named.buyer {
        Some(buyer) if in_header.as_ref().is_some_and(|of| of != buyer) => {
            Err(Problem::of(Code::UserMismatch))
        }
        Some(buyer) if buyer_of_token(parts) == Some(buyer) => Ok(Whom::Own(buyer.clone())),
        Some(_) if !with_key && !caller.is_admin() => Err(Problem::of(Code::UserMismatch)),
        Some(buyer) => Ok(Whom::Buyer(buyer.clone())),
        None if !with_key => {
            let own = buyer_of_token(parts).cloned();
            Ok(own.map_or(Whom::Caller, Whom::Own))
        }
        None => match named.user_id {
            _ if in_header.is_some() => Ok(in_header.map_or(Whom::Caller, Whom::Buyer)),
            _ if !T::IS_FOR_A_PERSON => Ok(Whom::Caller),
            Some(user) if user > ID_MAX => {
                let rule = format!("an id is at most {ID_MAX}");
                Err(Problem::unprocessable("/userId", rule))
            }
            Some(user) => Ok(Whom::User(UserId(user))),
            None => Err(Problem::unprocessable(
                "/buyer",
                "a service key says for whom it asks: buyer, or the header Stock-Buyer",
            )),
        },
    }
}

impl Whom {
    async fn caller(self, app: &App, caller: Caller) -> Result<(Caller, Option<Buyer>), Problem> {
        Ok(match self {
            Self::Caller => (caller, None),
            Self::Own(buyer) => (caller, Some(buyer)),
            Self::User(user) => (as_user(user), None),
            Self::Buyer(buyer) => (Box::pin(as_buyer(app, &buyer)).await?, Some(buyer)),
        })
    }
}

/// A caller who sends no body, and the key under which the answer is remembered. A body that was
/// sent is ignored.
pub struct Bodiless {
    /// The caller who sent the request.
    pub caller: Caller,
    /// The key, if one was sent.
    pub idempotency: Option<Idempotency>,
}

impl FromRequestParts<Arc<App>> for Bodiless {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let idempotency = keyed(app, caller, parts, b"{}")?;
        Ok(Self {
            caller,
            idempotency,
        })
    }
}

/// Reads the key of a request, and counts it against the user's limit.
fn keyed(
    app: &App,
    caller: Caller,
    parts: &Parts,
    body: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = key_of(&parts.headers)? else {
        return Ok(None);
    };
    if parts.extensions.get::<Counted>().is_none() && !came_with_key(parts) {
        app.people.limits.admit_key(caller.user.0)?;
    }
    let Parts { method, uri, .. } = parts;
    Ok(Some(idempotency(caller.user, key, method, uri, body)))
}

pub(crate) async fn read_body(
    parts: &Parts,
    body: axum::body::Body,
    max: usize,
) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::PayloadTooLarge,
            format!("a body may have at most {max} bytes"),
        )
    };
    let length = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let mut body = body;
    if length
        .and_then(|length| length.parse::<usize>().ok())
        .is_some_and(|length| length > max)
    {
        pass_over(&mut body, LINGER_BYTES_MAX).await;
        return Err(too_large());
    }
    let mut limited = Limited::new(&mut body, max);
    let collected = tokio::time::timeout(BODY_TIMEOUT, (&mut limited).collect()).await;
    match collected.map_err(|_elapsed| Problem::of(Code::RequestTimeout))? {
        Ok(collected) => {
            let mut bytes = collected.to_bytes();
            // Some programs begin every text with a byte order mark.
            if bytes.starts_with("\u{feff}".as_bytes()) {
                bytes.advance("\u{feff}".len());
            }
            Ok(bytes)
        }
        Err(error) if error.is::<LengthLimitError>() => {
            pass_over(&mut body, LINGER_BYTES_MAX).await;
            Err(too_large())
        }
        Err(_) => Err(Problem::new(
            Code::BadRequest,
            "the body cannot be read to its end",
        )),
    }
}

/// Reads on for a while, because a client that is still sending when the connection closes never
/// sees the answer.
async fn pass_over(body: &mut axum::body::Body, bytes_max: usize) {
    let passing = async {
        let mut passed = 0;
        while let Some(Ok(frame)) = body.frame().await {
            passed += frame.data_ref().map_or(0, Bytes::len);
            if passed > bytes_max {
                break;
            }
        }
    };
    if tokio::time::timeout(LINGER, passing).await.is_err() {
        tracing::debug!("a large body was not passed over to its end");
    }
}

/// Whether a body has a media type, without a charset or with UTF-8.
pub(crate) fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut parts = value
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase());
    let is_wanted = parts.next().is_some_and(|kind| kind == wanted);
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some(("charset", charset)) => ["utf-8", "utf8"].contains(&charset.trim_matches('"')),
        _ => true,
    });
    is_wanted && is_utf8
}

pub(crate) fn check_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    match is_of_type(headers, wanted) {
        true => Ok(()),
        false => {
            let rule = format!("the body must be {wanted}");
            Err(Problem::new(Code::UnsupportedMediaType, rule))
        }
    }
}

/// A value that must be a JSON object. The derived readers would also accept an array of its fields
/// in their order.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData)).map(Self)
    }
}

/// Parses a body.
///
/// A valid body is parsed once. After an error it is parsed again: with its whole numbers written
/// as such (`10000.0` and `1e4` are whole), or to find the kind of the error and its JSON pointer.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let error = match serde_json::from_slice(bytes) {
        Ok(Object(value)) => return Ok(value),
        Err(error) => error,
    };
    if let Some(plain) = whole_numbers::plain(bytes) {
        return parse_json(&plain);
    }
    // A number out of range is valid JSON, although the parser refuses it.
    let beyond = |error: &serde_json::Error| error.to_string().starts_with("number out of range");
    let is_range = beyond(&error);
    // The whole body is decoded, because a skipped string may hold an invalid escape.
    if !is_range
        && let Err(syntax) = serde_json::from_slice::<Value>(bytes)
        && !beyond(&syntax)
    {
        return Err(Problem::new(Code::MalformedJson, syntax.to_string()));
    }
    if error.classify() != Category::Data && !is_range {
        return Err(Problem::new(Code::MalformedJson, error.to_string()));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let located = serde_path_to_error::deserialize::<_, Object<T>>(&mut reader).err();
    let pointer = located
        .map(|located| pointer_of(located.path()))
        .unwrap_or_default();
    Err(Problem::unprocessable(&pointer, error.to_string()))
}

/// A JSON pointer (RFC 6901) from a path.
fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// Whether a text may be an Idempotency-Key.
pub(super) fn is_key(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Reads the Idempotency-Key: one header of 1 to 255 visible ASCII characters.
pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|text| is_key(text));
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text)),
        _ => Err(Problem::new(
            Code::IdempotencyKeyInvalid,
            "an Idempotency-Key is one header of 1 to 255 visible ASCII characters",
        )),
    }
}

/// Hashes the key and the request. The order of members and the spaces of the body make no
/// difference.
fn idempotency(user: UserId, key: &str, method: &Method, uri: &Uri, body: &[u8]) -> Idempotency {
    let plain = whole_numbers::plain(body);
    let body = plain.as_deref().unwrap_or(body);
    let mut canonical = serde_json::from_slice::<Value>(body).unwrap_or_default();
    // Explicit, because a feature of another crate decides whether `Value` sorts by itself.
    canonical.sort_all_objects();
    let canonical = canonical.to_string();
    let path = uri.path().trim_end_matches('/');
    let query = uri.query().unwrap_or_default();
    idempotency_of(user, key, [method.as_str(), path, query, &canonical])
}

/// Hashes the key, and the parts of a request: method, path, query and canonical body.
pub(super) fn idempotency_of(user: UserId, key: &str, request: [&str; 4]) -> Idempotency {
    Idempotency {
        user,
        key: hash(&[&user.to_string(), key]),
        fingerprint: hash(&request),
    }
}

/// 128 bits of SHA-256 over the parts. Each part is ended by the byte 0xff, which no UTF-8 text
/// contains.
pub(super) fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0xff]);
    }
    let digest = hasher.finalize();
    let first = digest.first_chunk::<16>().copied().unwrap_or_default();
    format!("{:032x}", u128::from_be_bytes(first))
}

/// A query string; an invalid one is a 422.
pub struct Filter<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Filter<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Problem> {
        // An empty value counts as absent, because forms send every field.
        let query = parts.uri.query().unwrap_or_default();
        let has_value = |pair: &&str| {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            !value.is_empty()
        };
        let given: Vec<&str> = query.split('&').filter(has_value).collect();
        serde_urlencoded::from_str(&given.join("&"))
            .map(Self)
            .map_err(|error| Problem::new(Code::Unprocessable, error.to_string()))
    }
}

/// The id of a path that has exactly one. A malformed id is a 404, like an unknown one.
pub struct PathId(pub u64);

/// The two ids in a path, in their order.
pub struct PathIds(pub u64, pub u64);

/// Parses an id of a path, which has decimal digits only.
fn id_of(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// The ids in a path; `None` when one is malformed.
async fn ids_of(parts: &mut Parts, app: &Arc<App>) -> Option<Vec<u64>> {
    let params = RawPathParams::from_request_parts(parts, app).await.ok()?;
    params.iter().map(|(_, text)| id_of(text)).collect()
}

/// The first id in a path; the others may be malformed.
pub(super) async fn first_id(parts: &mut Parts, app: &Arc<App>) -> Option<u64> {
    let params = RawPathParams::from_request_parts(parts, app).await.ok()?;
    let (_, text) = params.iter().next()?;
    id_of(text)
}

// Handlers check the caller before these ids, so that a stranger cannot find out which ids exist.

impl FromRequestParts<Arc<App>> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match ids_of(parts, app).await.as_deref() {
            Some(&[id]) => Ok(Self(id)),
            _ => Err(Problem::of(Code::NotFound)),
        }
    }
}

impl FromRequestParts<Arc<App>> for PathIds {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match ids_of(parts, app).await.as_deref() {
            Some(&[first, second]) => Ok(Self(first, second)),
            _ => Err(Problem::of(Code::NotFound)),
        }
    }
}

/// An id in a query, at most [`ID_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct IdIn(pub u64);

impl TryFrom<u64> for IdIn {
    type Error = String;

    fn try_from(id: u64) -> Result<Self, String> {
        if id <= ID_MAX {
            Ok(Self(id))
        } else {
            Err(format!("an id is at most {ID_MAX}"))
        }
    }
}

/// A time in RFC 3339, from 1970 to 9998.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeIn(i64);

impl TimeIn {
    /// Unix milliseconds.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0).unwrap_or_default()
    }
}

impl TryFrom<String> for TimeIn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let unix_ms = chrono::DateTime::parse_from_rfc3339(&text)
            .map(|time| time.timestamp_millis())
            .map_err(|error| format!("a time as 2026-12-01T09:00:00Z is expected: {error}"))?;
        if (0..TIME_END_MS).contains(&unix_ms) {
            Ok(Self(unix_ms))
        } else {
            Err("a time from 1970 to 9998 is expected".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::code::Code;
    use serde::Deserialize;

    use super::parse_json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only parsed")]
        count: u32,
    }

    fn check(body: &str, expected: Option<Code>) {
        let got = parse_json::<Sample>(body.as_bytes())
            .err()
            .map(|problem| problem.code);
        assert_eq!(got, expected, "{body}");
    }

    #[test]
    fn what_is_not_json_is_a_400_and_json_that_does_not_fit_a_422() {
        check(r#"{"count":1}"#, None);
        check(r#"{"count":1.0}"#, None);
        check(r#"{"count":1e3}"#, None);
        for body in [
            "",
            "{",
            "[",
            "nul",
            "{\"count\":1}x",
            "{\"count\":\"\\ud800\"}",
            "{\"x\":1",
        ] {
            check(body, Some(Code::MalformedJson));
        }
        check(&"[".repeat(10_000), Some(Code::MalformedJson));
        let many_digits = format!(r#"{{"count":{}}}"#, "9".repeat(400));
        for body in [
            "[]",
            "null",
            "{}",
            r#"{"count":-1}"#,
            r#"{"count":1.5}"#,
            r#"{"count":-1e3}"#,
            r#"{"count":1e30}"#,
            r#"{"count":"1"}"#,
            r#"{"count":1,"count":2}"#,
            r#"{"count":1,"more":2}"#,
            &many_digits,
        ] {
            check(body, Some(Code::Unprocessable));
        }
    }
}
