//! The fake payment page of `dev`: `/pay/{checkoutId}` plays a payment provider that pays,
//! declines, answers late, twice, or with another amount, or says nothing.
//!
//! It sends the message of a provider, signed, to the interface in this process. So a newcomer sees
//! each way in which a payment can go.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::json;
use stock_domain::webhook::Secret;

use super::api::Api;
use super::context::{PageContext, page};
use super::shop::Checkout;
use crate::app::App;
use crate::http::code::Code;
use crate::http::extract::Form;
use crate::http::problem::Problem;

/// Every way of the provider, in the order of the buttons.
const WAYS: [&str; 7] = ["pay", "decline", "late", "repeat", "twice", "lie", "silent"];

/// Whether this service plays the payment provider.
#[must_use]
pub fn is_served(app: &App) -> bool {
    cfg!(feature = "dev") && app.config.selling.fake_payments
}

#[derive(Template)]
#[template(path = "pay.html")]
struct PayPage {
    context: PageContext,
    checkout: Checkout,
    ways: [&'static str; 7],
}

/// Finds the reader's checkout, where this page is served.
async fn find(context: &PageContext, id: &str) -> Result<Checkout, Response> {
    if !is_served(&context.app) {
        return Err(Problem::of(Code::NotFound).into_response());
    }
    context.reader()?;
    let missing = |_| Problem::of(Code::CheckoutNotFound).into_response();
    let id: u64 = id.parse().map_err(missing)?;
    let found = context.get(&format!("/api/checkouts/{id}")).await;
    found.map_err(IntoResponse::into_response)
}

/// GET `/pay/{checkoutId}`.
///
/// # Errors
/// 404 for a checkout that is not the reader's, and where the service plays no provider.
pub async fn show(context: PageContext, Path(id): Path<String>) -> Result<Response, Response> {
    let checkout = find(&context, &id).await?;
    Ok(page(&PayPage {
        context,
        checkout,
        ways: WAYS,
    }))
}

/// The button that was pressed.
#[derive(Debug, Deserialize)]
pub struct PayIn {
    how: String,
}

/// A message of the provider.
struct Message {
    kind: &'static str,
    payment: String,
    amount: i64,
    after: Duration,
}

/// POST `/pay/{checkoutId}`.
///
/// # Errors
/// As [`show`].
pub async fn pay(
    State(app): State<std::sync::Arc<App>>,
    Extension(api): Extension<Api>,
    context: PageContext,
    Path(id): Path<String>,
    Form(PayIn { how }): Form<PayIn>,
) -> Result<Response, Response> {
    let checkout = find(&context, &id).await?;
    let message = |kind, payment: &str, more: i64, after| Message {
        kind,
        payment: format!("pay_{:016x}_{payment}", rand::random::<u64>()),
        amount: checkout.total_amount + more,
        after,
    };
    let paid = |payment: &str| message("payment.succeeded", payment, 0, Duration::ZERO);
    let left = checkout.left(app.ledger.redis_now_ms());
    let late = left.saturating_add(Duration::from_secs(5));
    let messages = match how.as_str() {
        "decline" => vec![message("payment.failed", "a", 0, Duration::ZERO)],
        "late" => vec![message("payment.succeeded", "a", 0, late)],
        "repeat" => {
            let first = paid("a");
            let payment = first.payment.clone();
            vec![
                first,
                Message {
                    payment,
                    ..paid("a")
                },
            ]
        }
        "twice" => vec![paid("a"), paid("b")],
        "lie" => vec![message("payment.succeeded", "a", 1, Duration::ZERO)],
        "silent" => vec![message("payment.pending", "a", 0, Duration::ZERO)],
        _ => vec![paid("a")],
    };
    for message in messages {
        let (app, api, id) = (std::sync::Arc::clone(&app), api.clone(), id.clone());
        let sending = async move { send(&app, &api, &id, &message).await };
        if how == "late" {
            tokio::spawn(sending);
        } else {
            sending.await;
        }
    }
    Ok(Redirect::to(&format!("/checkouts/{id}")).into_response())
}

/// Sends a message to the interface, as a provider does.
async fn send(app: &App, api: &Api, checkout: &str, message: &Message) {
    tokio::time::sleep(message.after).await;
    let Ok(secret) = app.config.selling.payment_webhook_secret.parse::<Secret>() else {
        return;
    };
    let data = json!({ "checkoutId": checkout, "paymentId": message.payment,
        "amount": message.amount });
    let body = json!({ "type": message.kind, "data": data }).to_string();
    let (id, at) = (&message.payment, app.people.tokens.now());
    let request = Request::post("/api/payments/events")
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", at)
        .header("webhook-signature", secret.sign(id, at, body.as_bytes()));
    if let Ok(request) = request.body(Body::from(body)) {
        let answer = api.call(request).await;
        let status = answer.status();
        tracing::info!(checkout.id = checkout, %status, "a fake payment was reported");
    }
}
