//! A call of a seed's client, and the calls of the contract that answer it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, RawPathParams, Request};
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower_sessions::Session;

use super::forms::{Fields, Pairs};
use crate::app::App;
use crate::http::auth::{AnyCaller, Caller, Counted, Lease};
use crate::http::code::Code;
use crate::http::extract::{JSON, check_type, parse_json, read_body};
use crate::http::origin::Origin;
use crate::http::problem::Problem;
use crate::pages::api::Api;

/// Where a call stands beside the seed's base path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere else: the documented path is the contract's.
    Base,
    /// At its documented path, which no other interface has.
    Owned,
    /// At its documented path, for requests that name what only the seed knows.
    Shared,
}

/// A call of a seed: its route, and what its OpenAPI document says of it.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) route: MethodRouter<Arc<App>>,
    pub(super) place: Place,
    pub(super) about: &'static str,
    /// Whether nobody has to say who they are.
    pub(super) is_open: bool,
    /// Names of the query.
    pub(super) query: &'static [&'static str],
    /// An example of the body.
    pub(super) body: Option<Value>,
    /// The status of success.
    pub(super) status: StatusCode,
}

impl Call {
    fn new<H, T>(place: Place, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self {
            method,
            path,
            route: on(filter, handler),
            place,
            about: "",
            is_open: false,
            query: &[],
            body: None,
            status: StatusCode::OK,
        }
    }

    /// A call under the base path alone.
    pub(super) fn base<H, T>(method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        Self::new(Place::Base, method, path, handler)
    }

    /// A call whose documented path no other interface has.
    pub(super) fn owned<H, T>(method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        Self::new(Place::Owned, method, path, handler)
    }

    /// A call whose documented path is the contract's too.
    pub(super) fn shared<H, T>(method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        Self::new(Place::Shared, method, path, handler)
    }

    pub(super) fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    pub(super) fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn answers(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

/// A request of a seed's client.
pub(super) struct Ask {
    pub(super) app: Arc<App>,
    api: Api,
    parts: Parts,
    body: Result<Bytes, Problem>,
    ids: Vec<String>,
}

/// An answer of the contract.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Value,
    is_replayed: bool,
}

impl FromRequest<Arc<App>> for Ask {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let api = parts.extensions.get::<Api>().cloned();
        let ids = RawPathParams::from_request_parts(&mut parts, app).await;
        let ids = ids.iter().flatten().map(|(_, text)| text.to_owned());
        let ids = ids.collect();
        let body = read_body(&parts, body, app.config.http.http_body_bytes_max).await;
        Ok(Self {
            app: Arc::clone(app),
            api: api.ok_or_else(|| Problem::of(Code::Internal))?,
            parts,
            body,
            ids,
        })
    }
}

/// Headers of the client that belong to its own body, connection or cache.
const OWN_HEADERS: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
];

impl Ask {
    /// The caller.
    pub(super) async fn caller(&mut self) -> Result<Caller, Problem> {
        Caller::from_request_parts(&mut self.parts, &self.app).await
    }

    /// The caller, who must be an admin.
    pub(super) async fn admin(&mut self) -> Result<Caller, Problem> {
        let caller = self.caller().await?;
        match caller.is_admin() {
            true => Ok(caller),
            false => Err(Problem::of(Code::Forbidden)),
        }
    }

    /// The caller, if there is one.
    pub(super) async fn any_caller(&mut self) -> Result<Option<Caller>, Problem> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(&mut self.parts, &self.app).await?;
        Ok(caller)
    }

    pub(super) fn session(&self) -> Result<Session, Problem> {
        let session = self.parts.extensions.get::<Session>().cloned();
        session.ok_or_else(|| Problem::of(Code::Internal))
    }

    pub(super) fn origin(&self) -> Result<Origin, Problem> {
        let origin = self.parts.extensions.get::<Origin>().cloned();
        origin.ok_or_else(|| Problem::of(Code::Internal))
    }

    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub(super) const fn method(&self) -> &Method {
        &self.parts.method
    }

    /// The first id of the path, as it was sent.
    pub(super) fn id(&self) -> &str {
        self.ids.first().map_or("", String::as_str)
    }

    /// The first id of the path, if it is a number. Another text must not become part of a path of
    /// the contract.
    pub(super) fn number(&self) -> Option<u64> {
        let id = self.id();
        let is_plain = id.bytes().all(|byte| byte.is_ascii_digit());
        id.parse().ok().filter(|_| is_plain)
    }

    /// The second id of the path, as it was sent.
    pub(super) fn second_id(&self) -> &str {
        self.ids.get(1).map_or("", String::as_str)
    }

    /// The members of the JSON body.
    pub(super) fn fields(&self) -> Result<Fields, Problem> {
        let body = self.body.as_ref().map_err(Problem::clone)?;
        check_type(&self.parts.headers, JSON)?;
        parse_json(body).map(Fields)
    }

    pub(super) fn query(&self) -> Result<Pairs, Problem> {
        Pairs::of(self.parts.uri.query().unwrap_or_default())
    }

    /// The URL of this request without its query, as the client sees it; its path alone for a
    /// client that names no host.
    pub(super) fn url(&self) -> String {
        let scheme = match self.app.config.http.public_tls {
            true => "https",
            false => "http",
        };
        let host = self.parts.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let original = self.parts.extensions.get::<OriginalUri>();
        let path = original.map_or(self.parts.uri.path(), |OriginalUri(uri)| uri.path());
        match host {
            Some(host) => format!("{scheme}://{host}{path}"),
            None => path.to_owned(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Problem> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Answer, Problem> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Calls the contract as the client, under the client's Idempotency-Key.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, Problem> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_not_a_path| Problem::of(Code::NotFound))?;
        let headers = request.headers_mut();
        headers.clone_from(&self.parts.headers);
        for name in &OWN_HEADERS {
            headers.remove(name);
        }
        if let Some(body) = body {
            let kind = header::HeaderValue::from_static(JSON);
            headers.insert(header::CONTENT_TYPE, kind);
            *request.body_mut() = Body::from(body.to_string());
        }
        let known = &self.parts.extensions;
        let extensions = request.extensions_mut();
        extensions.insert(self.origin()?);
        if let Some(session) = known.get::<Session>() {
            extensions.insert(session.clone());
        }
        // A caller who is known already is not counted once more.
        if let Some(caller) = known.get::<Caller>() {
            extensions.insert(*caller);
        }
        if let Some(lease) = known.get::<Lease>() {
            extensions.insert(*lease);
        }
        if let Some(counted) = known.get::<Counted>() {
            extensions.insert(*counted);
        }
        let mut response = self.api.call(request).await;
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            return Err(problem);
        }
        let is_replayed = response.headers().contains_key("idempotency-replayed");
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| Problem::internal(&error))?.to_bytes();
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).map_err(|error| Problem::internal(&error))?,
        };
        Ok(Answer { body, is_replayed })
    }
}

fn unanswered(name: &str) -> Problem {
    tracing::error!(name, "the contract's answer to an adapter lacks a member");
    // What was asked for may have been done.
    Problem::of(Code::Internal).behind_a_change()
}

impl Answer {
    /// A member of the body; null when it is absent.
    pub(super) fn member(&self, name: &str) -> Value {
        self.body.get(name).cloned().unwrap_or_default()
    }

    /// A whole number that the contract always answers, such as an id or money.
    pub(super) fn number(&self, name: &str) -> Result<i64, Problem> {
        let value = self.body.get(name).and_then(Value::as_i64);
        value.ok_or_else(|| unanswered(name))
    }

    /// A text that the contract always answers.
    pub(super) fn text(&self, name: &str) -> Result<&str, Problem> {
        let value = self.body.get(name).and_then(Value::as_str);
        value.ok_or_else(|| unanswered(name))
    }

    /// Answers the client with this status and body.
    pub(super) fn becomes(&self, status: StatusCode, body: &Value) -> Response {
        let response = crate::http::orders::json(status, body);
        match self.is_replayed {
            true => crate::http::orders::replayed(response),
            false => response,
        }
    }
}
