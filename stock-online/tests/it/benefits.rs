//! Coupons and points beside the stock: drawn, used, given back, earned, and verified.

mod coupons;
mod orders;
mod points;
mod proofs;
mod reports;

use serde_json::{Value, json};

use crate::support::{Answer, Client, order_json};

async fn coupon(client: &Client, fields: &Value) -> Answer {
    let mut body = json!({ "name": "coupon" });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    client.post("/api/coupons").admin().json(&body).send().await
}

/// Makes a campaign's coupon and returns its id.
pub(crate) async fn campaign(client: &Client, fields: &Value) -> u64 {
    let made = coupon(client, fields).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.body["id"].as_u64().unwrap()
}

async fn draw(client: &Client, user: u64, id: u64, body: &Value) -> Answer {
    let call = client.post(&format!("/api/coupons/{id}/issue")).user(user);
    call.json(body).send().await
}

/// Draws a coupon and returns its code.
pub(crate) async fn code(client: &Client, user: u64, id: u64) -> String {
    let drawn = draw(client, user, id, &json!({})).await;
    assert_eq!(drawn.status, 201, "{}", drawn.text);
    drawn.member("code").to_owned()
}

pub(crate) async fn earn(client: &Client, user: u64, amount: i64) -> Answer {
    let body = json!({ "userId": user, "amount": amount, "description": "a gift" });
    let call = client.post("/api/v2/points/earn").admin();
    let earned = call.json(&body).send().await;
    assert_eq!(earned.status, 201, "{}", earned.text);
    earned
}

pub(crate) async fn balance(client: &Client, user: u64) -> i64 {
    let path = format!("/api/v1/points/users/{user}/balance");
    let shown = client.get(&path).user(user).send().await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    shown.body["balance"].as_i64().unwrap()
}

/// An order of products at 1,000 each that also uses benefits.
fn order_using(lines: &[(u64, i64)], benefits: &Value, total: i64) -> Value {
    let mut order = order_json(lines);
    order["totalAmount"] = json!(total);
    for (name, value) in benefits.as_object().unwrap() {
        order[name] = value.clone();
    }
    order
}

/// Both paths of orders.
const PATHS: [&str; 2] = ["/api/redis/orders", "/api/orders"];
