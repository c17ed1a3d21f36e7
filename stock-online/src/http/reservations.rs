//! Reservations: set stock aside, then confirm or cancel; read one, list one's own.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`reserve`] | POST `/api/products/stock/reserve` | 201 `PENDING` |
//! | [`confirm`] | POST `/api/reservations/{id}/confirm` | 200 `CONFIRMED`; a payment system calls it |
//! | [`cancel`] | POST `/api/reservations/{id}/cancel` | 200 `CANCELLED` |
//! | [`show`] | GET `/api/reservations/{id}` | 200 |
//! | [`list`] | GET `/api/reservations` | 200, newest first |
//!
//! The scheduler releases expired reservations; so does a request that is short of stock
//! ([`super::verdicts`]).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use stock_common::clock::rfc3339;
use stock_common::id::{LocationId, Position, ProductId};
use stock_domain::buyer::Buyer;
use stock_domain::catalog::{Product, ProductStatus};
use stock_domain::hold;
use stock_domain::pricing::Unpriced;
use stock_domain::quantity::Quantity;
use stock_domain::reservation::{
    self, Reservation, ReservationStatus, TTL_SECONDS, TTL_SECONDS_MIN,
};
use stock_domain::sale::{self, Sale};
use stock_domain::sku::Sku;
use stock_domain::verdict::{Refusal, Replay, Verdict};
use stock_engine::lookup::{self, LocatedReservation};
use stock_mysql::people::audit_log::Action;
use stock_mysql::reservations::{self as table, ReservationFilter};
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, Caller};
use super::extract::{BodyIn, Filter, IdIn, Keyed, PathId, Person};
use super::orders::{NothingIn, json, located, replayed, unpriced};
use super::origin::Origin;
use super::page::{cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::named;
use super::verdicts::{Round, decide_stock, refuse, replayed_entry};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;

/// The units to set aside.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "productId": 1, "quantity": 2 }))]
pub struct ReserveIn {
    /// The product, unless `sku` names it.
    product_id: Option<u64>,
    /// The SKU of the product, in place of `productId`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    sku: Option<Sku>,
    #[schema(value_type = u32, minimum = 1, maximum = 1_000_000)]
    quantity: Quantity,
    /// A store's number; 0 or absent is the online warehouse.
    location_id: Option<u64>,
    /// Time to live in seconds, at most the setting `hold_ttl_seconds_max`.
    #[schema(minimum = 30, maximum = 14_400)]
    ttl_seconds: Option<u64>,
    /// The shop's own name of the buyer; for a service key or an admin.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    buyer: Option<Buyer>,
    /// The user for whom a service key asks.
    user_id: Option<u64>,
}

/// Body of a cancel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelIn {
    /// For admins: also cancels a CONFIRMED reservation, whose stock then returns.
    #[serde(default)]
    force: bool,
}

impl BodyIn for ReserveIn {
    const IS_FOR_A_PERSON: bool = true;

    fn person(&self) -> Person<'_> {
        Person {
            buyer: self.buyer.as_ref(),
            user_id: self.user_id,
        }
    }
}

impl BodyIn for CancelIn {
    const MAY_BE_MISSING: bool = true;
}

/// The page of reservations to list, and its filters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListIn {
    limit: Option<u32>,
    cursor: Option<String>,
    status: Option<ReservationStatus>,
    product_id: Option<IdIn>,
}

/// Status of a reservation.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(super) enum ReservationStatusName {
    Pending,
    Confirmed,
    Cancelled,
    Expired,
}

/// A reservation as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservationOut {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    reservation_id: Position,
    user_id: u64,
    product_id: u64,
    location_id: u64,
    #[schema(value_type = u32)]
    quantity: Quantity,
    #[schema(value_type = ReservationStatusName)]
    status: ReservationStatus,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservationListOut {
    items: Vec<ReservationOut>,
    next_cursor: Option<String>,
}

impl ReservationOut {
    fn new(id: Position, of: &Reservation, status: ReservationStatus) -> Self {
        Self {
            reservation_id: id,
            user_id: of.user_id.0,
            product_id: of.product_id.0,
            location_id: of.location_id.0,
            quantity: of.quantity,
            status,
            created_at: rfc3339(id.unix_ms()),
            expires_at: rfc3339(of.expires_ms(id)),
        }
    }
}

/// The product to set stock aside of, if it can be ordered.
fn find_product(app: &App, id: ProductId) -> Result<Arc<Product>, Problem> {
    if !app.selling.catalog.is_read() {
        return Err(unpriced(Unpriced::CatalogUnread));
    }
    let product = app
        .selling
        .catalog
        .product(id)
        .filter(|known| !known.is_deleted);
    let product = product.ok_or_else(|| unpriced(Unpriced::ProductNotFound(id)))?;
    if product.fields.status != ProductStatus::Active {
        return Err(unpriced(Unpriced::ProductNotOnSale(id)));
    }
    Ok(product)
}

fn created(id: Position, of: &Reservation) -> Response {
    let body = ReservationOut::new(id, of, ReservationStatus::Pending);
    located(
        json(StatusCode::CREATED, &body),
        format!("/api/reservations/{id}"),
    )
}

/// POST `/api/products/stock/reserve`.
///
/// # Errors
/// 404, 409 for a product off sale, a closed window, too little stock, a limit reached.
pub async fn reserve(
    State(app): State<Arc<App>>,
    Keyed {
        caller,
        body,
        idempotency,
        ..
    }: Keyed<ReserveIn>,
) -> Result<Response, Problem> {
    let catalog = &app.selling.catalog;
    let id = named(catalog, body.product_id, body.sku.as_ref(), String::new)?;
    if body.user_id.is_some_and(|user| user != caller.user.0) {
        return Err(Problem::of(Code::UserMismatch));
    }
    let most = app.config.selling.hold_ttl_seconds_max;
    let ttl_seconds = body.ttl_seconds.unwrap_or(TTL_SECONDS.min(most));
    if !(TTL_SECONDS_MIN..=most).contains(&ttl_seconds) {
        let rule = format!("a whole number from {TTL_SECONDS_MIN} to {most}");
        return Err(Problem::unprocessable("/ttlSeconds", rule));
    }
    let mut round = Round::first(&app);
    loop {
        let product = match find_product(&app, id) {
            Ok(product) => product,
            Err(problem) => {
                let verdict = refuse(&app, idempotency, problem).await?;
                return answer_reserve(&app, None, verdict).await;
            }
        };
        let reservation = Reservation {
            user_id: caller.user,
            product_id: product.id,
            location_id: LocationId(body.location_id.unwrap_or(0)),
            quantity: body.quantity,
            ttl_ms: ttl_seconds * 1_000,
            allowance: product.sale_at(round.now_ms).and_then(Sale::allowance),
            hold_limit: app.config.selling.holds_per_user_max,
            frozen: Some(product.frozen(round.now_ms)),
        };
        let window_ms = sale::window(product.sale.iter(), round.now_ms);
        let retried_anew = product.sale.as_ref().is_some_and(Sale::is_repriced) && !round.is_last();
        let build = || {
            let (most, key) = (
                app.config.selling.hold_units_per_user_max,
                idempotency.clone(),
            );
            let mut request = reservation::reserve(&reservation, window_ms, most, key)?;
            request.retried_anew = retried_anew;
            Ok(request)
        };
        let verdict = decide_stock(&app, build).await?;
        if retried_anew && let Some(next) = round.next(&app, &verdict, window_ms) {
            round = next;
            continue;
        }
        metrics::counter!("stock_reservations_total", "verdict" => verdict.name()).increment(1);
        return answer_reserve(&app, Some(&reservation), verdict).await;
    }
}

async fn answer_reserve(
    app: &App,
    reservation: Option<&Reservation>,
    verdict: Verdict,
) -> Result<Response, Problem> {
    let translate = |refusal: Refusal| Problem::of_refusal(&app.selling.catalog, refusal);
    match (verdict, reservation) {
        (Verdict::Accepted(accepted), Some(reservation)) => {
            Ok(created(accepted.position, reservation))
        }
        (Verdict::Accepted(_), None) => Err(Problem::of(Code::Internal)),
        (Verdict::Replayed(Replay::Accepted(position)), _) => {
            let entry = replayed_entry(app, position).await?;
            let made: Reservation = entry.body().map_err(|error| Problem::internal(&error))?;
            Ok(replayed(created(position, &made)))
        }
        (Verdict::Replayed(Replay::Refused(refusal)), _) => Err(translate(refusal).replayed()),
        (Verdict::Refused(refusal), _) => Err(translate(refusal)),
    }
}

/// Finds a reservation that the caller may see. Other users' reservations answer 404.
async fn find_own(
    app: &App,
    caller: Caller,
    id: Result<PathId, Problem>,
) -> Result<LocatedReservation, Problem> {
    let missing = || Problem::of(Code::ReservationNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let found = lookup::reservation(&app.pool, &app.ledger, Position::new(id)).await?;
    found
        .filter(|found| caller.is_admin() || found.reservation.user_id == caller.user)
        .ok_or_else(missing)
}

/// Answers the verdict on a request to end a reservation.
fn answer_end(
    found: &LocatedReservation,
    verdict: Verdict,
    status: ReservationStatus,
) -> Result<Response, Problem> {
    let body = ReservationOut::new(found.id, &found.reservation, status);
    match verdict {
        Verdict::Accepted(_) => Ok(json(StatusCode::OK, &body)),
        Verdict::Replayed(Replay::Accepted(_)) => Ok(replayed(json(StatusCode::OK, &body))),
        Verdict::Replayed(Replay::Refused(refusal)) => Err(Problem::from(refusal).replayed()),
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

/// POST `/api/reservations/{id}/confirm`.
///
/// # Errors
/// 404, 409 when it is over.
pub async fn confirm(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    id: Result<PathId, Problem>,
    Keyed {
        body: NothingIn {},
        idempotency,
        ..
    }: Keyed<NothingIn>,
) -> Result<Response, Problem> {
    let found = find_own(&app, admin, id).await?;
    let of = &found.reservation;
    let verdict = match Problem::of_ended(found.status) {
        Some(problem) => refuse(&app, idempotency, problem).await?,
        None => {
            let (held, expires_ms) = (of.held(found.id), of.expires_ms(found.id));
            let request = reservation::confirm(&held, expires_ms, admin.user, idempotency)?;
            app.ledger.decide(request).await?
        }
    };
    answer_end(&found, verdict, ReservationStatus::Confirmed)
}

/// POST `/api/reservations/{id}/cancel`.
///
/// # Errors
/// 404, 409 when it is over, 403 for `force` by anybody but an admin.
pub async fn cancel(
    State(app): State<Arc<App>>,
    origin: Origin,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body,
        idempotency,
        ..
    }: Keyed<CancelIn>,
) -> Result<Response, Problem> {
    if body.force && !caller.is_admin() {
        return Err(Problem::of(Code::Forbidden));
    }
    let found = find_own(&app, caller, id).await?;
    let of = &found.reservation;
    let held = of.held(found.id);
    // Units that an order took are the order's: cancelling the order returns them.
    let is_ordered = found.order_id.is_some() || found.state.as_deref() == Some("ORDERED");
    let is_forced = body.force && found.status == ReservationStatus::Confirmed && !is_ordered;
    let verdict = match Problem::of_ended(found.status) {
        Some(_) if is_forced => {
            let state = found.state.as_deref();
            let request = reservation::force_cancel(&held, state, caller.user, idempotency)?;
            app.ledger.decide(request).await?
        }
        Some(problem) => refuse(&app, idempotency, problem).await?,
        None => {
            let expires_ms = of.expires_ms(found.id);
            let request = hold::cancel(&held, expires_ms, caller.user, idempotency)?;
            app.ledger.decide(request).await?
        }
    };
    if is_forced && matches!(verdict, Verdict::Accepted(_)) {
        let subject = format!("reservation:{}", found.id);
        let action = Action::ReservationForced;
        audit::note(&app, &origin, action, Some(caller.user), &subject);
    }
    answer_end(&found, verdict, ReservationStatus::Cancelled)
}

/// GET `/api/reservations/{id}`.
///
/// # Errors
/// 404 for one that is not the caller's.
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let found = find_own(&app, caller, id).await?;
    let body = ReservationOut::new(found.id, &found.reservation, found.status);
    Ok(json(StatusCode::OK, &body))
}

/// GET `/api/reservations`.
///
/// # Errors
/// 422 for an invalid filter.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let filter = ReservationFilter {
        user: (!caller.is_admin()).then_some(caller.user),
        product: query.product_id.map(|IdIn(id)| ProductId(id)),
        status: query.status,
        before: cursor_of(query.cursor.as_deref())?.map(Position::new),
        limit: limit + 1,
    };
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut found = table::list(&app.pool, &filter).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let items = found
        .iter()
        .map(|of| ReservationOut::new(of.id, &of.reservation, of.status));
    let items = items.collect();
    Ok(json(
        StatusCode::OK,
        &ReservationListOut { items, next_cursor },
    ))
}
