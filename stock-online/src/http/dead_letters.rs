//! Dead letters: an admin lists them and retries them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use stock_common::clock::{rfc3339, unix_ms};
use stock_common::id::Position;
use stock_mysql::dead_letters::{self as table, DeadLetter, RetryError};
use stock_mysql::people::audit_log::Action;
use utoipa::ToSchema;

use super::auth::Admin;
use super::extract::{Bodiless, Filter, PathId};
use super::orders::json;
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::{audit, once};
use crate::app::App;
use crate::http::code::Code;

/// An entry whose own tables could not be written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetterOut {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    position: Position,
    kind: String,
    reason: String,
    attempts: u32,
    /// `OPEN`, `COMPENSATED`, `CANCELLED`, `KEPT` (for a person) or `RESOLVED`.
    state: String,
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetterListOut {
    items: Vec<DeadLetterOut>,
    next_cursor: Option<String>,
}

impl From<DeadLetter> for DeadLetterOut {
    fn from(letter: DeadLetter) -> Self {
        Self {
            position: letter.position,
            kind: letter.kind,
            reason: letter.reason,
            attempts: letter.attempts,
            state: letter.state,
            created_at: rfc3339(unix_ms(letter.created_at)),
        }
    }
}

/// GET `/api/ops/dead-letters`: admin; newest first, resolved ones too.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Filter(asked): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(asked.limit)?;
    let before = cursor_of(asked.cursor.as_deref())?.map(Position::new);
    let mut found = table::page(&app.pool, before, limit + 1).await?;
    let page = DeadLetterListOut {
        next_cursor: cut(&mut found, limit).map(|last| last.position.to_string()),
        items: found.into_iter().map(DeadLetterOut::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}

/// POST `/api/ops/dead-letters/{position}/retry`: admin; writes the entry's own tables again. A
/// retry never sells again.
///
/// # Errors
/// 404, 409 when the tables still refuse it.
pub async fn retry(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    origin: Origin,
    position: Result<PathId, Problem>,
    Bodiless { idempotency, .. }: Bodiless,
) -> Result<Response, Problem> {
    let missing = || Problem::new(Code::NotFound, "there is no such dead letter");
    let position = Position::new(position.map_err(|_malformed| missing())?.0);
    let letter = table::find(&app.pool, position).await?;
    let mut letter = letter.ok_or_else(missing)?;
    if let Some(before) = once::look(&app, idempotency.as_ref()).await? {
        return before;
    }
    let is_due = letter.state != "RESOLVED";
    // A resolved letter stays resolved, however often a retry is asked for.
    let retried = match is_due {
        true => table::retry(&app.pool, position).await.map_err(stays),
        false => Ok(()),
    };
    "RESOLVED".clone_into(&mut letter.state);
    if is_due && retried.is_ok() {
        let subject = format!("entry:{position}");
        let action = Action::DeadLetterRetried;
        audit::note(&app, &origin, action, Some(admin.user), &subject);
    }
    let retried = retried.map(|()| json(StatusCode::OK, &DeadLetterOut::from(letter)));
    once::keep(&app, idempotency, retried).await
}

fn stays(error: RetryError) -> Problem {
    match error {
        RetryError::Database(error) if !stock_mysql::is_data_error(&error) => error.into(),
        RetryError::Record(error) if !error.is_poison() => {
            tracing::warn!(%error, "mysql did not answer");
            Problem::of(Code::DatabaseUnavailable)
        }
        RetryError::Open => Problem::new(
            Code::RequestInProgress,
            "its order is being taken back; send it again when that is done",
        ),
        error @ (RetryError::Database(_)
        | RetryError::Missing
        | RetryError::Entry(_)
        | RetryError::Record(_)) => {
            // The cause names tables and columns, so only the log shows it.
            tracing::warn!(%error, "a dead letter stays one");
            Problem::of(Code::DeadLetterStays)
        }
    }
}
