//! A store's till: sells and cancels, synchronously.
//!
//! A sale takes the store's stock and, where the store shares it, the online stock too, all or
//! nothing. The buyer is not known: the order is the till's own.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use stock_common::id::Position;
use stock_common::money::Money;
use stock_domain::order::{DeliveryType, Path};
use stock_domain::pricing::AskedOrder;
use stock_engine::lookup;
use utoipa::ToSchema;

use super::{Till, find};
use crate::app::App;
use crate::http::code::Code;
use crate::http::extract::{BodyIn, Keyed, Object, PathIds};
use crate::http::orders::{
    Benefits, LineIn, NothingIn, asked_lines, cancel_synchronous, place_synchronous,
};
use crate::http::problem::Problem;

/// A sale at a till.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "orderProducts": [{ "productId": 1, "quantity": 2 }], "totalAmount": 2_000 }))]
pub struct TillOrderIn {
    /// If given, it must be the token's user.
    user_id: Option<u64>,
    /// Lines of one product are added up.
    #[schema(value_type = Vec<LineIn>, min_items = 1, max_items = 100)]
    order_products: Vec<Object<LineIn>>,
    /// Σ `unitPrice · quantity`.
    #[schema(value_type = u64, maximum = 9_007_199_254_740_991_u64)]
    total_amount: Money,
}

impl BodyIn for TillOrderIn {}

/// POST `/api/stores/{storeId}/orders`.
///
/// # Errors
/// The order's problem; 403 for another store's till.
pub async fn place(
    State(app): State<Arc<App>>,
    till: Till,
    Keyed {
        body, idempotency, ..
    }: Keyed<TillOrderIn>,
) -> Result<Response, Problem> {
    let lines = asked_lines(&body.order_products, &app.selling.catalog)?;
    if body.user_id.is_some_and(|user| user != till.caller.user.0) {
        return Err(Problem::of(Code::UserMismatch));
    }
    let store = find(&app, till.store).await?;
    let asked = AskedOrder {
        user_id: till.caller.user,
        path: Path::Till,
        delivery_type: DeliveryType::Pickup,
        store_id: Some(store.id.0),
        lines,
        total_amount: Some(body.total_amount),
        shares_online_stock: store.fields.shares_online_stock,
        offline: None,
        buyer: None,
        reference: None,
    };
    place_synchronous(&app, asked, Benefits::default(), idempotency).await
}

/// PATCH `/api/stores/{storeId}/orders/{orderId}/cancel`.
///
/// # Errors
/// 404 for an order of another store, 409 when it is final.
pub async fn cancel(
    State(app): State<Arc<App>>,
    till: Till,
    ids: Result<PathIds, Problem>,
    Keyed {
        body: NothingIn {},
        idempotency,
        ..
    }: Keyed<NothingIn>,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::OrderNotFound);
    let PathIds(_, order) = ids.map_err(|_not_numbers| missing())?;
    let found = lookup::find(&app.pool, &app.ledger, Position::new(order)).await?;
    let is_own = |order: &stock_domain::order::Order| {
        order.path == Path::Till && order.store_id == Some(till.store.0)
    };
    let found = found
        .filter(|found| is_own(&found.order))
        .ok_or_else(missing)?;
    cancel_synchronous(&app, found, till.caller, idempotency).await
}
