//! A batch of orders of the shop's back end: each has a key and a verdict of its own.
//!
//! All orders of a batch are decided at the same time, so they share script calls. Redis decides a
//! part of them while the next part is read. An order that
//! cannot be read concerns nobody but itself. The same order under the same key, alone or in
//! another batch, gets the first answer again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use stock_common::id::{Position, UserId};
use stock_domain::order::Path;
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;

use super::{OrderIn, Placed, json, place};
use crate::app::App;
use crate::http::auth::{Admin, as_buyer, as_user};
use crate::http::extract::{BodyIn, ID_MAX, Keyed, idempotency_of, is_key, parse_json};
use crate::http::problem::Problem;

/// The most orders of a batch.
const ORDERS_MAX: usize = 1_000;
/// Orders that are read and decided by one task.
const PART: usize = 128;
/// The path under which an order of a batch is known by its key, as if it had come alone.
const ALONE: &str = "/api/redis/orders";

/// Orders of a shop's back end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "orders": [{ "key": "web-1", "buyer": "shopuser-77",
    "orderProducts": [{ "productId": 1, "quantity": 2 }], "totalAmount": 2_000,
    "deliveryType": "ONLINE" }] }))]
pub struct OrderBatchIn {
    /// Orders in the form `OrderIn`, each with `key`, its Idempotency-Key, and `buyer` or `userId`.
    /// Each is read by itself: one that does not fit is answered 422, the others are placed.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 1, max_items = 1_000)]
    orders: Vec<Box<RawValue>>,
}

impl BodyIn for OrderBatchIn {
    const BYTES_MAX: Option<usize> = Some(4 * 1024 * 1024);
}

/// The answer to an order of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OrderResultOut {
    /// The order's key, as far as it could be read.
    key: Option<String>,
    /// 201, or the status that the order would have had alone.
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false, pattern = "^[0-9]{1,20}$")]
    order_id: Option<Position>,
    /// Whether the answer was given before under the same key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, required = false)]
    problem: Option<Value>,
}

/// The answers, in the order of the orders.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct OrderBatchOut {
    results: Vec<OrderResultOut>,
}

impl OrderResultOut {
    fn new(key: Option<String>, placed: Result<Placed, Problem>) -> Self {
        match placed {
            Ok(placed) => Self {
                key,
                status: StatusCode::CREATED.as_u16(),
                order_id: Some(placed.id),
                replayed: placed.is_replayed,
                problem: None,
            },
            Err(problem) => Self {
                key,
                status: problem.status,
                order_id: None,
                replayed: problem.is_replayed,
                problem: Some(problem.to_value()),
            },
        }
    }
}

/// POST `/api/orders/batch`.
///
/// # Errors
/// 403 for anybody but a service key or an admin, 422 for too many orders.
pub async fn place_batch(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Keyed { body, .. }: Keyed<OrderBatchIn>,
) -> Result<Response, Problem> {
    let count = body.orders.len();
    if !(1..=ORDERS_MAX).contains(&count) {
        let text = format!("a batch has 1 to {ORDERS_MAX} orders, not {count}");
        return Err(Problem::unprocessable("/orders", text));
    }
    let mut orders = body.orders.into_iter();
    let parts = std::iter::from_fn(|| {
        let part: Vec<Box<RawValue>> = orders.by_ref().take(PART).collect();
        (!part.is_empty()).then_some(part)
    });
    let parts: Vec<_> = parts
        .map(|part| AbortOnDropHandle::new(tokio::spawn(place_part(Arc::clone(&app), part))))
        .collect();
    let mut results = Vec::with_capacity(count);
    for part in parts {
        // A task that broke may have placed orders. Each of them is told again under its key.
        results.extend(part.await.map_err(|_broken| Problem::outcome_unknown())?);
    }
    Ok(json(StatusCode::OK, &OrderBatchOut { results }))
}

async fn place_part(app: Arc<App>, orders: Vec<Box<RawValue>>) -> Vec<OrderResultOut> {
    // Boxed, because an order's future has some kilobytes, which the stream moves several times.
    let placing = orders.into_iter().map(|raw| {
        let app = &app;
        Box::pin(async move {
            let (key, order) = split(&raw);
            let placed = place_one(app, key.as_deref(), &raw, order).await;
            OrderResultOut::new(key, placed)
        })
    });
    stream::iter(placing).buffered(PART).collect().await
}

/// The key of an order, and the order without it.
fn split(raw: &RawValue) -> (Option<String>, Value) {
    let mut order: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    let key = order.as_object_mut().and_then(|of| of.remove("key"));
    match key {
        Some(Value::String(key)) => (Some(key), order),
        _ => (None, order),
    }
}

/// Places an order. Its text is read for what it asks, because it may not name a member twice; its
/// value without the key is what a repeated request must be.
async fn place_one(
    app: &App,
    key: Option<&str>,
    raw: &RawValue,
    mut order: Value,
) -> Result<Placed, Problem> {
    let key = key.filter(|key| is_key(key)).ok_or_else(|| {
        let rule = "an order's key has 1 to 255 visible ASCII characters";
        Problem::unprocessable("/key", rule)
    })?;
    order.sort_all_objects();
    let text = order.to_string();
    let mut body: OrderIn = parse_json(raw.get().as_bytes())?;
    body.key = None;
    let caller = match (&body.buyer, body.user_id) {
        (Some(buyer), _) => as_buyer(app, buyer).await?,
        (None, Some(user)) if user <= ID_MAX => as_user(UserId(user)),
        (None, _) => {
            let rule = "an order of a batch says for whom it is: buyer, or userId";
            return Err(Problem::unprocessable("/buyer", rule));
        }
    };
    let idempotency = idempotency_of(caller.user, key, ["POST", ALONE, "", &text]);
    let (buyer, benefits) = (body.buyer.clone(), body.benefits()?);
    let asked = body.into_asked(caller, buyer, Path::Redis, &app.selling.catalog)?;
    place(app, &asked, &benefits, Some(&idempotency)).await
}
