//! Operations: liveness, readiness, metrics, and the switch that stops selling.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use stock_engine::ledger;
use stock_mysql::people::audit_log::Action;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::auth::{Admin, Caller};
use super::extract::{BodyIn, Keyed};
use super::files::File;
use super::orders::json;
use super::origin::Origin;
use super::problem::Problem;
use super::{audit, once, openapi};
use crate::app::App;
use crate::http::code::Code;
use crate::readiness::readiness;

/// How long the selling switch waits for MySQL to look up or keep its key.
const KEY_WAIT: Duration = Duration::from_millis(300);

/// Whether selling is open.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selling {
    open: bool,
}

impl BodyIn for Selling {}

/// The outcome of the switch, shard by shard.
#[derive(Debug, Serialize, ToSchema)]
pub struct SellingDone {
    open: bool,
    shards: Vec<ShardSelling>,
}

/// Whether selling is open on a shard, as far as is known.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShardSelling {
    shard: u64,
    open: bool,
}

/// GET `/livez`: the process answers; no other server is asked.
pub async fn livez() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "alive" }))
}

/// GET `/readyz`: 503 only when orders cannot be taken; without MySQL the service is degraded. No
/// server is asked: the answer shows what was seen a moment ago.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ready = readiness(&app);
    if ready.status != "unready" {
        return json(StatusCode::OK, &ready);
    }
    later(json(StatusCode::SERVICE_UNAVAILABLE, &ready))
}

/// Adds a `Retry-After` of one second.
fn later(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    response
}

/// GET `/metrics`: Prometheus' text format.
///
/// # Errors
/// 401 and 403 unless `metrics_open` is set or the caller is an admin.
pub async fn metrics(
    State(app): State<Arc<App>>,
    caller: Result<Caller, Problem>,
) -> Result<Response, Problem> {
    if !app.config.http.metrics_open && !caller?.is_admin() {
        return Err(Problem::of(Code::Forbidden));
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], app.prometheus.render()).into_response())
}

/// PUT `/api/ops/selling`: stops all selling at once on every instance, or resumes it.
///
/// When a shard did not follow, the answer is 503 with the same body. After a stop the instances
/// refuse at once all the same.
///
/// # Errors
/// 403 for anybody but an admin.
pub async fn switch_selling(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    origin: Origin,
    Keyed {
        body, idempotency, ..
    }: Keyed<Selling>,
) -> Result<Response, Problem> {
    // The switch must work while MySQL is away; then a repeated request sets the same state again.
    let known = once::look(&app, idempotency.as_ref());
    if let Ok(Ok(Some(before))) = timeout(KEY_WAIT, known).await {
        return before;
    }
    let switched = ledger::switch_selling(&app.pool, &app.ledger, body.open, admin.user).await?;
    let subject = if body.open {
        "selling open"
    } else {
        "selling stopped"
    };
    audit::note(
        &app,
        &origin,
        Action::SellingSwitched,
        Some(admin.user),
        subject,
    );
    let have_followed = switched.iter().all(|(_, open)| *open == body.open);
    let shards = switched
        .into_iter()
        .map(|(shard, open)| ShardSelling { shard, open });
    let done = SellingDone {
        open: body.open,
        shards: shards.collect(),
    };
    if !have_followed {
        return Ok(later(json(StatusCode::SERVICE_UNAVAILABLE, &done)));
    }
    let kept = once::keep(&app, idempotency, Ok(json(StatusCode::OK, &done)));
    match timeout(KEY_WAIT, kept).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) | Err(_) => Ok(json(StatusCode::OK, &done)),
    }
}

/// GET `/api/openapi.json`: this interface as an OpenAPI document.
pub async fn document(headers: HeaderMap) -> Response {
    static FILE: LazyLock<File> = LazyLock::new(|| {
        let text = serde_json::to_vec(openapi::document()).unwrap_or_default();
        let kind = HeaderValue::from_static("application/json");
        File::new(text.into(), kind, HeaderValue::from_static("no-store"))
    });
    FILE.answer(&headers)
}

/// Any path that has no route.
pub async fn not_found() -> Problem {
    Problem::of(Code::NotFound)
}

/// Any method that a route does not have.
pub async fn method_not_allowed() -> Problem {
    Problem::of(Code::MethodNotAllowed)
}
