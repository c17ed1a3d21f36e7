//! Webhooks: `/api/webhooks`, their deliveries, and resending one; for admins.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use sqlx::{MySqlConnection, MySqlExecutor};
use stock_common::clock::{rfc3339, unix_ms};
use stock_domain::webhook::{EVENTS, STOCK_CHANGED, Secret};
use stock_mysql::people::audit_log::Action;
use stock_mysql::webhooks::{self as table, Delivery, Webhook, WebhookState};
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, Caller};
use super::extract::{Bodiless, BodyIn, Filter, Keyed, PathId, PathIds};
use super::once::{Begun, Once};
use super::orders::{json, located};
use super::origin::Origin;
use super::page::{cursor_of, cut, limit_of};
use super::problem::Problem;
use crate::app::App;
use crate::http::code::Code;
use crate::webhooks::{check_url, message_id};

/// Maximum number of webhooks, because each is looked at five times a second.
const WEBHOOKS_MAX: usize = 100;

/// A webhook as an admin writes it. PUT takes every field, PATCH only the fields that are given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "url": "https://shop.example.com/stock", "events": ["stock.changed"] }))]
pub struct WebhookIn {
    /// An https URL outside the internal network.
    #[schema(max_length = 2_000)]
    url: Option<String>,
    /// The events to send; all if absent.
    events: Option<Vec<String>>,
    /// `whsec_` and base64 of 24 to 64 bytes; random if absent.
    secret: Option<String>,
    /// `PAUSED` keeps events for later; `ACTIVE` goes on where the webhook stopped.
    #[schema(pattern = "^(ACTIVE|PAUSED)$")]
    state: Option<String>,
}

impl BodyIn for WebhookIn {}

/// A webhook as an admin sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookOut {
    id: u64,
    url: String,
    events: Vec<String>,
    #[schema(pattern = "^(ACTIVE|PAUSED|DISABLED)$")]
    state: &'static str,
    /// Number of the journal's entry up to which everything was delivered.
    sent_number: u64,
    /// Only in the answer that tells the secret for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookListOut {
    items: Vec<WebhookOut>,
    next_cursor: Option<String>,
}

/// The page and the filter of a list of deliveries.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveriesIn {
    limit: Option<u32>,
    cursor: Option<String>,
    state: Option<DeliveryState>,
}

/// State of a delivery.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliveryState {
    /// It waits for its next attempt.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Failed,
}

/// A delivery as an admin sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryOut {
    id: u64,
    /// The id by which the receiver knows it.
    webhook_message_id: String,
    /// Numbers of the first and the last journal entry that it tells of.
    first_number: u64,
    last_number: u64,
    #[schema(pattern = "^(PENDING|DELIVERED|FAILED)$")]
    state: String,
    attempts: u32,
    #[schema(value_type = String, format = DateTime)]
    next_attempt_at: String,
    last_status: Option<u16>,
    last_error: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryListOut {
    items: Vec<DeliveryOut>,
    next_cursor: Option<String>,
}

fn time(at: NaiveDateTime) -> String {
    rfc3339(unix_ms(at))
}

impl WebhookOut {
    fn new(webhook: Webhook, secret: Option<&Secret>) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url,
            events: webhook.events,
            state: webhook.state.as_str(),
            sent_number: webhook.sent_number,
            secret: secret.map(Secret::reveal),
            created_at: time(webhook.created_at),
        }
    }
}

impl DeliveryOut {
    fn new(webhook: u64, of: Delivery) -> Self {
        Self {
            id: of.id,
            webhook_message_id: message_id(webhook, of.id),
            first_number: of.first_number,
            last_number: of.last_number,
            state: of.state,
            attempts: of.attempts,
            next_attempt_at: time(of.next_attempt_at),
            last_status: of.last_status,
            last_error: of.last_error,
            created_at: time(of.created_at),
        }
    }
}

/// A checked webhook, to be written.
struct Wanted {
    url: String,
    events: Vec<String>,
    state: WebhookState,
    secret: Option<Secret>,
}

impl WebhookIn {
    /// Lays the given fields over `base`, and checks the whole.
    fn over(self, app: &App, base: Option<Webhook>) -> Result<Wanted, Problem> {
        let wrong = |pointer: &str, rule: String| Problem::unprocessable(pointer, rule);
        let (old_url, old_events, old_state) = match base {
            Some(base) => (Some(base.url), base.events, base.state),
            None => (None, vec![STOCK_CHANGED.to_owned()], WebhookState::Active),
        };
        let url = self.url.or(old_url);
        let url = url.ok_or_else(|| wrong("/url", "is required".to_owned()))?;
        let is_allowed = app.config.webhooks.webhook_internal_allowed;
        check_url(&url, is_allowed).map_err(|error| wrong("/url", error.to_string()))?;
        let events = match self.events {
            Some(events) if events.is_empty() => EVENTS.map(str::to_owned).to_vec(),
            Some(events) => events,
            None => old_events,
        };
        if let Some(unknown) = events
            .iter()
            .find(|event| !EVENTS.contains(&event.as_str()))
        {
            let rule = format!("{unknown:?} is none of {}", EVENTS.join(", "));
            return Err(wrong("/events", rule));
        }
        let state = match self.state.as_deref().map(WebhookState::parse) {
            None => old_state,
            Some(Some(state)) if state != WebhookState::Disabled => state,
            Some(_) => return Err(wrong("/state", "is ACTIVE or PAUSED".to_owned())),
        };
        let secret = self.secret.map(|secret| secret.parse()).transpose();
        let secret = secret.map_err(|error: stock_domain::webhook::SecretError| {
            wrong("/secret", error.to_string())
        })?;
        let mut events = events;
        events.sort_unstable();
        events.dedup();
        Ok(Wanted {
            url,
            events,
            state,
            secret,
        })
    }
}

fn missing() -> Problem {
    Problem::of(Code::WebhookNotFound)
}

async fn find(app: &App, id: Result<PathId, Problem>) -> Result<Webhook, Problem> {
    find_in(&app.pool, id).await
}

async fn find_in(
    executor: impl MySqlExecutor<'_>,
    id: Result<PathId, Problem>,
) -> Result<Webhook, Problem> {
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    table::find(executor, id).await?.ok_or_else(missing)
}

fn note(app: &Arc<App>, origin: &Origin, action: Action, admin: Caller, id: u64) {
    let subject = format!("webhook:{id}");
    audit::note(app, origin, action, Some(admin.user), &subject);
}

/// GET `/api/webhooks`.
///
/// # Errors
/// 403 for anybody but an admin.
pub async fn list(State(app): State<Arc<App>>, Admin(_): Admin) -> Result<Response, Problem> {
    let all = table::all(&app.pool).await?;
    let items = all
        .into_iter()
        .map(|webhook| WebhookOut::new(webhook, None));
    let body = WebhookListOut {
        items: items.collect(),
        next_cursor: None,
    };
    Ok(json(StatusCode::OK, &body))
}

/// POST `/api/webhooks`: the webhook tells of everything from now on.
///
/// # Errors
/// 409 when there are too many, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        body, idempotency, ..
    }: Keyed<WebhookIn>,
) -> Result<Response, Problem> {
    let wanted = body.over(&app, None)?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let made = insert(once.connection(), wanted).await;
    let (response, id) = once.end(made).await?;
    note(&app, &origin, Action::WebhookCreated, admin, id);
    Ok(response)
}

async fn insert(
    connection: &mut MySqlConnection,
    wanted: Wanted,
) -> Result<(Response, u64), Problem> {
    if table::all(&mut *connection).await?.len() >= WEBHOOKS_MAX {
        let text = format!("there are {WEBHOOKS_MAX} webhooks already");
        return Err(Problem::new(Code::WebhookLimitReached, text));
    }
    let secret = wanted.secret.unwrap_or_else(Secret::random);
    let (url, events) = (wanted.url.as_str(), wanted.events.as_slice());
    let id = table::insert(connection, url, events, &secret.reveal()).await?;
    if wanted.state != WebhookState::Active {
        table::update(connection, id, url, events, wanted.state).await?;
    }
    let made = table::find(connection, id).await?.ok_or_else(missing)?;
    let body = json(StatusCode::CREATED, &WebhookOut::new(made, Some(&secret)));
    Ok((located(body, format!("/api/webhooks/{id}")), id))
}

/// GET `/api/webhooks/{id}`.
///
/// # Errors
/// 404.
pub async fn show(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let webhook = find(&app, id).await?;
    Ok(json(StatusCode::OK, &WebhookOut::new(webhook, None)))
}

/// PUT `/api/webhooks/{id}`: replaces the webhook; the secret stays unless another is given.
///
/// # Errors
/// 404, 422.
pub async fn replace(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<WebhookIn>,
) -> Result<Response, Problem> {
    let wanted = body.over(&app, None)?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let replaced = match find_in(once.connection(), id).await {
        Ok(webhook) => write(once.connection(), webhook.id, wanted).await,
        Err(problem) => Err(problem),
    };
    let (response, id) = once.end(replaced).await?;
    note(&app, &origin, Action::WebhookChanged, admin, id);
    Ok(response)
}

/// PATCH `/api/webhooks/{id}`.
///
/// # Errors
/// 404, 422.
pub async fn edit(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<WebhookIn>,
) -> Result<Response, Problem> {
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let edited = match find_in(once.connection(), id).await {
        Ok(webhook) => {
            let id = webhook.id;
            match body.over(&app, Some(webhook)) {
                Ok(wanted) => write(once.connection(), id, wanted).await,
                Err(problem) => Err(problem),
            }
        }
        Err(problem) => Err(problem),
    };
    let (response, id) = once.end(edited).await?;
    note(&app, &origin, Action::WebhookChanged, admin, id);
    Ok(response)
}

async fn write(
    connection: &mut MySqlConnection,
    id: u64,
    wanted: Wanted,
) -> Result<(Response, u64), Problem> {
    let (url, events) = (wanted.url.as_str(), wanted.events.as_slice());
    table::update(connection, id, url, events, wanted.state).await?;
    if let Some(secret) = &wanted.secret {
        table::set_secret(&mut *connection, id, &secret.reveal()).await?;
    }
    let webhook = table::find(connection, id).await?.ok_or_else(missing)?;
    Ok((json(StatusCode::OK, &WebhookOut::new(webhook, None)), id))
}

/// DELETE `/api/webhooks/{id}`.
///
/// # Errors
/// 404.
pub async fn delete(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Bodiless { idempotency, .. }: Bodiless,
) -> Result<Response, Problem> {
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let done = match table::delete(once.connection(), id).await {
        Ok(true) => Ok((StatusCode::NO_CONTENT.into_response(), ())),
        Ok(false) => Err(missing()),
        Err(error) => Err(error.into()),
    };
    let (response, ()) = once.end(done).await?;
    table::delete_log(&app.pool, id).await?;
    note(&app, &origin, Action::WebhookDeleted, admin, id);
    Ok(response)
}

/// GET `/api/webhooks/{id}/deliveries`: newest first.
///
/// # Errors
/// 404, 422.
pub async fn deliveries(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    id: Result<PathId, Problem>,
    Filter(query): Filter<DeliveriesIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?;
    let webhook = find(&app, id).await?.id;
    let state = query.state.map(|state| match state {
        DeliveryState::Pending => "PENDING",
        DeliveryState::Delivered => "DELIVERED",
        DeliveryState::Failed => "FAILED",
    });
    let mut found = table::deliveries(&app.pool, webhook, state, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let items = found.into_iter().map(|of| DeliveryOut::new(webhook, of));
    let body = DeliveryListOut {
        items: items.collect(),
        next_cursor,
    };
    Ok(json(StatusCode::OK, &body))
}

/// POST `/api/webhooks/{id}/deliveries/{deliveryId}/resend`: sends the delivery once more, under
/// the same id.
///
/// # Errors
/// 404.
pub async fn resend(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    ids: Result<PathIds, Problem>,
    Bodiless { idempotency, .. }: Bodiless,
) -> Result<Response, Problem> {
    let PathIds(webhook, delivery) = ids.map_err(|_not_numbers| missing())?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let done = match table::resend(once.connection(), webhook, delivery).await {
        Ok(true) => Ok((StatusCode::ACCEPTED.into_response(), ())),
        Ok(false) => Err(missing()),
        Err(error) => Err(error.into()),
    };
    let (response, ()) = once.end(done).await?;
    Ok(response)
}
