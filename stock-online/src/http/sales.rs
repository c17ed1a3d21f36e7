//! Flash sales: POST `/api/products/{id}/sales`, PATCH and DELETE
//! `/api/products/{id}/sales/{saleId}`, GET `/api/sales`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::MySqlConnection;
use stock_common::clock::rfc3339;
use stock_common::id::{ProductId, SaleId};
use stock_common::money::Money;
use stock_domain::account::Book;
use stock_domain::sale::{Availability, COUNTED_FROM, Sale, SaleChange, Unchangeable};
use stock_engine::lookup;
use stock_mysql::people::audit_log::Action;
use stock_mysql::sales::{self as table, CreateError};
use utoipa::ToSchema;

use super::audit;
use super::auth::Admin;
use super::extract::{Bodiless, BodyIn, Filter, Keyed, PathId, PathIds, TimeIn};
use super::once::{Begun, Once};
use super::orders::json;
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::publish;
use super::reader::Reading;
use crate::app::App;
use crate::http::code::Code;

/// How long a change of the limit waits until MySQL has all units that buyers have taken.
const TAKEN_WAIT: Duration = Duration::from_secs(5);

/// A sale as an admin creates it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "startsAt": "2026-12-01T00:00:00Z", "endsAt": "2026-12-02T00:00:00Z",
    "price": 700, "limitPerUser": 2 }))]
pub struct SaleIn {
    #[schema(value_type = String, format = DateTime)]
    starts_at: TimeIn,
    #[schema(value_type = String, format = DateTime)]
    ends_at: TimeIn,
    /// Price per unit; no discount applies to it.
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    price: Option<Money>,
    /// Units that one buyer may take.
    #[schema(minimum = 1, maximum = 1_000_000)]
    limit_per_user: Option<u32>,
    /// `SALE_ONLY`: the product is sold in the sale only. `ALWAYS`: outside it too, at its normal
    /// price and without the limit.
    #[serde(default)]
    #[schema(value_type = AvailabilityName)]
    availability: Availability,
}

impl BodyIn for SaleIn {}

/// The changes that an admin makes to a sale; absent members stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "endsAt": "2026-12-03T00:00:00Z", "limitPerUser": 3 }))]
pub struct SaleEdit {
    /// Only while the sale has not begun.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<TimeIn>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<TimeIn>,
    /// Price per unit; null means the product's price.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    price: Option<Option<Money>>,
    /// Units that one buyer may take, never fewer than a buyer has taken; null is no limit. A sale
    /// that has begun without a limit cannot get one.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    limit_per_user: Option<Option<u32>>,
}

impl BodyIn for SaleEdit {}

/// Tells a member that is null (`Some(None)`) from an absent one (`None`).
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl SaleEdit {
    fn change(&self) -> SaleChange {
        SaleChange {
            starts_ms: self.starts_at.map(TimeIn::unix_ms),
            ends_ms: self.ends_at.map(TimeIn::unix_ms),
            price: self.price,
            limit_per_user: self.limit_per_user,
        }
    }
}

/// When the product of a sale is sold.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(super) enum AvailabilityName {
    SaleOnly,
    Always,
}

/// A sale as everybody sees it.
#[derive(Debug, Hash, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SaleOut {
    sale_id: u64,
    /// `UPCOMING`, `RUNNING` or `OVER`, by Redis' clock.
    #[schema(pattern = "^(UPCOMING|RUNNING|OVER)$")]
    state: &'static str,
    #[schema(value_type = String, format = DateTime)]
    starts_at: String,
    #[schema(value_type = String, format = DateTime)]
    ends_at: String,
    #[schema(value_type = Option<u64>)]
    price: Option<Money>,
    limit_per_user: Option<u32>,
    #[schema(value_type = AvailabilityName)]
    availability: Availability,
}

/// A sale in an admin's list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedSaleOut {
    #[serde(flatten)]
    sale: SaleOut,
    product_id: u64,
    product_name: String,
    /// Whether this sale governs its product.
    governs: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SaleListOut {
    items: Vec<ListedSaleOut>,
    next_cursor: Option<String>,
}

/// GET `/api/sales`: admin; the sales of all products, newest first.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Reading(reader): Reading,
    Filter(asked): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(asked.limit)?;
    let before = cursor_of(asked.cursor.as_deref())?.map(SaleId);
    let list = |pool| async move { table::list(&pool, before, limit + 1).await };
    let mut found = app.reads.read(reader, list).await?;
    let now_ms = app.ledger.redis_now_ms();
    let next_cursor = cut(&mut found, limit).map(|last| last.sale.id.0.to_string());
    let item = |listed: table::ListedSale| ListedSaleOut {
        sale: SaleOut::new(&listed.sale, now_ms),
        product_id: listed.product_id.0,
        product_name: listed.product_name,
        governs: listed.governs,
    };
    let items = found.into_iter().map(item).collect();
    Ok(json(StatusCode::OK, &SaleListOut { items, next_cursor }))
}

impl SaleOut {
    pub(super) fn new(sale: &Sale, now_ms: u64) -> Self {
        Self {
            sale_id: sale.id.0,
            state: sale.state(now_ms).as_str(),
            starts_at: rfc3339(sale.starts_ms),
            ends_at: rfc3339(sale.ends_ms),
            price: sale.price,
            limit_per_user: sale.limit_per_user,
            availability: sale.availability,
        }
    }
}

/// Checks the range of a limit.
fn check_limit(limit: Option<u32>) -> Result<(), Problem> {
    if limit.is_some_and(|limit| !(1..=COUNTED_FROM).contains(&limit)) {
        let rule = format!("a whole number from 1 to {COUNTED_FROM}");
        return Err(Problem::unprocessable("/limitPerUser", rule));
    }
    Ok(())
}

fn backwards() -> Problem {
    Problem::unprocessable("/endsAt", "is not after startsAt")
}

/// POST `/api/products/{id}/sales`: the sale governs the product from now on. Another sale that is
/// not over refuses it.
///
/// # Errors
/// 404, 409 while the product has a sale that is not over, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<SaleIn>,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::ProductNotFound);
    let (starts_ms, ends_ms) = (body.starts_at.unix_ms(), body.ends_at.unix_ms());
    if starts_ms >= ends_ms {
        return Err(backwards());
    }
    check_limit(body.limit_per_user)?;
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let mut sale = Sale {
        id: SaleId(0),
        starts_ms,
        ends_ms,
        price: body.price,
        limit_per_user: body.limit_per_user,
        counted_from: COUNTED_FROM,
        availability: body.availability,
    };
    let now_ms = app.ledger.redis_now_ms();
    let made = match table::create(once.connection(), ProductId(id), &sale, now_ms).await {
        Ok(made) => {
            sale.id = made;
            let body = json(StatusCode::CREATED, &SaleOut::new(&sale, now_ms));
            Ok((body, made))
        }
        Err(CreateError::NoProduct) => Err(missing()),
        Err(CreateError::Exists(other)) => {
            let text = format!("sale {other} is not over; change it, or delete it first");
            Err(Problem::new(Code::SaleExists, text).with("saleId", other.0))
        }
        Err(CreateError::Database(error)) => Err(error.into()),
    };
    let (response, sale) = once.end(made).await?;
    // Otherwise the sale's first order would find the book missing, and wait until it is begun.
    let book = Book::Allowances(sale);
    if let Err(error) = app.ledger.begin_book(book, ProductId(id)).await {
        tracing::warn!(sale.id = %sale, %error, "the limits of a sale are not begun yet");
    }
    publish(&app).await?;
    let subject = format!("product:{id} sale:{sale}");
    let action = Action::SaleCreated;
    audit::note(&app, &origin, action, Some(admin.user), &subject);
    Ok(response)
}

/// PATCH `/api/products/{id}/sales/{saleId}`: changes a sale that is planned or running. The count
/// of units that each buyer has taken stays.
///
/// # Errors
/// 404, 409 when it is over, has begun, or a buyer has taken more than the limit; 422.
pub async fn edit(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    ids: Result<PathIds, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<SaleEdit>,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::SaleNotFound);
    let change = body.change();
    check_limit(change.limit_per_user.flatten())?;
    let PathIds(id, sale) = ids.map_err(|_not_numbers| missing())?;
    let asks_what_was_taken = change.limit_per_user.flatten().is_some();
    if asks_what_was_taken && !lookup::catch_up(&app.pool, &app.ledger, TAKEN_WAIT).await {
        // The number of units that buyers have taken is not known.
        return Err(Problem::of(Code::Backlog));
    }
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let now_ms = app.ledger.redis_now_ms();
    let edited = change_in(
        once.connection(),
        ProductId(id),
        SaleId(sale),
        change,
        now_ms,
    )
    .await;
    let edited = edited.map(|sale| (json(StatusCode::OK, &SaleOut::new(&sale, now_ms)), ()));
    let (response, ()) = once.end(edited).await?;
    publish(&app).await?;
    let subject = format!("product:{id} sale:{sale}");
    let action = Action::SaleChanged;
    audit::note(&app, &origin, action, Some(admin.user), &subject);
    Ok(response)
}

async fn change_in(
    connection: &mut MySqlConnection,
    product: ProductId,
    sale: SaleId,
    change: SaleChange,
    now_ms: u64,
) -> Result<Sale, Problem> {
    table::lock_product(connection, product).await?;
    let found = table::find(connection, product, sale).await?;
    let found = found.ok_or_else(|| Problem::of(Code::SaleNotFound))?;
    if !found.governs {
        return Err(unchangeable(Unchangeable::Over));
    }
    let most_taken = match change.limit_per_user {
        Some(Some(_)) => table::most_taken(connection, &found.sale).await?,
        Some(None) | None => 0,
    };
    let changed = found.sale.changed(change, now_ms, most_taken);
    let changed = changed.map_err(unchangeable)?;
    table::update(connection, &changed).await?;
    Ok(changed)
}

fn unchangeable(reason: Unchangeable) -> Problem {
    match reason {
        Unchangeable::Over => Problem::of(Code::SaleClosed),
        Unchangeable::Begun(member) => {
            let text = format!("the sale has begun: its {member} stays as it is");
            Problem::new(Code::SaleHasBegun, text).with("member", member)
        }
        Unchangeable::BelowTaken { taken } => {
            let text = format!("a buyer has had {taken}");
            Problem::new(Code::SaleLimitBelowTaken, text).with("taken", taken)
        }
        Unchangeable::Backwards => backwards(),
    }
}

/// DELETE `/api/products/{id}/sales/{saleId}`.
///
/// # Errors
/// 404.
pub async fn delete(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    ids: Result<PathIds, Problem>,
    Bodiless { idempotency, .. }: Bodiless,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::SaleNotFound);
    let PathIds(id, sale) = ids.map_err(|_not_numbers| missing())?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let done = match table::delete(once.connection(), ProductId(id), SaleId(sale)).await {
        Ok(true) => Ok((StatusCode::NO_CONTENT.into_response(), ())),
        Ok(false) => Err(missing()),
        Err(error) => Err(error.into()),
    };
    let (response, ()) = once.end(done).await?;
    publish(&app).await?;
    let subject = format!("product:{id} sale:{sale}");
    let action = Action::SaleDeleted;
    audit::note(&app, &origin, action, Some(admin.user), &subject);
    Ok(response)
}
