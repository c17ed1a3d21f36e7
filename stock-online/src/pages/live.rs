//! `/live/levels`: levels as they change, for everybody who looks at a page; clients use `/api/events/levels`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::app::App;
use crate::http::events::{self, EventsIn};
use crate::http::extract::Filter;
use crate::http::problem::Problem;

/// GET `/live/levels`.
///
/// # Errors
/// 422 for ids that are none, 503 when too many watch.
pub(super) async fn levels(
    State(app): State<Arc<App>>,
    Filter(query): Filter<EventsIn>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    events::stream(app, &query, &headers)
}
