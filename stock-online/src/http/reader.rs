//! Readers: a user who has just written reads their own write, on any instance, however far a
//! replica lags ([`stock_engine::reads`]).
//!
//! [`note_writers`] wraps every route. It remembers the caller of every request that may have
//! written, which a 4xx has not, before the caller is answered. Without replicas there is no such
//! layer, and every reader is `Reader::Other`.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use stock_common::id::UserId;
use stock_engine::reads::Reader;

use super::auth::AnyCaller;
use crate::app::App;

/// Slot for the caller of a request that may write.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer(Arc<OnceLock<UserId>>);

impl Writer {
    /// Notes the caller of a request, if the request has a slot.
    pub(super) fn note(parts: &Parts, user: UserId) {
        if let Some(Self(known)) = parts.extensions.get() {
            known.get_or_init(|| user);
        }
    }
}

/// Remembers the caller as a writer. A refused request has changed nothing; a failed one may have.
pub(super) async fn note_writers(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let Writer(known) = Writer::default();
    request.extensions_mut().insert(Writer(Arc::clone(&known)));
    let response = next.run(request).await;
    if !response.status().is_client_error()
        && let Some(user) = known.get()
    {
        app.reads.wrote(&app.ledger, *user).await;
    }
    response
}

/// The reader for whom a handler reads.
#[derive(Debug, Clone, Copy)]
pub struct Reading(pub Reader);

impl FromRequestParts<Arc<App>> for Reading {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        if !app.reads.has_replicas() {
            return Ok(Self(Reader::Other));
        }
        // A caller who cannot be identified may have written.
        let Ok(AnyCaller(caller)) = AnyCaller::from_request_parts(parts, app).await else {
            return Ok(Self(Reader::Writer));
        };
        let user = caller.map(|caller| caller.user);
        Ok(Self(app.reads.reader(&app.ledger, user).await))
    }
}
