//! The ceiling that the bench compares with: a bare axum handler that parses an order and answers the
//! JSON that the service would answer, and does nothing else. `PORT` says where, `POST /`.
#![expect(clippy::expect_used, reason = "an example may end with a message")]

use std::net::Ipv4Addr;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderIn {
    order_products: Vec<LineIn>,
    total_amount: i64,
    delivery_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LineIn {
    product_id: u64,
    quantity: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderOut {
    order_id: String,
    order_status: &'static str,
    delivery_type: String,
    store_id: Option<u64>,
    order_product_infos: Vec<LineOut>,
    discount_amount: i64,
    coupon_discount_amount: i64,
    used_points: i64,
    earned_points: i64,
    total_amount: i64,
    created_at: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LineOut {
    product_id: u64,
    product_name: &'static str,
    quantity: i64,
    unit_price: i64,
    sub_total: i64,
}

async fn echo(Json(order): Json<OrderIn>) -> (StatusCode, Json<OrderOut>) {
    let line = |line: LineIn| LineOut {
        product_id: line.product_id,
        product_name: "product 1",
        quantity: line.quantity,
        unit_price: 1_000,
        sub_total: 1_000 * line.quantity,
    };
    let answer = OrderOut {
        order_id: "249834342426083328".to_owned(),
        order_status: "ORDER_PENDING",
        delivery_type: order.delivery_type,
        store_id: None,
        order_product_infos: order.order_products.into_iter().map(line).collect(),
        discount_amount: 0,
        coupon_discount_amount: 0,
        used_points: 0,
        earned_points: 0,
        total_amount: order.total_amount,
        created_at: "2026-11-21T09:52:28.932Z",
    };
    (StatusCode::CREATED, Json(answer))
}

#[tokio::main]
async fn main() {
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(9_000);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .expect("the port is free");
    axum::serve(listener, Router::new().route("/", post(echo)))
        .await
        .expect("it serves");
}
