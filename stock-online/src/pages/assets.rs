//! Assets: style sheets, scripts and icons, embedded in the program under names that carry their hash.
//!
//! A name stands for one content for ever, so browsers keep it for a year and never ask again.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use rust_embed::{Embed, EmbeddedFile};
use stock_common::error::Code;

use crate::http::problem::Problem;

#[derive(Embed)]
#[folder = "src/pages/assets"]
struct Files;

/// The hexadecimal digits of a hash in a name.
const DIGITS: usize = 12;

struct Assets {
    /// `shop.css` is served as `shop.<hash>.css`.
    served: HashMap<String, String>,
    by_served: HashMap<String, EmbeddedFile>,
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
        let hash: String = file
            .metadata
            .sha256_hash()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let hash = hash.get(..DIGITS).unwrap_or_default();
        let served = format!("{stem}.{hash}.{kind}");
        assets.served.insert(name.to_string(), served.clone());
        assets.by_served.insert(served, file);
    }
    assets
});

/// Where an asset is served; a name that is none leads nowhere, and a test looks at every name in a template.
#[must_use]
pub fn url(name: &str) -> String {
    let served = ASSETS.served.get(name).map_or("missing", String::as_str);
    format!("/assets/{served}")
}

/// GET `/assets/{name}`.
///
/// # Errors
/// 404 for a name that stands for nothing in this version.
pub async fn show(Path(name): Path<String>) -> Result<Response, Problem> {
    let file = ASSETS.by_served.get(&name);
    let file = file.ok_or_else(|| Problem::of(Code::NotFound))?;
    let kind = match name.rsplit_once('.').map_or("", |(_, kind)| kind) {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, file.data.clone()).into_response())
}
