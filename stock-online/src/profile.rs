//! The last requests with their times, for the page `/silk/`; kept only while the setting
//! `request_profile` is on.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::{Method, Uri};
use stock_common::lock::lock;
use stock_common::spent::{Spent, measured};

/// Requests that are kept.
const KEPT: usize = 500;
/// Longest path that is kept, in bytes.
const PATH_MAX: usize = 200;

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Profiled {
    /// When its answer was ready, in Unix ms.
    pub at_ms: u64,
    /// Its method.
    pub method: Method,
    /// Its path without the query, which may hold a secret.
    pub path: String,
    /// The status of its answer.
    pub status: u16,
    /// How long it took, its body aside.
    pub took: Duration,
    /// The time of it that was spent waiting for the servers.
    pub spent: Spent,
}

/// The last requests.
#[derive(Debug, Default)]
pub struct Profile {
    requests: Mutex<VecDeque<Profiled>>,
}

impl Profile {
    /// Measures a request and keeps it.
    pub async fn measure<T>(
        &self,
        (method, uri): (Method, &Uri),
        answer: impl Future<Output = T>,
        status: impl Fn(&T) -> u16,
        now_ms: impl Fn() -> u64,
    ) -> T {
        let began = std::time::Instant::now();
        let path: String = uri.path().chars().take(PATH_MAX).collect();
        let (answer, spent) = measured(answer).await;
        let done = Profiled {
            at_ms: now_ms(),
            method,
            path,
            status: status(&answer),
            took: began.elapsed(),
            spent,
        };
        let mut requests = lock(&self.requests);
        if requests.len() >= KEPT {
            requests.pop_front();
        }
        requests.push_back(done);
        drop(requests);
        answer
    }

    /// The requests, the last one first.
    #[must_use]
    pub fn latest(&self) -> Vec<Profiled> {
        lock(&self.requests).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};

    use super::{KEPT, Profile};

    #[tokio::test]
    async fn the_last_requests_are_kept_and_their_queries_are_not() {
        let profile = Profile::default();
        for number in 0..KEPT + 2 {
            let uri: Uri = format!("/api/products/{number}?token=secret")
                .parse()
                .unwrap();
            let request = (Method::GET, &uri);
            profile
                .measure(request, async { 200 }, |status| *status, || 7)
                .await;
        }
        let latest = profile.latest();
        assert_eq!(latest.len(), KEPT);
        let first = latest.first().unwrap();
        assert_eq!(first.path, format!("/api/products/{}", KEPT + 1));
        assert_eq!((first.status, first.at_ms), (200, 7));
    }
}
