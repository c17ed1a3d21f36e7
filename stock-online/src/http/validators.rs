//! Validators of answers: `ETag`, `If-None-Match`, `If-Match`, and how long an answer may be kept.
//!
//! The tag of a product is its revision, a dash, and a hash of everything else in its answer. A
//! change is bound to the revision alone: an order in between must not refuse an admin's edit.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The `Cache-Control` of an answer that is the same for everybody.
const PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// The headers by which answers differ between callers.
const VARY: HeaderValue = HeaderValue::from_static("authorization, cookie");

/// The tag of an answer.
pub(super) fn tag(revision: u64, told: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    told.hash(&mut hasher);
    format!("\"{revision}-{:016x}\"", hasher.finish())
}

fn names(headers: &HeaderMap, header: &HeaderName, is_it: impl Fn(&str) -> bool) -> Option<bool> {
    let mut values = headers.get_all(header).iter().peekable();
    values.peek()?;
    let mut texts = values.filter_map(|value| value.to_str().ok());
    Some(texts.any(|text| {
        text.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || is_it(tag))
    }))
}

/// Whether the client has the answer already.
pub(super) fn has_it(headers: &HeaderMap, tag: &str) -> bool {
    // A proxy that compresses an answer weakens its tag.
    let is_it = |known: &str| known.strip_prefix("W/").unwrap_or(known) == tag;
    names(headers, &header::IF_NONE_MATCH, is_it).unwrap_or(false)
}

/// Whether the client's `If-Match` names this revision, or is absent.
pub(super) fn is_revision(headers: &HeaderMap, revision: u64) -> bool {
    let is_it = |known: &str| {
        let inner = known
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let seen = inner.and_then(|inner| inner.split('-').next());
        seen == Some(revision.to_string().as_str())
    };
    names(headers, &header::IF_MATCH, is_it).unwrap_or(true)
}

/// An answer with its tag, or a 304 if the client has the answer. `age` is the age of the levels in
/// it.
pub(super) fn tagged(
    headers: &HeaderMap,
    tag: String,
    is_public: bool,
    age: Duration,
    answer: impl FnOnce() -> Response,
) -> Response {
    let mut response = match has_it(headers, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => answer(),
    };
    let own = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag) {
        own.insert(header::ETAG, tag);
    }
    if is_public {
        own.insert(header::CACHE_CONTROL, PUBLIC);
        own.insert(header::VARY, VARY);
    }
    // While Redis does not answer, the levels are the last that were seen.
    if age.as_secs() > 0 {
        own.insert(header::AGE, age.as_secs().into());
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

    use super::{has_it, is_revision};

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::try_from(value).unwrap())])
    }

    #[test]
    fn an_answer_that_the_client_has_is_not_sent_again() {
        let check = |value, expected| {
            let headers = with(header::IF_NONE_MATCH, value);
            assert_eq!(has_it(&headers, "\"7-ab\""), expected, "{value}");
        };
        check("\"7-ab\"", true);
        check("W/\"7-ab\"", true);
        check("\"6-ab\", \"7-ab\"", true);
        check("*", true);
        check("\"7\"", false);
        check("7-ab", false);
        assert!(!has_it(&HeaderMap::new(), "\"7-ab\""));
    }

    #[test]
    fn a_change_is_bound_to_a_revision_and_not_to_the_stock() {
        let check = |value, expected| {
            let headers = with(header::IF_MATCH, value);
            assert_eq!(is_revision(&headers, 7), expected, "{value}");
        };
        check("\"7-ab\"", true);
        check("\"7-cd\"", true);
        check("\"7\"", true);
        check("\"6-ab\", \"7-ab\"", true);
        check("*", true);
        check("\"77-ab\"", false);
        check("W/\"7-ab\"", false);
        check("7-ab", false);
        assert!(is_revision(&HeaderMap::new(), 7));
    }
}
