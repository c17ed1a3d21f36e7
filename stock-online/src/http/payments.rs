//! Payments: what a reported payment does to its checkout, and the list of payments.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`receive`] | POST `/api/payments/events` | 200 with what became of it; a payment provider calls it |
//! | [`list`] | GET `/api/payments` | 200, newest first |
//!
//! [`settle()`] does for the provider's message and for a confirm by the shop the same.

mod settle;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use stock_common::clock::rfc3339;
use stock_common::id::{Position, UserId};
use stock_common::money::Money;
use stock_domain::checkout::{self, CheckoutStatus, Payment, PaymentOutcome};
use stock_domain::verdict::{Refusal, Verdict};
use stock_domain::webhook::Secret;
use stock_engine::lookup::{self, LocatedCheckout};
use stock_mysql::payments::{self as table, PaymentFilter, StoredPayment};
use utoipa::ToSchema;

pub(super) use self::settle::{Settled, problem, settle};
use super::auth::Admin;
use super::checkouts::wire::payment_id;
use super::checkouts::{ROUNDS, again, budget, count, find};
use super::extract::{Filter, parse_json, read_body};
use super::orders::json;
use super::page::{cursor_of, cut, limit_of};
use super::problem::Problem;
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;

/// How old a message may be, and how far in the future, in seconds (Standard Webhooks).
const TOLERANCE_SECONDS: i64 = 300;

/// A provider's message, as Standard Webhooks has it. Further members are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "type": "payment.succeeded", "data": {
    "checkoutId": "250070228237549578", "paymentId": "pay_8f3a", "amount": 2_000 } }))]
pub(in crate::http) struct EventIn {
    /// `payment.succeeded`, `payment.failed`, `payment.pending` or `payment.unknown`.
    r#type: String,
    data: EventDataIn,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct EventDataIn {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    checkout_id: Position,
    /// The payment provider's id.
    #[schema(min_length = 1, max_length = 100)]
    payment_id: String,
    /// The amount that was paid. A payment that succeeded needs it.
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    amount: Option<Money>,
}

/// The outcome of a provider's message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct EventOut {
    /// `CONFIRMED`, `DUPLICATE`, `AMOUNT_MISMATCH` and `REFUND_DUE` for a payment that succeeded;
    /// `HELD`, `EXTENDED` and `IGNORED` for other messages.
    outcome: &'static str,
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    order_id: Option<Position>,
}

/// POST `/api/payments/events`.
///
/// # Errors
/// 401 for a wrong signature, 404 for an unknown checkout.
pub async fn receive(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(&parts, body, app.config.http.http_body_bytes_max).await?;
    check_signature(&app, &parts.headers, &bytes)?;
    let event: EventIn = parse_json(&bytes)?;
    let payment_id = payment_id(event.data.payment_id, "/data/paymentId")?;
    let found = find(&app, event.data.checkout_id).await?;
    let found = found.ok_or_else(|| Problem::of(Code::CheckoutNotFound))?;
    let held = |outcome| EventOut {
        outcome,
        order_id: None,
    };
    let is_open = found.course.status == CheckoutStatus::Open;
    let answer = match event.r#type.as_str() {
        "payment.succeeded" => {
            let missing = || Problem::unprocessable("/data/amount", "the amount that was paid");
            let payment = Payment {
                id: payment_id,
                amount: event.data.amount.ok_or_else(missing)?,
            };
            succeeded(
                settle(&app, found.id, &payment, UserId::ENGINE, None).await?,
                &payment.id,
            )
        }
        "payment.failed" if is_open => held("HELD"),
        "payment.pending" | "payment.unknown" if is_open => held(wait(&app, found).await?),
        _ => held("IGNORED"),
    };
    Ok(json(StatusCode::OK, &answer))
}

fn succeeded(settled: Settled, payment_id: &str) -> EventOut {
    match settled {
        Settled::Confirmed { order_id, .. } => EventOut {
            outcome: "CONFIRMED",
            order_id: Some(order_id),
        },
        Settled::Unused { outcome } => {
            tracing::info!(
                payment_id,
                outcome = outcome.as_str(),
                "a payment sold nothing"
            );
            let outcome = match outcome {
                PaymentOutcome::TooLate | PaymentOutcome::Cancelled => "REFUND_DUE",
                known @ (PaymentOutcome::Confirmed
                | PaymentOutcome::Duplicate
                | PaymentOutcome::AmountMismatch) => known.as_str(),
            };
            EventOut {
                outcome,
                order_id: None,
            }
        }
    }
}

/// Extends a checkout once, because the outcome of its payment is open.
async fn wait(app: &App, mut found: LocatedCheckout) -> Result<&'static str, Problem> {
    for _ in 0..ROUNDS {
        let now_ms = app.ledger.redis_now_ms();
        let (id, before) = (found.id, found.extended);
        if found.course.status != CheckoutStatus::Open {
            return Ok("IGNORED");
        }
        let extended = found
            .checkout
            .extend_for_payment(id, before, now_ms, budget(app));
        let Some(extended) = extended else {
            return Ok("HELD");
        };
        let request = checkout::extend(found.changed(), extended, UserId::ENGINE, None)?;
        match app.ledger.decide(request).await? {
            Verdict::Accepted(_) => {
                count("extended");
                return Ok("EXTENDED");
            }
            Verdict::Replayed(_)
            | Verdict::Refused(Refusal::StaleState { .. } | Refusal::HoldExpired) => {}
            Verdict::Refused(refusal) => return Err(refusal.into()),
        }
        found = again(app, id).await?;
    }
    Err(Problem::of(Code::Overloaded))
}

/// Checks the signature of a message (Standard Webhooks).
fn check_signature(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let invalid = |text: &str| Problem::new(Code::SignatureInvalid, text);
    let secret = app.config.selling.payment_webhook_secret.parse::<Secret>();
    let secret = secret.map_err(|_none| invalid("no payment_webhook_secret is set"))?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(at), Some(signatures)) = (
        header("webhook-id"),
        header("webhook-timestamp"),
        header("webhook-signature"),
    ) else {
        let text = "webhook-id, webhook-timestamp and webhook-signature are needed";
        return Err(invalid(text));
    };
    let at: i64 = at
        .parse()
        .map_err(|_no_number| invalid("webhook-timestamp is no number"))?;
    if app.people.tokens.now().abs_diff(at) > TOLERANCE_SECONDS.unsigned_abs() {
        return Err(invalid("webhook-timestamp is too far from now"));
    }
    match secret.has_signed(id, at, body, signatures) {
        true => Ok(()),
        false => Err(invalid("no signature is by the payment_webhook_secret")),
    }
}

/// The page and the filters of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListIn {
    limit: Option<u32>,
    cursor: Option<String>,
    checkout_id: Option<Position>,
    refund_due: Option<bool>,
}

/// A payment as admins see it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct PaymentOut {
    payment_id: String,
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    checkout_id: Position,
    #[schema(value_type = u64)]
    amount: Money,
    #[schema(value_type = PaymentOutcomeName)]
    outcome: PaymentOutcome,
    /// The order that it paid.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    order_id: Option<Position>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// The outcome of a payment.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(in crate::http) enum PaymentOutcomeName {
    Confirmed,
    Duplicate,
    AmountMismatch,
    TooLate,
    Cancelled,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct PaymentListOut {
    items: Vec<PaymentOut>,
    next_cursor: Option<String>,
}

impl From<StoredPayment> for PaymentOut {
    fn from(of: StoredPayment) -> Self {
        let is_sold = of.outcome == PaymentOutcome::Confirmed;
        Self {
            payment_id: of.payment_id,
            checkout_id: of.checkout_id,
            amount: of.amount,
            outcome: of.outcome,
            order_id: is_sold.then_some(of.id),
            created_at: rfc3339(of.id.unix_ms()),
        }
    }
}

/// GET `/api/payments`.
///
/// # Errors
/// 422 for an invalid filter.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let filter = PaymentFilter {
        checkout: query.checkout_id,
        is_refund_due: query.refund_due.unwrap_or(false),
        before: cursor_of(query.cursor.as_deref())?.map(Position::new),
        limit: limit + 1,
    };
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut found = table::list(&app.pool, &filter).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let items = found.into_iter().map(PaymentOut::from).collect();
    Ok(json(StatusCode::OK, &PaymentListOut { items, next_cursor }))
}
