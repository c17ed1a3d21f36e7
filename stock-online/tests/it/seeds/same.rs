//! The contract answers alike with `compat` on and off, whatever it accepts.

use serde_json::{Value, json};
use stock_client::Client;

use super::served;
use crate::support::Shop;

/// The answer without what differs between two calls: ids, times, links to requests.
fn comparable(mut body: Value) -> Value {
    const CHANGING: [&str; 10] = [
        "orderId",
        "reservationId",
        "position",
        "id",
        "createdAt",
        "updatedAt",
        "expiresAt",
        "requestId",
        "access",
        "refresh",
    ];
    match &mut body {
        Value::Object(members) => {
            members.retain(|name, _| !CHANGING.contains(&name.as_str()));
            for value in members.values_mut() {
                *value = comparable(value.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = comparable(item.take());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    body
}

/// Calls of the contract on every path that a seed shares, good ones and bad ones.
fn calls() -> Vec<(&'static str, &'static str, u64, Value)> {
    let line = json!([{ "productId": 1, "quantity": 2 }]);
    let order = json!({ "orderProducts": line, "totalAmount": 2_000, "deliveryType": "ONLINE" });
    vec![
        ("GET", "/api/products", 2, Value::Null),
        ("GET", "/api/products/?limit=2&priceGte=1", 2, Value::Null),
        ("GET", "/api/products?status=ACTIVE", 2, Value::Null),
        ("GET", "/api/products?limit=0", 2, Value::Null),
        ("GET", "/api/products?unknown=1", 2, Value::Null),
        ("GET", "/api/products?limit=1&page=1", 2, Value::Null),
        ("GET", "/api/products/1", 2, Value::Null),
        ("GET", "/api/products/nothing", 2, Value::Null),
        ("GET", "/api/products/stock/available", 2, Value::Null),
        (
            "GET",
            "/api/products/stock/available?productId=1",
            2,
            Value::Null,
        ),
        (
            "GET",
            "/api/products/stock/available?productId=x",
            2,
            Value::Null,
        ),
        (
            "POST",
            "/api/products/stock/inbound",
            1,
            json!({ "productId": 1, "quantity": 5, "reason": "x" }),
        ),
        (
            "POST",
            "/api/products/stock/inbound",
            2,
            json!({ "productId": 1, "quantity": 5, "reason": "x" }),
        ),
        (
            "POST",
            "/api/products/stock/inbound",
            1,
            json!({ "productId": 1, "quantity": 0, "reason": "x" }),
        ),
        (
            "POST",
            "/api/products/stock/inbound",
            1,
            json!({ "productId": 1, "product_id": 1 }),
        ),
        (
            "POST",
            "/api/products/stock/reserve",
            2,
            json!({ "productId": 1, "quantity": 1 }),
        ),
        (
            "POST",
            "/api/products/stock/reserve",
            2,
            json!({ "productId": 1, "quantity": 1e9 }),
        ),
        ("POST", "/api/products/stock/reserve", 2, json!([])),
        (
            "POST",
            "/api/token",
            2,
            json!({ "email": "x@example.com", "password": "wrong" }),
        ),
        (
            "POST",
            "/api/token",
            2,
            json!({ "email": "x@example.com", "username": "x" }),
        ),
        (
            "POST",
            "/api/v1/points/earn",
            1,
            json!({ "userId": 2, "amount": 5.0, "description": "x" }),
        ),
        (
            "POST",
            "/api/v1/points/use",
            2,
            json!({ "userId": 2, "amount": 1, "description": "x" }),
        ),
        (
            "POST",
            "/api/v1/points/use",
            2,
            json!({ "userId": 3, "amount": 1, "description": "x" }),
        ),
        ("POST", "/api/v1/points/7/cancel", 2, json!({})),
        (
            "POST",
            "/api/v2/points/earn",
            1,
            json!({ "userId": 2, "amount": 5, "description": "x" }),
        ),
        ("POST", "/api/orders", 2, order.clone()),
        ("POST", "/api/redis/orders", 2, order.clone()),
        ("POST", "/api/redis/orders", 3, {
            let mut wrong = order;
            wrong["totalAmount"] = json!(1);
            wrong
        }),
        ("POST", "/account/logout", 0, Value::Null),
        ("GET", "/account/login", 0, Value::Null),
        ("PUT", "/account/signup", 0, Value::Null),
        ("POST", "/api/products?page=1", 1, json!({})),
        ("PUT", "/api/token", 0, json!({ "username": "x" })),
        ("PATCH", "/api/orders/7/cancel", 2, Value::Null),
        ("DELETE", "/api/products/77", 1, Value::Null),
    ]
}

async fn answers(client: &Client) -> Vec<(u16, Value)> {
    let mut answers = Vec::new();
    for (method, path, user, body) in calls() {
        let call = client.call(method, path);
        let call = match user {
            0 => call,
            1 => call.admin(),
            user => call.user(user),
        };
        let call = match body {
            Value::Null if path == "/account/logout" => call.form(""),
            Value::Null => call,
            body => call.json(&body),
        };
        let answer = call.send().await;
        answers.push((answer.status, comparable(answer.body)));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_answers_alike_with_and_without_seeds() {
    let (_with, on) = served(3, 100).await;
    let without = Shop::open(3, 100).await;
    let off = without.serve().await;
    let (on_answers, off_answers) = (answers(&on.client).await, answers(&off.client).await);
    for ((call, with), without) in calls().iter().zip(on_answers).zip(off_answers) {
        assert_eq!(with, without, "{call:?}");
    }
    on.stop().await;
    off.stop().await;
}
