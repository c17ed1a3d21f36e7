//! HTTP: every route in one table, and the layers around it.
//!
//! [`openapi`] describes the same table; [`serve`] owns connections, time limits and limits by address;
//! [`extract`] turns bytes into types; [`auth`] says who calls; [`problem`] turns errors into answers; the
//! nouns' files hold the handlers and their wire types.

pub mod account_forms;
pub mod accounts;
pub mod audit;
pub mod auth;
pub mod cross_site;
pub mod extract;
pub mod openapi;
pub mod ops;
pub mod orders;
pub mod origin;
pub mod problem;
pub mod products;
pub mod serve;
pub mod sessions;
pub mod users;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, patch, post, put};

use crate::app::App;

/// Every URL of the service.
pub fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/api/redis/orders", post(orders::place_redis))
        .route(
            "/api/redis/orders/{order_id}/cancel",
            patch(orders::cancel_redis),
        )
        .route("/api/orders", post(orders::place_lock).get(orders::list))
        .route("/api/orders/{order_id}", get(orders::show))
        .route("/api/orders/{order_id}/cancel", patch(orders::cancel_lock))
        .route("/api/redis/products", get(products::list_redis))
        .route("/api/redis/products/{id}", get(products::show_redis))
        .route("/api/products", get(products::list).post(products::create))
        .route(
            "/api/products/{id}",
            get(products::show)
                .put(products::replace)
                .patch(products::edit)
                .delete(products::delete),
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
        .route("/account/signup", post(account_forms::sign_up))
        .route("/account/login", post(account_forms::log_in))
        .route("/account/logout", post(account_forms::log_out))
        .route("/api/ops/selling", put(ops::switch_selling))
        .route("/api/openapi.json", get(ops::document))
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .fallback(ops::not_found)
        .method_not_allowed_fallback(ops::method_not_allowed)
        .with_state(app)
}
