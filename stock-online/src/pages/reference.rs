//! The interface's own pages: Swagger UI, `ReDoc`, and what each error code means.
//!
//! The scripts of both readers come with their crates and are served from here; `ReDoc`'s page is one document with its
//! script inside, which its policy names by its hash.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use aide::redoc::Redoc;
use askama::Template;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use stock_common::error::Code;

use super::frame::{Frame, page, page_with};
use crate::http::files::File;
use crate::http::problem::Problem;

/// The document that both show.
const DOCUMENT: &str = "/api/openapi.json";
/// How long browsers keep the readers: until tomorrow's version of the program at the latest.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=86400");
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
pub async fn swagger_file(
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    static FILES: LazyLock<RwLock<HashMap<String, Arc<File>>>> = LazyLock::new(RwLock::default);
    let known = {
        let files = FILES.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&name).map(Arc::clone)
    };
    if let Some(file) = known {
        return Ok(file.answer(&headers));
    }
    let config = Arc::new(utoipa_swagger_ui::Config::from(DOCUMENT));
    let found = utoipa_swagger_ui::serve(&name, config).ok().flatten();
    let found = found.filter(|_| name != "index.html");
    let found = found.ok_or_else(|| Problem::of(Code::NotFound))?;
    let kind = HeaderValue::try_from(found.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let data = Bytes::from(found.bytes.into_owned());
    let file = Arc::new(File::new(data, kind, KEPT));
    let mut files = FILES.write().unwrap_or_else(PoisonError::into_inner);
    let file = Arc::clone(files.entry(name).or_insert(file));
    drop(files);
    Ok(file.answer(&headers))
}

/// `ReDoc`'s page and the policy that lets its own script run, and nothing else.
static REDOC: LazyLock<(File, String)> = LazyLock::new(|| {
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
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    (File::new(html.into(), kind, KEPT), policy)
});

/// GET `/api/redoc`.
pub async fn redoc(headers: HeaderMap) -> Response {
    let (file, policy) = &*REDOC;
    let mut response = file.answer(&headers);
    match HeaderValue::try_from(policy) {
        Ok(policy) => {
            let own = response.headers_mut();
            own.insert(header::CONTENT_SECURITY_POLICY, policy);
            own.insert(
                header::REFERRER_POLICY,
                HeaderValue::from_static("same-origin"),
            );
            response
        }
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
        let (file, policy) = &*REDOC;
        let html = std::str::from_utf8(file.plain()).unwrap();
        assert!(html.contains("/api/openapi.json") && policy.contains("script-src 'sha256-"));
        assert!(!html.contains("<script src") && !html.contains("fonts.googleapis.com/css"));
    }
}
