//! Products: list and show on both paths.
//!
//! The two paths differ in where the stock comes from: MySQL's level at the watermark, or Redis' level
//! now. The changes that an admin may make to products are in [`mod@write`].

mod write;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sqlx::MySqlPool;
use stock_common::clock::{rfc3339, unix_ms};
use stock_common::error::Code;
use stock_common::id::{LocationId, ProductId};
use stock_common::money::Money;
use stock_domain::account::{Account, Level};
use stock_domain::catalog::{CatalogProduct, ProductStatus, unit_price};
use stock_domain::coupon::Benefit;
use stock_domain::database::products::{self as table, Product, ProductFilter};
use stock_domain::database::{accounts, buckets, coupon_issues};
use stock_domain::reads::Reader;
use utoipa::ToSchema;

pub use self::write::{ProductIn, create, delete, edit, replace};
pub(super) use self::write::{check_text, publish, same_request};
use super::auth::{AnyCaller, Caller};
use super::extract::{Filter, PathId};
use super::orders::json;
use super::page::{cursor_of, cut, limit_of};
use super::problem::Problem;
use super::reader::Reading;
use super::sales::SaleOut;
use crate::app::App;

/// Whether a product can be ordered: only ACTIVE can.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    dead_code,
    reason = "only its schema is used; the type itself knows no HTTP"
)]
pub(super) enum ProductStatusName {
    Active,
    SoldOut,
    EndOfSale,
    Inactive,
}

/// The filters and the page of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListIn {
    limit: Option<u32>,
    cursor: Option<String>,
    name: Option<String>,
    status: Option<ProductStatus>,
    price_gte: Option<Money>,
    price_lte: Option<Money>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemOut<'a> {
    #[schema(value_type = u64)]
    id: ProductId,
    name: &'a str,
    #[schema(value_type = u64)]
    price: Money,
    #[schema(value_type = ProductStatusName)]
    status: ProductStatus,
    is_sold_out: bool,
    discount_amount: i64,
    #[schema(value_type = u64)]
    unit_price: Money,
    #[schema(value_type = u64)]
    final_price: Money,
    /// Rises with every change of its ONLINE stock.
    stock_version: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DetailOut<'a> {
    #[serde(flatten)]
    item: ItemOut<'a>,
    description: &'a str,
    min_stock_level: i64,
    reorder_point: i64,
    /// The amount that the caller's best coupon takes off one unit.
    #[schema(value_type = u64)]
    coupon_discount_amount: Money,
    /// The sale that governs it.
    sale: Option<SaleOut>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    #[schema(value_type = String, format = DateTime)]
    updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProductListOut)]
pub(super) struct ListOut<'a> {
    items: Vec<ItemOut<'a>>,
    next_cursor: Option<String>,
}

/// Where a level is read from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Redis,
    MySql,
}

type Levels = HashMap<Account, Level>;

/// Their levels in the database in which they were found.
async fn stored(pool: &MySqlPool, products: &[Product]) -> Result<Levels, sqlx::Error> {
    buckets::levels(&mut *pool.acquire().await?, &names(products)).await
}

/// Their levels in Redis, and which of them it has lost: MySQL has accounts of these.
async fn decided(
    app: &App,
    products: &[Product],
) -> Result<(Levels, Vec<(Account, Level)>), Problem> {
    let names = names(products);
    let levels = app.ledger.levels(&names).await?;
    let is_missing = |name: &&Account| !levels.contains_key(*name);
    let missing: Vec<Account> = names.iter().filter(is_missing).copied().collect();
    if missing.is_empty() {
        return Ok((levels, Vec::new()));
    }
    let lost = accounts::levels(&app.pool, &missing).await?;
    Ok((levels, lost.into_iter().collect()))
}

fn names(products: &[Product]) -> Vec<Account> {
    let name = |product: &Product| Account::available(product.id, LocationId::ONLINE);
    products.iter().map(name).collect()
}

fn item<'a>(app: &App, product: &'a Product, levels: &Levels) -> ItemOut<'a> {
    let account = Account::available(product.id, LocationId::ONLINE);
    let level = levels.get(&account).copied().unwrap_or_default();
    let fields = &product.fields;
    let (sale, discount) = (product.sale.as_ref(), product.discount.as_ref());
    let unit_price = unit_price(fields.price, sale, discount, app.ledger.redis_now_ms());
    ItemOut {
        id: product.id,
        name: &fields.name,
        price: fields.price,
        status: fields.status,
        is_sold_out: level.balance == 0 || fields.status != ProductStatus::Active,
        discount_amount: fields.price.get() - unit_price.get(),
        unit_price,
        final_price: unit_price,
        stock_version: level.seq,
    }
}

fn etag(product: &Product) -> String {
    format!("\"{}\"", product.revision)
}

/// The benefits that a caller's coupons give.
async fn benefits_of(
    app: &App,
    reader: Reader,
    caller: Option<Caller>,
) -> Result<Vec<Benefit>, Problem> {
    let Some(caller) = caller else {
        return Ok(Vec::new());
    };
    let now_ms = app.ledger.redis_now_ms();
    let best = |pool| async move { coupon_issues::best_of(&pool, caller.user, now_ms).await };
    Ok(app.reads.read(reader, best).await?)
}

/// The amount that the best of some coupons takes off one unit; zero when there is no coupon.
fn coupon_discount(app: &App, benefits: &[Benefit], product: &Product) -> Money {
    let (sale, discount) = (product.sale.as_ref(), product.discount.as_ref());
    let now_ms = app.ledger.redis_now_ms();
    let unit_price = unit_price(product.fields.price, sale, discount, now_ms);
    let best = benefits.iter().map(|benefit| benefit.of(unit_price)).max();
    best.unwrap_or(Money::ZERO)
}

/// A product with its levels, and what its reader's best coupon takes off.
struct Detail<'a> {
    product: &'a Product,
    levels: &'a Levels,
    coupon_discount: Money,
}

fn detail(app: &App, status: StatusCode, detail: &Detail<'_>) -> Response {
    let Detail {
        product,
        levels,
        coupon_discount,
    } = *detail;
    let now_ms = app.ledger.redis_now_ms();
    let mut item = item(app, product, levels);
    item.final_price = item
        .unit_price
        .minus(coupon_discount)
        .unwrap_or(item.unit_price);
    let mut response = json(
        status,
        &DetailOut {
            item,
            description: &product.fields.description,
            min_stock_level: product.fields.min_stock_level,
            reorder_point: product.fields.reorder_point,
            coupon_discount_amount: coupon_discount,
            sale: product.sale.as_ref().map(|sale| SaleOut::new(sale, now_ms)),
            created_at: rfc3339(unix_ms(product.created_at)),
            updated_at: rfc3339(unix_ms(product.updated_at)),
        },
    );
    if let Ok(tag) = HeaderValue::try_from(etag(product)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

async fn list_from(
    app: &App,
    reader: Reader,
    query: ListIn,
    source: Source,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let filter = ProductFilter {
        name: query.name.filter(|name| !name.is_empty()),
        status: query.status,
        price_gte: query.price_gte.map(Money::get),
        price_lte: query.price_lte.map(Money::get),
        before: cursor_of(query.cursor.as_deref())?.map(ProductId),
        limit: limit + 1,
    };
    let filter = &filter;
    let list = |pool: MySqlPool| async move {
        let found = table::list(&pool, filter).await?;
        let levels = match source {
            Source::Redis => Levels::new(),
            Source::MySql => stored(&pool, &found).await?,
        };
        Ok::<_, sqlx::Error>((found, levels))
    };
    let (mut found, mut levels) = app.reads.read(reader, list).await?;
    let next = cut(&mut found, limit).map(|last| last.id.to_string());
    if matches!(source, Source::Redis) {
        let (known, lost) = decided(app, &found).await?;
        levels = known;
        // As it was when MySQL settled it last, until it has been brought back.
        levels.extend(lost);
    }
    let items = found
        .iter()
        .map(|product| item(app, product, &levels))
        .collect();
    Ok(json(
        StatusCode::OK,
        &ListOut {
            items,
            next_cursor: next,
        },
    ))
}

/// The product in the catalog, if it was not deleted.
pub(super) fn find_known(app: &App, id: ProductId) -> Result<Arc<CatalogProduct>, Problem> {
    if !app.catalog.is_read() {
        return Err(Problem::of(Code::DatabaseUnavailable));
    }
    let known = app.catalog.product(id).filter(|known| !known.is_deleted);
    known.ok_or_else(|| Problem::of(Code::ProductNotFound))
}

async fn show_from(
    app: &App,
    (reader, caller): (Reader, Option<Caller>),
    id: Result<PathId, Problem>,
    source: Source,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::ProductNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let find = |pool: MySqlPool| async move {
        let Some(product) = table::find(&pool, ProductId(id)).await? else {
            return Ok(None);
        };
        let levels = match source {
            Source::Redis => Levels::new(),
            Source::MySql => stored(&pool, std::slice::from_ref(&product)).await?,
        };
        Ok::<_, sqlx::Error>(Some((product, levels)))
    };
    let found = app.reads.find(reader, find).await?;
    let (product, mut levels) = found.ok_or_else(missing)?;
    if matches!(source, Source::Redis) {
        let (known, lost) = decided(app, std::slice::from_ref(&product)).await?;
        // MySQL's level may be older than the level that a reader was told before.
        if !lost.is_empty() {
            return Err(Problem::of(Code::AccountBroken));
        }
        levels = known;
    }
    let shown = Detail {
        product: &product,
        levels: &levels,
        coupon_discount: coupon_discount(app, &benefits_of(app, reader, caller).await?, &product),
    };
    Ok(detail(app, StatusCode::OK, &shown))
}

/// GET `/api/products`.
///
/// # Errors
/// 422 for a filter that does not fit.
pub async fn list(
    State(app): State<Arc<App>>,
    Reading(reader): Reading,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    list_from(&app, reader, query, Source::MySql).await
}

/// GET `/api/redis/products`.
///
/// # Errors
/// 422 for a filter that does not fit.
pub async fn list_redis(
    State(app): State<Arc<App>>,
    Reading(reader): Reading,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    list_from(&app, reader, query, Source::Redis).await
}

/// GET `/api/products/{id}`.
///
/// # Errors
/// 404 for a product that does not exist.
pub async fn show(
    State(app): State<Arc<App>>,
    AnyCaller(caller): AnyCaller,
    Reading(reader): Reading,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    show_from(&app, (reader, caller), id, Source::MySql).await
}

/// GET `/api/redis/products/{id}`.
///
/// # Errors
/// 404 for a product that does not exist.
pub async fn show_redis(
    State(app): State<Arc<App>>,
    AnyCaller(caller): AnyCaller,
    Reading(reader): Reading,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    show_from(&app, (reader, caller), id, Source::Redis).await
}
