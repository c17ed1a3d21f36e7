//! Stores: where they are, their stock, the stock of the nearest ones, and the orders of their
//! tills.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`list`] | GET `/api/stores` | every store, by id |
//! | [`create`], [`replace`] | POST `/api/stores`, PUT `/api/stores/{storeId}` | 201 and 200, for admins |
//! | [`products`] | GET `/api/stores/{storeId}/products` | its products with stock |
//! | [`stock`] | GET `…/products/{productId}/stock` | one product's stock there |
//! | [`nearby`] | GET `…/stock/nearby` | the other stores, nearest first, with their stock |
//! | [`till::place`], [`till::cancel`] | POST `…/orders`, PATCH `…/orders/{orderId}/cancel` | sold at the till |
//! | [`offline::place_batch`] | POST `…/orders/batch` | sold while the till was cut off |
//! | [`offline::oversold`], [`offline::resolve`] | GET `…/oversold`, POST `…/oversold/{saleId}/resolve` | sales without stock |
//! | [`invalid::list`], [`invalid::resolve`] | GET `…/invalid-sales`, POST `…/invalid-sales/{id}/resolve` | sales that could not be taken |

pub mod invalid;
pub mod offline;
pub mod till;

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sqlx::MySqlConnection;
use stock_common::id::{LocationId, ProductId};
use stock_common::money::Money;
use stock_domain::account::Account;
use stock_domain::store::{Store, StoreFields};
use stock_mysql::people::audit_log::Action;
use stock_mysql::stock_levels::{self, StockLevelFilter};
use stock_mysql::{error_number, stores as table};
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, Caller, Role};
use super::extract::{BodyIn, Filter, Keyed, PathId, PathIds, first_id};
use super::once::{Begun, Once};
use super::orders::{json, located};
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::{check_text, find_known};
use super::reader::Reading;
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;

/// The largest number that an admin may give a store, because the next free numbers follow it.
const STORE_ID_MAX: u64 = 1_000_000_000;

/// A caller who may run a store's till: an admin, or a user of that store.
pub struct Till {
    caller: Caller,
    store: LocationId,
}

impl FromRequestParts<Arc<App>> for Till {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let store = first_id(parts, app).await;
        let is_own =
            caller.role == Role::Store && caller.store_id.is_some_and(|own| Some(own) == store);
        if !is_own && !caller.is_admin() {
            return Err(Problem::of(Code::Forbidden));
        }
        let store = store.ok_or_else(|| Problem::of(Code::StoreNotFound))?;
        Ok(Self {
            caller,
            store: LocationId(store),
        })
    }
}

/// A store as an admin writes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "Gangnam", "latitude": 37.4979, "longitude": 127.0276 }))]
pub struct StoreIn {
    /// The store's number; the next free one if absent.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    store_id: Option<u64>,
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[schema(minimum = -90, maximum = 90)]
    latitude: f64,
    #[schema(minimum = -180, maximum = 180)]
    longitude: f64,
    /// Whether the till's sales take the online stock, too. If absent, a new store does, and a
    /// store that is changed goes on as before.
    shares_online_stock: Option<bool>,
}

impl BodyIn for StoreIn {}

/// The number of stores to list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NearbyIn {
    limit: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreOut<'a> {
    store_id: u64,
    name: &'a str,
    latitude: f64,
    longitude: f64,
    shares_online_stock: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreListOut<'a> {
    items: Vec<StoreOut<'a>>,
    next_cursor: Option<String>,
}

/// A product of a store.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreProductOut {
    store_id: u64,
    product_id: u64,
    name: String,
    #[schema(value_type = u64)]
    unit_price: Money,
    available: i64,
    stock_version: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreProductListOut {
    items: Vec<StoreProductOut>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreStockOut {
    store_id: u64,
    product_id: u64,
    available: i64,
    /// Rises with every change of the store's available stock.
    stock_version: u64,
}

/// A store near another one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NearbyOut {
    store_id: u64,
    name: String,
    /// Distance along a great circle, rounded to 10 m.
    distance_km: f64,
    available: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NearbyListOut {
    items: Vec<NearbyOut>,
}

impl<'a> StoreOut<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            store_id: store.id.0,
            name: &store.fields.name,
            latitude: store.fields.latitude,
            longitude: store.fields.longitude,
            shares_online_stock: store.fields.shares_online_stock,
        }
    }
}

impl StoreIn {
    fn check(mut self) -> Result<StoreFields, Problem> {
        check_text(&mut self.name, 100, "/name", 1)?;
        for (pointer, degrees, most) in [
            ("/latitude", self.latitude, 90.0),
            ("/longitude", self.longitude, 180.0),
        ] {
            if degrees.is_nan() || degrees.abs() > most {
                let rule = format!("degrees from -{most} to {most}");
                return Err(Problem::unprocessable(pointer, rule));
            }
        }
        Ok(StoreFields {
            name: self.name,
            latitude: self.latitude,
            longitude: self.longitude,
            shares_online_stock: self.shares_online_stock.unwrap_or(true),
        })
    }
}

async fn find(app: &App, id: LocationId) -> Result<Store, Problem> {
    table::find(&app.pool, id)
        .await?
        .ok_or_else(|| Problem::of(Code::StoreNotFound))
}

/// GET `/api/stores`.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let after = cursor_of(query.cursor.as_deref())?.map(LocationId);
    let mut found = table::list(&app.pool, after, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let items = found.iter().map(StoreOut::new).collect();
    Ok(json(StatusCode::OK, &StoreListOut { items, next_cursor }))
}

/// POST `/api/stores`.
///
/// # Errors
/// 409 when the number is taken, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        body, idempotency, ..
    }: Keyed<StoreIn>,
) -> Result<Response, Problem> {
    let wanted = body.store_id;
    if wanted.is_some_and(|id| !(1..=STORE_ID_MAX).contains(&id)) {
        let rule = format!("a whole number from 1 to {STORE_ID_MAX}");
        return Err(Problem::unprocessable("/storeId", rule));
    }
    let fields = body.check()?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let made = table::insert(once.connection(), wanted.map(LocationId), &fields).await;
    let created = match made {
        Ok(id) => {
            let body = json(StatusCode::CREATED, &StoreOut::new(&Store { id, fields }));
            Ok((located(body, format!("/api/stores/{id}")), id))
        }
        // The primary key: another store has that number.
        Err(error) if error_number(&error) == Some(1062) => Err(Problem::of(Code::StoreExists)),
        Err(error) => Err(error.into()),
    };
    let (response, id) = once.end(created).await?;
    app.live.lists.forget_all();
    let subject = format!("store:{id}");
    let action = Action::StoreCreated;
    audit::note(&app, &origin, action, Some(admin.user), &subject);
    Ok(response)
}

/// PUT `/api/stores/{storeId}`.
///
/// # Errors
/// 404, 422.
pub async fn replace(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<StoreIn>,
) -> Result<Response, Problem> {
    let id = store_id(id);
    if body
        .store_id
        .is_some_and(|own| id.as_ref().is_ok_and(|id| id.0 != own))
    {
        return Err(Problem::unprocessable("/storeId", "is not the path's"));
    }
    let keeps_sharing = body.shares_online_stock.is_none();
    let fields = body.check()?;
    let id = id?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let replaced = write(once.connection(), Store { id, fields }, keeps_sharing).await;
    let (response, ()) = once.end(replaced).await?;
    app.live.lists.forget_all();
    let subject = format!("store:{id}");
    let action = Action::StoreChanged;
    audit::note(&app, &origin, action, Some(admin.user), &subject);
    Ok(response)
}

async fn write(
    connection: &mut MySqlConnection,
    mut store: Store,
    keeps_sharing: bool,
) -> Result<(Response, ()), Problem> {
    let known = table::find(&mut *connection, store.id).await?;
    let known = known.ok_or_else(|| Problem::of(Code::StoreNotFound))?;
    if keeps_sharing {
        store.fields.shares_online_stock = known.fields.shares_online_stock;
    }
    table::update(connection, store.id, &store.fields).await?;
    Ok((json(StatusCode::OK, &StoreOut::new(&store)), ()))
}

fn store_id(id: Result<PathId, Problem>) -> Result<LocationId, Problem> {
    id.map(|PathId(id)| LocationId(id))
        .map_err(|_not_a_number| Problem::of(Code::StoreNotFound))
}

/// GET `/api/stores/{storeId}/products`.
///
/// # Errors
/// 404, 422 for an invalid limit or cursor.
pub async fn products(
    State(app): State<Arc<App>>,
    Reading(reader): Reading,
    id: Result<PathId, Problem>,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let after = cursor_of(query.cursor.as_deref())?;
    let store = find(&app, store_id(id)?).await?.id;
    let filter = StockLevelFilter {
        location: Some(store),
        after: after.map(|product| (ProductId(product), store)),
        limit: limit + 1,
        ..StockLevelFilter::default()
    };
    let filter = &filter;
    let list = |pool| async move { stock_levels::list(&pool, filter).await };
    let mut found = app
        .reads
        .read_settled(&app.ledger, CATCH_UP_MAX, reader, list)
        .await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.product_id.to_string());
    let names: Vec<Account> = found
        .iter()
        .map(|level| Account::available(level.product_id, store))
        .collect();
    let now = app.ledger.levels(&names).await?;
    let now_ms = app.ledger.redis_now_ms();
    let item = |account: &Account| {
        let product = app.selling.catalog.product(ProductId(account.owner))?;
        let level = now.get(account).copied().unwrap_or_default();
        Some(StoreProductOut {
            store_id: store.0,
            product_id: product.id.0,
            name: product.fields.name.clone(),
            unit_price: product.unit_price(now_ms),
            available: level.balance,
            stock_version: level.seq,
        })
    };
    let items = names.iter().filter_map(item).collect();
    Ok(json(
        StatusCode::OK,
        &StoreProductListOut { items, next_cursor },
    ))
}

/// Finds a store and a product.
async fn find_both(
    app: &App,
    ids: Result<PathIds, Problem>,
) -> Result<(Store, ProductId), Problem> {
    let PathIds(store, product) = ids.map_err(|_not_numbers| Problem::of(Code::StoreNotFound))?;
    let store = find(app, LocationId(store)).await?;
    let product = find_known(app, ProductId(product))?;
    Ok((store, product.id))
}

/// GET `/api/stores/{storeId}/products/{productId}/stock`.
///
/// # Errors
/// 404.
pub async fn stock(
    State(app): State<Arc<App>>,
    ids: Result<PathIds, Problem>,
) -> Result<Response, Problem> {
    let (store, product) = find_both(&app, ids).await?;
    let account = Account::available(product, store.id);
    let levels = app.ledger.levels(&[account]).await?;
    let level = levels.get(&account).copied().unwrap_or_default();
    let body = StoreStockOut {
        store_id: store.id.0,
        product_id: product.0,
        available: level.balance,
        stock_version: level.seq,
    };
    Ok(json(StatusCode::OK, &body))
}

/// GET `/api/stores/{storeId}/products/{productId}/stock/nearby`.
///
/// # Errors
/// 404, 422.
pub async fn nearby(
    State(app): State<Arc<App>>,
    ids: Result<PathIds, Problem>,
    Filter(query): Filter<NearbyIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let (from, product) = find_both(&app, ids).await?;
    let mut others: Vec<(f64, Store)> = table::all(&app.pool)
        .await?
        .into_iter()
        .filter(|store| store.id != from.id)
        .map(|store| (from.fields.distance_km(&store.fields), store))
        .collect();
    others.sort_by(|(a, first), (b, second)| a.total_cmp(b).then(first.id.cmp(&second.id)));
    others.truncate(limit as usize);
    let account = |store: &Store| Account::available(product, store.id);
    let names: Vec<Account> = others.iter().map(|(_, store)| account(store)).collect();
    let now = app.ledger.levels(&names).await?;
    let item = |(distance_km, store): (f64, Store)| NearbyOut {
        store_id: store.id.0,
        distance_km: (distance_km * 100.0).round() / 100.0,
        available: now.get(&account(&store)).map_or(0, |level| level.balance),
        name: store.fields.name,
    };
    let items = others.into_iter().map(item).collect();
    Ok(json(StatusCode::OK, &NearbyListOut { items }))
}
