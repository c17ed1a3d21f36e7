//! Service keys: `/api/keys`, for admins. A key's secret is told once.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use stock_common::clock::{datetime, rfc3339, unix_ms};
use stock_domain::service_key::{Scope, Scopes};
use stock_mysql::people::audit_log::Action;
use stock_mysql::people::service_keys::{self as table, NewServiceKey, ServiceKey};
use utoipa::ToSchema;

use super::audit;
use super::auth::Admin;
use super::extract::{Bodiless, BodyIn, Filter, Keyed, PathId, TimeIn};
use super::once::{Begun, Once};
use super::orders::{json, located};
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::check_text;
use crate::app::App;
use crate::http::code::Code;
use crate::service_keys::{hash_of, new_secret};

/// The most keys, because every instance keeps all of them in memory.
const KEYS_MAX: i64 = 10_000;
const NAME_MAX: usize = 100;

/// A key as an admin makes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "web shop", "scopes": ["orders:write", "orders:read"] }))]
pub struct ServiceKeyIn {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// The rights of the key.
    #[schema(value_type = Vec<ScopeName>, min_items = 1)]
    scopes: Vec<String>,
    /// The end of the key; never if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<TimeIn>,
}

impl BodyIn for ServiceKeyIn {}

/// A right of a service key.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(super) enum ScopeName {
    #[schema(rename = "orders:write")]
    OrdersWrite,
    #[schema(rename = "orders:read")]
    OrdersRead,
    #[schema(rename = "checkouts:write")]
    CheckoutsWrite,
    #[schema(rename = "checkouts:confirm")]
    CheckoutsConfirm,
    #[schema(rename = "stock:write")]
    StockWrite,
    #[schema(rename = "catalog:write")]
    CatalogWrite,
    #[schema(rename = "coupons:write")]
    CouponsWrite,
    #[schema(rename = "points:write")]
    PointsWrite,
    #[schema(rename = "events:read")]
    EventsRead,
    #[schema(rename = "metrics:read")]
    MetricsRead,
}

/// A key as an admin sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceKeyOut {
    key_id: u64,
    name: String,
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<&'static str>,
    /// Only in the answer that makes the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, pattern = "^sfk_")]
    secret: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceKeyListOut {
    items: Vec<ServiceKeyOut>,
    next_cursor: Option<String>,
}

impl ServiceKeyOut {
    fn new(key: ServiceKey, secret: Option<String>) -> Self {
        Self {
            key_id: key.id,
            name: key.name,
            scopes: Scopes::parse(&key.scopes)
                .iter()
                .map(Scope::as_str)
                .collect(),
            secret,
            created_at: rfc3339(unix_ms(key.created_at)),
            expires_at: key.expires_at.map(|at| rfc3339(unix_ms(at))),
        }
    }
}

/// A checked key, to be made.
struct Wanted {
    name: String,
    scopes: Scopes,
    expires_at: Option<NaiveDateTime>,
}

impl ServiceKeyIn {
    fn check(mut self, app: &App) -> Result<Wanted, Problem> {
        check_text(&mut self.name, NAME_MAX, "/name", 1)?;
        if self.scopes.is_empty() {
            let rule = "a key without a scope may do nothing";
            return Err(Problem::unprocessable("/scopes", rule));
        }
        let scopes = self.scopes.iter().enumerate().map(|(at, name)| {
            Scope::parse(name).ok_or_else(|| {
                let all = Scope::ALL.map(Scope::as_str).join(", ");
                let rule = format!("{name:?} is none of {all}");
                Problem::unprocessable(&format!("/scopes/{at}"), rule)
            })
        });
        let scopes = scopes.collect::<Result<_, _>>()?;
        let expires_ms = self.expires_at.map(TimeIn::unix_ms);
        let now_ms = u64::try_from(app.clock.now_ms()).unwrap_or(0);
        if expires_ms.is_some_and(|ends| ends <= now_ms) {
            return Err(Problem::unprocessable("/expiresAt", "is in the past"));
        }
        Ok(Wanted {
            name: self.name,
            scopes,
            expires_at: expires_ms.map(datetime),
        })
    }
}

fn created(key: ServiceKey, secret: Option<String>) -> Response {
    let path = format!("/api/keys/{}", key.id);
    let body = ServiceKeyOut::new(key, secret);
    located(json(StatusCode::CREATED, &body), path)
}

/// GET `/api/keys`.
///
/// # Errors
/// 403 for anybody but an admin.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?;
    let mut found = table::list(&app.pool, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let items = found.into_iter().map(|key| ServiceKeyOut::new(key, None));
    let items = items.collect();
    Ok(json(
        StatusCode::OK,
        &ServiceKeyListOut { items, next_cursor },
    ))
}

/// POST `/api/keys`: the answer tells the secret, once. Under the same Idempotency-Key the key is
/// told again, without its secret.
///
/// # Errors
/// 409 when there are too many, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        body, idempotency, ..
    }: Keyed<ServiceKeyIn>,
) -> Result<Response, Problem> {
    let wanted = body.check(&app)?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let (count, _) = table::version(once.connection()).await?;
    let made = if count >= KEYS_MAX {
        let text = format!("there are {KEYS_MAX} service keys already");
        Err(Problem::new(Code::ServiceKeyLimitReached, text))
    } else {
        let secret = new_secret();
        let key = NewServiceKey {
            name: &wanted.name,
            hash: &hash_of(&secret),
            scopes: wanted.scopes,
            created_by: admin.user,
            expires_at: wanted.expires_at,
        };
        let made = table::insert(once.connection(), key).await?;
        // The answer that is remembered under the key of the request does not tell the secret.
        let remembered = created(made.clone(), None);
        Ok((remembered, (made, secret)))
    };
    let (_, (made, secret)) = once.end(made).await?;
    let subject = format!("key:{} {}", made.id, wanted.scopes);
    let response = created(made, Some(secret));
    audit::note(
        &app,
        &origin,
        Action::ServiceKeyCreated,
        Some(admin.user),
        &subject,
    );
    Ok(response)
}

/// DELETE `/api/keys/{id}`: takes a key back. Other instances refuse it within seconds.
///
/// # Errors
/// 404.
pub async fn delete(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Bodiless { idempotency, .. }: Bodiless,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::ServiceKeyNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let hash = table::delete(once.connection(), id).await?;
    let deleted = hash.map(|hash| (StatusCode::NO_CONTENT.into_response(), hash));
    let (response, hash) = once.end(deleted.ok_or_else(missing)).await?;
    app.people.service_keys.forget(&hash);
    let subject = format!("key:{id}");
    audit::note(
        &app,
        &origin,
        Action::ServiceKeyDeleted,
        Some(admin.user),
        &subject,
    );
    Ok(response)
}
