//! Problems: the only place that turns errors into responses (RFC 9457).
//!
//! A handler returns a [`Problem`]. It rides on the response as an extension until [`render`]
//! writes the body, because only the outermost layer knows the request's id. This file says how a
//! refusal or a fault appears to a client, and it logs internal faults, once.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stock_common::id::ProductId;
use stock_domain::account::{Account, AccountKind};
use stock_domain::catalog::Catalog;
use stock_domain::reservation::ReservationStatus;
use stock_domain::verdict::{Refusal, Why};
use stock_engine::row_lock::RowLockError;
use stock_redis::{DecideError, ReadError};

use crate::buyers::Unseen;
use crate::coupons::Unread;
use crate::http::code::Code;
use crate::limits::Exceeded;
use crate::passwords::PasswordError;
use crate::stream_places::Full;
use crate::tokens::TokenError;

/// `Retry-After` of a 503, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An answer that reports a refusal or a fault.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The code.
    pub code: Code,
    /// The HTTP status, which is the code's except in an interface that has its own.
    pub status: u16,
    /// The case in words, for a person.
    pub detail: String,
    /// Further members, such as `productId`.
    pub members: Map<String, Value>,
    /// The limit that was exceeded, if one was.
    pub exceeded: Option<Exceeded>,
    /// Whether the answer was first given to an earlier request with the same key.
    pub is_replayed: bool,
    /// Whether a server may have made a change that it could not confirm.
    pub may_be_done: bool,
}

/// A problem in the form in which it is remembered under an Idempotency-Key.
#[derive(Serialize, Deserialize)]
struct Remembered {
    code: String,
    detail: String,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem with a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            members: Map::new(),
            exceeded: None,
            is_replayed: false,
            may_be_done: false,
        }
    }

    /// A problem whose detail is its title.
    pub fn of(code: Code) -> Self {
        Self::new(code, code.title())
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// A 422 that names the wrong member by its JSON pointer.
    pub fn unprocessable(pointer: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let errors = json!([{ "pointer": pointer, "message": message }]);
        Self::new(Code::Unprocessable, message).with("errors", errors)
    }

    /// Labels the answer as one that was given before.
    #[must_use]
    pub fn replayed(mut self) -> Self {
        self.is_replayed = true;
        self
    }

    /// The problem as a part of another answer.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut members = self.members.clone();
        let code = self.code.as_str();
        for (name, value) in [
            ("type", json!(format!("/problems/{code}"))),
            ("title", json!(self.code.title())),
            ("status", json!(self.status)),
            ("detail", json!(self.detail)),
            ("code", json!(code)),
        ] {
            members.insert(name.to_owned(), value);
        }
        Value::Object(members)
    }

    /// The text that is remembered under a key.
    #[must_use]
    pub fn to_remember(&self) -> String {
        let remembered = Remembered {
            code: self.code.as_str().to_owned(),
            detail: self.detail.clone(),
            members: self.members.clone(),
        };
        serde_json::to_string(&remembered).unwrap_or_default()
    }

    /// Reads a remembered problem.
    #[must_use]
    pub fn from_remembered(text: &str) -> Self {
        let read = serde_json::from_str::<Remembered>(text).ok();
        read.and_then(|read| {
            let code = Code::parse(&read.code)?;
            Some(Self {
                members: read.members,
                ..Self::new(code, read.detail)
            })
        })
        .unwrap_or_else(|| Self::of(Code::Internal))
    }

    /// The answer to a change that may have been made, in whole or in part.
    #[must_use]
    pub fn outcome_unknown() -> Self {
        Self::new(
            Code::OutcomeUnknown,
            "it is not known whether this was carried out; repeat it with the same \
             Idempotency-Key, or look at what it should have changed",
        )
    }

    /// The same problem after a change was made: a fault then no longer says that nothing was done.
    #[must_use]
    pub fn behind_a_change(mut self) -> Self {
        self.may_be_done = self.code.status() >= 500;
        self
    }

    /// A fault of the service: the log has its cause, the answer does not.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %error, "request failed");
        Self::of(Code::Internal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes a problem's body; leaves any other response as it is.
#[must_use]
pub fn render(mut response: Response, request_id: &str) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let mut body = problem.to_value();
    if let Some(members) = body.as_object_mut() {
        members.insert("requestId".to_owned(), json!(request_id));
    }
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    // The router has set the length of the empty body that carried the problem.
    headers.remove(header::CONTENT_LENGTH);
    if problem.status == 503 {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    if problem.status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(exceeded) = problem.exceeded {
        limit_headers(headers, exceeded);
    }
    if problem.is_replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// Adds when to retry, and the limit (IETF draft 10 of the rate limit header fields).
fn limit_headers(headers: &mut HeaderMap, exceeded: Exceeded) {
    let Exceeded {
        limit,
        window_seconds,
        retry_after_seconds,
    } = exceeded;
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    for (name, value) in [
        (
            "ratelimit-policy",
            format!("\"default\";q={limit};w={window_seconds}"),
        ),
        (
            "ratelimit",
            format!("\"default\";r=0;t={retry_after_seconds}"),
        ),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        let (limit, window) = (exceeded.limit, exceeded.window_seconds);
        let detail = format!("at most {limit} in {window} s");
        let mut problem = Self::new(Code::TooManyRequests, detail);
        problem.exceeded = Some(exceeded);
        problem
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::NotKnownYet => Code::DatabaseUnavailable,
            TokenError::IssuerAway => Code::IssuerUnavailable,
            TokenError::Ended | TokenError::Invalid(_) => Code::Unauthorized,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Unseen> for Problem {
    fn from(error: Unseen) -> Self {
        match error {
            Unseen::Decide(error) => error.into(),
            Unseen::Refused(refusal) => (*refusal).into(),
            Unseen::Draft(error) => error.into(),
        }
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        match full {
            Full::Altogether => Self::of(Code::Overloaded),
            Full::OfOne(_) => Self::new(Code::TooManyRequests, full.to_string()),
        }
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::new(Code::Overloaded, error.to_string()),
            PasswordError::Failed(_) => Self::internal(&error),
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Fenced(reason) | DecideError::Elsewhere(reason) => {
                tracing::debug!(%reason, "fenced");
                Self::of(Code::Fenced)
            }
            // The log, `/readyz` and a metric name the setting.
            DecideError::Unsafe(_) => Self::of(Code::UnsafeRedis),
            DecideError::Overloaded | DecideError::Held => Self::of(Code::Overloaded),
            DecideError::Unable(_) => Self::new(
                Code::Overloaded,
                "the stock store refuses writes at the moment",
            ),
            DecideError::OutcomeUnknown => Self::outcome_unknown(),
            DecideError::Draft(error) => Self::internal(&*error),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fenced(_) | ReadError::Redis(_) => Self::of(Code::Fenced),
            ReadError::Entry(error) => Self::internal(&error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "mysql did not answer");
        let mut problem = Self::of(Code::DatabaseUnavailable);
        problem.may_be_done = matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed
        );
        problem
    }
}

impl From<Unread> for Problem {
    fn from(error: Unread) -> Self {
        tracing::warn!(%error, "mysql did not answer");
        Self::of(Code::DatabaseUnavailable)
    }
}

impl From<RowLockError> for Problem {
    fn from(error: RowLockError) -> Self {
        match error {
            // MySQL failed before anything was decided.
            RowLockError::Database(error) => Self {
                may_be_done: false,
                ..error.into()
            },
            RowLockError::Decide(error) => error.into(),
            RowLockError::Stalled => DecideError::OutcomeUnknown.into(),
        }
    }
}

impl From<stock_domain::journal::DraftError> for Problem {
    fn from(error: stock_domain::journal::DraftError) -> Self {
        Self::internal(&error)
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(&error)
    }
}

/// Translates a refusal. The refusal itself holds all that the answer needs, so that a replay under
/// a key gets the same answer. Only whether a closed product was deleted is looked up in the
/// catalog ([`Problem::of_refusal`]).
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fenced | Refusal::Claimed(_) => Self::of(Code::Fenced),
            Refusal::KeyReused => Self::of(Code::IdempotencyKeyReused),
            Refusal::Expired => Self::of(Code::Overloaded),
            Refusal::Backlog => Self::of(Code::Backlog),
            Refusal::Predecided(text) => Self::from_remembered(&text),
            Refusal::NotOpen => Self::of(Code::SaleNotOpen),
            Refusal::Closed => Self::of(Code::SaleClosed),
            Refusal::StaleState { state, .. } => stale(&state),
            Refusal::SellingStopped => Self::of(Code::SellingStopped),
            Refusal::Changed { balance } => {
                Self::new(Code::StockChanged, format!("{balance} are available"))
                    .with("available", balance)
            }
            // An order that is refused so is made anew.
            Refusal::OwnHold => Self::of(Code::Internal),
            Refusal::HoldExpired => Self::of(Code::ReservationAlreadyExpired),
            Refusal::HeldEnough { left, .. } => {
                let text = format!("{left} more units of the product may be held");
                Self::new(Code::HoldUnitsReached, text).with("remaining", left)
            }
            Refusal::Posting { account, why, .. } => match why {
                Why::Unknown => short(account, 0),
                Why::Insufficient { balance, .. } => short(account, balance),
                Why::Closed => {
                    let (id, text) = (account.owner, "cannot be ordered now");
                    Self::new(Code::ProductNotOnSale, format!("product {id} {text}"))
                        .with("productId", id)
                }
                Why::Broken => Self::of(Code::AccountBroken),
                Why::Overflow => Self::new(
                    Code::StockLimitReached,
                    format!("{account} would be above 2^53 - 1"),
                ),
            },
            Refusal::Lost(_) => Self::of(Code::AccountBroken),
            Refusal::Taken { .. } => Self::of(Code::CouponNotUsable),
        }
    }
}

/// Translates a stale state: a reservation that has ended, or an order's status.
fn stale(state: &str) -> Problem {
    let ended = ReservationStatus::of_state(state);
    ended
        .and_then(Problem::of_ended)
        .unwrap_or_else(|| Problem::new(Code::InvalidOrderStatus, format!("the status is {state}")))
}

/// Translates an account that holds too little: stock, a sale's limit, the limit of reservations, a
/// coupon, or points.
fn short(account: Account, left: i64) -> Problem {
    match account.kind {
        AccountKind::Allowance => {
            let text = format!("the sale allows this buyer {left} more");
            Problem::new(Code::PurchaseLimitReached, text)
                .with("saleId", account.owner)
                .with("remaining", left)
        }
        AccountKind::Hold => {
            let text = format!("at most {} reservations may be live", account.location);
            Problem::new(Code::HoldLimitReached, text)
        }
        AccountKind::Coupon => Problem::of(Code::CouponSoldOut),
        AccountKind::Points => {
            let text = format!("there are {left} points");
            Problem::new(Code::InsufficientPoints, text).with("available", left)
        }
        AccountKind::Available | AccountKind::Reserved | AccountKind::Bucket => {
            let text = format!("product {} has {left} left", account.owner);
            Problem::new(Code::InsufficientStock, text)
                .with("productId", account.owner)
                .with("available", left)
        }
    }
}

impl Problem {
    /// Translates a refusal, and tells a deleted product from one that is off sale.
    pub fn of_refusal(catalog: &Catalog, refusal: Refusal) -> Self {
        if let Refusal::Posting {
            account,
            why: Why::Closed,
            ..
        } = &refusal
        {
            let id = ProductId(account.owner);
            if catalog.product(id).is_none_or(|known| known.is_deleted) {
                return Self::new(Code::ProductNotFound, format!("there is no product {id}"))
                    .with("productId", id.0);
            }
        }
        refusal.into()
    }

    /// Why a reservation that has ended cannot end again; `None` while it is live.
    pub fn of_ended(status: ReservationStatus) -> Option<Self> {
        match status {
            ReservationStatus::Pending => None,
            ReservationStatus::Confirmed => Some(Code::ReservationAlreadyConfirmed),
            ReservationStatus::Cancelled => Some(Code::ReservationAlreadyCancelled),
            ReservationStatus::Expired => Some(Code::ReservationAlreadyExpired),
        }
        .map(Self::of)
    }
}
