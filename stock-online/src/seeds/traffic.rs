//! The interface of the Django shop: tokens by user name, products, stock, reservations.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use stock_common::clock::{rfc3339, unix_ms};
use stock_common::id::{LocationId, ProductId};
use stock_domain::catalog::{Part, Product, ProductFilter, ProductStatus};
use stock_mysql::stock_levels::{Bounds, StockLevel, StockLevelFilter};

use super::call::{Answer, Ask, Call};
use super::forms::{Fields, Kind, Pairs, decimal, number_of, uuid, with_lists};
use crate::app::App;
use crate::http::auth::Caller;
use crate::http::code::Code;
use crate::http::orders::json as answer;
use crate::http::problem::Problem;
use crate::http::{products, stock};

/// Products or levels on a page.
const PAGE: u32 = 100;
/// The highest page: 10,000 rows come before its end.
const PAGES_MAX: u32 = 100;
/// The seed's code of the online warehouse. A store's code is its number.
const WAREHOUSE: &str = "3077006";

/// Names in the query of a list of stock, which the contract does not know.
pub(super) const LEVEL_NAMES: [&str; 12] = [
    "page",
    "product_id",
    "warehouse_code",
    "available_stock",
    "available_stock_gte",
    "available_stock_lte",
    "reserved_stock",
    "reserved_stock_gte",
    "reserved_stock_lte",
    "physical_stock",
    "physical_stock_gte",
    "physical_stock_lte",
];

pub(super) fn calls() -> Vec<Call> {
    let product = || {
        json!({ "name": "first", "description": "of many", "price": "1250.00",
            "status": "active" })
    };
    vec![
        Call::shared(Method::POST, "/api/token", token)
            .open()
            .body(json!({ "username": "user2", "password": "password" }))
            .about("Gives tokens for a user's name or address."),
        Call::base(Method::POST, "/api/token/refresh", refresh)
            .open()
            .body(json!({ "refresh": "text" }))
            .about("Gives the next tokens; a refresh token is good once."),
        Call::shared(Method::GET, "/api/products", list)
            .open()
            .query(&["page", "name", "status", "price", "price_gte", "price_lte"])
            .about("Lists products, the newest first."),
        Call::base(Method::POST, "/api/products", create)
            .body(product())
            .answers(StatusCode::CREATED)
            .about("Creates a product."),
        Call::shared(Method::GET, "/api/products/{id}", show)
            .open()
            .about("Shows a product."),
        Call::shared(Method::PUT, "/api/products/{id}", change)
            .body(product())
            .about("Replaces a product."),
        Call::shared(Method::PATCH, "/api/products/{id}", change)
            .body(json!({ "price": "1300.00" }))
            .about("Changes a product."),
        Call::shared(Method::DELETE, "/api/products/{id}", delete)
            .answers(StatusCode::NO_CONTENT)
            .about("Deletes a product."),
        Call::shared(Method::GET, "/api/products/stock/available", available)
            .query(&LEVEL_NAMES)
            .about("Lists the stock."),
        Call::shared(Method::POST, "/api/products/stock/inbound", inbound)
            .body(
                json!({ "product_id": "1", "quantity": 5, "reason": "restock",
                "warehouse_code": WAREHOUSE }),
            )
            .answers(StatusCode::CREATED)
            .about("Takes goods in."),
        Call::shared(Method::POST, "/api/products/stock/reserve", reserve)
            .body(json!({ "product_id": "1", "quantity": 5 }))
            .answers(StatusCode::CREATED)
            .about("Sets goods aside for half an hour."),
    ]
}

pub(super) fn refusal(mut problem: Problem) -> Problem {
    if [409, 422].contains(&problem.status) {
        problem.status = 400;
    }
    with_lists(problem)
}

async fn token(ask: Ask) -> Result<Response, Problem> {
    let fields = ask.fields()?;
    let (name, password) = (fields.text("username")?, fields.text("password")?);
    let email = match name.contains('@') {
        true => name,
        false => format!("{name}@example.com"),
    };
    let body = json!({ "email": email, "password": password });
    let given = ask.post("/api/token", body).await?;
    Ok(given.becomes(StatusCode::OK, &given.body))
}

async fn refresh(ask: Ask) -> Result<Response, Problem> {
    let body = json!({ "refresh": ask.fields()?.text("refresh")? });
    let given = ask.post("/api/token/refresh", body).await?;
    Ok(given.becomes(StatusCode::OK, &given.body))
}

fn shown(product: &Product) -> Value {
    let fields = &product.fields;
    json!({ "id": uuid(Kind::Product, product.id.0, 0), "name": fields.name,
        "description": fields.description, "price": decimal(fields.price.get()),
        "status": fields.status.as_str().to_ascii_lowercase(),
        "created_at": rfc3339(unix_ms(product.created_at)),
        "updated_at": rfc3339(unix_ms(product.updated_at)) })
}

fn status_of(name: &str) -> Result<ProductStatus, Problem> {
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    let known = ProductStatus::parse(&name.to_ascii_uppercase()).filter(|_| is_lower);
    let rule = "active, sold_out, end_of_sale or inactive is expected";
    known.ok_or_else(|| Problem::unprocessable("/status", rule))
}

/// The page that is asked for, and the number of rows before it.
fn page_of(query: &Pairs) -> Result<(u32, u32), Problem> {
    let page = match query.text("page") {
        None => Some(1),
        Some(text) => text
            .parse()
            .ok()
            .filter(|page| (1..=PAGES_MAX).contains(page)),
    };
    let page = page.ok_or_else(no_page)?;
    Ok((page, (page - 1) * PAGE))
}

fn no_page() -> Problem {
    Problem::new(Code::NotFound, "there is no such page")
}

/// A page as the seed words it. A page that begins behind the end is a 404, the first one aside.
fn paged(
    ask: &Ask,
    query: &Pairs,
    page: u32,
    count: u64,
    results: &[Value],
) -> Result<Response, Problem> {
    if results.is_empty() && page > 1 {
        return Err(no_page());
    }
    let url = format!("{}/", ask.url());
    let link = |page: u32| query.url(&url, &[("page", page.to_string())]);
    let next = (u64::from(page * PAGE) < count && page < PAGES_MAX).then(|| link(page + 1));
    let previous = (page > 1).then(|| link(page - 1));
    let body = json!({ "count": count, "next": next, "previous": previous, "results": results });
    Ok(answer(StatusCode::OK, &body))
}

async fn list(mut ask: Ask) -> Result<Response, Problem> {
    let caller = ask.any_caller().await?;
    let query = ask.query()?;
    let (page, offset) = page_of(&query)?;
    let exact = query.whole("price")?;
    let filter = ProductFilter {
        name: query.name("name"),
        status: query.text("status").map(status_of).transpose()?,
        price_gte: query.whole("price_gte")?.max(exact),
        price_lte: match (query.whole("price_lte")?, exact) {
            (Some(most), Some(exact)) => Some(most.min(exact)),
            (most, exact) => most.or(exact),
        },
        limit: PAGE,
        ..ProductFilter::default()
    };
    let part = Part {
        offset,
        is_rising: false,
    };
    let (found, count) = products::part_of(&ask.app, caller, filter, part).await?;
    let results: Vec<Value> = found.iter().map(|of| shown(&of.product)).collect();
    paged(&ask, &query, page, count, &results)
}

/// The contract's path of the product.
fn path_of(ask: &Ask) -> Result<String, Problem> {
    let number = number_of(Kind::Product, ask.id());
    let number = number.ok_or_else(|| Problem::of(Code::ProductNotFound))?;
    Ok(format!("/api/products/{number}"))
}

/// A product as the contract answered it, in the seed's form.
fn answered(of: &Answer) -> Result<Value, Problem> {
    let id = of.number("id")?.unsigned_abs();
    let product = json!({ "id": uuid(Kind::Product, id, 0), "name": of.member("name"),
        "description": of.member("description"), "price": decimal(of.number("price")?),
        "status": of.text("status")?.to_ascii_lowercase(), "created_at": of.member("createdAt"),
        "updated_at": of.member("updatedAt") });
    Ok(product)
}

async fn show(ask: Ask) -> Result<Response, Problem> {
    let found = ask.get(&path_of(&ask)?).await?;
    Ok(found.becomes(StatusCode::OK, &answered(&found)?))
}

/// The contract's members of a product; `is_whole` demands all of them.
fn product_in(fields: &Fields, is_whole: bool) -> Result<Value, Problem> {
    let mut body = Map::new();
    for name in ["name", "description", "price", "status"] {
        if !is_whole && !fields.has(name) {
            continue;
        }
        let value = match name {
            "price" => json!(fields.whole(name)?),
            "status" => json!(status_of(&fields.text(name)?)?),
            _ => json!(fields.text(name)?),
        };
        body.insert(name.to_owned(), value);
    }
    Ok(Value::Object(body))
}

async fn create(mut ask: Ask) -> Result<Response, Problem> {
    ask.admin().await?;
    let body = product_in(&ask.fields()?, true)?;
    let created = ask.post("/api/products", body).await?;
    Ok(created.becomes(StatusCode::CREATED, &answered(&created)?))
}

async fn change(mut ask: Ask) -> Result<Response, Problem> {
    ask.admin().await?;
    let path = path_of(&ask)?;
    // A seed's product has no thresholds, so a replacement keeps those of the product.
    let body = product_in(&ask.fields()?, ask.method() == Method::PUT)?;
    let changed = ask.call(Method::PATCH, &path, Some(body)).await?;
    Ok(changed.becomes(StatusCode::OK, &answered(&changed)?))
}

async fn delete(mut ask: Ask) -> Result<Response, Problem> {
    ask.admin().await?;
    ask.call(Method::DELETE, &path_of(&ask)?, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn warehouse_of(location: LocationId) -> String {
    match location {
        LocationId::ONLINE => WAREHOUSE.to_owned(),
        store => store.to_string(),
    }
}

fn location_of(code: &str) -> Result<LocationId, Problem> {
    if code == WAREHOUSE {
        return Ok(LocationId::ONLINE);
    }
    let store = code.parse().ok().filter(|store| *store > 0);
    let rule = "the number of a store, or the code of the warehouse, is expected";
    store
        .map(LocationId)
        .ok_or_else(|| Problem::unprocessable("/warehouse_code", rule))
}

fn bounds(query: &Pairs, name: &str) -> Result<Bounds, Problem> {
    let exact = query.whole(name)?;
    let least = query.whole(&format!("{name}_gte"))?;
    let most = query.whole(&format!("{name}_lte"))?;
    Ok(Bounds {
        least: least.max(exact),
        most: match (most, exact) {
            (Some(most), Some(exact)) => Some(most.min(exact)),
            (most, exact) => most.or(exact),
        },
    })
}

fn level(app: &App, caller: Caller, of: &StockLevel) -> Value {
    let (product, location) = (of.product_id, of.location_id);
    let known = products::find_shown(app, product, Some(caller)).ok();
    let known = known.map(|known| shown(&known));
    let of_product = |name: &str| known.as_ref().and_then(|known| known.get(name));
    json!({ "id": uuid(Kind::Stock, product.0, location.0),
        "physical_stock": of.available + of.reserved, "reserved_stock": of.reserved,
        "available_stock": of.available, "min_stock_level": of.min_stock_level,
        "reorder_point": of.reorder_point, "warehouse_code": warehouse_of(location),
        "updated_at": rfc3339(unix_ms(of.updated_at)), "product_id": of_product("id"),
        "product_name": of_product("name"), "product_price": of_product("price"),
        "product_status": of_product("status") })
}

async fn available(mut ask: Ask) -> Result<Response, Problem> {
    let caller = ask.caller().await?;
    let query = ask.query()?;
    let (page, offset) = page_of(&query)?;
    let product = query.text("product_id").map(|id| {
        let number = number_of(Kind::Product, id);
        let rule = "the id of a product is expected";
        number.ok_or_else(|| Problem::unprocessable("/product_id", rule))
    });
    let filter = StockLevelFilter {
        product: product.transpose()?.map(ProductId),
        // The seed has one stock for each product.
        location: Some(location_of(
            query.text("warehouse_code").unwrap_or(WAREHOUSE),
        )?),
        available: bounds(&query, "available_stock")?,
        reserved: bounds(&query, "reserved_stock")?,
        physical: bounds(&query, "physical_stock")?,
        limit: PAGE,
        ..StockLevelFilter::default()
    };
    let (found, count) = stock::part_of(&ask.app, caller, filter, offset).await?;
    let results = found.iter().map(|of| level(&ask.app, caller, of));
    let results: Vec<Value> = results.collect();
    paged(&ask, &query, page, count, &results)
}

/// The product and the quantity of a change of stock.
fn units(fields: &Fields) -> Result<(ProductId, i64), Problem> {
    let id = number_of(Kind::Product, &fields.text("product_id")?);
    let id = id.ok_or_else(no_product)?;
    let quantity = fields.whole("quantity")?;
    match quantity > 0 {
        true => Ok((ProductId(id), quantity)),
        false => Err(Problem::unprocessable("/quantity", "must be above 0")),
    }
}

/// An unknown product is a wrong field.
fn product_named(problem: Problem) -> Problem {
    match problem.code == Code::ProductNotFound {
        true => no_product(),
        false => problem,
    }
}

fn no_product() -> Problem {
    Problem::unprocessable("/product_id", "there is no such product")
}

async fn inbound(mut ask: Ask) -> Result<Response, Problem> {
    ask.admin().await?;
    let fields = ask.fields()?;
    let (product, quantity) = units(&fields)?;
    let (reason, code) = (fields.text("reason")?, fields.text("warehouse_code")?);
    let location = location_of(&code)?;
    let body = json!({ "productId": product.0, "locationId": location.0, "quantity": quantity,
        "reason": reason });
    let taken = ask.post("/api/products/stock/inbound", body).await;
    // An unknown store is a wrong field, too.
    let taken = taken.map_err(|problem| match problem.code == Code::StoreNotFound {
        true => Problem::unprocessable("/warehouse_code", problem.detail),
        false => product_named(problem),
    })?;
    let body = json!({ "product_id": fields.value("product_id")?, "quantity": quantity,
        "reason": reason, "warehouse_code": code });
    Ok(taken.becomes(StatusCode::CREATED, &body))
}

async fn reserve(mut ask: Ask) -> Result<Response, Problem> {
    ask.caller().await?;
    let (product, quantity) = units(&ask.fields()?)?;
    let body = json!({ "productId": product.0, "quantity": quantity });
    let held = ask.post("/api/products/stock/reserve", body).await;
    let held = match held {
        Ok(held) => held,
        Err(problem) if [409, 422].contains(&problem.code.status()) => {
            let problem = match problem.code == Code::HoldUnitsReached {
                true => short(&ask, product, quantity).await?.unwrap_or(problem),
                false => problem,
            };
            return Err(unreserved(problem));
        }
        Err(problem) => return Err(product_named(problem)),
    };
    let of = &held;
    let id: Result<u64, _> = of.text("reservationId")?.parse();
    let id = id.map_err(|error| Problem::internal(&error).behind_a_change())?;
    // The hold is made, whatever has become of its product since.
    let product = ask.app.selling.catalog.product(product);
    let reservation = json!({ "id": uuid(Kind::Reservation, id, 0),
        "product": product.map(|product| shown(&product)), "quantity": of.member("quantity"),
        "user_id": of.member("userId"), "status": of.text("status")?.to_ascii_lowercase(),
        "expires_at": of.member("expiresAt") });
    let body = json!({ "success": true, "reservation": reservation, "error_message": null,
        "error_code": null });
    Ok(held.becomes(StatusCode::CREATED, &body))
}

/// Says that stock is short, if it is. The contract looks at the limit of held units first, which
/// the seed does not know.
async fn short(ask: &Ask, product: ProductId, quantity: i64) -> Result<Option<Problem>, Problem> {
    let path = format!("/api/products/stock/available?productId={product}&locationId=0");
    let found = ask.get(&path).await?;
    let available = found.body.pointer("/items/0/available");
    let available = available.and_then(Value::as_i64);
    let short = available.filter(|available| *available < quantity);
    Ok(short.map(|available| {
        let text = format!("product {product} has {available} left");
        Problem::new(Code::InsufficientStock, text).with("available", available)
    }))
}

/// The refusal of a reservation, which the seed's load plan counts as good.
fn unreserved(mut problem: Problem) -> Problem {
    problem.status = 400;
    let (text, code) = (problem.detail.clone(), problem.code.as_str());
    problem
        .with("success", false)
        .with("reservation", Value::Null)
        .with("error_message", text)
        .with("error_code", code)
}
