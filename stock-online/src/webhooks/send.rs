//! Sends one message: signed, within a time limit, to no internal address, following no redirect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, StatusCode, Url};
use stock_common::config::Config;
use stock_domain::webhook::Secret;

use super::internal::is_internal;
use crate::outgoing;

/// How long a receiver may take altogether; shorter than the lease.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest URL, in bytes.
const URL_MAX: usize = 2_000;

/// Why a URL cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is no URL, or too long.
    #[error("not a URL of at most {URL_MAX} characters")]
    Malformed,
    /// It is not encrypted.
    #[error("only https is sent to")]
    NotEncrypted,
    /// It carries a user or a password.
    #[error("a URL carries no user and no password")]
    Credentials,
    /// It names an internal address.
    #[error("internal addresses are not sent to")]
    Internal,
}

/// Checks by its text whether a URL may be sent to. The addresses behind its name are checked at
/// each connection.
///
/// # Errors
/// [`UrlError`] when it may not.
pub fn check_url(text: &str, is_internal_allowed: bool) -> Result<Url, UrlError> {
    let url = Url::parse(text).map_err(|_malformed| UrlError::Malformed)?;
    if text.len() > URL_MAX || !url.has_host() || !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Malformed);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    if is_internal_allowed {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err(UrlError::NotEncrypted);
    }
    let host = url.host_str().unwrap_or_default();
    let literal = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    if literal.is_ok_and(is_internal) || host.eq_ignore_ascii_case("localhost") {
        return Err(UrlError::Internal);
    }
    Ok(url)
}

/// Resolves names to external addresses only. It runs at each connection, so that a later DNS
/// answer cannot lead to an internal address.
struct Outside;

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let outside: Vec<SocketAddr> =
                found.filter(|address| !is_internal(address.ip())).collect();
            if outside.is_empty() {
                return Err("the name leads to no address outside".into());
            }
            let outside: Addrs = Box::new(outside.into_iter());
            Ok(outside)
        })
    }
}

/// Why a message was not taken.
#[derive(Debug)]
pub(super) struct Failure {
    /// The answer's status, if there was one.
    pub(super) status: Option<u16>,
    /// A description of the failure.
    pub(super) text: String,
}

impl Failure {
    /// Whether the receiver wants no more messages (Standard Webhooks: 410).
    pub(super) fn is_gone(&self) -> bool {
        self.status == Some(StatusCode::GONE.as_u16())
    }
}

/// Sends messages.
pub(super) struct Sender {
    client: Client,
    is_internal_allowed: bool,
    /// How long to wait after each attempt that failed.
    schedule: Vec<Duration>,
}

impl Sender {
    pub(super) fn new(config: &Config) -> Result<Self, reqwest::Error> {
        let client = outgoing::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT);
        let client = if config.webhooks.webhook_internal_allowed {
            client
        } else {
            client.dns_resolver(Arc::new(Outside))
        };
        Ok(Self {
            client: client.build()?,
            is_internal_allowed: config.webhooks.webhook_internal_allowed,
            schedule: config
                .webhooks
                .webhook_retry_seconds
                .split(',')
                .filter_map(|seconds| seconds.trim().parse().ok())
                .map(Duration::from_secs)
                .collect(),
        })
    }

    /// Pause after an attempt that `attempts` others preceded, varied by up to a tenth; `None` when
    /// it was the last.
    pub(super) fn next_attempt(&self, attempts: usize) -> Option<Duration> {
        let wait = self.schedule.get(attempts)?;
        Some(wait.mul_f64(rand::random_range(0.9..1.1)))
    }

    /// Posts a message and returns the status of an answer that takes it.
    pub(super) async fn post(
        &self,
        url: &str,
        secrets: &[Secret],
        id: &str,
        now: i64,
        body: Vec<u8>,
    ) -> Result<u16, Failure> {
        let failure = |status, text: String| Failure { status, text };
        let url = check_url(url, self.is_internal_allowed)
            .map_err(|error| failure(None, error.to_string()))?;
        // A receiver accepts the message when one of the signatures is by its secret.
        let signatures = secrets.iter().map(|secret| secret.sign(id, now, &body));
        let signature = signatures.collect::<Vec<_>>().join(" ");
        let answer = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await
            .map_err(|error| failure(None, outgoing::describe(&error)))?;
        let status = answer.status();
        if status.is_success() {
            Ok(status.as_u16())
        } else {
            Err(failure(Some(status.as_u16()), format!("answered {status}")))
        }
    }
}
