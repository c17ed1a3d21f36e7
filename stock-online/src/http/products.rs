//! Products: list and show, from memory.
//!
//! Names and prices come from the catalog, levels from one Redis read that all readers share. MySQL
//! is asked for searches by name, for lists that are too long to search in memory, and for its own
//! levels (`source=mysql`). The changes by admins are in [`mod@write`].

mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sqlx::MySqlPool;
use stock_common::clock::{rfc3339, unix_ms};
use stock_common::id::{LocationId, ProductId};
use stock_common::money::Money;
use stock_common::text;
use stock_domain::account::{Account, Level};
use stock_domain::catalog::{Catalog, Part, Product, ProductFilter, ProductStatus};
use stock_domain::coupon::Benefit;
use stock_domain::sku::Sku;
use stock_engine::reads::Reader;
use stock_mysql::{accounts, coupon_issues, products as table};
use stock_redis::{RecentLevel, RecentLevels};
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
use super::validators::{tag, tagged};
use crate::app::App;
use crate::http::code::Code;

/// Status of a product; only an ACTIVE product can be ordered.
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
    sku: Option<Sku>,
    status: Option<ProductStatus>,
    price_gte: Option<Money>,
    price_lte: Option<Money>,
    #[serde(default)]
    source: Source,
}

/// The query of one product.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShowIn {
    #[serde(default)]
    source: Source,
}

#[derive(Debug, Hash, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemOut<'a> {
    #[schema(value_type = u64)]
    id: ProductId,
    name: &'a str,
    /// The shop's own number of the product; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    sku: Option<&'a str>,
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
    /// For admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_stock_level: Option<i64>,
    /// For admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    reorder_point: Option<i64>,
    /// The amount that the caller's best coupon takes off one unit.
    #[schema(value_type = u64)]
    coupon_discount_amount: Money,
    /// The sale that governs the product.
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

/// The server whose levels are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// The current levels.
    #[default]
    Redis,
    /// The levels that MySQL has settled.
    Mysql,
}

/// Levels of products, in the order of the products.
#[derive(Debug, Default)]
struct Levels {
    levels: Vec<RecentLevel>,
    age: Duration,
}

fn names(products: &[Arc<Product>]) -> Vec<Account> {
    let name = |product: &Arc<Product>| Account::available(product.id, LocationId::ONLINE);
    products.iter().map(name).collect()
}

/// Time limit for asking MySQL for levels that Redis has lost.
const LOST_MAX: Duration = Duration::from_millis(50);

/// The levels of products in Redis. A level that Redis has lost, and that this instance has never
/// seen, is MySQL's until Redis has it again.
async fn recent(app: &App, products: &[Arc<Product>]) -> Result<Levels, Problem> {
    let names = names(products);
    let RecentLevels { mut levels, age } = app.ledger.recent_levels(&names).await?;
    let unknown = names.iter().zip(&levels);
    let unknown = unknown.filter_map(|(name, found)| found.level.is_none().then_some(*name));
    let unknown: Vec<Account> = unknown.collect();
    if !unknown.is_empty() {
        let read = tokio::time::timeout(LOST_MAX, accounts::levels(&app.pool, &unknown)).await;
        // Without MySQL's answer these levels stay unknown, and are shown so.
        let settled = read.unwrap_or(Ok(HashMap::new())).unwrap_or_default();
        for (name, found) in names.iter().zip(&mut levels) {
            found.level = found.level.or_else(|| settled.get(name).copied());
        }
    }
    Ok(Levels { levels, age })
}

/// The levels of products in MySQL.
async fn settled(app: &App, reader: Reader, products: &[Arc<Product>]) -> Result<Levels, Problem> {
    let names = &names(products);
    let read = |pool: MySqlPool| async move {
        let found: HashMap<Account, Level> =
            accounts::read(&mut *pool.acquire().await?, names).await?;
        Ok::<_, sqlx::Error>(found)
    };
    let found = app.reads.read(reader, read).await?;
    let level = |name: &Account| RecentLevel {
        level: found.get(name).copied(),
        is_lost: false,
    };
    Ok(Levels {
        levels: names.iter().map(level).collect(),
        age: Duration::ZERO,
    })
}

fn item<'a>(product: &'a Product, level: Option<Level>, now_ms: u64) -> ItemOut<'a> {
    let fields = &product.fields;
    let unit_price = product.unit_price(now_ms);
    ItemOut {
        id: product.id,
        name: &fields.name,
        sku: fields.sku.as_ref().map(Sku::as_str),
        price: fields.price,
        status: fields.status,
        // A product whose level is unknown is not shown as sold out; an order gets the true answer.
        is_sold_out: level.is_some_and(|level| level.balance == 0)
            || fields.status != ProductStatus::Active,
        discount_amount: fields.price.get() - unit_price.get(),
        unit_price,
        final_price: unit_price,
        stock_version: level.unwrap_or_default().seq,
    }
}

/// Time limit for reading a user's coupons, which only improve the price that is shown.
const BENEFITS_MAX: Duration = Duration::from_millis(300);

/// The benefits that a caller's coupons give; none while MySQL does not answer.
async fn benefits_of(app: &App, caller: Option<Caller>) -> Arc<[Benefit]> {
    let Some(Caller { user, .. }) = caller else {
        return Arc::default();
    };
    let now_ms = app.ledger.redis_now_ms();
    let best = async { coupon_issues::best_of(&app.pool, user, now_ms).await };
    let read = app
        .selling
        .benefits
        .get(user, async { Ok::<_, sqlx::Error>(best.await?.into()) });
    match tokio::time::timeout(BENEFITS_MAX, read).await {
        Ok(Ok(benefits)) => benefits,
        Ok(Err(_)) | Err(_) => Arc::default(),
    }
}

/// The amount that the best of some coupons takes off one unit; zero when there is no coupon.
fn coupon_discount(benefits: &[Benefit], unit_price: Money) -> Money {
    let best = benefits.iter().map(|benefit| benefit.of(unit_price)).max();
    best.unwrap_or(Money::ZERO)
}

/// A product with its level, and the caller for whom it is shown.
struct Detail<'a> {
    product: &'a Product,
    level: Option<Level>,
    benefits: &'a [Benefit],
    is_admin: bool,
}

impl<'a> Detail<'a> {
    fn body(&self, now_ms: u64) -> DetailOut<'a> {
        let product = self.product;
        let fields = &product.fields;
        let mut item = item(product, self.level, now_ms);
        let off = coupon_discount(self.benefits, item.unit_price);
        item.final_price = item.unit_price.minus(off).unwrap_or(item.unit_price);
        DetailOut {
            item,
            description: &fields.description,
            min_stock_level: self.is_admin.then_some(fields.min_stock_level),
            reorder_point: self.is_admin.then_some(fields.reorder_point),
            coupon_discount_amount: off,
            sale: product.sale.as_ref().map(|sale| SaleOut::new(sale, now_ms)),
            created_at: rfc3339(unix_ms(product.created_at)),
            updated_at: rfc3339(unix_ms(product.updated_at)),
        }
    }

    /// The answer to a change.
    fn changed(&self, app: &App, status: StatusCode) -> Response {
        let body = self.body(app.ledger.redis_now_ms());
        let tag = detail_tag(self.product, &body);
        let answer = || json(status, &body);
        tagged(&HeaderMap::new(), tag, false, Duration::ZERO, answer)
    }
}

fn detail_tag(product: &Product, body: &DetailOut<'_>) -> String {
    tag(
        product.revision,
        (&body.item, &body.sale, body.min_stock_level),
    )
}

/// Lists products, from memory if possible.
///
/// # Errors
/// 503 when MySQL has to be asked and does not answer.
pub(crate) async fn find_all(
    app: &App,
    filter: ProductFilter,
) -> Result<Vec<Arc<Product>>, Problem> {
    if let Some(found) = app.selling.catalog.list(&filter) {
        return Ok(found);
    }
    let filter = &filter;
    let list = |pool: MySqlPool| async move { table::list(&pool, filter).await };
    // Any reader may use a replica: it is not staler than the catalogs of other instances.
    let found = app.reads.read(Reader::Other, list).await?;
    Ok(found.into_iter().map(Arc::new).collect())
}

/// A product, and its current level if that is known.
pub(crate) struct Levelled {
    pub(crate) product: Arc<Product>,
    pub(crate) level: Option<Level>,
}

/// A part of the list of products that a caller sees, and the length of the list.
///
/// # Errors
/// 503 when a server has to be asked and does not answer.
pub(crate) async fn part_of(
    app: &App,
    caller: Option<Caller>,
    filter: ProductFilter,
    part: Part,
) -> Result<(Vec<Levelled>, u64), Problem> {
    let filter = &ProductFilter {
        without: shown_to(caller),
        ..filter
    };
    let (products, count) = match app.selling.catalog.part(filter, part) {
        Some(found) => found,
        None => {
            let read = |pool: MySqlPool| async move { table::part(&pool, filter, part).await };
            let (found, count) = app.reads.read(Reader::Other, read).await?;
            (found.into_iter().map(Arc::new).collect(), count)
        }
    };
    let Levels { levels, .. } = recent(app, &products).await?;
    let levelled = products.into_iter().zip(levels);
    let levelled = levelled.map(|(product, found)| Levelled {
        product,
        level: found.level,
    });
    Ok((levelled.collect(), count))
}

/// The status whose products a list hides from a caller: INACTIVE, except from admins.
pub(crate) fn shown_to(caller: Option<Caller>) -> Option<ProductStatus> {
    let is_admin = caller.is_some_and(|caller| caller.is_admin());
    (!is_admin).then_some(ProductStatus::Inactive)
}

/// A product that is shown to a caller, from memory.
///
/// # Errors
/// 404 for a deleted product, and for an INACTIVE one unless the caller is an admin.
pub(crate) fn find_shown(
    app: &App,
    id: ProductId,
    caller: Option<Caller>,
) -> Result<Arc<Product>, Problem> {
    let known = find_known(app, id)?;
    match shown_to(caller) {
        Some(hidden) if known.fields.status == hidden => Err(Problem::of(Code::ProductNotFound)),
        _ => Ok(known),
    }
}

/// The product in the catalog, if it was not deleted.
pub(super) fn find_known(app: &App, id: ProductId) -> Result<Arc<Product>, Problem> {
    if !app.selling.catalog.is_read() {
        return Err(Problem::of(Code::DatabaseUnavailable));
    }
    let known = app
        .selling
        .catalog
        .product(id)
        .filter(|known| !known.is_deleted);
    known.ok_or_else(|| Problem::of(Code::ProductNotFound))
}

/// The product that a line names by its number or its SKU. A SKU that no product has names a
/// product that does not exist, which is refused where prices are looked up.
///
/// # Errors
/// 422 unless it names it in one way.
pub(super) fn named(
    catalog: &Catalog,
    product_id: Option<u64>,
    sku: Option<&Sku>,
    pointer: impl Fn() -> String,
) -> Result<ProductId, Problem> {
    match (product_id, sku) {
        (Some(id), None) => Ok(ProductId(id)),
        (None, Some(sku)) => Ok(catalog.named(sku)),
        (Some(_), Some(_)) => {
            let rule = "productId and sku exclude each other";
            Err(Problem::unprocessable(&format!("{}/sku", pointer()), rule))
        }
        (None, None) => {
            let rule = "productId or sku is required";
            Err(Problem::unprocessable(
                &format!("{}/productId", pointer()),
                rule,
            ))
        }
    }
}

/// GET `/api/products` and `/api/redis/products`.
///
/// # Errors
/// 422 for an invalid filter.
pub async fn list(
    State(app): State<Arc<App>>,
    AnyCaller(caller): AnyCaller,
    Reading(reader): Reading,
    headers: HeaderMap,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let mut name = query.name;
    name.iter_mut().for_each(text::normalize);
    let filter = ProductFilter {
        name,
        sku: query.sku,
        status: query.status,
        without: shown_to(caller),
        price_gte: query.price_gte.map(Money::get),
        price_lte: query.price_lte.map(Money::get),
        before: cursor_of(query.cursor.as_deref())?.map(ProductId),
        limit: limit + 1,
    };
    let mut found = find_all(&app, filter).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let Levels { levels, age } = match query.source {
        Source::Redis => recent(&app, &found).await?,
        Source::Mysql => settled(&app, reader, &found).await?,
    };
    let now_ms = app.ledger.redis_now_ms();
    let items = found.iter().zip(levels);
    let items: Vec<ItemOut<'_>> = items
        .map(|(product, found)| item(product, found.level, now_ms))
        .collect();
    let tag = tag(0, (&items, &next_cursor));
    let answer = || json(StatusCode::OK, &ListOut { items, next_cursor });
    Ok(tagged(&headers, tag, caller.is_none(), age, answer))
}

/// GET `/api/products/{id}` and `/api/redis/products/{id}`.
///
/// # Errors
/// 404 for a product that does not exist; 503 for one whose account Redis has lost.
pub async fn show(
    State(app): State<Arc<App>>,
    (AnyCaller(caller), Reading(reader)): (AnyCaller, Reading),
    headers: HeaderMap,
    id: Result<PathId, Problem>,
    Filter(query): Filter<ShowIn>,
) -> Result<Response, Problem> {
    let PathId(id) = id.map_err(|_not_a_number| Problem::of(Code::ProductNotFound))?;
    let product = find_shown(&app, ProductId(id), caller)?;
    let products = std::slice::from_ref(&product);
    let Levels { levels, age } = match query.source {
        Source::Redis => recent(&app, products).await?,
        Source::Mysql => settled(&app, reader, products).await?,
    };
    let RecentLevel { level, is_lost } = levels
        .first()
        .copied()
        .ok_or_else(|| Problem::of(Code::AccountBroken))?;
    // MySQL's level may be older than a level that a reader has already seen.
    if is_lost {
        return Err(Problem::of(Code::AccountBroken));
    }
    let detail = Detail {
        product: &product,
        level,
        benefits: &benefits_of(&app, caller).await,
        is_admin: shown_to(caller).is_none(),
    };
    let body = detail.body(app.ledger.redis_now_ms());
    let tag = detail_tag(&product, &body);
    let answer = || json(StatusCode::OK, &body);
    Ok(tagged(&headers, tag, caller.is_none(), age, answer))
}
