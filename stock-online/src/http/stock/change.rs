//! Changes of stock by admins: inbound deliveries and corrections.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, Position, ProductId, UserId};
use stock_domain::account::Account;
use stock_domain::catalog::{Product, ProductStatus};
use stock_domain::journal::{DraftError, Idempotency};
use stock_domain::posting::Posted;
use stock_domain::product;
use stock_domain::request::Request;
use stock_domain::stock::{self, CHANGE_MAX, StockChanged, Terms};
use stock_domain::verdict::{Replay, Verdict};
use stock_mysql::people::audit_log::Action;
use stock_mysql::{products, stores};
use utoipa::ToSchema;

use super::find_product;
use crate::app::App;
use crate::http::audit;
use crate::http::auth::{Admin, Caller};
use crate::http::code::Code;
use crate::http::extract::{BodyIn, Keyed, PathId};
use crate::http::orders::{json, replayed};
use crate::http::origin::Origin;
use crate::http::problem::Problem;
use crate::http::products::check_text;
use crate::http::verdicts::{refuse, replayed_entry};

/// An inbound delivery.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "productId": 1, "quantity": 100, "reason": "delivery 17" }))]
pub struct InboundIn {
    product_id: u64,
    /// A store's number; 0 or absent is the online warehouse.
    location_id: Option<u64>,
    #[schema(minimum = 1, maximum = 1_000_000_000_000_i64)]
    quantity: i64,
    #[schema(max_length = 255)]
    reason: String,
}

/// A correction of stock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "change": -3, "reason": "broken" }))]
pub struct AdjustIn {
    /// The change in units, not 0.
    #[schema(minimum = -1_000_000_000_000_i64, maximum = 1_000_000_000_000_i64)]
    change: i64,
    /// A store's number; 0 or absent is the online warehouse.
    location_id: Option<u64>,
    #[schema(max_length = 255)]
    reason: Option<String>,
    /// The available stock without which the change is refused.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    expected_available: Option<i64>,
}

impl BodyIn for InboundIn {}

impl BodyIn for AdjustIn {}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct InboundOut {
    /// The entry's position in the journal.
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    position: Position,
    product_id: u64,
    location_id: u64,
    quantity: i64,
    /// The available stock after the change.
    available: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct AdjustOut {
    /// The available stock after the change.
    new_stock_count: i64,
}

/// Checks that a location is the online warehouse or an existing store.
async fn find_location(app: &App, id: Option<u64>) -> Result<LocationId, Problem> {
    let location = LocationId(id.unwrap_or(0));
    if location != LocationId::ONLINE && stores::find(&app.pool, location).await?.is_none() {
        return Err(Problem::of(Code::StoreNotFound));
    }
    Ok(location)
}

/// Builds the request of a change: `stock::receive` or `stock::adjust`.
type Build = fn(&StockChanged, &Terms, UserId, Option<Idempotency>) -> Result<Request, DraftError>;

/// A change that was made: its position, and the available stock after it.
struct Changed {
    position: Position,
    available: i64,
    is_replayed: bool,
}

async fn change(
    app: &App,
    admin: Caller,
    build: Build,
    change: &StockChanged,
    expected: Option<i64>,
    idempotency: Option<Idempotency>,
) -> Result<Changed, Problem> {
    let checked = async {
        let product = find_product(app, change.product_id.0).await?;
        find_location(app, Some(change.location_id.0)).await?;
        Ok::<Product, Problem>(product)
    };
    let product = match checked.await {
        Ok(product) => product,
        Err(problem) => {
            let verdict = refuse(app, idempotency, problem).await?;
            return changed(app, change, verdict).await;
        }
    };
    let terms = Terms {
        expected_available: expected,
        is_off_sale: product.fields.status != ProductStatus::Active,
    };
    let request = build(change, &terms, admin.user, idempotency)?;
    let verdict = app.ledger.decide(request).await?;
    let is_opening = matches!(&verdict, Verdict::Accepted(accepted)
        if accepted.postings.iter().any(|posted| posted.seq == 1));
    if is_opening {
        follow_status(app, change.product_id, terms.is_off_sale, admin).await?;
    }
    changed(app, change, verdict).await
}

/// Closes or opens the product's accounts again, if its status changed while a store's account was
/// being opened.
async fn follow_status(
    app: &App,
    id: ProductId,
    was_off_sale: bool,
    admin: Caller,
) -> Result<(), Problem> {
    let product = products::find(&app.pool, id).await?;
    let is_on_sale = product.is_some_and(|now| now.fields.status == ProductStatus::Active);
    if is_on_sale == was_off_sale {
        let locations = stores::ids(&app.pool).await?;
        let request = product::switch(id, !is_on_sale, &locations, admin.user)?;
        if let Verdict::Refused(refusal) = app.ledger.decide(request).await? {
            return Err(refusal.into());
        }
    }
    Ok(())
}

async fn changed(app: &App, change: &StockChanged, verdict: Verdict) -> Result<Changed, Problem> {
    let account = Account::available(change.product_id, change.location_id);
    // The account's last posting is the change; the posting that opened the account may come before
    // it.
    let after = |postings: &[Posted]| {
        let own = postings
            .iter()
            .rev()
            .find(|posted| posted.account == account);
        own.map_or(0, |posted| posted.balance_after)
    };
    match verdict {
        Verdict::Accepted(accepted) => Ok(Changed {
            position: accepted.position,
            available: after(&accepted.postings),
            is_replayed: false,
        }),
        Verdict::Replayed(Replay::Accepted(position)) => {
            let entry = replayed_entry(app, position).await?;
            Ok(Changed {
                position,
                available: after(&entry.postings),
                is_replayed: true,
            })
        }
        Verdict::Replayed(Replay::Refused(refusal)) => Err(Problem::from(refusal).replayed()),
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

fn answer(status: StatusCode, body: &impl Serialize, is_replayed: bool) -> Response {
    let response = json(status, body);
    if is_replayed {
        replayed(response)
    } else {
        response
    }
}

/// POST `/api/products/stock/inbound`.
///
/// # Errors
/// 404, 409 when the level would become too large, 422.
pub async fn inbound(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        mut body,
        idempotency,
        ..
    }: Keyed<InboundIn>,
) -> Result<Response, Problem> {
    if !(1..=CHANGE_MAX).contains(&body.quantity) {
        let rule = format!("a whole number from 1 to {CHANGE_MAX}");
        return Err(Problem::unprocessable("/quantity", rule));
    }
    check_text(&mut body.reason, 255, "/reason", 0)?;
    let wanted = StockChanged {
        product_id: ProductId(body.product_id),
        location_id: LocationId(body.location_id.unwrap_or(0)),
        quantity: body.quantity,
        reason: body.reason,
    };
    let done = change(&app, admin, stock::receive, &wanted, None, idempotency).await?;
    note(&app, &origin, Action::StockReceived, admin, &wanted);
    let body = InboundOut {
        position: done.position,
        product_id: wanted.product_id.0,
        location_id: wanted.location_id.0,
        quantity: wanted.quantity,
        available: done.available,
    };
    Ok(answer(StatusCode::CREATED, &body, done.is_replayed))
}

fn note(app: &Arc<App>, origin: &Origin, action: Action, admin: Caller, change: &StockChanged) {
    let (product, location) = (change.product_id, change.location_id);
    let subject = format!(
        "product:{product} location:{location} {:+}",
        change.quantity
    );
    audit::note(app, origin, action, Some(admin.user), &subject);
}

/// POST `/api/products/{id}/stock`.
///
/// # Errors
/// 404, 409 when the level would fall below zero or is not the expected one, 422.
pub async fn adjust(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<AdjustIn>,
) -> Result<Response, Problem> {
    if body.change == 0 || !(-CHANGE_MAX..=CHANGE_MAX).contains(&body.change) {
        let rule = format!("a whole number from -{CHANGE_MAX} to {CHANGE_MAX}, not 0");
        return Err(Problem::unprocessable("/change", rule));
    }
    if body.expected_available.is_some_and(|level| level < 0) {
        return Err(Problem::unprocessable("/expectedAvailable", "is below 0"));
    }
    let mut reason = body.reason.unwrap_or_default();
    check_text(&mut reason, 255, "/reason", 0)?;
    let PathId(id) = id.map_err(|_not_a_number| Problem::of(Code::ProductNotFound))?;
    let wanted = StockChanged {
        product_id: ProductId(id),
        location_id: LocationId(body.location_id.unwrap_or(0)),
        quantity: body.change,
        reason,
    };
    let expected = body.expected_available;
    let done = change(&app, admin, stock::adjust, &wanted, expected, idempotency).await?;
    note(&app, &origin, Action::StockAdjusted, admin, &wanted);
    let body = AdjustOut {
        new_stock_count: done.available,
    };
    Ok(answer(StatusCode::OK, &body, done.is_replayed))
}
