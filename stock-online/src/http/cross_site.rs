//! Cross-site requests (CSRF): requests that another site's page makes a browser send with our
//! cookie.
//!
//! Since 2023 every browser says where a request comes from, with `Sec-Fetch-Site`; older ones with
//! `Origin`. A client that sends neither is not a browser, and sends only cookies that it was
//! given.

use axum::http::{HeaderMap, HeaderValue, Method, header};

use super::problem::Problem;
use crate::http::code::Code;

/// Refuses a request that may change something and comes from another site.
///
/// # Errors
/// 403 `CROSS_SITE_REQUEST`.
pub fn check(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if method.is_safe() || is_own(headers) {
        Ok(())
    } else {
        Err(Problem::of(Code::CrossSiteRequest))
    }
}

fn is_own(headers: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("").to_ascii_lowercase();
    if let Some(site) = headers.get("sec-fetch-site") {
        // `none`: the person started the request, for example by typing the address.
        return matches!(text(site).as_str(), "same-origin" | "none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = text(origin);
    let named = origin.split_once("://").map(|(_, host)| host);
    named.is_some() && named == headers.get(header::HOST).map(text).as_deref()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::check;

    fn is_let_in(method: &Method, lines: &[(&'static str, &'static str)]) -> bool {
        let lines = lines.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        check(method, &lines.collect::<HeaderMap>()).is_ok()
    }

    #[test]
    fn only_another_sites_changes_are_refused() {
        let host = ("host", "shop.example:8080");
        for (lines, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "http://shop.example:8080"), host], true),
            (&[("origin", "http://evil.example"), host], false),
            (&[("origin", "null"), host], false),
            (&[host], true),
        ] {
            assert_eq!(is_let_in(&Method::POST, lines), expected, "{lines:?}");
            assert!(is_let_in(&Method::GET, lines));
        }
    }
}
