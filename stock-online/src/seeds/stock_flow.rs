//! The interface of the Spring Boot shop: orders on both paths, products, `/data-init`.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use stock_domain::catalog::{Part, ProductFilter, ProductStatus};
use stock_mysql::jobs;

use super::call::{Ask, Call};
use super::forms::Fields;
use crate::http::code::Code;
use crate::http::orders::json as answer;
use crate::http::problem::Problem;
use crate::http::products::{self, Levelled};

/// Members of an order, and of its lines.
const ORDER: [&str; 9] = [
    "userId",
    "orderProducts",
    "totalAmount",
    "deliveryType",
    "deliveryTypeRequest",
    "storeId",
    "couponCode",
    "usePoints",
    "reservationId",
];
const LINE: [&str; 3] = ["productId", "quantity", "unitPrice"];
/// Maximum number of products in a list.
const PRODUCTS_MAX: u32 = 1_000;

pub(super) fn calls() -> Vec<Call> {
    let order = || {
        json!({ "userId": 2, "orderProducts": [{ "productId": 1, "quantity": 2,
            "unitPrice": 1_000 }],
            "totalAmount": 2_000, "deliveryTypeRequest": "ONLINE" })
    };
    let placed = "Places an order; the status is SUCCESS when MySQL has it, ORDER_PENDING before.";
    vec![
        Call::base(Method::GET, "/api/products", list)
            .open()
            .about("Lists products, the oldest first."),
        Call::base(Method::GET, "/api/products/{id}", show)
            .open()
            .about("Shows a product."),
        Call::base(Method::GET, "/api/redis/products", list)
            .open()
            .about("Lists products, the oldest first."),
        Call::base(Method::GET, "/api/redis/products/{id}", show)
            .open()
            .about("Shows a product."),
        Call::base(Method::POST, "/api/orders", place)
            .body(order())
            .about(placed),
        Call::base(Method::POST, "/api/redis/orders", place_redis)
            .body(order())
            .about(placed),
        Call::base(Method::PATCH, "/api/orders/{id}/cancel", cancel).about("Cancels an order."),
        Call::base(Method::PATCH, "/api/redis/orders/{id}/cancel", cancel_redis)
            .about("Cancels an order."),
        Call::owned(
            Method::PATCH,
            "/api/orders/{id}/users/{user_id}/cancel",
            cancel,
        )
        .about("Cancels an order of this user."),
        Call::owned(
            Method::PATCH,
            "/api/redis/orders/{id}/users/{user_id}/cancel",
            cancel_redis,
        )
        .about("Cancels an order of this user."),
        Call::owned(Method::GET, "/data-init", data_init)
            .open()
            .about("Says whether there are data to try things with; writes none."),
    ]
}

/// This seed knows one status for every refusal.
pub(super) fn refusal(mut problem: Problem) -> Problem {
    // A path that is not there stays a 404.
    if [404, 409, 422].contains(&problem.status) && problem.code != Code::NotFound {
        problem.status = 400;
    }
    let text = problem.detail.clone();
    problem.with("message", text)
}

fn item(of: &Levelled) -> Value {
    let fields = &of.product.fields;
    let is_empty = of.level.is_some_and(|level| level.balance == 0);
    json!({ "id": of.product.id.0, "name": fields.name, "price": fields.price,
        "isSoldOut": is_empty || fields.status != ProductStatus::Active })
}

async fn list(mut ask: Ask) -> Result<Response, Problem> {
    let caller = ask.any_caller().await?;
    let filter = ProductFilter {
        limit: PRODUCTS_MAX,
        ..ProductFilter::default()
    };
    let part = Part {
        offset: 0,
        is_rising: true,
    };
    let (found, _) = products::part_of(&ask.app, caller, filter, part).await?;
    let items: Vec<Value> = found.iter().map(item).collect();
    Ok(answer(StatusCode::OK, &items))
}

async fn show(ask: Ask) -> Result<Response, Problem> {
    let id = ask
        .number()
        .ok_or_else(|| Problem::of(Code::ProductNotFound))?;
    let found = ask.get(&format!("/api/products/{id}")).await?;
    Ok(found.becomes(StatusCode::OK, &found.body))
}

async fn place(ask: Ask) -> Result<Response, Problem> {
    place_at(ask, "/api/orders").await
}

async fn place_redis(ask: Ask) -> Result<Response, Problem> {
    place_at(ask, "/api/redis/orders").await
}

/// The members of an order that the contract knows. The seed ignores any other.
fn order_in(Fields(mut order): Fields) -> Value {
    order.retain(|name, _| ORDER.contains(&name.as_str()));
    let lines = order.get_mut("orderProducts").and_then(Value::as_array_mut);
    for line in lines.into_iter().flatten() {
        if let Some(line) = line.as_object_mut() {
            line.retain(|name, _| LINE.contains(&name.as_str()));
        }
    }
    Value::Object(order)
}

async fn place_at(mut ask: Ask, orders: &str) -> Result<Response, Problem> {
    ask.caller().await?;
    let placed = ask.post(orders, order_in(ask.fields()?)).await?;
    Ok(placed.becomes(StatusCode::OK, &placed.body))
}

async fn cancel(ask: Ask) -> Result<Response, Problem> {
    cancel_at(ask, "/api/orders").await
}

async fn cancel_redis(ask: Ask) -> Result<Response, Problem> {
    cancel_at(ask, "/api/redis/orders").await
}

async fn cancel_at(mut ask: Ask, orders: &str) -> Result<Response, Problem> {
    let caller = ask.caller().await?;
    let user = ask.second_id();
    if !user.is_empty() && user != caller.user.to_string() && !caller.is_admin() {
        return Err(Problem::of(Code::UserMismatch));
    }
    let id = ask
        .number()
        .ok_or_else(|| Problem::of(Code::OrderNotFound))?;
    let path = format!("{orders}/{id}/cancel");
    let cancelled = ask.call(Method::PATCH, &path, None).await?;
    Ok(cancelled.becomes(StatusCode::OK, &cancelled.body))
}

async fn data_init(ask: Ask) -> Result<Response, Problem> {
    match jobs::is_known(&ask.app.pool, "seed").await? {
        true => Ok("success".into_response()),
        false => Err(Problem::of(Code::NotFound)),
    }
}
