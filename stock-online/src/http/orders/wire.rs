//! Wire types of orders, in and out.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use stock_common::clock::rfc3339;
use stock_common::id::{Position, ProductId};
use stock_common::money::Money;
use stock_domain::buyer::Buyer;
use stock_domain::catalog::Catalog;
use stock_domain::order::{
    DeliveryType, LINES_MAX, Order, OrderLine, OrderStatus, Path, REFERENCE_MAX, Units, Way,
};
use stock_domain::points::AMOUNT_MAX as POINTS_MAX;
use stock_domain::pricing::{AskedLine, AskedOrder};
use stock_domain::quantity::Quantity;
use stock_domain::sku::Sku;
use stock_mysql::order_changes::StoredChange;
use utoipa::ToSchema;

use crate::http::auth::Caller;
use crate::http::code::Code;
use crate::http::extract::{BodyIn, Object, Person};
use crate::http::problem::Problem;
use crate::http::products::named;

/// An order as a client asks for it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "orderProducts": [{ "productId": 1, "quantity": 2 }],
    "totalAmount": 2_000, "deliveryType": "ONLINE" }))]
pub struct OrderIn {
    /// If given, it must be the token's user.
    pub(in crate::http) user_id: Option<u64>,
    /// Lines of one product are added up.
    #[schema(value_type = Vec<LineIn>, min_items = 1, max_items = 100)]
    pub(in crate::http) order_products: Vec<Object<LineIn>>,
    /// Σ `unitPrice · quantity`, less the coupon's discount and the points, as the client shows it
    /// to its buyer.
    #[schema(value_type = u64, maximum = 9_007_199_254_740_991_u64)]
    pub(in crate::http) total_amount: Money,
    #[serde(alias = "deliveryTypeRequest")]
    #[schema(value_type = DeliveryTypeName)]
    pub(in crate::http) delivery_type: DeliveryType,
    /// The store whose stock `TODAY_DELIVERY` and `PICKUP` take.
    pub(in crate::http) store_id: Option<u64>,
    /// A coupon code of the caller that no order has used.
    pub(in crate::http) coupon_code: Option<String>,
    /// Points to pay with.
    #[schema(value_type = Option<u64>, maximum = 1_000_000_000_000_u64)]
    pub(in crate::http) use_points: Option<Money>,
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    pub(in crate::http) reservation_id: Option<Position>,
    /// The shop's own name of the buyer; for a service key or an admin.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    pub(in crate::http) buyer: Option<Buyer>,
    /// The shop's own name for the order.
    #[schema(min_length = 1, max_length = 100)]
    pub(in crate::http) reference: Option<String>,
    /// The order's Idempotency-Key; only in a batch.
    #[schema(ignore)]
    pub(in crate::http) key: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct LineIn {
    /// The product, unless `sku` names it.
    product_id: Option<u64>,
    /// The SKU of the product, in place of `productId`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    sku: Option<Sku>,
    /// The range also holds for the sum over the lines of one product.
    #[schema(value_type = u32, minimum = 1, maximum = 1_000_000)]
    quantity: Quantity,
    /// If given, it must be the current unit price.
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    unit_price: Option<Money>,
}

/// How an order reaches its buyer.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(in crate::http) enum DeliveryTypeName {
    Online,
    TodayDelivery,
    Pickup,
}

/// Status of an order.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(in crate::http) enum OrderStatusName {
    OrderPending,
    Success,
    Fail,
    CancelRequested,
    Cancel,
}

/// The empty body of a cancel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NothingIn {}

impl BodyIn for OrderIn {
    const IS_FOR_A_PERSON: bool = true;

    fn person(&self) -> Person<'_> {
        Person {
            buyer: self.buyer.as_ref(),
            user_id: self.user_id,
        }
    }
}

impl BodyIn for NothingIn {
    const MAY_BE_MISSING: bool = true;
}

/// The page and the filters of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListIn {
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<String>,
    pub(super) user_id: Option<u64>,
    pub(super) buyer: Option<Buyer>,
    pub(super) status: Option<OrderStatus>,
}

/// An order as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OrderOut<'a> {
    #[serde(skip)]
    order: &'a Order,
    /// A decimal u64 as a string, because JavaScript's numbers cannot hold it.
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    order_id: Position,
    #[schema(value_type = OrderStatusName)]
    order_status: OrderStatus,
    #[schema(value_type = DeliveryTypeName)]
    delivery_type: DeliveryType,
    store_id: Option<u64>,
    order_product_infos: Vec<LineOut<'a>>,
    discount_amount: i64,
    #[schema(value_type = u64)]
    coupon_discount_amount: Money,
    #[schema(value_type = u64)]
    used_points: Money,
    #[schema(value_type = u64)]
    earned_points: Money,
    #[schema(value_type = u64)]
    total_amount: Money,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    /// The shop's own name of the buyer; absent if it gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    buyer: Option<&'a str>,
    /// The shop's own name for the order; absent if it gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    reference: Option<&'a str>,
    /// The steps in which parts were taken back; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    changes: Vec<ChangeOut>,
}

/// A step in which a part of an order was taken back.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ChangeOut {
    #[schema(value_type = WayName)]
    way: Way,
    /// The location to which returned units came.
    location_id: Option<u64>,
    lines: Vec<UnitsOut>,
    /// The step's share of the coupon's discount.
    coupon_discount_amount: i64,
    /// The points that came back to the buyer.
    used_points: i64,
    /// The earned points that were taken back.
    earned_points: i64,
    /// The amount that the shop refunds.
    #[schema(value_type = u64)]
    refund_amount: Money,
    #[schema(value_type = String, format = DateTime)]
    changed_at: String,
}

/// The way of units that were taken back.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(in crate::http) enum WayName {
    Cancelled,
    Returned,
    WrittenOff,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct UnitsOut {
    product_id: u64,
    quantity: u32,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct LineOut<'a> {
    #[schema(value_type = u64)]
    product_id: ProductId,
    product_name: &'a str,
    #[schema(value_type = u32)]
    quantity: Quantity,
    #[schema(value_type = u64)]
    unit_price: Money,
    #[schema(value_type = u64)]
    sub_total: Money,
    /// The units that were not taken back; absent if none were.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity_left: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderListOut)]
pub(in crate::http) struct ListOut<'a> {
    pub(super) items: Vec<OrderOut<'a>>,
    pub(super) next_cursor: Option<String>,
}

impl ChangeOut {
    fn new(order: &Order, change: &StoredChange, taken: &Units, refund_amount: Money) -> Self {
        let (step, shares) = (&change.step, change.step.shares);
        let lines = order.lines.iter().enumerate().map(|(at, line)| UnitsOut {
            product_id: line.product_id.0,
            quantity: taken.at(at),
        });
        Self {
            way: step.way,
            location_id: step.location.map(|location| location.0),
            lines: lines.filter(|line| line.quantity > 0).collect(),
            coupon_discount_amount: shares.coupon_discount,
            used_points: shares.used_points,
            earned_points: shares.earned_points,
            refund_amount,
            changed_at: rfc3339(change.id.unix_ms()),
        }
    }
}

impl<'a> From<&'a OrderLine> for LineOut<'a> {
    fn from(line: &'a OrderLine) -> Self {
        Self {
            product_id: line.product_id,
            product_name: &line.product_name,
            quantity: line.quantity,
            unit_price: line.unit_price,
            sub_total: line.sub_total,
            quantity_left: None,
        }
    }
}

impl<'a> OrderOut<'a> {
    pub(super) fn new(id: Position, order: &'a Order, status: OrderStatus) -> Self {
        Self {
            order,
            order_id: id,
            order_status: status,
            delivery_type: order.delivery_type,
            store_id: order.store_id,
            order_product_infos: order.lines.iter().map(LineOut::from).collect(),
            discount_amount: order.discount_amount(),
            coupon_discount_amount: order.coupon_discount_amount(),
            used_points: order.used_points,
            earned_points: order.earned_points,
            total_amount: order.total_amount,
            created_at: rfc3339(id.unix_ms()),
            buyer: order.buyer.as_ref().map(Buyer::as_str),
            reference: order.reference.as_deref(),
            changes: Vec::new(),
        }
    }

    /// The same order with what is left of it, and the steps in which the rest was taken back.
    pub(super) fn with_changes(mut self, changes: &[StoredChange]) -> Self {
        let all = Units::of(self.order);
        let (mut before, mut refunded) = (all.clone(), Money::ZERO);
        for change in changes {
            let steps = Units::parse(&change.step.left)
                .and_then(|left| Some((before.less(&left)?, all.less(&left)?, left)));
            let Some((taken, back, left)) = steps else {
                continue;
            };
            let by_now = self.order.refunded(&back, refunded);
            let refund = by_now.minus(refunded).unwrap_or(Money::ZERO);
            self.changes
                .push(ChangeOut::new(self.order, change, &taken, refund));
            (before, refunded) = (left, by_now);
        }
        if !changes.is_empty() {
            for (at, line) in self.order_product_infos.iter_mut().enumerate() {
                line.quantity_left = Some(before.at(at));
            }
        }
        self
    }
}

/// A JSON response with a status.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let kind = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, kind)], bytes).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// Adds the `Location` of a created object.
pub(in crate::http) fn located(mut response: Response, path: String) -> Response {
    if let Ok(location) = HeaderValue::try_from(path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(super) fn created(id: Position, order: &Order, status: OrderStatus) -> Response {
    located(
        json(StatusCode::CREATED, &OrderOut::new(id, order, status)),
        format!("/api/orders/{id}"),
    )
}

/// Adds the header that says that the answer was given before under the same key.
pub(crate) fn replayed(mut response: Response) -> Response {
    let yes = HeaderValue::from_static("true");
    response.headers_mut().insert("idempotency-replayed", yes);
    response
}

/// The benefits that an order asks for: a reservation's stock, a coupon, points.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Benefits {
    pub(in crate::http) reservation_id: Option<Position>,
    pub(in crate::http) coupon_code: Option<String>,
    pub(in crate::http) use_points: Money,
}

/// Reads the lines of an order. Their number is checked before lines of one product are added up.
pub(in crate::http) fn asked_lines(
    lines: &[Object<LineIn>],
    catalog: &Catalog,
) -> Result<Vec<AskedLine>, Problem> {
    let count = lines.len();
    if !(1..=LINES_MAX).contains(&count) {
        let text = format!("an order has 1 to {LINES_MAX} lines, not {count}");
        return Err(Problem::unprocessable("/orderProducts", text));
    }
    let asked = lines.iter().enumerate().map(|(at, Object(line))| {
        let pointer = || format!("/orderProducts/{at}");
        Ok(AskedLine {
            product_id: named(catalog, line.product_id, line.sku.as_ref(), pointer)?,
            quantity: line.quantity,
            unit_price: line.unit_price,
        })
    });
    asked.collect()
}

fn is_reference(text: &str) -> bool {
    (1..=REFERENCE_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl OrderIn {
    /// Checks what can be checked without the catalog.
    pub(in crate::http) fn into_asked(
        self,
        caller: Caller,
        buyer: Option<Buyer>,
        path: Path,
        catalog: &Catalog,
    ) -> Result<AskedOrder, Problem> {
        if self.key.is_some() {
            return Err(Problem::unprocessable(
                "/key",
                "is the header Idempotency-Key",
            ));
        }
        if !self.reference.as_deref().is_none_or(is_reference) {
            let rule = format!("1 to {REFERENCE_MAX} characters, none of them a control character");
            return Err(Problem::unprocessable("/reference", rule));
        }
        let lines = asked_lines(&self.order_products, catalog)?;
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
        if self.user_id.is_some_and(|user| user != caller.user.0) {
            return Err(Problem::of(Code::UserMismatch));
        }
        Ok(AskedOrder {
            user_id: caller.user,
            path,
            delivery_type: self.delivery_type,
            store_id,
            lines,
            total_amount: Some(self.total_amount),
            shares_online_stock: false,
            offline: None,
            buyer,
            reference: self.reference,
        })
    }

    /// The benefits that the order asks for.
    pub(in crate::http) fn benefits(&self) -> Result<Benefits, Problem> {
        let use_points = self.use_points.unwrap_or_default();
        if use_points.get() > POINTS_MAX {
            let rule = format!("at most {POINTS_MAX} points");
            return Err(Problem::unprocessable("/usePoints", rule));
        }
        Ok(Benefits {
            reservation_id: self.reservation_id,
            coupon_code: self.coupon_code.clone(),
            use_points,
        })
    }
}
