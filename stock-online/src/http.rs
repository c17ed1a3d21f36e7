//! HTTP: every route of the interface in one table, and the layers around it.
//!
//! Pages have their own table, [`crate::pages`], and call these routes. [`openapi`] describes the
//! routes. [`crate::serve`] owns connections, time limits and limits by address. [`extract`] turns
//! bytes into types. [`auth`] identifies the caller. [`problem`] turns errors into answers, and
//! [`code`] lists their codes. Each of the other files holds the handlers and the wire types of one
//! noun.

pub mod accounts;
pub mod audit;
pub mod audit_log;
pub mod auth;
pub mod checkouts;
pub mod code;
pub mod coupons;
pub mod cross_site;
pub mod dead_letters;
pub mod devices;
pub mod discounts;
pub mod events;
pub mod extract;
pub mod files;
pub mod imports;
pub mod ledger_checks;
pub mod openapi;
pub mod ops;
pub mod orders;
pub mod origin;
pub mod page;
pub mod payments;
pub mod points;
pub mod problem;
pub mod products;
pub mod quarantine;
pub mod reader;
pub mod reservations;
pub mod sales;
pub mod service_keys;
pub mod sessions;
pub mod stock;
pub mod stores;
pub mod trace;
pub mod users;
pub mod webhooks;
pub mod works;

mod once;
mod validators;
mod verdicts;

use std::sync::Arc;

use axum::routing::{delete, get, patch, post, put};
use axum::{Router, middleware};

use crate::app::App;

/// Every URL of the interface.
#[expect(clippy::too_many_lines, reason = "every route in one table")]
pub fn routes(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/api/redis/orders", post(orders::place_redis))
        .route(
            "/api/redis/orders/{order_id}/cancel",
            patch(orders::cancel_redis),
        )
        .route("/api/orders", post(orders::place_lock).get(orders::list))
        .route("/api/orders/batch", post(orders::place_batch))
        .route("/api/orders/{order_id}", get(orders::show))
        .route("/api/orders/{order_id}/cancel", patch(orders::cancel_lock))
        .route("/api/orders/{order_id}/returns", post(orders::give_back))
        .route("/api/redis/products", get(products::list))
        .route("/api/redis/products/{id}", get(products::show))
        .route("/api/products", get(products::list).post(products::create))
        .route(
            "/api/products/{id}",
            get(products::show)
                .put(products::replace)
                .patch(products::edit)
                .delete(products::delete),
        )
        .route("/api/products/{id}/discounts", post(discounts::create))
        .route("/api/products/{id}/sales", post(sales::create))
        .route(
            "/api/products/{id}/sales/{sale_id}",
            patch(sales::edit).delete(sales::delete),
        )
        .route("/api/sales", get(sales::list))
        .route("/api/products/stock/available", get(stock::available))
        .route("/api/products/stock/inbound", post(stock::inbound))
        .route("/api/products/{id}/stock", post(stock::adjust))
        .route("/api/products/{id}/stock/movements", get(stock::movements))
        .route(
            "/api/products/{id}/stock/statistics",
            get(stock::statistics),
        )
        .route("/api/products/stock/reserve", post(reservations::reserve))
        .route("/api/reservations", get(reservations::list))
        .route("/api/reservations/{id}", get(reservations::show))
        .route(
            "/api/reservations/{id}/confirm",
            post(reservations::confirm),
        )
        .route("/api/reservations/{id}/cancel", post(reservations::cancel))
        .route("/api/checkouts", post(checkouts::open).get(checkouts::list))
        .route("/api/checkouts/{id}", get(checkouts::show))
        .route("/api/checkouts/{id}/extend", post(checkouts::extend))
        .route("/api/checkouts/{id}/confirm", post(checkouts::confirm))
        .route("/api/checkouts/{id}/cancel", post(checkouts::cancel))
        .route("/api/payments", get(payments::list))
        .route("/api/payments/events", post(payments::receive))
        .route("/api/stores", get(stores::list).post(stores::create))
        .route("/api/stores/{store_id}", put(stores::replace))
        .route("/api/stores/{store_id}/products", get(stores::products))
        .route(
            "/api/stores/{store_id}/products/{product_id}/stock",
            get(stores::stock),
        )
        .route(
            "/api/stores/{store_id}/products/{product_id}/stock/nearby",
            get(stores::nearby),
        )
        .route("/api/stores/{store_id}/orders", post(stores::till::place))
        .route(
            "/api/stores/{store_id}/orders/{order_id}/cancel",
            patch(stores::till::cancel),
        )
        .route(
            "/api/stores/{store_id}/orders/batch",
            post(stores::offline::place_batch),
        )
        .route(
            "/api/stores/{store_id}/oversold",
            get(stores::offline::oversold),
        )
        .route(
            "/api/stores/{store_id}/oversold/{sale_id}/resolve",
            post(stores::offline::resolve),
        )
        .route(
            "/api/stores/{store_id}/invalid-sales",
            get(stores::invalid::list),
        )
        .route(
            "/api/stores/{store_id}/invalid-sales/{id}/resolve",
            post(stores::invalid::resolve),
        )
        .route("/api/stock/import", post(imports::import))
        .route("/api/stock/import/{id}", get(imports::show))
        .route("/api/stock/export", get(imports::export))
        .route("/api/works", get(works::list).post(works::create))
        .route("/api/works/{id}", put(works::replace).delete(works::delete))
        .route("/api/coupons", get(coupons::list).post(coupons::create))
        .route("/api/coupons/mine", get(coupons::mine))
        .route("/api/coupons/{id}/issue", post(coupons::issue))
        .route("/api/v1/points/earn", post(points::earn_lock))
        .route("/api/v1/points/use", post(points::use_lock))
        .route("/api/v1/points/{id}/cancel", post(points::cancel_lock))
        .route(
            "/api/v1/points/users/{user_id}/balance",
            get(points::balance),
        )
        .route(
            "/api/v1/points/users/{user_id}/history",
            get(points::history),
        )
        .route(
            "/api/v1/points/users/{user_id}/reports",
            get(points::reports),
        )
        .route("/api/v2/points/earn", post(points::earn_redis))
        .route("/api/v2/points/use", post(points::use_redis))
        .route("/api/v2/points/{id}/cancel", post(points::cancel_redis))
        .route(
            "/api/v2/points/users/{user_id}/balance",
            get(points::balance),
        )
        .route(
            "/api/v2/points/users/{user_id}/history",
            get(points::history),
        )
        .route(
            "/api/v2/points/users/{user_id}/reports",
            get(points::reports),
        )
        .route("/api/auth/signup", post(accounts::post_sign_up))
        .route("/api/token", post(accounts::token))
        .route("/api/token/refresh", post(accounts::refresh))
        .route("/api/me", get(accounts::me))
        .route("/api/me/password", post(accounts::change_password))
        .route(
            "/api/auth/logout-everywhere",
            post(accounts::logout_everywhere),
        )
        .route("/api/users", get(users::list))
        .route(
            "/api/users/{id}",
            patch(users::set_role).delete(users::delete),
        )
        .route(
            "/api/keys",
            get(service_keys::list).post(service_keys::create),
        )
        .route("/api/keys/{id}", delete(service_keys::delete))
        .route("/api/webhooks", get(webhooks::list).post(webhooks::create))
        .route(
            "/api/webhooks/{id}",
            get(webhooks::show)
                .put(webhooks::replace)
                .patch(webhooks::edit)
                .delete(webhooks::delete),
        )
        .route("/api/webhooks/{id}/deliveries", get(webhooks::deliveries))
        .route(
            "/api/webhooks/{id}/deliveries/{delivery_id}/resend",
            post(webhooks::resend),
        )
        .route("/api/events/levels", get(events::levels))
        .route("/api/ops/selling", put(ops::switch_selling))
        .route("/api/ops/status", get(ledger_checks::status))
        .route("/api/ops/checks", get(ledger_checks::list))
        .route("/api/ops/verify", post(ledger_checks::start))
        .route("/api/ops/dead-letters", get(dead_letters::list))
        .route(
            "/api/ops/dead-letters/{position}/retry",
            post(dead_letters::retry),
        )
        .route("/api/ops/quarantine", get(quarantine::list))
        .route(
            "/api/ops/quarantine/{account}/release",
            post(quarantine::release),
        )
        .route("/api/ops/audit-log", get(audit_log::list))
        .route("/api/openapi.json", get(ops::document))
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .fallback(ops::not_found)
        .method_not_allowed_fallback(ops::method_not_allowed);
    if app.reads.has_replicas() {
        let note = middleware::from_fn_with_state(Arc::clone(&app), reader::note_writers);
        return routes.layer(note).with_state(app);
    }
    routes.with_state(app)
}
