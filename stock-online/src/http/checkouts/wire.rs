//! Wire types of checkouts, in and out.

use serde::{Deserialize, Serialize};
use stock_common::clock::rfc3339;
use stock_common::id::Position;
use stock_common::money::Money;
use stock_domain::buyer::Buyer;
use stock_domain::checkout::{CheckoutStatus, PAYMENT_ID_MAX, is_payment_id};
use stock_domain::order::DeliveryType;
use stock_engine::lookup::LocatedCheckout;
use utoipa::ToSchema;

use crate::http::extract::{BodyIn, Object, Person};
use crate::http::orders::{DeliveryTypeName, LineIn, LineOut, OrderIn};
use crate::http::problem::Problem;

/// A cart to hold, as a client asks for it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "orderProducts": [{ "productId": 1, "quantity": 2 }],
    "totalAmount": 2_000, "deliveryType": "ONLINE", "ttlSeconds": 600 }))]
pub struct CheckoutIn {
    /// If given, it must be the token's user.
    user_id: Option<u64>,
    /// Lines of one product are added up.
    #[schema(value_type = Vec<LineIn>, min_items = 1, max_items = 100)]
    order_products: Vec<Object<LineIn>>,
    /// Σ `unitPrice · quantity`, less the coupon's discount and the points, as the client shows it
    /// to its buyer.
    #[schema(value_type = u64, maximum = 9_007_199_254_740_991_u64)]
    total_amount: Money,
    #[serde(alias = "deliveryTypeRequest")]
    #[schema(value_type = DeliveryTypeName)]
    delivery_type: DeliveryType,
    /// The store whose stock `TODAY_DELIVERY` and `PICKUP` take.
    store_id: Option<u64>,
    /// A coupon code of the caller that no order has used.
    coupon_code: Option<String>,
    /// Points to pay with.
    #[schema(value_type = Option<u64>, maximum = 1_000_000_000_000_u64)]
    use_points: Option<Money>,
    /// The shop's own name of the buyer; for a service key or an admin.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    buyer: Option<Buyer>,
    /// The shop's own name for it, and for the order that it becomes.
    #[schema(min_length = 1, max_length = 100)]
    reference: Option<String>,
    /// Time to live in seconds, at most the setting `hold_ttl_seconds_max`.
    #[schema(minimum = 30, maximum = 14_400)]
    pub(super) ttl_seconds: Option<u64>,
}

/// Body of an extension.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "ttlSeconds": 300 }))]
pub struct ExtendIn {
    /// Seconds that it shall live from now on. It never lives shorter than before.
    #[schema(minimum = 30, maximum = 14_400)]
    pub(super) ttl_seconds: u64,
}

/// Body of a confirm: the payment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "paymentId": "pay_8f3a", "amount": 2_000 }))]
pub struct ConfirmIn {
    /// The payment provider's id.
    #[schema(min_length = 1, max_length = 100)]
    payment_id: String,
    /// The amount that was paid; it must be the frozen total.
    #[schema(value_type = u64, maximum = 9_007_199_254_740_991_u64)]
    pub(super) amount: Money,
}

impl BodyIn for CheckoutIn {
    const IS_FOR_A_PERSON: bool = true;

    fn person(&self) -> Person<'_> {
        Person {
            buyer: self.buyer.as_ref(),
            user_id: self.user_id,
        }
    }
}

impl BodyIn for ExtendIn {}

impl BodyIn for ConfirmIn {}

/// Checks the id of a payment.
pub(in crate::http) fn payment_id(text: String, pointer: &str) -> Result<String, Problem> {
    if is_payment_id(&text) {
        return Ok(text);
    }
    let rule = format!("1 to {PAYMENT_ID_MAX} visible characters");
    Err(Problem::unprocessable(pointer, rule))
}

impl ConfirmIn {
    pub(super) fn payment_id(&self) -> Result<String, Problem> {
        payment_id(self.payment_id.clone(), "/paymentId")
    }
}

impl CheckoutIn {
    /// The order that it would be.
    pub(super) fn into_order(self) -> OrderIn {
        OrderIn {
            user_id: self.user_id,
            order_products: self.order_products,
            total_amount: self.total_amount,
            delivery_type: self.delivery_type,
            store_id: self.store_id,
            coupon_code: self.coupon_code,
            use_points: self.use_points,
            reservation_id: None,
            buyer: self.buyer,
            reference: self.reference,
            key: None,
        }
    }
}

/// The page and the filters of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListIn {
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<String>,
    pub(super) status: Option<CheckoutStatus>,
}

/// Status of a checkout.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(in crate::http) enum CheckoutStatusName {
    Open,
    Confirmed,
    Cancelled,
    Expired,
    RefundDue,
}

/// A checkout as clients see it: an order at its frozen total, and how far it has come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct CheckoutOut<'a> {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    checkout_id: Position,
    #[schema(value_type = CheckoutStatusName)]
    status: CheckoutStatus,
    user_id: u64,
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
    reference: Option<&'a str>,
    /// The shop's own name of the buyer; absent if it gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    buyer: Option<&'a str>,
    /// How many times it may still be extended.
    extensions_left: u32,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
    /// The order that it became.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    order_id: Option<Position>,
    /// Whether it was paid after it had expired.
    is_late: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CheckoutListOut)]
pub(in crate::http) struct ListOut<'a> {
    pub(super) items: Vec<CheckoutOut<'a>>,
    pub(super) next_cursor: Option<String>,
}

/// A checkout that was paid.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ConfirmedOut {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    checkout_id: Position,
    #[schema(value_type = CheckoutStatusName)]
    status: CheckoutStatus,
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    order_id: Position,
    /// Whether it was paid after it had expired.
    is_late: bool,
}

impl ConfirmedOut {
    pub(super) const fn new(checkout_id: Position, order_id: Position, is_late: bool) -> Self {
        Self {
            checkout_id,
            status: CheckoutStatus::Confirmed,
            order_id,
            is_late,
        }
    }
}

impl<'a> CheckoutOut<'a> {
    pub(super) fn new(of: &'a LocatedCheckout, extensions_max: u32) -> Self {
        let (order, status) = (&of.checkout.order, of.course.status);
        let times = of.extended.map_or(0, |extended| extended.times);
        let is_open = status == CheckoutStatus::Open;
        let left = extensions_max.saturating_sub(times);
        let extensions_left = if is_open { left } else { 0 };
        Self {
            checkout_id: of.id,
            status,
            user_id: order.user_id.0,
            delivery_type: order.delivery_type,
            store_id: order.store_id,
            order_product_infos: order.lines.iter().map(LineOut::from).collect(),
            discount_amount: order.discount_amount(),
            coupon_discount_amount: order.coupon_discount_amount(),
            used_points: order.used_points,
            earned_points: order.earned_points,
            total_amount: order.total_amount,
            reference: order.reference.as_deref(),
            buyer: order.buyer.as_ref().map(Buyer::as_str),
            extensions_left,
            created_at: rfc3339(of.id.unix_ms()),
            expires_at: rfc3339(of.expires_ms()),
            order_id: of.course.order_id,
            is_late: of.course.is_late,
        }
    }
}
