//! Shared paths: which requests on a path of the contract are a seed's.
//!
//! The contract answers first. Only when it has refused a request for a name that it does not know
//! are the names looked at: a name that only a seed knows makes the request the seed's, unless it
//! also carries a name that only the contract knows. So no request that the contract accepts
//! changes its meaning, and no such request pays for the search.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use stock_common::config::{Compat, Seed};
use stock_common::lock::lock;
use tower::ServiceExt as _;

use super::forms::{Kind, Pairs, number_of};
use super::traffic::LEVEL_NAMES;
use crate::http::auth::Counted;
use crate::http::code::Code;
use crate::http::extract::{JSON, is_of_type};
use crate::http::problem::Problem;

/// The sign of a seed's request.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// A name in the query.
    Query(Names),
    /// A member of the body.
    Body(Names),
    /// A UUID in the path.
    Uuid,
    /// A JSON body, or none, where the contract takes a form.
    NoForm,
}

/// Names that only a seed knows, and names that only the contract knows.
#[derive(Debug, Clone, Copy)]
struct Names {
    seed: &'static [&'static str],
    contract: &'static [&'static str],
}

/// A path that a seed shares with the contract, for some methods.
#[derive(Debug, Clone, Copy)]
struct Rule {
    seed: Seed,
    route: &'static str,
    sign: Sign,
}

impl Rule {
    /// Whether the seed has calls of this method on the path.
    fn takes(&self, method: &Method) -> bool {
        match self.sign {
            Sign::Query(_) => *method == Method::GET,
            Sign::Body(_) | Sign::NoForm => *method == Method::POST,
            Sign::Uuid => true,
        }
    }
}

const MOVED: Names = Names {
    seed: &["user_id"],
    contract: &["userId"],
};
const UNITS: Names = Names {
    seed: &["product_id"],
    contract: &["productId", "locationId", "ttlSeconds"],
};

const fn rule(seed: Seed, route: &'static str, sign: Sign) -> Rule {
    Rule { seed, route, sign }
}

const RULES: [Rule; 13] = [
    rule(
        Seed::Traffic,
        "/api/products",
        Sign::Query(Names {
            seed: &["page", "price", "price_gte", "price_lte"],
            contract: &["limit", "cursor", "priceGte", "priceLte", "source"],
        }),
    ),
    rule(Seed::Traffic, "/api/products/{id}", Sign::Uuid),
    rule(
        Seed::Traffic,
        "/api/products/stock/available",
        Sign::Query(Names {
            seed: &LEVEL_NAMES,
            contract: &[
                "limit",
                "cursor",
                "productId",
                "locationId",
                "low",
                "reorder",
            ],
        }),
    ),
    rule(
        Seed::Traffic,
        "/api/products/stock/inbound",
        Sign::Body(UNITS),
    ),
    rule(
        Seed::Traffic,
        "/api/products/stock/reserve",
        Sign::Body(UNITS),
    ),
    rule(
        Seed::Traffic,
        "/api/token",
        Sign::Body(Names {
            seed: &["username"],
            contract: &["email"],
        }),
    ),
    rule(Seed::Points, "/api/v1/points/earn", Sign::Body(MOVED)),
    rule(Seed::Points, "/api/v1/points/use", Sign::Body(MOVED)),
    rule(
        Seed::Points,
        "/api/v1/points/{id}/cancel",
        Sign::Body(MOVED),
    ),
    rule(Seed::Points, "/api/v2/points/earn", Sign::Body(MOVED)),
    rule(Seed::Toodat, "/account/signup", Sign::NoForm),
    rule(Seed::Toodat, "/account/login", Sign::NoForm),
    rule(Seed::Toodat, "/account/logout", Sign::NoForm),
];

/// The shared paths of the seeds that are served, and the adapters of them.
pub(crate) struct Shared {
    rules: Vec<Rule>,
    adapters: Router,
    /// The same with sessions.
    for_browsers: Router,
}

impl Names {
    /// Whether these names make a request the seed's.
    fn tell<'a>(&self, given: impl Iterator<Item = &'a str> + Clone) -> bool {
        let has = |names: &[&str]| given.clone().any(|name| names.contains(&name));
        has(self.seed) && !has(self.contract)
    }
}

impl Shared {
    pub(super) fn new(compat: &Compat, adapters: Router, for_browsers: Router) -> Self {
        let rules = RULES.into_iter().filter(|rule| compat.has(rule.seed));
        Self {
            rules: rules.collect(),
            adapters,
            for_browsers,
        }
    }

    /// The answer of the contract (`router`) or of a seed; `None` when no seed shares this route.
    pub(crate) async fn answer(
        &self,
        route: &str,
        router: &Router,
        is_browser: bool,
        request: Request<Body>,
    ) -> Result<Response<Body>, Request<Body>> {
        let rule = self.rules.iter().find(|rule| rule.route == route);
        let Some(rule) = rule.filter(|rule| rule.takes(request.method())) else {
            return Err(request);
        };
        let adapters = match is_browser {
            true => &self.for_browsers,
            false => &self.adapters,
        };
        // The contract never takes a UUID for a product, nor JSON for a form.
        let is_seeds = match rule.sign {
            Sign::Uuid => Some(has_uuid(request.uri().path())),
            Sign::NoForm => Some(!is_form(request.headers())),
            Sign::Query(_) | Sign::Body(_) => None,
        };
        match is_seeds {
            Some(true) => return Ok(call(adapters, request).await),
            Some(false) => return Err(request),
            None => {}
        }
        let (parts, body) = request.into_parts();
        let read = Arc::new(Mutex::new(Vec::new()));
        let reading = Arc::clone(&read);
        let body = body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                lock(&reading).push(data.clone());
            }
            frame
        });
        let request = Request::from_parts(parts.clone(), Body::new(body));
        let response = call(router, request).await;
        let problem = response.extensions().get::<Problem>();
        if problem.is_none_or(|problem| problem.code != Code::Unprocessable) {
            return Ok(response);
        }
        let body = std::mem::take(&mut *lock(&read)).concat();
        let is_seeds = match rule.sign {
            Sign::Query(names) => in_query(names, &parts.uri),
            Sign::Body(names) => in_body(names, &body),
            Sign::Uuid | Sign::NoForm => false,
        };
        if !is_seeds {
            return Ok(response);
        }
        let mut request = Request::from_parts(parts, Body::from(Bytes::from(body)));
        request.extensions_mut().insert(Counted);
        Ok(call(adapters, request).await)
    }
}

async fn call(router: &Router, request: Request<Body>) -> Response<Body> {
    match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never as Infallible {},
    }
}

/// Whether a request is the contract's form: it declares a type that is not JSON, or has a body.
fn is_form(headers: &HeaderMap) -> bool {
    match headers.get(header::CONTENT_TYPE) {
        Some(_) => !is_of_type(headers, JSON),
        None => {
            let length = headers.get(header::CONTENT_LENGTH);
            length.is_some_and(|length| length != "0")
                || headers.contains_key(header::TRANSFER_ENCODING)
        }
    }
}

fn in_query(names: Names, uri: &axum::http::Uri) -> bool {
    let pairs = Pairs::of(uri.query().unwrap_or_default());
    pairs.is_ok_and(|pairs| names.tell(pairs.names()))
}

fn in_body(names: Names, body: &[u8]) -> bool {
    let members: Result<Map<String, Value>, _> = serde_json::from_slice(body);
    members.is_ok_and(|members| names.tell(members.keys().map(String::as_str)))
}

fn has_uuid(path: &str) -> bool {
    let id = path.rsplit('/').next().unwrap_or_default();
    id.contains('-') && number_of(Kind::Product, id).is_some()
}
