//! The interface's own pages: Swagger UI, `ReDoc`, and what each error code means.
//!
//! The scripts of both readers come with their crates and are served from here; `ReDoc`'s page is one document with its
//! script inside, which its policy names by its hash.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use aide::redoc::Redoc;
use askama::Template;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use stock_common::error::Code;

use super::frame::{Frame, html_response, page, page_with};
use crate::http::problem::Problem;

/// The document that both show.
const DOCUMENT: &str = "/api/openapi.json";
/// Swagger UI draws with styles of its own.
const SWAGGER_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "reference/swagger.html")]
struct SwaggerPage {
    frame: Frame,
}

/// GET `/api/docs`.
pub async fn swagger_ui(frame: Frame) -> Response {
    page_with(StatusCode::OK, SWAGGER_POLICY, &SwaggerPage { frame })
}

/// GET `/api/docs/{file}`: what Swagger UI is made of.
///
/// # Errors
/// 404 for a file that it does not have.
pub async fn swagger_file(Path(file): Path<String>) -> Result<Response, Problem> {
    let config = Arc::new(utoipa_swagger_ui::Config::from(DOCUMENT));
    let found = utoipa_swagger_ui::serve(&file, config).ok().flatten();
    let found = found.filter(|_| file != "index.html");
    let found = found.ok_or_else(|| Problem::of(Code::NotFound))?;
    let kind = HeaderValue::try_from(found.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let kept = HeaderValue::from_static("public, max-age=86400");
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, kept)];
    Ok((headers, found.bytes.into_owned()).into_response())
}

/// `ReDoc`'s page and the policy that lets its own script run, and nothing else.
static REDOC: LazyLock<(String, String)> = LazyLock::new(|| {
    let html = Redoc::new(DOCUMENT).with_title("Stock Flow").html();
    let script = html
        .split_once("<script>")
        .and_then(|(_, rest)| rest.rsplit_once("</script>"))
        .map_or("", |(script, _)| script);
    let hash = STANDARD.encode(Sha256::digest(script));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{hash}'; worker-src blob:; style-src 'unsafe-inline'; \
         img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    (html, policy)
});

/// GET `/api/redoc`.
pub async fn redoc() -> Response {
    let (html, policy) = &*REDOC;
    match HeaderValue::try_from(policy) {
        Ok(policy) => html_response(StatusCode::OK, policy, html.clone()),
        Err(_) => Problem::of(Code::Internal).into_response(),
    }
}

/// What to do about each code, as the document of errors says it: code, status, meaning, what to do.
static ADVICE: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
    let rows = include_str!("../../../docs/errors.md").lines();
    let rows = rows.filter_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        match cells.as_slice() {
            ["", code, _, _, advice, ""] => Some((code.trim_matches('`'), *advice)),
            _ => None,
        }
    });
    rows.collect()
});

/// A code and what it means.
struct CodePart {
    code: &'static str,
    status: u16,
    title: &'static str,
    /// In the reader's language, where it is said there.
    meaning: Option<String>,
    advice: &'static str,
}

impl CodePart {
    fn new(frame: &Frame, code: Code) -> Self {
        Self {
            code: code.as_str(),
            status: code.status(),
            title: code.title(),
            meaning: frame.lang.find(&format!("problem-{}", code.as_str())),
            advice: ADVICE.get(code.as_str()).copied().unwrap_or_default(),
        }
    }
}

#[derive(Template)]
#[template(path = "reference/problems.html")]
struct ProblemsPage {
    frame: Frame,
    codes: Vec<CodePart>,
}

/// GET `/problems`: every error code.
pub async fn problems(frame: Frame) -> Response {
    let codes = Code::ALL.iter().map(|code| CodePart::new(&frame, *code));
    let codes = codes.collect();
    page(&ProblemsPage { frame, codes })
}

#[derive(Template)]
#[template(path = "reference/problem.html")]
struct ProblemPage {
    frame: Frame,
    part: CodePart,
}

/// GET `/problems/{code}`: where a problem's `type` leads.
///
/// # Errors
/// 404 for a code that there is not.
pub async fn problem(frame: Frame, Path(code): Path<String>) -> Result<Response, Problem> {
    let code = Code::parse(&code).ok_or_else(|| Problem::of(Code::NotFound))?;
    let part = CodePart::new(&frame, code);
    Ok(page(&ProblemPage { frame, part }))
}

#[cfg(test)]
mod tests {
    use stock_common::error::Code;

    use super::{ADVICE, REDOC};

    #[test]
    fn every_code_says_what_to_do() {
        for code in Code::ALL {
            assert!(
                ADVICE
                    .get(code.as_str())
                    .is_some_and(|advice| !advice.is_empty()),
                "{}",
                code.as_str()
            );
        }
    }

    #[test]
    fn redocs_page_holds_one_script_whose_hash_is_allowed() {
        let (html, policy) = &*REDOC;
        assert!(html.contains("/api/openapi.json") && policy.contains("script-src 'sha256-"));
        assert!(!html.contains("<script src") && !html.contains("fonts.googleapis.com/css"));
    }
}
