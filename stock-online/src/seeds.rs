//! The interfaces of the five systems that this one takes the place of, for their clients.
//!
//! | file | clients of |
//! |---|---|
//! | [`stock_flow`] | a Spring Boot shop: orders on both paths |
//! | [`traffic`] | a Django shop: products, stock, reservations |
//! | [`points`] | a points service |
//! | [`milly`] | a commerce service: discounts, stock changes, coupons |
//! | [`toodat`] | a coupon event |
//! | [`shared`] | the rule that tells their requests on the contract's paths |
//! | [`call`], [`forms`], [`document`] | a call, how seeds write, their OpenAPI documents |
//!
//! An adapter turns a request into a call of the contract in this process, and the answer around.
//! So credentials, limits, audit, idempotency and verdicts are the contract's, and no rule stands
//! twice. The setting `compat` says whose clients are served: each under `/seeds/<name>`, and at
//! the documented path wherever names tell.

mod call;
mod document;
mod forms;
mod milly;
mod points;
mod stock_flow;
mod toodat;
mod traffic;

pub(crate) mod shared;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router, middleware};
use stock_common::config::Seed;
use tower_http::cors::CorsLayer;

use self::call::{Call, Place};
use self::shared::Shared;
use crate::app::App;
use crate::http::orders::json;
use crate::http::problem::Problem;
use crate::http::{ops, sessions};
use crate::pages::api::Api;
use crate::pages::{accounts, reference, silk};

/// Turns a problem of the contract into the form of a seed.
type Refusal = fn(Problem) -> Problem;

fn calls(seed: Seed) -> Vec<Call> {
    match seed {
        Seed::StockFlow => stock_flow::calls(),
        Seed::Traffic => traffic::calls(),
        Seed::Points => points::calls(),
        Seed::Milly => milly::calls(),
        Seed::Toodat => toodat::calls(),
    }
}

const fn refusal(seed: Seed) -> Refusal {
    match seed {
        Seed::StockFlow => stock_flow::refusal,
        Seed::Traffic => traffic::refusal,
        Seed::Points => points::refusal,
        Seed::Milly => milly::refusal,
        Seed::Toodat => toodat::refusal,
    }
}

/// The base path of a seed's interface.
#[must_use]
pub fn base(seed: Seed) -> String {
    format!("/seeds/{}", seed.as_str())
}

/// Pages and documents at paths that a seed alone has.
fn pages(seed: Seed) -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    match seed {
        Seed::StockFlow | Seed::Milly => Vec::new(),
        Seed::Traffic => vec![
            ("/api/schema/swagger-ui", get(reference::swagger_ui)),
            ("/api/schema/redoc", get(reference::redoc)),
            ("/silk", get(silk::show)),
        ],
        Seed::Points => vec![("/docs", get(reference::swagger_ui))],
        Seed::Toodat => vec![
            ("/login-page", get(accounts::login)),
            ("/signup-page", get(accounts::signup)),
            ("/account/login-page", get(accounts::login)),
            ("/account/signup-page", get(accounts::signup)),
        ],
    }
}

/// The path of the contract's document among two seeds.
const SCHEMA: &str = "/api/schema";

/// Every path of the seeds that are served, with its parameters in braces.
pub(crate) fn paths(app: &App) -> Vec<String> {
    let mut paths = Vec::new();
    for seed in app.config.http.compat.seeds() {
        paths.push(format!("{}/openapi.json", base(seed)));
        for call in calls(seed) {
            paths.push(format!("{}{}", base(seed), call.path));
            if call.place == Place::Owned {
                paths.push(call.path.to_owned());
            }
        }
        paths.extend(pages(seed).into_iter().map(|(path, _)| path.to_owned()));
    }
    paths.push(SCHEMA.to_owned());
    paths
}

/// Answers problems in the form of a seed.
fn dressed(router: Router<Arc<App>>, seed: Seed) -> Router<Arc<App>> {
    let refusal = refusal(seed);
    let dress = move |mut response: Response| async move {
        match response.extensions_mut().remove::<Problem>() {
            Some(problem) => refusal(problem).into_response(),
            None => response,
        }
    };
    router.layer(middleware::map_response(dress))
}

fn router<'a>(calls: impl Iterator<Item = &'a Call>) -> Router<Arc<App>> {
    calls.fold(Router::new(), |router, call| {
        router.route(call.path, call.route.clone())
    })
}

/// The routes of the seeds that are served, and the rule for the paths that they share.
pub(crate) fn routes(
    app: &Arc<App>,
    interface: Router,
    cors: Option<&CorsLayer>,
) -> (Router, Shared) {
    let compat = &app.config.http.compat;
    let served: Vec<&str> = compat.seeds().map(Seed::as_str).collect();
    tracing::info!(
        compat = served.join(","),
        "the systems whose clients are served"
    );
    let (mut own, mut shared) = (Router::new(), Router::new());
    let mut has_schema = false;
    for seed in compat.seeds() {
        let calls = calls(seed);
        let at = |place: Place| calls.iter().filter(move |call| call.place == place);
        let document = document::document(seed, &calls);
        let show = get(move || async move { json(StatusCode::OK, &document) });
        let base_routes = router(calls.iter())
            .route("/openapi.json", show)
            .fallback(ops::not_found)
            .method_not_allowed_fallback(ops::method_not_allowed);
        own = own.nest(&base(seed), dressed(base_routes, seed));
        let owned = router(at(Place::Owned)).method_not_allowed_fallback(ops::method_not_allowed);
        own = own.merge(dressed(owned, seed));
        let shares = router(at(Place::Shared)).method_not_allowed_fallback(ops::method_not_allowed);
        shared = shared.merge(dressed(shares, seed));
        for (path, page) in pages(seed) {
            own = own.route(path, page);
        }
        has_schema |= matches!(seed, Seed::Traffic | Seed::Points);
    }
    if has_schema {
        own = own.route(SCHEMA, get(ops::document));
    }
    let finish = |router: Router<Arc<App>>| {
        let router = match cors {
            Some(cors) => router.layer(cors.clone()),
            None => router,
        };
        router
            .layer(Extension(Api::new(interface.clone())))
            .with_state(Arc::clone(app))
    };
    let adapters = finish(shared);
    let for_browsers = adapters.clone().layer(sessions::layer(app));
    let shared = Shared::new(compat, adapters, for_browsers);
    (finish(own), shared)
}
