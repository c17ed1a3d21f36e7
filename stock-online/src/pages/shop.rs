//! The shop: `/` with the products and the reader's own lists, one product, the cart, one checkout,
//! one order.

mod card;

use std::time::Duration;

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use stock_common::id::{ProductId, UserId};
use stock_common::text;
use stock_domain::catalog::{ProductFilter, ProductStatus};
use stock_domain::order::LINES_MAX;
use stock_domain::reservation::TTL_SECONDS;

pub use self::card::{BuyState, Card};
use super::context::{PageContext, page};
use super::pay;
use crate::http::auth::Caller;
use crate::http::code::Code;
use crate::http::problem::Problem;
use crate::http::products;

/// Products on a page.
const PRODUCTS: u32 = 24;
/// Rows of each of the reader's own lists on a page.
const OWN: u32 = 8;

/// A list as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// An order as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    order_id: String,
    order_status: String,
    delivery_type: String,
    order_product_infos: Vec<OrderLine>,
    discount_amount: i64,
    coupon_discount_amount: i64,
    used_points: i64,
    earned_points: i64,
    total_amount: i64,
    created_at: String,
    #[serde(default)]
    changes: Vec<OrderChange>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderLine {
    product_name: String,
    quantity: i64,
    unit_price: i64,
    sub_total: i64,
    quantity_left: Option<i64>,
}

/// A part of an order that was taken back.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderChange {
    way: String,
    refund_amount: i64,
    changed_at: String,
}

impl Order {
    /// Whether the order may still be cancelled.
    fn may_cancel(&self) -> bool {
        ["ORDER_PENDING", "SUCCESS"].contains(&self.order_status.as_str())
    }
}

/// A checkout as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkout {
    pub(super) checkout_id: String,
    status: String,
    order_product_infos: Vec<OrderLine>,
    coupon_discount_amount: i64,
    used_points: i64,
    pub(super) total_amount: i64,
    extensions_left: u32,
    expires_at: String,
    order_id: Option<String>,
    is_late: bool,
}

impl Checkout {
    /// The time from a time in Unix ms until its deadline.
    pub(super) fn left(&self, now_ms: u64) -> Duration {
        let until = chrono::DateTime::parse_from_rfc3339(&self.expires_at).ok();
        let until_ms = until.and_then(|until| u64::try_from(until.timestamp_millis()).ok());
        Duration::from_millis(until_ms.unwrap_or(now_ms).saturating_sub(now_ms))
    }
}

/// A reservation as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    reservation_id: String,
    product_id: u64,
    location_id: u64,
    quantity: i64,
    status: String,
    expires_at: String,
    /// The product's current name and unit price.
    #[serde(skip)]
    product: Option<(String, i64)>,
}

/// An own coupon as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnCoupon {
    name: String,
    code: String,
    is_used: bool,
    discount_amount: Option<i64>,
    discount_rate: Option<f64>,
    valid_from: Option<String>,
    valid_to: Option<String>,
}

impl OwnCoupon {
    /// Whether an order may use it at a time in Unix ms.
    fn is_usable(&self, now_ms: i64) -> bool {
        let ms = |at: &Option<String>| {
            let at = chrono::DateTime::parse_from_rfc3339(at.as_deref()?).ok()?;
            Some(at.timestamp_millis())
        };
        let has_begun = ms(&self.valid_from).is_none_or(|from| now_ms >= from);
        let is_over = ms(&self.valid_to).is_some_and(|to| now_ms >= to);
        !self.is_used && has_begun && !is_over
    }
}

/// A movement of points as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    amount: i64,
    #[serde(rename = "type")]
    kind: String,
    description: String,
    balance_snapshot: i64,
    created_at: String,
}

#[derive(Debug, Deserialize)]
struct Balance {
    balance: i64,
}

/// A store as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    store_id: u64,
    name: String,
}

/// The reader's own lists.
struct Own {
    orders: List<Order>,
    checkouts: List<Checkout>,
    reservations: List<Reservation>,
    coupons: List<OwnCoupon>,
    points: List<Point>,
    balance: i64,
}

impl Own {
    async fn read(context: &PageContext, asked: &ShopIn, user: UserId) -> Result<Self, Problem> {
        let points = format!("/api/v2/points/users/{user}");
        let page = |path: &str, cursor: Option<u64>| {
            let cursor = cursor.map_or(String::new(), |at| format!("&cursor={at}"));
            format!("{path}?limit={OWN}{cursor}")
        };
        let (orders, checkouts, mut reservations, coupons, history, balance) = tokio::try_join!(
            context.get_own::<List<Order>>(page("/api/orders", asked.orders)),
            context.get_own::<List<Checkout>>(page("/api/checkouts", asked.checkouts)),
            context.get_own::<List<Reservation>>(page("/api/reservations", asked.reservations)),
            context.get_own::<List<OwnCoupon>>(page("/api/coupons/mine", asked.coupons)),
            context.get_own::<List<Point>>(page(&format!("{points}/history"), asked.points)),
            context.get_own::<Balance>(format!("{points}/balance")),
        )?;
        let now_ms = context.app.ledger.redis_now_ms();
        for reservation in &mut reservations.items {
            let known = context
                .app
                .selling
                .catalog
                .product(ProductId(reservation.product_id));
            reservation.product =
                known.map(|known| (known.fields.name.clone(), known.unit_price(now_ms).get()));
        }
        Ok(Self {
            orders,
            checkouts,
            reservations,
            coupons,
            points: history,
            balance: balance.balance,
        })
    }
}

/// The query: the text that is searched for, and where each list begins.
#[derive(Debug, Default, Deserialize)]
pub struct ShopIn {
    #[serde(default)]
    name: String,
    cursor: Option<u64>,
    orders: Option<u64>,
    checkouts: Option<u64>,
    reservations: Option<u64>,
    coupons: Option<u64>,
    points: Option<u64>,
}

#[derive(Template)]
#[template(path = "shop/shop.html")]
struct ShopPage {
    context: PageContext,
    cards: Vec<Card>,
    name: String,
    next: Option<String>,
    own: Option<Own>,
    /// Whether the reader's own lists cannot be shown now.
    is_own_away: bool,
}

/// GET `/`.
///
/// # Errors
/// 503 when MySQL or Redis does not answer.
pub async fn show(context: PageContext, uri: Uri) -> Result<Response, Problem> {
    // A malformed query counts as empty, because a person may have cut the address.
    let asked =
        Query::<ShopIn>::try_from_uri(&uri).map_or_else(|_| ShopIn::default(), |asked| asked.0);
    let mut name = asked.name.trim().to_owned();
    text::normalize(&mut name);
    let filter = ProductFilter {
        name: Some(name).filter(|name| !name.is_empty()),
        before: asked.cursor.map(ProductId),
        without: Some(ProductStatus::Inactive),
        limit: PRODUCTS + 1,
        ..ProductFilter::default()
    };
    let mut found = products::find_all(&context.app, filter).await?;
    let has_more = found.len() > PRODUCTS as usize;
    found.truncate(PRODUCTS as usize);
    let next = found.last().filter(|_| has_more).map(|last| {
        let query = [
            ("name", asked.name.clone()),
            ("cursor", last.id.to_string()),
        ];
        serde_urlencoded::to_string(query).unwrap_or_default()
    });
    let cards = Card::of_all(&context, &found).await?;
    let own = match context.buyer() {
        None => None,
        Some(Caller { user, .. }) => context.own(Own::read(&context, &asked, user)).await?,
    };
    Ok(page(&ShopPage {
        is_own_away: own.is_none() && context.caller.is_some(),
        cards,
        name: asked.name,
        next,
        own,
        context,
    }))
}

/// The coupons that the reader may use, and the reader's points.
async fn benefits(context: &PageContext) -> Result<(Vec<OwnCoupon>, i64), Problem> {
    let Some(buyer) = context.buyer() else {
        return Ok((Vec::new(), 0));
    };
    let points = format!("/api/v2/points/users/{}/balance", buyer.user);
    let own = context.own(async {
        tokio::try_join!(
            context.get_own::<List<OwnCoupon>>("/api/coupons/mine?limit=100"),
            context.get_own::<Balance>(points),
        )
    });
    // Without MySQL a buyer can still order, without a coupon and without points.
    Ok(own.await?.map_or((Vec::new(), 0), |(coupons, balance)| {
        let now_ms = i64::try_from(context.app.ledger.redis_now_ms()).unwrap_or(i64::MAX);
        let coupons = coupons.items.into_iter();
        let usable = coupons.filter(|coupon| coupon.is_usable(now_ms));
        (usable.collect(), balance.balance)
    }))
}

/// The shortest time for which the page sets stock aside.
const SHORT_HOLD_SECONDS: u64 = 300;

#[derive(Template)]
#[template(path = "shop/product.html")]
struct ProductPage {
    context: PageContext,
    card: Card,
    stores: Vec<Store>,
    coupons: Vec<OwnCoupon>,
    balance: i64,
    /// The times for which stock may be set aside, in seconds.
    hold_seconds: Vec<u64>,
    usual_hold_seconds: u64,
}

/// GET `/products/{id}`.
///
/// # Errors
/// 404 for a product that is not shown; 503.
pub async fn product(context: PageContext, Path(id): Path<String>) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::ProductNotFound);
    let id = id.parse().map_err(|_malformed| missing())?;
    let found = products::find_shown(&context.app, ProductId(id), None)?;
    let card = Card::of_all(&context, std::slice::from_ref(&found))
        .await?
        .pop();
    let stores: List<Store> = context.get_public("/api/stores?limit=100").await?;
    let (coupons, balance) = benefits(&context).await?;
    let most = context.app.config.selling.hold_ttl_seconds_max;
    let usual_hold_seconds = TTL_SECONDS.min(most);
    let mut hold_seconds = vec![SHORT_HOLD_SECONDS.min(most), usual_hold_seconds, most];
    hold_seconds.dedup();
    Ok(page(&ProductPage {
        card: card.ok_or_else(missing)?,
        stores: stores.items,
        coupons,
        balance,
        hold_seconds,
        usual_hold_seconds,
        context,
    }))
}

#[derive(Template)]
#[template(path = "shop/order.html")]
struct OrderPage {
    context: PageContext,
    order: Order,
}

/// GET `/orders/{id}`: also right after it was placed, while MySQL does not have it yet.
///
/// # Errors
/// 404 for an order that is not the reader's.
pub async fn order(context: PageContext, Path(id): Path<String>) -> Result<Response, Response> {
    context.reader()?;
    let id: u64 = id
        .parse()
        .map_err(|_malformed| Problem::of(Code::OrderNotFound).into_response())?;
    let order = context.get(&format!("/api/orders/{id}")).await;
    let order: Order = order.map_err(IntoResponse::into_response)?;
    Ok(page(&OrderPage { context, order }))
}

/// A line of the cart.
struct CartLine {
    id: ProductId,
    name: String,
    unit_price: i64,
    quantity: u32,
}

#[derive(Template)]
#[template(path = "shop/cart.html")]
struct CartPage {
    context: PageContext,
    /// The lines as the address names them.
    items: String,
    lines: Vec<CartLine>,
    coupons: Vec<OwnCoupon>,
    balance: i64,
}

/// The query of the cart: `items=1x2,7x1`, products and quantities that the browser keeps.
#[derive(Debug, Default, Deserialize)]
pub struct CartIn {
    #[serde(default)]
    items: String,
}

/// GET `/cart`.
///
/// # Errors
/// 503 when MySQL or Redis does not answer.
pub async fn cart(context: PageContext, uri: Uri) -> Result<Response, Problem> {
    let asked =
        Query::<CartIn>::try_from_uri(&uri).map_or_else(|_| CartIn::default(), |asked| asked.0);
    let now_ms = context.app.ledger.redis_now_ms();
    let line = |part: &str| {
        let (id, quantity) = part.split_once('x')?;
        let known = context
            .app
            .selling
            .catalog
            .product(ProductId(id.parse().ok()?))?;
        Some(CartLine {
            id: known.id,
            name: known.fields.name.clone(),
            unit_price: known.unit_price(now_ms).get(),
            quantity: quantity.parse().ok()?,
        })
    };
    let lines: Vec<CartLine> = asked
        .items
        .split(',')
        .take(LINES_MAX)
        .filter_map(line)
        .collect();
    let (coupons, balance) = benefits(&context).await?;
    Ok(page(&CartPage {
        context,
        items: asked.items,
        lines,
        coupons,
        balance,
    }))
}

#[derive(Template)]
#[template(path = "shop/checkout.html")]
struct CheckoutPage {
    context: PageContext,
    checkout: Checkout,
    /// Whether it was opened from the cart just now.
    is_new: bool,
    has_fake_payments: bool,
}

/// GET `/checkouts/{id}`.
///
/// # Errors
/// 404 for a checkout that is not the reader's.
pub async fn checkout(
    context: PageContext,
    uri: Uri,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    context.reader()?;
    let missing = |_| Problem::of(Code::CheckoutNotFound).into_response();
    let id: u64 = id.parse().map_err(missing)?;
    let checkout = context.get(&format!("/api/checkouts/{id}")).await;
    let checkout: Checkout = checkout.map_err(IntoResponse::into_response)?;
    let has_fake_payments = pay::is_served(&context.app);
    Ok(page(&CheckoutPage {
        is_new: uri.query() == Some("opened=1"),
        context,
        checkout,
        has_fake_payments,
    }))
}
