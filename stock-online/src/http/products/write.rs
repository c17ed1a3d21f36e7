//! Changes of products by admins: create, replace, edit, delete.
//!
//! A change holds on this instance when the admin is answered. A change that stops a product holds
//! on every instance, because its accounts are closed in Redis before the answer.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sqlx::MySqlConnection;
use stock_common::id::{LocationId, ProductId, UserId};
use stock_common::money::Money;
use stock_common::text;
use stock_domain::account::{Account, Level};
use stock_domain::catalog::{Product, ProductFields, ProductStatus};
use stock_domain::coupon::Benefit;
use stock_domain::journal::Idempotency;
use stock_domain::product;
use stock_domain::sku::Sku;
use stock_domain::stock::{self, CHANGE_MAX, StockChanged, Terms};
use stock_domain::verdict::{Refusal, Verdict};
use stock_mysql::people::audit_log::Action;
use stock_mysql::products::{self as table, CreationKey};
use stock_mysql::{error_number, stores};
use utoipa::ToSchema;

use super::{Detail, ProductStatusName, benefits_of};
use crate::app::App;
use crate::http::audit;
use crate::http::auth::{Admin, Caller};
use crate::http::code::Code;
use crate::http::extract::{Bodiless, BodyIn, Keyed, PathId};
use crate::http::once::{Begun, Once};
use crate::http::orders::{located, replayed};
use crate::http::origin::Origin;
use crate::http::problem::Problem;
use crate::http::validators::is_revision;

/// A product as an admin writes it. PUT takes every field, PATCH only the fields that are given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProductIn {
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// The shop's own number of the product; no two products have the same.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[!-+--~]+$")]
    sku: Option<Sku>,
    #[schema(max_length = 255)]
    description: Option<String>,
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    price: Option<Money>,
    #[schema(value_type = Option<ProductStatusName>)]
    status: Option<ProductStatus>,
    /// First ONLINE stock; only when the product is created.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    stock: Option<i64>,
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    min_stock_level: Option<i64>,
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    reorder_point: Option<i64>,
}

impl BodyIn for ProductIn {}

/// Brings a text into its normal form, in which equal characters are equal bytes, and checks it.
pub(in crate::http) fn check_text(
    text: &mut String,
    max: usize,
    pointer: &str,
    min: usize,
) -> Result<(), Problem> {
    text::normalize(text);
    let length = text.chars().count();
    let is_clean = !text.chars().any(char::is_control);
    if (min..=max).contains(&length) && is_clean && (min == 0 || !text::is_blank(text)) {
        return Ok(());
    }
    let rule = format!("{min} to {max} characters without control characters");
    Err(Problem::unprocessable(pointer, rule))
}

impl ProductIn {
    /// Lays the given fields over `base`, and checks the whole.
    fn over(self, base: Option<ProductFields>) -> Result<(ProductFields, Option<i64>), Problem> {
        let missing = |pointer: &str| Problem::unprocessable(pointer, "is required");
        let mut fields = match base {
            Some(base) => base,
            None => ProductFields {
                name: self.name.clone().ok_or_else(|| missing("/name"))?,
                sku: None,
                description: String::new(),
                price: self.price.ok_or_else(|| missing("/price"))?,
                status: ProductStatus::Active,
                min_stock_level: 0,
                reorder_point: 0,
            },
        };
        fields.name = self.name.unwrap_or(fields.name);
        fields.sku = self.sku.or(fields.sku);
        fields.description = self.description.unwrap_or(fields.description);
        fields.price = self.price.unwrap_or(fields.price);
        fields.status = self.status.unwrap_or(fields.status);
        fields.min_stock_level = self.min_stock_level.unwrap_or(fields.min_stock_level);
        fields.reorder_point = self.reorder_point.unwrap_or(fields.reorder_point);
        check_text(&mut fields.name, 100, "/name", 1)?;
        check_text(&mut fields.description, 255, "/description", 0)?;
        let levels = [
            ("/minStockLevel", Some(fields.min_stock_level)),
            ("/reorderPoint", Some(fields.reorder_point)),
            ("/stock", self.stock),
        ];
        for (pointer, level) in levels {
            if level.is_some_and(|level| !(0..=CHANGE_MAX).contains(&level)) {
                let rule = format!("a whole number from 0 to {CHANGE_MAX}");
                return Err(Problem::unprocessable(pointer, rule));
            }
        }
        Ok((fields, self.stock.filter(|stock| *stock > 0)))
    }
}

/// Turns the refusal of an admin's request into a problem.
fn accepted(verdict: Verdict) -> Result<(), Problem> {
    match verdict {
        // A parallel attempt was faster.
        Verdict::Accepted(_)
        | Verdict::Replayed(_)
        | Verdict::Refused(Refusal::StaleState { .. }) => Ok(()),
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

/// POST `/api/products`.
///
/// # Errors
/// 422 for a product that does not fit.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        body, idempotency, ..
    }: Keyed<ProductIn>,
) -> Result<Response, Problem> {
    let (fields, first_stock) = body.over(None)?;
    // Without a verified Redis the accounts could not be opened.
    app.ledger.live_link().await?;
    let key = idempotency.as_ref().and_then(CreationKey::of);
    let (id, is_replayed) = match table::insert(&app.pool, &fields, key.as_ref()).await {
        Ok(id) => (id, false),
        Err(error) => (created_before(&app, key.as_ref(), error).await?, true),
    };
    let made = open(&app, &origin, admin, id, &fields, first_stock, idempotency).await;
    let response = made.map_err(Problem::behind_a_change)?;
    Ok(if is_replayed {
        replayed(response)
    } else {
        response
    })
}

/// Opens the accounts of an inserted product, and answers with the product. A replay repeats every
/// step, because the first attempt may have ended anywhere.
async fn open(
    app: &Arc<App>,
    origin: &Origin,
    admin: Caller,
    id: ProductId,
    fields: &ProductFields,
    first_stock: Option<i64>,
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    accepted(app.ledger.decide(product::open(id, admin.user)?).await?)?;
    if fields.status != ProductStatus::Active {
        let by = By::find(app, admin).await?;
        switch(app, id, true, &by).await?;
    }
    if let Some(quantity) = first_stock {
        let reason = "first stock".to_owned();
        let location_id = LocationId::ONLINE;
        let change = StockChanged {
            product_id: id,
            location_id,
            quantity,
            reason,
        };
        accepted(
            app.ledger
                .decide(stock::receive(
                    &change,
                    &Terms::default(),
                    admin.user,
                    idempotency,
                )?)
                .await?,
        )?;
    }
    publish(app).await?;
    note(app, origin, Action::ProductCreated, admin, id);
    let product = table::find(&app.pool, id).await?;
    let product = product.ok_or_else(|| Problem::of(Code::ProductNotFound))?;
    let made = Detail {
        product: &product,
        level: level_of(app, id).await?,
        benefits: &[],
        is_admin: true,
    };
    let response = made.changed(app, StatusCode::CREATED);
    Ok(located(response, format!("/api/products/{id}")))
}

/// The product that an earlier request with the same key created. If there was no such request,
/// another product has the SKU.
async fn created_before(
    app: &App,
    key: Option<&CreationKey>,
    error: sqlx::Error,
) -> Result<ProductId, Problem> {
    if error_number(&error) != Some(1062) {
        return Err(error.into());
    }
    let taken = || Problem::of(Code::SkuTaken);
    let key = key.ok_or_else(taken)?;
    match table::find_by_key(&app.pool, key).await? {
        None => Err(taken()),
        found => same_request(found, key),
    }
}

/// Returns the object that the same request created before. Another request under its key is
/// refused.
pub(in crate::http) fn same_request<T>(
    found: Option<(T, Vec<u8>)>,
    key: &CreationKey,
) -> Result<T, Problem> {
    match found {
        Some((id, fingerprint)) if fingerprint == key.fingerprint => Ok(id),
        Some(_) => Err(Problem::of(Code::IdempotencyKeyReused)),
        None => Err(Problem::of(Code::RequestInProgress)),
    }
}

fn note(app: &Arc<App>, origin: &Origin, action: Action, admin: Caller, id: ProductId) {
    let subject = format!("product:{id}");
    audit::note(app, origin, action, Some(admin.user), &subject);
}

/// The admin who changes a product, and the data that must be read before the change holds a
/// connection.
struct By {
    admin: UserId,
    /// The benefits of the admin's own coupons.
    benefits: Arc<[Benefit]>,
    stores: Vec<LocationId>,
}

impl By {
    async fn find(app: &App, admin: Caller) -> Result<Self, Problem> {
        Ok(Self {
            admin: admin.user,
            benefits: benefits_of(app, Some(admin)).await,
            stores: stores::ids(&app.pool).await?,
        })
    }
}

/// Closes or opens a product's accounts at every location, before the admin is answered.
async fn switch(app: &App, id: ProductId, closed: bool, by: &By) -> Result<(), Problem> {
    let online = [LocationId::ONLINE];
    let locations: Vec<LocationId> = online.iter().chain(&by.stores).copied().collect();
    accepted(
        app.ledger
            .decide(product::switch(id, closed, &locations, by.admin)?)
            .await?,
    )
}

/// Reads the change into this instance's catalog, and tells the other instances.
pub(in crate::http) async fn publish(app: &App) -> Result<(), Problem> {
    let refreshed = app
        .selling
        .catalog_refresher
        .refresh(&app.pool, &app.selling.catalog)
        .await;
    refreshed.map_err(|error| Problem::from(error).behind_a_change())?;
    if let Err(error) = app.ledger.announce_catalog().await {
        tracing::warn!(%error, "other instances learn of the change by themselves");
    }
    Ok(())
}

/// The current ONLINE level of a product.
async fn level_of(app: &App, id: ProductId) -> Result<Option<Level>, Problem> {
    let account = Account::available(id, LocationId::ONLINE);
    let levels = app.ledger.levels(&[account]).await?;
    Ok(levels.get(&account).copied())
}

/// The product to change, if the client's `If-Match` names its revision or is absent.
async fn find_match(
    connection: &mut MySqlConnection,
    id: Result<PathId, Problem>,
    headers: &HeaderMap,
) -> Result<Product, Problem> {
    let missing = || Problem::of(Code::ProductNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let product = table::find(connection, ProductId(id)).await?;
    let product = product.ok_or_else(missing)?;
    if is_revision(headers, product.revision) {
        Ok(product)
    } else {
        Err(Problem::of(Code::PreconditionFailed))
    }
}

/// Writes a product, and answers with the product as changed.
async fn change(
    app: &App,
    connection: &mut MySqlConnection,
    by: &By,
    product: Product,
    fields: ProductFields,
) -> Result<(Response, ProductId), Problem> {
    if let Some(sku) = &fields.sku
        && table::is_taken(&mut *connection, sku, product.id).await?
    {
        return Err(Problem::of(Code::SkuTaken));
    }
    let closes = fields.status != ProductStatus::Active;
    // Accounts are closed before the change is written, and opened after it. Until the change is
    // committed, the catalog refuses orders for accounts that are already open.
    if closes {
        switch(app, product.id, true, by).await?;
    }
    match table::update(&mut *connection, product.id, &fields, product.revision).await {
        Ok(true) => {}
        Ok(false) => return Err(Problem::of(Code::PreconditionFailed)),
        // Another product took the SKU since.
        Err(error) if error_number(&error) == Some(1062) => {
            return Err(Problem::of(Code::SkuTaken));
        }
        Err(error) => return Err(error.into()),
    }
    if !closes && product.fields.status != ProductStatus::Active {
        switch(app, product.id, false, by).await?;
    }
    let changed = table::find(connection, product.id).await?;
    let changed = changed.ok_or_else(|| Problem::of(Code::ProductNotFound))?;
    let shown = Detail {
        product: &changed,
        level: level_of(app, changed.id).await?,
        benefits: &by.benefits,
        is_admin: true,
    };
    Ok((shown.changed(app, StatusCode::OK), changed.id))
}

/// Ends a change of a product: commits it, publishes it, and notes the admin in the audit log.
async fn end(
    app: &Arc<App>,
    origin: &Origin,
    once: Once,
    done: Result<(Response, ProductId), Problem>,
    admin: Caller,
    action: Action,
) -> Result<Response, Problem> {
    let (response, id) = once.end(done).await?;
    publish(app).await?;
    note(app, origin, action, admin, id);
    Ok(response)
}

/// PUT `/api/products/{id}`.
///
/// # Errors
/// 404, 412 for a stale `If-Match`, 422.
pub async fn replace(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    headers: HeaderMap,
    Keyed {
        body, idempotency, ..
    }: Keyed<ProductIn>,
) -> Result<Response, Problem> {
    let (fields, stock) = body.over(None)?;
    refuse_stock(stock)?;
    let by = By::find(&app, admin).await?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let replaced = async {
        let connection = once.connection();
        let product = find_match(connection, id, &headers).await?;
        change(&app, connection, &by, product, fields).await
    };
    let replaced = replaced.await;
    end(&app, &origin, once, replaced, admin, Action::ProductChanged).await
}

/// PATCH `/api/products/{id}`.
///
/// # Errors
/// 404, 412 for a stale `If-Match`, 422.
pub async fn edit(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    headers: HeaderMap,
    Keyed {
        body, idempotency, ..
    }: Keyed<ProductIn>,
) -> Result<Response, Problem> {
    refuse_stock(body.stock)?;
    let by = By::find(&app, admin).await?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let edited = async {
        let connection = once.connection();
        let product = find_match(connection, id, &headers).await?;
        let (fields, _) = body.over(Some(product.fields.clone()))?;
        change(&app, connection, &by, product, fields).await
    };
    let edited = edited.await;
    end(&app, &origin, once, edited, admin, Action::ProductChanged).await
}

/// Refuses stock: it is changed by inbound and adjustment, which the ledger records.
fn refuse_stock(stock: Option<i64>) -> Result<(), Problem> {
    match stock {
        None => Ok(()),
        Some(_) => Err(Problem::unprocessable(
            "/stock",
            "only the first stock can be given here",
        )),
    }
}

/// DELETE `/api/products/{id}`.
///
/// # Errors
/// 404, 412 for a stale `If-Match`.
pub async fn delete(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    headers: HeaderMap,
    Bodiless { idempotency, .. }: Bodiless,
) -> Result<Response, Problem> {
    let by = By::find(&app, admin).await?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let deleted = async {
        let connection = once.connection();
        let product = find_match(connection, id, &headers).await?;
        switch(&app, product.id, true, &by).await?;
        if !table::delete(connection, product.id, product.revision).await? {
            return Err(Problem::of(Code::PreconditionFailed));
        }
        Ok((StatusCode::NO_CONTENT.into_response(), product.id))
    };
    let deleted = deleted.await;
    end(&app, &origin, once, deleted, admin, Action::ProductDeleted).await
}
