//! What orders look like on the wire, in and out.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use stock_common::clock::rfc3339;
use stock_common::error::Code;
use stock_common::id::{Position, ProductId};
use stock_common::money::Money;
use stock_domain::order::{DeliveryType, LINES_MAX, Order, OrderStatus, Path, Quantity};
use stock_domain::pricing::{AskedLine, AskedOrder};

use crate::http::auth::Caller;
use crate::http::extract::BodyIn;
use crate::http::problem::Problem;

/// An order as a client asks for it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderIn {
    user_id: Option<u64>,
    order_products: Vec<LineIn>,
    total_amount: Money,
    #[serde(alias = "deliveryTypeRequest")]
    delivery_type: DeliveryType,
    store_id: Option<u64>,
    coupon_code: Option<String>,
    use_points: Option<Money>,
    reservation_id: Option<Position>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LineIn {
    product_id: u64,
    quantity: Quantity,
    unit_price: Option<Money>,
}

/// The body of a cancel: nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NothingIn {}

impl BodyIn for OrderIn {}

impl BodyIn for NothingIn {
    const MAY_BE_MISSING: bool = true;
}

/// What to list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListIn {
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<String>,
    pub(super) user_id: Option<u64>,
    pub(super) status: Option<OrderStatus>,
}

/// An order as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderOut<'a> {
    order_id: Position,
    order_status: OrderStatus,
    delivery_type: DeliveryType,
    store_id: Option<u64>,
    order_product_infos: Vec<LineOut<'a>>,
    discount_amount: i64,
    coupon_discount_amount: i64,
    used_points: i64,
    earned_points: i64,
    total_amount: Money,
    created_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LineOut<'a> {
    product_id: ProductId,
    product_name: &'a str,
    quantity: Quantity,
    unit_price: Money,
    sub_total: Money,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListOut<'a> {
    pub(super) items: Vec<OrderOut<'a>>,
    pub(super) next_cursor: Option<String>,
}

impl<'a> OrderOut<'a> {
    pub(super) fn new(id: Position, order: &'a Order, status: OrderStatus) -> Self {
        Self {
            order_id: id,
            order_status: status,
            delivery_type: order.delivery_type,
            store_id: order.store_id,
            order_product_infos: order
                .lines
                .iter()
                .map(|line| LineOut {
                    product_id: line.product_id,
                    product_name: &line.product_name,
                    quantity: line.quantity,
                    unit_price: line.unit_price,
                    sub_total: line.sub_total,
                })
                .collect(),
            discount_amount: order.discount_amount(),
            coupon_discount_amount: 0,
            used_points: 0,
            earned_points: 0,
            total_amount: order.total_amount,
            created_at: rfc3339(i64::try_from(id.unix_ms()).unwrap_or_default()),
        }
    }
}

/// JSON with a status.
pub(in crate::http) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let kind = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, kind)], bytes).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

pub(super) fn created(id: Position, order: &Order, status: OrderStatus) -> Response {
    let mut response = json(StatusCode::CREATED, &OrderOut::new(id, order, status));
    if let Ok(location) = HeaderValue::try_from(format!("/api/orders/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Marks an answer as one that was given before under the same key.
pub(in crate::http) fn replayed(mut response: Response) -> Response {
    let yes = HeaderValue::from_static("true");
    response.headers_mut().insert("idempotency-replayed", yes);
    response
}

impl OrderIn {
    /// Checks what can be checked without the catalog.
    pub(super) fn into_asked(self, caller: Caller, path: Path) -> Result<AskedOrder, Problem> {
        let lines = self.order_products.len();
        if !(1..=LINES_MAX).contains(&lines) {
            let text = format!("an order has 1 to {LINES_MAX} lines, not {lines}");
            return Err(Problem::unprocessable("/orderProducts", text));
        }
        let store_id = match (self.delivery_type, self.store_id) {
            (DeliveryType::Online, _) => None,
            (_, Some(store)) if store > 0 => Some(store),
            _ => {
                return Err(Problem::unprocessable(
                    "/storeId",
                    "this delivery needs a storeId",
                ));
            }
        };
        if self.reservation_id.is_some() {
            let text = "reservations are not offered yet";
            return Err(Problem::unprocessable("/reservationId", text));
        }
        if self.user_id.is_some_and(|user| user != caller.user.0) {
            return Err(Problem::of(Code::UserMismatch));
        }
        Ok(AskedOrder {
            user_id: caller.user,
            path,
            delivery_type: self.delivery_type,
            store_id,
            lines: self
                .order_products
                .iter()
                .map(|line| AskedLine {
                    product_id: ProductId(line.product_id),
                    quantity: line.quantity,
                    unit_price: line.unit_price,
                })
                .collect(),
            total_amount: self.total_amount,
        })
    }

    /// Nobody has a coupon or points yet.
    pub(super) fn refuse_benefits(&self) -> Option<Problem> {
        if self.coupon_code.is_some() {
            return Some(Problem::of(Code::CouponNotUsable));
        }
        let wants_points = self.use_points.is_some_and(|points| points > Money::ZERO);
        wants_points.then(|| Problem::of(Code::InsufficientPoints).with("available", 0))
    }
}
