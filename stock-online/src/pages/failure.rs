//! Failures as pages: a browser that asked for a page gets a page, whatever went wrong.

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use super::assets;
use super::texts::Lang;
use crate::http::problem::{self, Problem};

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    lang: Lang,
    problem: &'a Problem,
    request_id: &'a str,
}

impl FailurePage<'_> {
    fn t(&self, id: &str) -> String {
        self.lang.text(id)
    }

    /// The meaning of the code, in the reader's language if it has a text.
    fn meaning(&self) -> String {
        let known = self
            .lang
            .find(&format!("problem-{}", self.problem.code.as_str()));
        known.unwrap_or_else(|| self.problem.code.title().to_owned())
    }
}

/// Whether a request asks for a page.
#[must_use]
pub fn asks_for_html(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// The language of a problem that is shown as a page; `None` when the client expects a problem
/// document.
#[must_use]
pub fn reader(path: &str, headers: &HeaderMap) -> Option<Lang> {
    let is_interface = path.starts_with("/api/") && !["/api/docs", "/api/redoc"].contains(&path);
    (!is_interface && asks_for_html(headers)).then(|| Lang::of(headers))
}

/// Writes a problem's page; leaves any other response as it is.
#[must_use]
pub fn render(response: Response, request_id: &str, lang: Lang) -> Response {
    let Some(problem) = response.extensions().get::<Problem>().cloned() else {
        return response;
    };
    // The page has the problem's headers.
    let mut response = problem::render(response, request_id);
    let page = FailurePage {
        lang,
        problem: &problem,
        request_id,
    };
    if let Ok(html) = page.render() {
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        );
        *response.body_mut() = Body::from(html);
    }
    response
}
