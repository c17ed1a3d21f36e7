//! Pages for people: rendered here, readable without scripts, in English and Korean.
//!
//! | file | contents |
//! |---|---|
//! | [`shop`] | `/`: products, own orders, checkouts, reservations, coupons, points; one product; the cart; one checkout; one order |
//! | [`pay`] | `/pay`: the fake payment provider of `dev` |
//! | [`event`] | `/event`: coupons drawn first come first served |
//! | [`accounts`] | `/login`, `/signup` and what their forms post |
//! | [`admin`] | `/admin`: everything that an admin's calls do, as lists and forms |
//! | [`dashboard`] | `/dashboard`: figures of the last minutes, live |
//! | [`silk`] | `/silk`: the last requests with their times |
//! | [`mod@reference`] | `/api/docs`, `/api/redoc`, `/problems`: the interface and its error codes |
//! | [`context`] | the context of every page: its reader, its language, its headers |
//! | [`texts`], [`assets`] | texts; style sheets, scripts and icons |
//! | [`api`] | the interface, called in this process |
//!
//! A page shows the interface's answer to its reader ([`api`]), and its scripts call the same
//! interface with the session's cookie. So a page can do nothing that a client cannot, and every
//! rule stands once. Scripts only add live updates and forms that send JSON.

pub mod accounts;
pub mod admin;
pub mod api;
pub mod assets;
pub mod context;
pub mod dashboard;
pub mod event;
pub mod failure;
pub mod pay;
pub mod reference;
pub mod shop;
pub mod silk;
pub mod texts;

mod live;

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use tower_http::compression::CompressionLayer;

use crate::app::App;
use crate::http::ops;
use crate::pages::api::Api;

/// Every path of a page, with its parameters in braces.
pub const PATHS: [&str; 24] = [
    "/",
    "/products/{id}",
    "/cart",
    "/checkouts/{id}",
    "/pay/{id}",
    "/orders/{id}",
    "/event",
    "/login",
    "/signup",
    "/account/login",
    "/account/signup",
    "/account/logout",
    "/admin",
    "/admin/{id}",
    "/admin/products/{id}",
    "/dashboard",
    "/dashboard/live",
    "/live/levels",
    "/problems",
    "/problems/{id}",
    "/api/docs",
    "/api/docs/{id}",
    "/assets/{id}",
    "/api/redoc",
];

/// Every page, over the interface that the pages call.
pub fn routes(app: Arc<App>, interface: Router) -> Router {
    Router::new()
        .route("/", get(shop::show))
        .route("/products/{id}", get(shop::product))
        .route("/cart", get(shop::cart))
        .route("/checkouts/{id}", get(shop::checkout))
        .route("/pay/{id}", get(pay::show).post(pay::pay))
        .route("/orders/{id}", get(shop::order))
        .route("/event", get(event::show))
        .route("/login", get(accounts::login))
        .route("/signup", get(accounts::signup))
        .route("/account/signup", post(accounts::sign_up))
        .route("/account/login", post(accounts::log_in))
        .route("/account/logout", post(accounts::log_out))
        .route("/admin", get(admin::overview))
        .route("/admin/products/{id}", get(admin::product))
        .route("/admin/{section}", get(admin::section))
        .route("/dashboard", get(dashboard::show))
        .route("/problems", get(reference::problems))
        .route("/problems/{code}", get(reference::problem))
        .route("/api/docs", get(reference::swagger_ui))
        .route("/api/redoc", get(reference::redoc))
        .layer(CompressionLayer::new())
        // Files are compressed once, and not for each request.
        .route("/api/docs/{file}", get(reference::swagger_file))
        .route("/assets/{name}", get(assets::show))
        // Events are not compressed, because each must arrive when it is sent.
        .route("/dashboard/live", get(dashboard::live))
        .route("/live/levels", get(live::levels))
        .method_not_allowed_fallback(ops::method_not_allowed)
        .layer(Extension(Api::new(interface)))
        .with_state(app)
}
