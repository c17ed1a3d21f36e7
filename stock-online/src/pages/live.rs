//! `/live/levels`: levels as they change, for everybody who views a page; clients use
//! `/api/events/levels`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use stock_domain::catalog::ProductStatus;

use crate::app::App;
use crate::http::events::{self, EventsIn, Named};
use crate::http::extract::Filter;
use crate::http::origin::Origin;
use crate::http::problem::Problem;
use crate::stream_places::Holder;

/// GET `/live/levels`: the online levels of products that the shop shows, and of coupons that
/// anybody may draw.
///
/// # Errors
/// 422 for malformed ids, or without any; 429 or 503 when too many streams are open.
pub(super) async fn levels(
    State(app): State<Arc<App>>,
    origin: Origin,
    Filter(query): Filter<EventsIn>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let named = Named::of(&query)?;
    let mut named =
        named.ok_or_else(|| Problem::unprocessable("/productId", "ids are required"))?;
    named.is_online_only = true;
    named.products.retain(|id| {
        let known = app.selling.catalog.product(*id);
        known.is_some_and(|known| {
            !known.is_deleted && known.fields.status != ProductStatus::Inactive
        })
    });
    let mut coupons = Vec::new();
    for id in named.coupons {
        let coupon = app.selling.coupons.find(&app.pool, id).await?;
        let is_public = coupon.is_some_and(|coupon| coupon.personal.is_none());
        coupons.extend(is_public.then_some(id));
    }
    named.coupons = coupons;
    // A viewer of a page must not take a place from a client of the interface.
    let place = app.live.page_streams.take(Holder::at(origin.address))?;
    Ok(events::stream(app, Some(named), &headers, place, None))
}
