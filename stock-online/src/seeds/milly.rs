//! The interface of the commerce service: products with a discount, stock changes, coupons.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use stock_domain::catalog::{Part, ProductFilter};

use super::call::{Answer, Ask, Call};
use crate::http::code::Code;
use crate::http::orders::json as answer;
use crate::http::problem::Problem;
use crate::http::products::{self, Levelled};

/// Size of a page, and the largest number of products before it.
const PAGE: u32 = 30;
const PAGE_MAX: u32 = 100;
const OFFSET_MAX: u32 = 10_000;

pub(super) fn calls() -> Vec<Call> {
    vec![
        Call::owned(Method::POST, "/commerce/products", create)
            .body(
                json!({ "name": "first", "description": "of many", "price": 10_000.0,
                "stock": 100 }),
            )
            .about("Creates a product with its stock."),
        Call::owned(Method::GET, "/commerce/products", list)
            .open()
            .query(&["product_name", "page_size", "page_index"])
            .about("Lists products, the oldest first."),
        Call::owned(Method::GET, "/commerce/products/{id}", show)
            .open()
            .about("Shows a product at the caller's best price."),
        Call::owned(Method::POST, "/commerce/products/{id}/stock", change_stock)
            .body(json!({ "change": 50 }))
            .about("Adds stock, or takes some away."),
        Call::owned(Method::POST, "/commerce/products/{id}/discounts", discount)
            .body(json!({ "percentage": 20.0 }))
            .about("Gives a product a discount in place of its last one."),
        Call::owned(Method::POST, "/commerce/coupons", make_coupon)
            .body(json!({ "code": "DISCOUNT20", "discount_percentage": 20.0,
                "valid_from": "2024-01-01T00:00:00Z", "valid_to": "2024-12-31T23:59:59Z" }))
            .about("Makes a coupon for the caller."),
    ]
}

pub(super) fn refusal(mut problem: Problem) -> Problem {
    if [409, 422].contains(&problem.status) {
        problem.status = 400;
    }
    let (title, text) = (problem.code.title(), problem.detail.clone());
    let problem = problem.with("msg", title);
    match problem.status {
        401 => problem.with("error", text),
        _ => problem,
    }
}

fn product_id(number: impl std::fmt::Display) -> String {
    format!("PROD{number}")
}

/// The product of the path: `PROD12`, or its number.
fn id_of(ask: &Ask) -> Result<u64, Problem> {
    let id = ask.id();
    let number = id.strip_prefix("PROD").unwrap_or(id);
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_plain);
    number.ok_or_else(|| Problem::of(Code::ProductNotFound))
}

/// Money as the seed's clients read it, a number with a point.
#[expect(clippy::cast_precision_loss, reason = "money is below 2^53")]
fn float(units: i64) -> f64 {
    units as f64
}

fn money(of: &Answer, name: &str) -> Result<f64, Problem> {
    of.number(name).map(float)
}

fn item(of: &Levelled, now_ms: u64) -> Value {
    let fields = &of.product.fields;
    let unit_price = of.product.unit_price(now_ms).get();
    json!({ "id": product_id(of.product.id.0), "name": fields.name,
        "description": fields.description, "price": float(fields.price.get()),
        "stock_count": of.level.map(|level| level.balance),
        "discount_amount": float(fields.price.get() - unit_price),
        "final_price": float(unit_price) })
}

async fn list(mut ask: Ask) -> Result<Response, Problem> {
    let caller = ask.any_caller().await?;
    let query = ask.query()?;
    let limit = query.within("page_size", PAGE, 1..=PAGE_MAX)?;
    let index = query.within("page_index", 1, 1..=u32::MAX)?;
    let offset = (index - 1).saturating_mul(limit);
    if offset > OFFSET_MAX {
        return Ok(answer(StatusCode::OK, &json!({ "products": [] })));
    }
    let filter = ProductFilter {
        name: query.name("product_name"),
        limit,
        ..ProductFilter::default()
    };
    let part = Part {
        offset,
        is_rising: true,
    };
    let (found, _) = products::part_of(&ask.app, caller, filter, part).await?;
    let now_ms = ask.app.ledger.redis_now_ms();
    let items: Vec<Value> = found.iter().map(|of| item(of, now_ms)).collect();
    Ok(answer(StatusCode::OK, &json!({ "products": items })))
}

async fn create(mut ask: Ask) -> Result<Response, Problem> {
    ask.admin().await?;
    let fields = ask.fields()?;
    let stock = fields.whole("stock")?;
    let body = json!({ "name": fields.text("name")?, "description": fields.text("description")?,
        "price": fields.whole("price")?, "stock": stock, "status": "ACTIVE" });
    let created = ask.post("/api/products", body).await?;
    let of = &created;
    let id = of.number("id")?;
    let body = json!({ "id": product_id(id), "name": of.member("name"),
        "description": of.member("description"), "price": money(of, "price")?,
            "stock_count": stock,
        "discount_amount": null, "final_price": null });
    Ok(created.becomes(StatusCode::OK, &body))
}

async fn show(ask: Ask) -> Result<Response, Problem> {
    let id = id_of(&ask)?;
    let found = ask.get(&format!("/api/products/{id}")).await?;
    let of = &found;
    let product = json!({ "id": product_id(id), "name": of.member("name"),
        "description": of.member("description"), "price": money(of, "price")?,
        "created_at": of.member("createdAt"), "updated_at": of.member("updatedAt") });
    let total = money(of, "finalPrice")?;
    let body = json!({ "product": product,
        "product_discount_amount": money(of, "discountAmount")?,
        "cupon_discount_amount": money(of, "couponDiscountAmount")?,
        "total_amount": total, "final_price": total });
    Ok(found.becomes(StatusCode::OK, &body))
}

async fn change_stock(mut ask: Ask) -> Result<Response, Problem> {
    ask.admin().await?;
    let path = format!("/api/products/{}/stock", id_of(&ask)?);
    let body = json!({ "change": ask.fields()?.whole("change")? });
    let changed = ask.post(&path, body).await?;
    let body = json!({ "new_stock_count": changed.member("newStockCount") });
    Ok(changed.becomes(StatusCode::OK, &body))
}

async fn discount(mut ask: Ask) -> Result<Response, Problem> {
    ask.admin().await?;
    let id = id_of(&ask)?;
    let path = format!("/api/products/{id}/discounts");
    let body = json!({ "percentage": ask.fields()?.value("percentage")? });
    let made = ask.post(&path, body).await?;
    let of = &made;
    let number = of.number("discountId")?;
    let body = json!({ "discount_id": format!("DISC{number}"), "product_id": product_id(id),
        "percentage": of.member("percentage").as_f64(), "is_active": of.member("isActive") });
    Ok(made.becomes(StatusCode::OK, &body))
}

async fn make_coupon(mut ask: Ask) -> Result<Response, Problem> {
    let admin = ask.admin().await?;
    let fields = ask.fields()?;
    let percentage = fields.value("discount_percentage")?;
    // Without a code the contract draws one.
    let code = fields
        .has("code")
        .then(|| fields.text("code"))
        .transpose()?;
    let name = code.clone().unwrap_or_else(|| format!("{percentage} %"));
    let body = json!({ "name": name, "code": code, "discountRate": percentage,
        "validFrom": fields.text("valid_from")?, "validTo": fields.text("valid_to")?,
        "userId": admin.user.0 });
    let made = ask.post("/api/coupons", body).await?;
    let of = &made;
    let number = of.number("id")?;
    let body = json!({ "cupon_id": format!("CUPON{number}"),
        "user_id": admin.user.to_string(), "code": of.member("code"),
        "discount_percentage": of.member("discountRate").as_f64() });
    Ok(made.becomes(StatusCode::OK, &body))
}
