//! Flash sales: POST `/api/products/{id}/sales`, DELETE `/api/products/{id}/sales/{saleId}`, GET `/api/sales`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use stock_common::clock::rfc3339;
use stock_common::error::Code;
use stock_common::id::{ProductId, SaleId};
use stock_common::money::Money;
use stock_domain::account::Book;
use stock_domain::database::audit_log::Action;
use stock_domain::database::sales as table;
use stock_domain::sale::Sale;
use utoipa::ToSchema;

use super::audit;
use super::auth::Admin;
use super::extract::{BodyIn, Filter, Keyed, PathId, PathIds, TimeIn};
use super::orders::json;
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::publish;
use super::reader::Reading;
use crate::app::App;

/// The most units that one buyer may be allowed.
const LIMIT_MAX: u32 = 1_000_000;

/// A sale as an admin makes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "startsAt": "2026-12-01T00:00:00Z", "endsAt": "2026-12-02T00:00:00Z",
    "price": 700, "limitPerUser": 2 }))]
pub struct SaleIn {
    #[schema(value_type = String, format = DateTime)]
    starts_at: TimeIn,
    #[schema(value_type = String, format = DateTime)]
    ends_at: TimeIn,
    /// Its price per unit, which takes no discount.
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    price: Option<Money>,
    /// How many units one buyer may have.
    #[schema(minimum = 1, maximum = 1_000_000)]
    limit_per_user: Option<u32>,
}

impl BodyIn for SaleIn {}

/// A sale as everybody sees it.
#[derive(Debug, Serialize, ToSchema)]
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
}

/// A sale in an admin's list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedSaleOut {
    #[serde(flatten)]
    sale: SaleOut,
    product_id: u64,
    product_name: String,
    /// Whether it is the one that governs its product.
    governs: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SaleListOut {
    items: Vec<ListedSaleOut>,
    next_cursor: Option<String>,
}

/// GET `/api/sales`: admin; newest first, those of all products.
///
/// # Errors
/// 422 for a page that does not fit.
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
        let time = |ms: u64| rfc3339(i64::try_from(ms).unwrap_or_default());
        Self {
            sale_id: sale.id.0,
            state: sale.state(now_ms).as_str(),
            starts_at: time(sale.starts_ms),
            ends_at: time(sale.ends_ms),
            price: sale.price,
            limit_per_user: sale.limit_per_user,
        }
    }
}

/// POST `/api/products/{id}/sales`: governs the product from now on, in place of an earlier one.
///
/// # Errors
/// 404, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed { body, .. }: Keyed<SaleIn>,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::ProductNotFound);
    let (starts_ms, ends_ms) = (body.starts_at.unix_ms(), body.ends_at.unix_ms());
    if starts_ms >= ends_ms {
        return Err(Problem::unprocessable("/endsAt", "is not after startsAt"));
    }
    if body
        .limit_per_user
        .is_some_and(|limit| !(1..=LIMIT_MAX).contains(&limit))
    {
        let rule = format!("a whole number from 1 to {LIMIT_MAX}");
        return Err(Problem::unprocessable("/limitPerUser", rule));
    }
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let mut sale = Sale {
        id: SaleId(0),
        starts_ms,
        ends_ms,
        price: body.price,
        limit_per_user: body.limit_per_user,
    };
    let made = table::create(&app.pool, ProductId(id), &sale).await?;
    sale.id = made.ok_or_else(missing)?;
    // Without it the sale's first order would wait until the book is begun by its being missed.
    let book = Book::Allowances(sale.id);
    if let Err(error) = app.ledger.begin_book(book, ProductId(id)).await {
        tracing::warn!(sale.id = %sale.id, %error, "the limits of a sale are not begun yet");
    }
    publish(&app).await?;
    let subject = format!("product:{id} sale:{}", sale.id);
    let action = Action::SaleCreated;
    audit::note(&app, &origin, action, (Some(admin.user), &subject));
    let body = SaleOut::new(&sale, app.ledger.redis_now_ms());
    Ok(json(StatusCode::CREATED, &body))
}

/// DELETE `/api/products/{id}/sales/{saleId}`.
///
/// # Errors
/// 404.
pub async fn delete(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    ids: Result<PathIds, Problem>,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::SaleNotFound);
    let PathIds(id, sale) = ids.map_err(|_not_numbers| missing())?;
    if !table::delete(&app.pool, ProductId(id), SaleId(sale)).await? {
        return Err(missing());
    }
    publish(&app).await?;
    let subject = format!("product:{id} sale:{sale}");
    let action = Action::SaleDeleted;
    audit::note(&app, &origin, action, (Some(admin.user), &subject));
    Ok(StatusCode::NO_CONTENT.into_response())
}
