//! An order with reqwest: the same key until there is an answer, refusals by their code.
#![allow(
    clippy::allow_attributes,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a recipe reads what it knows is there, and prints"
)]

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How often a request is sent before it is given up.
const ATTEMPTS: u32 = 5;

/// Calls the service on behalf of one buyer.
struct Shop {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Shop {
    /// Sends a request until there is an answer; under a key that is safe, whatever became of the
    /// first attempt.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        let mut attempt = 1;
        loop {
            let request = self
                .http
                .request(method.clone(), format!("{}{path}", self.url))
                .bearer_auth(&self.token)
                .header("idempotency-key", key)
                .header("content-type", "application/json")
                .body(body.to_string());
            let answer = match request.send().await {
                Ok(answer) => (answer.status(), answer.text().await),
                Err(error) => (StatusCode::SERVICE_UNAVAILABLE, Err(error)),
            };
            let last = attempt == ATTEMPTS;
            match answer {
                (status, Ok(text)) => {
                    let body: Value = serde_json::from_str(&text)?;
                    if status.is_success() {
                        return Ok(body);
                    }
                    let is_passing = [
                        StatusCode::TOO_MANY_REQUESTS,
                        StatusCode::SERVICE_UNAVAILABLE,
                    ]
                    .contains(&status)
                        || body["code"] == "REQUEST_IN_PROGRESS";
                    if last || !is_passing {
                        return Err(format!("{}: {}", body["code"], body["detail"]).into());
                    }
                }
                (_, Err(error)) if last => return Err(error.into()),
                (_, Err(_unknown)) => {}
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            attempt += 1;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // reqwest is built without a TLS provider here; a shop of yours takes its default features
    // instead.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_other| "a provider is installed already")?;
    let shop = Shop {
        http: reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()?,
        url: std::env::var("SHOP_URL")?,
        token: std::env::var("TOKEN")?,
    };
    let order = json!({
        "orderProducts": [{ "productId": 1, "quantity": 2 }],
        "totalAmount": 2_000,
        "deliveryType": "ONLINE",
    });
    let key = format!("{:032x}", rand::random::<u128>());
    let made = shop
        .call(Method::POST, "/api/redis/orders", &order, &key)
        .await?;
    // The same key: the same order, not a second one.
    let again = shop
        .call(Method::POST, "/api/redis/orders", &order, &key)
        .await?;
    assert_eq!(made["orderId"], again["orderId"]);
    let id = made["orderId"].as_str().unwrap_or_default();
    let key = format!("{:032x}", rand::random::<u128>());
    let cancelled = shop
        .call(
            Method::PATCH,
            &format!("/api/redis/orders/{id}/cancel"),
            &json!({}),
            &key,
        )
        .await?;
    println!("{id} {}", cancelled["orderStatus"]);
    Ok(())
}
