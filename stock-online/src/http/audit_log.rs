//! The audit log, as an admin reads it; [`super::audit`] writes it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use stock_common::clock::{rfc3339, unix_ms};
use stock_mysql::people::audit_log::{self as table, Line};
use utoipa::ToSchema;

use super::auth::Admin;
use super::extract::Filter;
use super::orders::json;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use crate::app::App;

/// A line of the audit log: actor, action, time and address.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditLineOut {
    id: u64,
    #[schema(format = DateTime)]
    at: String,
    action: String,
    actor_id: Option<u64>,
    subject: String,
    address: String,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditLogOut {
    items: Vec<AuditLineOut>,
    next_cursor: Option<String>,
}

impl From<Line> for AuditLineOut {
    fn from(line: Line) -> Self {
        Self {
            id: line.id,
            at: rfc3339(unix_ms(line.at)),
            action: line.action,
            actor_id: line.actor_id,
            subject: line.subject,
            address: line.address,
            request_id: line.request_id,
        }
    }
}

/// GET `/api/ops/audit-log`: admin; newest first.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Filter(asked): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(asked.limit)?;
    let before = cursor_of(asked.cursor.as_deref())?;
    let mut found = table::list(&app.pool, before, limit + 1).await?;
    let page = AuditLogOut {
        next_cursor: cut(&mut found, limit).map(|last| last.id.to_string()),
        items: found.into_iter().map(AuditLineOut::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}
