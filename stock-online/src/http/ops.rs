//! Operations: is it alive, is it ready, how is it doing, and the switch that stops selling.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use stock_common::error::Code;
use stock_domain::database::audit_log::Action;
use stock_domain::database::migrate;
use stock_domain::ledger::GateState;
use stock_domain::selling;
use stock_domain::verdict::Verdict;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, Caller};
use super::extract::{BodyIn, Keyed};
use super::once;
use super::openapi;
use super::orders::json;
use super::origin::Origin;
use super::problem::Problem;
use crate::app::App;

/// How long the switch waits for MySQL to say whether its key is known.
const KEY_WAIT: Duration = Duration::from_millis(300);

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    status: &'static str,
    checks: Checks,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checks {
    redis: &'static str,
    mysql: &'static str,
    schema: &'static str,
    epoch: &'static str,
    journal: &'static str,
}

/// Whether selling is open.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selling {
    open: bool,
}

impl BodyIn for Selling {}

/// GET `/livez`: the process answers; no other server is asked.
pub async fn livez() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "alive" }))
}

/// GET `/readyz`: 503 only when orders cannot be taken; MySQL away is degraded.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let (redis, epoch) = match app.ledger.check_gate().await {
        GateState::Open(_) => ("ok", "ok"),
        GateState::Shut(reason) if reason.contains("redis does not answer") => ("down", "unknown"),
        GateState::Shut(reason) if reason.contains("the link to redis broke") => {
            ("down", "unknown")
        }
        GateState::Shut(_) => ("ok", "fenced"),
    };
    let (mysql, schema) = match migrate::is_current(&app.pool).await {
        Ok(true) => ("ok", "ok"),
        Ok(false) => ("ok", "other"),
        Err(_) => ("down", "unknown"),
    };
    let full = app.lag_entries() >= app.config.lag_hard_entries;
    let journal = if full { "full" } else { "ok" };
    let checks = Checks {
        redis,
        mysql,
        schema,
        epoch,
        journal,
    };
    // Without a price nothing can be ordered: a service that has never read its catalog is not ready.
    let has_begun = app.catalog.is_read() && app.tokens.are_known();
    let is_unready = epoch != "ok" || schema == "other" || full || !has_begun;
    let (code, status) = match (is_unready, mysql) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
        (false, "down") => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::OK, "ready"),
    };
    let mut response = json(code, &Ready { status, checks });
    if is_unready {
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    }
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
    if !app.config.metrics_open && !caller?.is_admin() {
        return Err(Problem::of(Code::Forbidden));
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], app.prometheus.render()).into_response())
}

/// PUT `/api/ops/selling`: stops all selling at once, on every instance, or resumes it.
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
    // It must work while MySQL is away: then a request that is repeated sets the same state again.
    let known = once::look(&app, idempotency.as_ref());
    if let Ok(Ok(Some(before))) = timeout(KEY_WAIT, known).await {
        return before;
    }
    let request = selling::switch(body.open, admin.user)?;
    if let Verdict::Refused(refusal) = app.ledger.decide(request).await? {
        return Err(refusal.into());
    }
    let subject = if body.open {
        "selling open"
    } else {
        "selling stopped"
    };
    audit::note(
        &app,
        &origin,
        Action::SellingSwitched,
        (Some(admin.user), subject),
    );
    let kept = once::keep(&app, idempotency, Ok(json(StatusCode::OK, &body)));
    match timeout(KEY_WAIT, kept).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) | Err(_) => Ok(json(StatusCode::OK, &body)),
    }
}

/// GET `/api/openapi.json`: this interface as an OpenAPI document.
pub async fn document() -> Response {
    json(StatusCode::OK, openapi::document())
}

/// Any path that has no route.
pub async fn not_found() -> Problem {
    Problem::of(Code::NotFound)
}

/// Any method that a route does not have.
pub async fn method_not_allowed() -> Problem {
    Problem::of(Code::MethodNotAllowed)
}
