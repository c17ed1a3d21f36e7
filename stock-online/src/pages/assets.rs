//! Assets: style sheets, scripts and icons, embedded in the program under names that carry their
//! hash.
//!
//! A name stands for one content forever, so browsers keep it for a year and never ask again.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use rust_embed::Embed;

use crate::http::code::Code;
use crate::http::files::File;
use crate::http::problem::Problem;

#[derive(Embed)]
#[folder = "src/pages/assets"]
struct Files;

/// Number of hexadecimal digits of the hash in a name.
const DIGITS: usize = 12;

const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

struct Assets {
    /// `shop.css` is served as `shop.<hash>.css`.
    served: HashMap<String, String>,
    by_served: HashMap<String, File>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut assets = Assets {
        served: HashMap::new(),
        by_served: HashMap::new(),
    };
    for name in Files::iter() {
        let (Some(file), Some((stem, kind))) = (Files::get(&name), name.rsplit_once('.')) else {
            continue;
        };
        let hash = hex::encode(file.metadata.sha256_hash());
        let hash = hash.get(..DIGITS).unwrap_or_default();
        let served = format!("{stem}.{hash}.{kind}");
        assets.served.insert(name.to_string(), served.clone());
        let kind = match kind {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "application/octet-stream",
        };
        let data = Bytes::from(file.data.into_owned());
        let file = File::new(data, HeaderValue::from_static(kind), KEPT);
        assets.by_served.insert(served, file);
    }
    assets
});

/// The URL of an asset. An unknown name leads nowhere; a test checks every name in a template.
#[must_use]
pub fn url(name: &str) -> String {
    let served = ASSETS.served.get(name).map_or("missing", String::as_str);
    format!("/assets/{served}")
}

/// GET `/assets/{name}`.
///
/// # Errors
/// 404 for a name that this version does not have.
pub async fn show(headers: HeaderMap, Path(name): Path<String>) -> Result<Response, Problem> {
    let file = ASSETS.by_served.get(&name);
    let file = file.ok_or_else(|| Problem::of(Code::NotFound))?;
    Ok(file.answer(&headers))
}
