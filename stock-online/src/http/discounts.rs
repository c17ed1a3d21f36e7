//! Discounts: POST `/api/products/{id}/discounts`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use stock_common::clock::rfc3339;
use stock_common::id::ProductId;
use stock_domain::discount::{Discount, Percentage};
use stock_mysql::people::audit_log::Action;
use stock_mysql::sales as table;
use utoipa::ToSchema;

use super::audit;
use super::auth::Admin;
use super::extract::{BodyIn, Keyed, PathId, TimeIn};
use super::once::{Begun, Once};
use super::orders::json;
use super::origin::Origin;
use super::problem::Problem;
use super::products::publish;
use crate::app::App;
use crate::http::code::Code;

/// Default duration of a discount, in days.
const DAYS: u64 = 30;
const DAY_MS: u64 = 24 * 3_600_000;

/// A discount as an admin creates it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "percentage": 12.5 }))]
pub struct DiscountIn {
    /// Above 0 and at most 100, with at most two decimals.
    #[schema(value_type = f64, minimum = 0.01, maximum = 100)]
    percentage: Number,
    /// Start of the discount; now if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<TimeIn>,
    /// End of the discount; 30 days after the start if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<TimeIn>,
}

impl BodyIn for DiscountIn {}

/// A discount as an admin sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DiscountOut {
    discount_id: u64,
    product_id: u64,
    #[schema(value_type = f64)]
    percentage: Number,
    /// Whether it is the product's current discount; a later one replaces it.
    is_active: bool,
    #[schema(value_type = String, format = DateTime)]
    starts_at: String,
    #[schema(value_type = String, format = DateTime)]
    ends_at: String,
}

/// POST `/api/products/{id}/discounts`.
///
/// # Errors
/// 404, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<DiscountIn>,
) -> Result<Response, Problem> {
    let missing = || Problem::of(Code::ProductNotFound);
    let text = body.percentage.to_string();
    let percentage: Percentage = text
        .parse()
        .map_err(|error| Problem::unprocessable("/percentage", format!("{error}, not {text}")))?;
    let starts_ms = body
        .starts_at
        .map_or(app.ledger.redis_now_ms(), TimeIn::unix_ms);
    let ends_ms = body
        .ends_at
        .map_or(starts_ms + DAYS * DAY_MS, TimeIn::unix_ms);
    if starts_ms >= ends_ms {
        return Err(Problem::unprocessable("/endsAt", "is not after startsAt"));
    }
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let discount = Discount {
        percentage,
        starts_ms,
        ends_ms,
    };
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let made = match table::create_discount(once.connection(), ProductId(id), &discount).await {
        Ok(Some(discount_id)) => {
            let body = DiscountOut {
                discount_id,
                product_id: id,
                percentage: body.percentage,
                is_active: true,
                starts_at: rfc3339(starts_ms),
                ends_at: rfc3339(ends_ms),
            };
            Ok((json(StatusCode::CREATED, &body), ()))
        }
        Ok(None) => Err(missing()),
        Err(error) => Err(error.into()),
    };
    let (response, ()) = once.end(made).await?;
    publish(&app).await?;
    let subject = format!("product:{id}");
    let action = Action::DiscountCreated;
    audit::note(&app, &origin, action, Some(admin.user), &subject);
    Ok(response)
}
