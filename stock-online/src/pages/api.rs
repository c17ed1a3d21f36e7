//! The interface, called in this process: a page gets the answer that a client would get.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

use crate::http::auth::Caller;
use crate::http::origin::Origin;
use crate::http::problem::Problem;

/// Every route of the interface.
#[derive(Clone)]
pub struct Api {
    routes: Router,
}

impl Api {
    /// Calls these routes.
    #[must_use]
    pub const fn new(routes: Router) -> Self {
        Self { routes }
    }

    /// The answer to GET of a path, for a caller or for an anonymous client.
    ///
    /// # Errors
    /// The interface's problem.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        caller: Option<Caller>,
        origin: Origin,
    ) -> Result<T, Problem> {
        let body = self.read(path, caller, origin).await?;
        serde_json::from_slice(&body).map_err(|error| Problem::internal(&error))
    }

    /// Like [`Self::get`], with the answer as bytes.
    ///
    /// # Errors
    /// The interface's problem.
    pub async fn read(
        &self,
        path: &str,
        caller: Option<Caller>,
        origin: Origin,
    ) -> Result<Bytes, Problem> {
        let mut request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| Problem::internal(&error))?;
        let extensions = request.extensions_mut();
        extensions.insert(origin);
        if let Some(caller) = caller {
            // A caller who is known already is not counted once more.
            extensions.insert(caller);
        }
        let mut response = self.call(request).await;
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            return Err(problem);
        }
        let body = response.into_body().collect().await;
        Ok(body.map_err(|error| Problem::internal(&error))?.to_bytes())
    }

    /// The answer to any request.
    pub async fn call(&self, request: Request<Body>) -> Response {
        match self.routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
