//! Serving: connections, time limits, request ids, metrics, and a shutdown that loses nothing.
//!
//! The accept loop is our own, because axum's has no header timeout and no cap on connections.

mod connections;
mod durations;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use stock_common::config::Config;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use self::connections::listen;
use self::connections::{Connections, HEALTH_LIFE, Progress, Timed};
use self::durations::{Answered, Durations, name_of};
use crate::app::App;
use crate::http::code::Code;
use crate::http::origin::{Origin, REQUEST_ID, RequestId, TrustedProxies};
use crate::http::problem::{Problem, render};
use crate::http::sessions;
use crate::http::trace::{self, TRACEPARENT};
use crate::limits::Subject;
use crate::pages::{self, failure};
use crate::profile::Profile;
use crate::seeds;
use crate::seeds::shared::Shared;

/// Pause after `accept` failed, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The path of stock imports, which take longer than any other request.
const IMPORT: &str = "/api/stock/import";
/// Largest request head in bytes; above it the answer is 431.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Pause before each refusal of an address beyond its limit. A client that retries at once would
/// cost others more by being refused than by being served.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// The state that every request passes through.
struct Front {
    app: Arc<App>,
    /// Every route.
    router: Router,
    /// The same routes with sessions. A call of the interface without a cookie does not pay for
    /// them.
    for_browsers: Router,
    proxies: TrustedProxies,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    /// The time limit of a stock import.
    import_timeout: Duration,
    /// Makes request ids unique across instances and restarts.
    instance: u32,
    requests: AtomicU64,
    durations: Durations,
    access_log: bool,
    shared: Shared,
}

/// Headers by which every answer tells browsers not to guess its type, not to store it, not to show
/// it in a frame, and to come back over TLS.
fn security_headers(config: &Config) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("frame-ancestors 'none'"),
        ),
    ];
    if config.http.public_tls {
        headers.push((
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000; includeSubDomains"),
        ));
    }
    headers
}

/// Lets pages of the configured origins read answers; `None` without origins.
fn cors(origins: &str) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins
        .split(',')
        .filter_map(|origin| HeaderValue::try_from(origin.trim()).ok())
        .filter(|origin| !origin.is_empty())
        .collect();
    let layer = CorsLayer::new()
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            HeaderName::from_static("idempotency-replayed"),
            HeaderName::from_static(REQUEST_ID),
        ]);
    (!origins.is_empty()).then(|| layer.allow_origin(AllowOrigin::list(origins)))
}

/// Accepts connections until `shutdown`, then lets open requests end within the configured time.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    proxies: TrustedProxies,
    shutdown: CancellationToken,
) {
    let config = &app.config;
    let front = Arc::new(Front::new(&app, proxies));
    let mut http = http1::Builder::new();
    // This limits the time between requests; [`Timed`] limits the time of a head.
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.http.http_idle_timeout_ms))
        .max_buf_size(HEAD_BYTES_MAX);
    let connections = Connections::new(config);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener) => accepted,
        };
        let Some((stream, peer)) = accepted else {
            continue;
        };
        let Some(place) = connections.take(peer, front.proxies.trusts(peer.to_canonical())) else {
            connections.refuse(stream);
            continue;
        };
        let (front, progress) = (Arc::clone(&front), Arc::new(Progress::default()));
        let io = TokioIo::new(Timed::new(stream, Arc::clone(&progress), config));
        let is_for_health = place.is_for_health;
        let service = service_fn(move |request| {
            let (front, progress) = (Arc::clone(&front), Arc::clone(&progress));
            async move {
                progress.begin();
                let response = handle(front, peer, is_for_health, request).await;
                progress.end();
                response
            }
        });
        let connection = graceful.watch(http.serve_connection(io, service));
        tokio::spawn(async move {
            let ended = match place.is_for_health {
                true => timeout(HEALTH_LIFE, connection).await.unwrap_or(Ok(())),
                false => connection.await,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    app.closing.cancel();
    let limit = Duration::from_millis(config.http.shutdown_timeout_ms);
    if timeout(limit, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open after {limit:?}");
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // An answer must not wait for the acknowledgement of the previous one.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            Some((stream, peer.ip()))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

impl Front {
    fn new(app: &Arc<App>, proxies: TrustedProxies) -> Self {
        let config = &app.config;
        let interface = crate::http::routes(Arc::clone(app));
        let pages = pages::routes(Arc::clone(app), interface.clone());
        let cors = cors(&config.http.cors_origins);
        let router = match &cors {
            Some(cors) => interface.clone().layer(cors.clone()),
            None => interface.clone(),
        };
        let (seeds, shared) = seeds::routes(app, interface, cors.as_ref());
        let router = router.merge(pages).merge(seeds);
        Self {
            for_browsers: router.clone().layer(sessions::layer(app)),
            router,
            proxies,
            headers: security_headers(config),
            app: Arc::clone(app),
            timeout: Duration::from_millis(config.http.http_timeout_ms),
            import_timeout: Duration::from_millis(config.http.import_timeout_ms),
            instance: rand::random(),
            requests: AtomicU64::new(0),
            durations: Durations::new(seeds::paths(app)),
            access_log: config.http.access_log,
            shared,
        }
    }

    /// The profile that keeps a request; files of pages would only hide the others in it.
    fn profile_of(&self, path: &str) -> Option<&Profile> {
        let is_kept = !path.starts_with("/assets/") && !is_of_health(path);
        self.app.live.profile.as_ref().filter(|_| is_kept)
    }

    async fn answer(
        &self,
        route: &str,
        address: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let path = request.uri().path();
        let is_browser =
            request.headers().contains_key(header::COOKIE) || !path.starts_with("/api/");
        // Health and metrics are asked for by few clients, and assets only once, so they are not
        // counted. A cookie costs work, so a request with one is counted.
        let is_free = is_of_health(path) && !request.headers().contains_key(header::COOKIE);
        let is_counted = !is_free && !path.starts_with("/assets/");
        if is_counted
            && let Err(exceeded) = self
                .app
                .people
                .limits
                .admit(Subject::requests_from(address))
        {
            tokio::time::sleep(REFUSAL_PAUSE).await;
            return Problem::from(exceeded).into_response();
        }
        let router = if is_browser {
            &self.for_browsers
        } else {
            &self.router
        };
        let limit = match path {
            IMPORT => self.import_timeout,
            _ => self.timeout,
        };
        let changes = !request.method().is_safe();
        let request = request.map(Body::new);
        let answer = async {
            match self.shared.answer(route, router, is_browser, request).await {
                Ok(response) => Ok(response),
                Err(request) => router.clone().oneshot(request).await,
            }
        };
        match timeout(limit, answer).await {
            // The session layer could not ask MySQL; it answers a bare 500, because it knows no
            // problems.
            Ok(Ok(response)) if is_bare_fault(&response) => {
                Problem::of(Code::DatabaseUnavailable).into_response()
            }
            Ok(Ok(response)) if changes && may_be_done(&response) => {
                Problem::outcome_unknown().into_response()
            }
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_elapsed) if changes => Problem::outcome_unknown().into_response(),
            Err(_elapsed) => Problem::of(Code::Timeout).into_response(),
        }
    }
}

fn is_of_health(path: &str) -> bool {
    ["/livez", "/readyz", "/metrics"].contains(&path)
}

fn may_be_done(response: &Response<Body>) -> bool {
    let problem = response.extensions().get::<Problem>();
    problem.is_some_and(|problem| problem.may_be_done)
}

fn is_bare_fault(response: &Response<Body>) -> bool {
    response.status() == StatusCode::INTERNAL_SERVER_ERROR
        && response.extensions().get::<Problem>().is_none()
}

/// The URL on which most orders are placed. The URL of the other path also lists orders, and a
/// duration does not tell the two apart.
const ORDERS: &str = "/api/redis/orders";

async fn handle(
    front: Arc<Front>,
    peer: IpAddr,
    is_for_health: bool,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let started = Instant::now();
    let number = front.requests.fetch_add(1, Ordering::Relaxed);
    let instance = front.instance;
    let request_id = RequestId::new(request.headers(), instance, number);
    let trace = trace::continued(request.headers());
    strip_trailing_slash(request.uri_mut());
    let method = name_of(request.method());
    let logged = front.access_log.then(|| request.uri().path().to_owned());
    let route = front.durations.route_of(request.uri().path());
    let address = front.proxies.client(peer, request.headers());
    request.extensions_mut().insert(Origin {
        address,
        request_id: request_id.clone(),
    });
    let reader = failure::reader(request.uri().path(), request.headers());
    let response = match is_for_health && !is_of_health(request.uri().path()) {
        true => Problem::of(Code::Overloaded).into_response(),
        false => match front.profile_of(request.uri().path()) {
            None => front.answer(route, address, request).await,
            Some(profile) => {
                let (method, uri) = (request.method().clone(), request.uri().clone());
                let answer = front.answer(route, address, request);
                let status = |answer: &Response<Body>| answer.status().as_u16();
                let now_ms = || front.app.ledger.redis_now_ms();
                profile
                    .measure((method, &uri), answer, status, now_ms)
                    .await
            }
        },
    };
    let took = started.elapsed();
    let request_id = request_id.to_string();
    let mut response = match reader {
        Some(lang) => failure::render(response, &request_id, lang),
        None => render(response, &request_id),
    };
    for (name, value) in &front.headers {
        // A page sets its own policy, and an asset its own time to be kept.
        response
            .headers_mut()
            .entry(name)
            .or_insert_with(|| value.clone());
    }
    let answered = Answered {
        method,
        route,
        status: response.status().as_u16(),
    };
    front.durations.record(answered, took);
    if route == ORDERS {
        front.app.live.history.record(took);
    }
    if let Some(path) = logged {
        durations::log(&request_id, &path, answered, took, trace.as_ref());
    }
    warn_of_failure(&request_id, answered.status, took);
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Some(trace) = trace {
        response.headers_mut().insert(TRACEPARENT, trace);
    }
    Ok(response)
}

/// Logs a fault. A 503 is counted in the metrics; a log line for each would be a load of its own.
fn warn_of_failure(request_id: &str, status: u16, took: Duration) {
    if status >= 500 && status != StatusCode::SERVICE_UNAVAILABLE.as_u16() {
        tracing::warn!(
            request.id = request_id,
            status,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "request failed"
        );
    }
}

/// `/api/orders/` is `/api/orders`.
fn strip_trailing_slash(uri: &mut Uri) {
    let path = uri.path();
    if path.len() < 2 || !path.ends_with('/') {
        return;
    }
    let stripped = path.trim_end_matches('/');
    let stripped = if stripped.is_empty() { "/" } else { stripped };
    let text = match uri.query() {
        Some(query) => format!("{stripped}?{query}"),
        None => stripped.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    if let Ok(path) = PathAndQuery::try_from(text) {
        parts.path_and_query = Some(path);
        if let Ok(changed) = Uri::from_parts(parts) {
            *uri = changed;
        }
    }
}
