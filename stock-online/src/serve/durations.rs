//! How long requests take: metrics by method, route and status, and a line per request on demand.

use std::collections::HashMap;
use std::sync::RwLock;
use std::time::Duration;

use axum::http::{HeaderValue, Method};
use matchit::InsertError;
use metrics::Histogram;
use stock_common::lock::{read, write};

use crate::http::openapi;
use crate::pages;

/// Durations of requests, by method, the route that answers, and the status. Invented methods and
/// paths make no new series.
///
/// The router names a route only for a request that reached a handler. The time of a refused or
/// late request belongs to its route, too.
pub(super) struct Durations {
    routes: matchit::Router<&'static str>,
    /// Each histogram is resolved once.
    histograms: RwLock<HashMap<Answered, Histogram>>,
}

/// The name for paths without a route.
const NO_ROUTE: &str = "none";

impl Durations {
    /// Knows the routes of the OpenAPI document and of the pages, and these.
    pub(super) fn new(others: Vec<String>) -> Self {
        let mut routes = matchit::Router::new();
        // These live as long as the process, which serves once.
        let others = others.into_iter().map(|path| &*path.leak());
        for path in openapi::paths().chain(pages::PATHS).chain(others) {
            match routes.insert(path, path) {
                // A path is listed once for each of its methods.
                Ok(()) | Err(InsertError::Conflict { .. }) => {}
                Err(error) => tracing::error!(%error, path, "no route for metrics"),
            }
        }
        Self {
            routes,
            histograms: RwLock::default(),
        }
    }

    /// The route of a path.
    pub(super) fn route_of(&self, path: &str) -> &'static str {
        self.routes.at(path).map_or(NO_ROUTE, |found| found.value)
    }

    /// Notes an answer.
    pub(super) fn record(&self, of: Answered, took: Duration) {
        let known = read(&self.histograms);
        if let Some(histogram) = known.get(&of) {
            return histogram.record(took.as_secs_f64());
        }
        drop(known);
        let histogram = metrics::histogram!(
            "http_request_duration_seconds",
            "method" => of.method,
            "route" => of.route,
            "status" => of.status.to_string()
        );
        histogram.record(took.as_secs_f64());
        let mut known = write(&self.histograms);
        known.insert(of, histogram);
    }
}

/// The method, the route and the status of a request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Answered {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) status: u16,
}

/// The name of a method in metrics.
pub(super) fn name_of(method: &Method) -> &'static str {
    const NAMES: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let known = NAMES.into_iter().find(|name| *name == method.as_str());
    known.unwrap_or("other")
}

/// Logs a request that was answered. The path is told without its query, which may hold anything.
pub(super) fn log(
    request_id: &str,
    path: &str,
    of: Answered,
    took: Duration,
    trace: Option<&HeaderValue>,
) {
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let traceparent = trace.and_then(|trace| trace.to_str().ok());
    let Answered {
        method,
        route,
        status,
    } = of;
    tracing::info!(
        target: "stock_online::access",
        method,
        path,
        route,
        status,
        duration_us,
        request.id = request_id,
        traceparent,
        "request"
    );
}

#[cfg(test)]
mod tests {
    use super::{Durations, NO_ROUTE};
    use crate::http::openapi;
    use crate::pages;

    #[test]
    fn every_path_is_measured_under_its_own_route() {
        let durations = Durations::new(Vec::new());
        for path in openapi::paths().chain(pages::PATHS) {
            let called = path.replace('{', "").replace('}', "%41");
            assert_eq!(durations.route_of(&called), path);
        }
        assert_eq!(durations.route_of("/wp-admin"), NO_ROUTE);
    }
}
