//! The interface as an OpenAPI 3.1 document: every route with every answer that it may give.
//!
//! One table, in the order of [`super::routes`]; a test asks the service for each path and method of it.
//! What follows from an operation's kind (a token, a role, a body, Redis, MySQL) is written once, in
//! [`Operation::codes`].

use std::collections::BTreeMap;
use std::sync::OnceLock;

use stock_common::error::Code;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{ResponseBuilder, ResponsesBuilder};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, Ref, Required,
};

use super::{account_forms, accounts, ops, orders, products, users};

/// Who may call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anyone,
    User,
    Admin,
}

/// What a call carries.
#[derive(Clone, Copy)]
enum Carries {
    Nothing,
    Body(&'static str),
    /// The fields of a page's form.
    Form(&'static str),
    /// A body that may be left out, and a key.
    KeyedMaybe(&'static str),
    /// A body, and optionally an Idempotency-Key.
    Keyed(&'static str),
}

/// One method of one path.
struct Operation {
    method: HttpMethod,
    path: &'static str,
    summary: &'static str,
    who: Who,
    carries: Carries,
    query: &'static [(&'static str, &'static str)],
    ok: (u16, &'static str),
    /// What it may answer beyond what follows from the above.
    codes: &'static [Code],
}

const PRODUCTS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("name", "text"),
    ("status", "productStatus"),
    ("priceGte", "integer"),
    ("priceLte", "integer"),
];
const USERS: &[(&str, &str)] = &[("limit", "limit"), ("cursor", "id")];
const ORDERS: &[(&str, &str)] = &[
    ("limit", "limit"),
    ("cursor", "id"),
    ("userId", "integer"),
    ("status", "orderStatus"),
];
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// What the ledger answers when it cannot decide.
const LEDGER: [Code; 7] = [
    Code::Fenced,
    Code::Overloaded,
    Code::Backlog,
    Code::OutcomeUnknown,
    Code::AccountBroken,
    Code::SellingStopped,
    Code::DatabaseUnavailable,
];
const PLACE: &[Code] = &[
    Code::UserMismatch,
    Code::ProductNotFound,
    Code::ProductNotOnSale,
    Code::PriceChanged,
    Code::TotalAmountMismatch,
    Code::InsufficientStock,
    Code::SaleNotOpen,
    Code::SaleClosed,
    Code::CouponNotUsable,
    Code::InsufficientPoints,
];
const CANCEL: &[Code] = &[Code::OrderNotFound, Code::InvalidOrderStatus];
const READ: &[Code] = &[Code::DatabaseUnavailable, Code::Fenced];

macro_rules! operations {
    ($($method:ident $path:literal $summary:literal $who:ident $carries:expr, $query:expr, $ok:expr, $codes:expr;)*) => {
        const OPERATIONS: &[Operation] = &[$(Operation {
            method: HttpMethod::$method,
            path: $path,
            summary: $summary,
            who: Who::$who,
            carries: $carries,
            query: $query,
            ok: $ok,
            codes: $codes,
        },)*];
    };
}

operations! {
    Post "/api/redis/orders" "Order, Redis first" User
        Carries::Keyed("OrderIn"), &[], (201, "OrderOut"), PLACE;
    Patch "/api/redis/orders/{order_id}/cancel" "Cancel, Redis first" User
        Carries::KeyedMaybe("NothingIn"), &[], (200, "OrderOut"), CANCEL;
    Post "/api/orders" "Order under row locks in MySQL" User
        Carries::Keyed("OrderIn"), &[], (201, "OrderOut"), PLACE;
    Get "/api/orders" "Own stored orders, newest first" User
        Carries::Nothing, ORDERS, (200, "OrderListOut"), &[Code::Forbidden, Code::DatabaseUnavailable];
    Get "/api/orders/{order_id}" "One order, stored or not" User
        Carries::Nothing, &[], (200, "OrderOut"), &[Code::OrderNotFound, Code::DatabaseUnavailable, Code::Fenced];
    Patch "/api/orders/{order_id}/cancel" "Cancel under row locks" User
        Carries::KeyedMaybe("NothingIn"), &[], (200, "OrderOut"), CANCEL;
    Get "/api/redis/products" "Products, stock from Redis" Anyone
        Carries::Nothing, PRODUCTS, (200, "ProductListOut"), READ;
    Get "/api/redis/products/{id}" "One product, stock from Redis" Anyone
        Carries::Nothing, &[], (200, "DetailOut"), &[Code::ProductNotFound, Code::DatabaseUnavailable, Code::Fenced];
    Get "/api/products" "Products, stock from MySQL" Anyone
        Carries::Nothing, PRODUCTS, (200, "ProductListOut"), READ;
    Post "/api/products" "Make a product" Admin
        Carries::Keyed("ProductIn"), &[], (201, "DetailOut"), &[Code::StockLimitReached];
    Get "/api/products/{id}" "One product, stock from MySQL" Anyone
        Carries::Nothing, &[], (200, "DetailOut"), &[Code::ProductNotFound, Code::DatabaseUnavailable];
    Put "/api/products/{id}" "Write a product" Admin
        Carries::Body("ProductIn"), &[], (200, "DetailOut"), &[Code::ProductNotFound, Code::PreconditionFailed];
    Patch "/api/products/{id}" "Change a product" Admin
        Carries::Body("ProductIn"), &[], (200, "DetailOut"), &[Code::ProductNotFound, Code::PreconditionFailed];
    Delete "/api/products/{id}" "Take a product away" Admin
        Carries::Nothing, &[], (204, ""), &[Code::ProductNotFound, Code::PreconditionFailed, Code::Fenced, Code::Overloaded, Code::DatabaseUnavailable];
    Post "/api/auth/signup" "Sign up" Anyone
        Carries::Body("SignUpIn"), &[], (201, "SignedUpOut"), &[Code::EmailTaken];
    Post "/api/token" "Log in: an access and a refresh token" Anyone
        Carries::Body("CredentialsIn"), &[], (200, "TokensOut"), &[Code::InvalidCredentials];
    Post "/api/token/refresh" "The next tokens; a refresh token holds once" Anyone
        Carries::Body("RefreshIn"), &[], (200, "TokensOut"), &[Code::RefreshTokenInvalid];
    Get "/api/me" "Who the caller is" User
        Carries::Nothing, &[], (200, "UserOut"), &[Code::DatabaseUnavailable];
    Post "/api/me/password" "Choose another password; all tokens and sessions end" User
        Carries::Body("PasswordIn"), &[], (200, "TokensOut"), &[Code::InvalidCredentials];
    Post "/api/auth/logout-everywhere" "End all tokens and sessions of the caller" User
        Carries::Nothing, &[], (204, ""), &[Code::DatabaseUnavailable];
    Get "/api/users" "All users, by id" Admin
        Carries::Nothing, USERS, (200, "UserListOut"), &[Code::DatabaseUnavailable];
    Patch "/api/users/{id}" "Give a user another role; their tokens and sessions end" Admin
        Carries::Body("RoleIn"), &[], (200, "UserOut"), &[Code::NotFound];
    Delete "/api/users/{id}" "Delete a user; their orders stay" Admin
        Carries::Nothing, &[], (204, ""), &[Code::NotFound, Code::DatabaseUnavailable];
    Post "/account/signup" "The sign-up page's form" Anyone
        Carries::Form("SignUpForm"), &[], (303, ""), &[Code::CrossSiteRequest];
    Post "/account/login" "The login page's form: begins a session" Anyone
        Carries::Form("LoginForm"), &[], (303, ""), &[Code::CrossSiteRequest];
    Post "/account/logout" "Ends the session" User
        Carries::Nothing, &[], (303, ""), &[Code::DatabaseUnavailable];
    Put "/api/ops/selling" "Stop or resume all selling" Admin
        Carries::Body("Selling"), &[], (200, "Selling"), &[];
    Get "/api/openapi.json" "This document" Anyone
        Carries::Nothing, &[], (200, "object"), &[];
    Get "/livez" "The process answers" Anyone
        Carries::Nothing, &[], (200, "object"), &[];
    Get "/readyz" "Orders can be taken" Anyone
        Carries::Nothing, &[], (200, "Ready"), &[];
    Get "/metrics" "Prometheus' text format; by setting only for admins" Anyone
        Carries::Nothing, &[], (200, "text"), &[Code::Unauthorized, Code::Forbidden];
}

impl Operation {
    /// Every problem that it may answer.
    fn codes(&self) -> Vec<Code> {
        let mut codes = vec![Code::BadRequest, Code::HeadersTooLarge, Code::Timeout];
        codes.extend(self.codes);
        if self.who != Who::Anyone {
            codes.push(Code::Unauthorized);
        }
        if self.who == Who::Admin {
            codes.push(Code::Forbidden);
        }
        if self.path.starts_with("/api/") || self.path.starts_with("/account/") {
            codes.push(Code::TooManyRequests);
        }
        // A session's cookie counts only from pages of this site.
        if self.who != Who::Anyone && self.method != HttpMethod::Get {
            codes.push(Code::CrossSiteRequest);
        }
        if !self.query.is_empty() {
            codes.push(Code::Unprocessable);
        }
        if !matches!(self.carries, Carries::Nothing) {
            codes.extend(LEDGER);
            codes.extend([
                Code::MalformedJson,
                Code::RequestTimeout,
                Code::PayloadTooLarge,
                Code::UnsupportedMediaType,
                Code::Unprocessable,
                Code::IdempotencyKeyInvalid,
            ]);
        }
        if matches!(self.carries, Carries::Keyed(_) | Carries::KeyedMaybe(_)) {
            codes.extend([Code::IdempotencyKeyReused, Code::RequestInProgress]);
        }
        codes
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut found = Vec::new();
        if self.path.contains("{order_id}") {
            found.push(parameter("order_id", ParameterIn::Path, "id"));
        }
        if self.path.contains("{id}") {
            found.push(parameter("id", ParameterIn::Path, "integer"));
        }
        let query = self.query.iter();
        found.extend(query.map(|(name, kind)| parameter(name, ParameterIn::Query, kind)));
        if matches!(self.carries, Carries::Keyed(_) | Carries::KeyedMaybe(_)) {
            found.push(parameter("Idempotency-Key", ParameterIn::Header, "key"));
        }
        if self.codes.contains(&Code::PreconditionFailed) {
            found.push(parameter("If-Match", ParameterIn::Header, "text"));
        }
        found
    }

    fn build(&self) -> OperationBuilder {
        let mut tag = self.path.trim_start_matches("/api/").split('/');
        let tag = tag.find(|part| *part != "redis").unwrap_or_default();
        let mut operation = OperationBuilder::new()
            .tag(tag.trim_end_matches(".json"))
            .summary(Some(self.summary))
            .parameters(Some(self.parameters()))
            .responses(self.responses());
        if self.who != Who::Anyone {
            operation = operation.security(SecurityRequirement::new("bearer", [""; 0]));
        }
        let body = match self.carries {
            Carries::Nothing => None,
            Carries::Form(name) => Some((name, FORM, Required::True)),
            Carries::Body(name) | Carries::Keyed(name) => Some((name, JSON, Required::True)),
            Carries::KeyedMaybe(name) => Some((name, JSON, Required::False)),
        };
        operation.request_body(body.map(|(name, kind, required)| {
            RequestBodyBuilder::new()
                .content(kind, of(name))
                .required(Some(required))
                .build()
        }))
    }

    fn responses(&self) -> ResponsesBuilder {
        let (status, schema) = self.ok;
        let ok = ResponseBuilder::new().description(self.summary);
        let ok = match schema {
            "" => ok,
            "text" => ok.content(
                "text/plain",
                ContentBuilder::new().schema(Some(text())).build(),
            ),
            _ => ok.content("application/json", of(schema)),
        };
        let mut responses = ResponsesBuilder::new().response(status.to_string(), ok);
        let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for code in self.codes() {
            by_status
                .entry(code.status())
                .or_default()
                .push(code.as_str());
        }
        for (status, names) in by_status {
            let mut problem = ResponseBuilder::new()
                .description(names.join(", "))
                .content("application/problem+json", of("Problem"));
            // Not ready is an answer of its own, and no problem.
            if self.path == "/readyz" && status == 503 {
                problem = problem.content("application/json", of("Ready"));
            }
            responses = responses.response(status.to_string(), problem);
        }
        responses
    }
}

fn of(schema: &str) -> Content {
    let content = ContentBuilder::new();
    if schema == "object" {
        let object = ObjectBuilder::new().schema_type(Type::Object);
        return content.schema(Some(object)).build();
    }
    content.schema(Some(Ref::from_schema_name(schema))).build()
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn parameter(name: &str, place: ParameterIn, kind: &str) -> Parameter {
    let names = |names: &[&str]| text().enum_values(Some(names.to_vec()));
    let schema = match kind {
        "limit" => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1.0))
            .maximum(Some(100.0)),
        "integer" => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0.0))
            .maximum(Some(9_007_199_254_740_991.0)),
        "id" => text().pattern(Some("^[0-9]{1,19}$")),
        "key" => text().pattern(Some("^[!-~]{1,255}$")),
        "productStatus" => names(&["ACTIVE", "SOLD_OUT", "END_OF_SALE", "INACTIVE"]),
        "orderStatus" => names(&[
            "ORDER_PENDING",
            "SUCCESS",
            "FAIL",
            "CANCEL_REQUESTED",
            "CANCEL",
        ]),
        _ => text(),
    };
    let is_path = matches!(place, ParameterIn::Path);
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(if is_path {
            Required::True
        } else {
            Required::False
        })
        .schema(Some(schema))
        .build()
}

/// The form of every problem (RFC 9457).
fn problem() -> ObjectBuilder {
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    let names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("status", number)
        .property("code", text().enum_values(Some(names)));
    for name in ["type", "title", "detail", "requestId"] {
        object = object.property(name, text());
    }
    for name in ["type", "title", "status", "detail", "code", "requestId"] {
        object = object.required(name);
    }
    object
}

/// Every path, with its parameters in braces.
pub fn paths() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.path)
}

/// The document, built once.
pub fn document() -> &'static OpenApi {
    static DOCUMENT: OnceLock<OpenApi> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut paths = Paths::new();
        for operation in OPERATIONS {
            let method = vec![operation.method.clone()];
            paths.add_path_operation(operation.path, method, operation.build());
        }
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        let components = ComponentsBuilder::new()
            .schema_from::<orders::OrderIn>()
            .schema_from::<orders::LineIn>()
            .schema_from::<orders::LineOut<'_>>()
            .schema_from::<orders::DeliveryTypeName>()
            .schema_from::<orders::OrderStatusName>()
            .schema_from::<products::ItemOut<'_>>()
            .schema_from::<products::ProductStatusName>()
            .schema_from::<ops::Checks>()
            .schema_from::<orders::NothingIn>()
            .schema_from::<orders::OrderBody<'_>>()
            .schema_from::<orders::OrderListOut<'_>>()
            .schema_from::<products::ProductIn>()
            .schema_from::<products::DetailOut<'_>>()
            .schema_from::<products::ListOut<'_>>()
            .schema_from::<accounts::SignUpIn>()
            .schema_from::<accounts::CredentialsIn>()
            .schema_from::<accounts::RefreshIn>()
            .schema_from::<accounts::PasswordIn>()
            .schema_from::<users::RoleIn>()
            .schema_from::<users::RoleName>()
            .schema_from::<accounts::SignedUpOut<'_>>()
            .schema_from::<accounts::TokensOut>()
            .schema_from::<accounts::UserOut<'_>>()
            .schema_from::<users::UserListOut<'_>>()
            .schema_from::<account_forms::SignUpForm>()
            .schema_from::<account_forms::LoginForm>()
            .schema_from::<ops::Selling>()
            .schema_from::<ops::Ready>()
            .schema("Problem", problem())
            .security_scheme("bearer", SecurityScheme::Http(bearer));
        let info = InfoBuilder::new()
            .title("Stock Flow")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "A flash-sale stock engine. Error codes: docs/errors.md.",
            ));
        OpenApiBuilder::new()
            .info(info)
            .paths(paths)
            .components(Some(components.build()))
            .build()
    })
}
