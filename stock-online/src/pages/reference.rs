//! The reference of the interface: Swagger UI, `ReDoc`, and the meaning of each error code.
//!
//! The scripts of both viewers are served from here: Swagger UI's come with its crate, `ReDoc`'s is
//! an asset.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, RwLock};

use askama::Template;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use stock_common::lock::{read, write};

use super::context::{PageContext, page, page_with};
use crate::http::code::Code;
use crate::http::files::File;
use crate::http::problem::Problem;

/// The document that both viewers show.
const DOCUMENT: &str = "/api/openapi.json";
/// Browsers keep the viewers' files for a day, so a new version of the program reaches them a day
/// later at most.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=86400");
/// Swagger UI draws with inline styles.
const SWAGGER_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "reference/swagger.html")]
struct SwaggerPage {
    context: PageContext,
}

/// GET `/api/docs`.
pub async fn swagger_ui(context: PageContext) -> Response {
    page_with(StatusCode::OK, SWAGGER_POLICY, &SwaggerPage { context })
}

/// GET `/api/docs/{file}`: the files of Swagger UI.
///
/// # Errors
/// 404 for a file that it does not have.
pub async fn swagger_file(
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    static FILES: LazyLock<RwLock<HashMap<String, Arc<File>>>> = LazyLock::new(RwLock::default);
    let known = {
        let files = read(&FILES);
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
    let mut files = write(&FILES);
    let file = Arc::clone(files.entry(name).or_insert(file));
    drop(files);
    Ok(file.answer(&headers))
}

/// `ReDoc` draws with inline styles and searches in a worker.
const REDOC_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src blob:; style-src 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "reference/redoc.html")]
struct RedocPage {
    context: PageContext,
}

/// GET `/api/redoc`.
pub async fn redoc(context: PageContext) -> Response {
    page_with(StatusCode::OK, REDOC_POLICY, &RedocPage { context })
}

/// The advice for each code, read from the table in `docs/errors.md`: code, status, meaning,
/// advice.
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

/// A code and its meaning.
struct CodePart {
    code: &'static str,
    status: u16,
    title: &'static str,
    /// The meaning in the reader's language, if it has a text.
    meaning: Option<String>,
    advice: &'static str,
}

impl CodePart {
    fn new(context: &PageContext, code: Code) -> Self {
        Self {
            code: code.as_str(),
            status: code.status(),
            title: code.title(),
            meaning: context.lang.find(&format!("problem-{}", code.as_str())),
            advice: ADVICE.get(code.as_str()).copied().unwrap_or_default(),
        }
    }
}

#[derive(Template)]
#[template(path = "reference/problems.html")]
struct ProblemsPage {
    context: PageContext,
    codes: Vec<CodePart>,
}

/// GET `/problems`: every error code.
pub async fn problems(context: PageContext) -> Response {
    let codes = Code::ALL.iter().map(|code| CodePart::new(&context, *code));
    let codes = codes.collect();
    page(&ProblemsPage { context, codes })
}

#[derive(Template)]
#[template(path = "reference/problem.html")]
struct ProblemPage {
    context: PageContext,
    part: CodePart,
}

/// GET `/problems/{code}`: the page to which a problem's `type` leads.
///
/// # Errors
/// 404 for an unknown code.
pub async fn problem(context: PageContext, Path(code): Path<String>) -> Result<Response, Problem> {
    let code = Code::parse(&code).ok_or_else(|| Problem::of(Code::NotFound))?;
    let part = CodePart::new(&context, code);
    Ok(page(&ProblemPage { context, part }))
}

#[cfg(test)]
mod tests {
    use crate::http::code::Code;

    use super::ADVICE;

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
}
