//! The ceiling of every order: a bare axum handler that parses the same JSON and answers the same
//! JSON as the service, and does nothing else. It runs in a separate process.

use std::net::Ipv4Addr;
use std::process::Stdio;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use stock_client::Client;
use stock_servers::free_port;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::shop::until;

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

/// Serves until it is killed.
///
/// # Errors
/// When the port is taken.
pub async fn serve(port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(axum::serve(listener, Router::new().route("/", post(echo))).await?)
}

/// The echo in a separate process, which ends when this is dropped.
pub struct Echo {
    /// A client of the echo.
    pub client: Client,
    _child: Child,
}

impl Echo {
    /// Starts this program again as the echo.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start() -> Result<Self, Failure> {
        let port = free_port()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["--echo-port", &port.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let client = crate::client(&format!("127.0.0.1:{port}"))?;
        until("the echo answers", || async {
            client.get("/").try_send().await.is_ok()
        })
        .await?;
        Ok(Self {
            client,
            _child: child,
        })
    }
}
