//! Files that never change while the program runs: compressed once, and shared by all answers.
//!
//! An answer holds no copy of its file. So clients that do not read their answers cost connections
//! but no memory, and no request pays for compression.

use std::io::Write as _;
use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Size in bytes below which a file is not worth compressing.
const COMPRESSED_MIN: usize = 512;

/// A file with its media type and its `Cache-Control`.
#[derive(Debug)]
pub struct File {
    plain: Bytes,
    /// The inner `None` means that the file is too small, or that compression does not make it
    /// smaller.
    compressed: OnceLock<Option<Bytes>>,
    kind: HeaderValue,
    /// Its `Cache-Control`.
    kept: HeaderValue,
}

fn compress(plain: &[u8]) -> Option<Bytes> {
    if plain.len() < COMPRESSED_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).ok()?;
    let compressed = encoder.finish().ok()?;
    (compressed.len() < plain.len()).then(|| compressed.into())
}

/// Whether a client takes gzip: it names `gzip` or `*`, with a weight above 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut names = texts.flat_map(|text| text.split(',')).map(str::trim);
    names.any(|name| {
        let (coding, weight) = name.split_once(';').unwrap_or((name, ""));
        let is_refused = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|weight| weight.parse::<f32>().ok())
            .is_some_and(|weight| weight <= 0.0);
        (coding.trim().eq_ignore_ascii_case("gzip") || coding.trim() == "*") && !is_refused
    })
}

impl File {
    /// A file with a media type and a `Cache-Control`.
    #[must_use]
    pub const fn new(plain: Bytes, kind: HeaderValue, kept: HeaderValue) -> Self {
        Self {
            plain,
            compressed: OnceLock::new(),
            kind,
            kept,
        }
    }

    /// Its content.
    #[must_use]
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// The answer to a client, compressed if the client takes gzip.
    pub fn answer(&self, headers: &HeaderMap) -> Response {
        let compressed = self.compressed.get_or_init(|| compress(&self.plain));
        let mut response = match compressed {
            Some(compressed) if takes_gzip(headers) => {
                let coded = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
                (coded, Body::from(compressed.clone())).into_response()
            }
            _ => Body::from(self.plain.clone()).into_response(),
        };
        let own = response.headers_mut();
        own.insert(header::CONTENT_TYPE, self.kind.clone());
        own.insert(header::CACHE_CONTROL, self.kept.clone());
        own.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{File, takes_gzip};

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_client_that_takes_gzip_says_so() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&accepting(value)), expected, "{value}");
        }
    }

    #[test]
    fn a_file_is_compressed_once_and_only_if_it_gets_smaller() {
        let text = HeaderValue::from_static("text/plain");
        let large = File::new(Bytes::from(vec![b'a'; 10_000]), text.clone(), text.clone());
        let answer = large.answer(&accepting("gzip"));
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(
            !large
                .answer(&accepting("br"))
                .headers()
                .contains_key(header::CONTENT_ENCODING)
        );
        let small = File::new(Bytes::from_static(b"a"), text.clone(), text);
        assert!(
            !small
                .answer(&accepting("gzip"))
                .headers()
                .contains_key(header::CONTENT_ENCODING)
        );
    }
}
