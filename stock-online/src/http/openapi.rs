//! The interface as an OpenAPI 3.1 document: every route with every answer that it may give.
//!
//! One table, [`operations`], lists them in the order of [`super::routes`]; a test asks the service
//! for each path and method. Codes that follow from an operation's kind (a token, a role, a body,
//! Redis, MySQL) are written once, in [`Operation::codes`].

mod examples;
mod operations;
#[cfg(test)]
mod released;
mod schemas;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::OnceLock;

use axum::http::Method;

use serde_json::{Value, json};
use stock_domain::service_key::Scope;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{ResponseBuilder, ResponsesBuilder};
use utoipa::openapi::schema::{
    AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContactBuilder, Content, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    Required, ServerBuilder,
};

use self::operations::OPERATIONS;
use crate::http::code::Code;

/// The callers that an operation allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anyone,
    User,
    /// An admin, or a user of the store in the path.
    Till,
    Admin,
}

/// The body that a call carries.
#[derive(Clone, Copy)]
enum Carries {
    Nothing,
    Body(&'static str),
    /// The fields of a page's form.
    Form(&'static str),
    /// A body that may be left out.
    Maybe(&'static str),
    /// A file of stock.
    Csv,
}

/// One method of one path.
struct Operation {
    method: HttpMethod,
    path: &'static str,
    summary: &'static str,
    who: Who,
    /// The scopes of service keys, each of which allows it. None: it is for people only, unless
    /// anybody may call it.
    scopes: &'static [Scope],
    carries: Carries,
    query: &'static [(&'static str, &'static str)],
    ok: (u16, &'static str),
    /// Codes that do not follow from the fields above.
    codes: &'static [Code],
}

/// Which service keys may call an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    /// The scopes, each of which allows it.
    pub(super) scopes: &'static [Scope],
    /// Whether anybody may call it.
    pub(super) is_open: bool,
    /// Whether it is an admin's, so that it is never called as a buyer.
    pub(super) is_admins: bool,
}

/// Which service keys may call a method of a route; `None` for an unknown one.
pub(super) fn access(method: &Method, path: &str) -> Option<Access> {
    static KNOWN: OnceLock<HashMap<(&str, &str), Access>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let access = |of: &'static Operation| Access {
            scopes: of.scopes,
            is_open: of.who == Who::Anyone,
            is_admins: matches!(of.who, Who::Admin | Who::Till),
        };
        let all = OPERATIONS.iter();
        all.map(|of| ((name(&of.method), of.path), access(of)))
            .collect()
    });
    let method = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    known.get(&(method, path)).copied()
}

const fn name(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Options => "OPTIONS",
        HttpMethod::Head => "HEAD",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Trace => "TRACE",
    }
}

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const FORM: &str = "application/x-www-form-urlencoded";
/// The freshness of products, as the document states it.
const SOURCE: &str = "The server whose levels are shown. `redis`, the default: at most 200 ms old, and never older than a level \
     that this instance has told before. While Redis is silent they are the last that were seen, and the header `Age` says \
     how many seconds ago. `mysql`: the levels that MySQL has settled. Names, prices, discounts and sales come from memory: \
     at most 5 s old, and on the instance that answered a change never older than it.";
/// Codes that the ledger answers when it cannot decide.
const LEDGER: [Code; 8] = [
    Code::Fenced,
    Code::UnsafeRedis,
    Code::Overloaded,
    Code::Backlog,
    Code::OutcomeUnknown,
    Code::AccountBroken,
    Code::SellingStopped,
    Code::DatabaseUnavailable,
];

impl Operation {
    /// Whether it honours an Idempotency-Key: it changes the shop, and not a person's account.
    fn is_keyed(&self) -> bool {
        const PEOPLE: [&str; 4] = ["/api/auth/", "/api/me/", "/api/users/", "/account/"];
        let is_of_people = PEOPLE.iter().any(|prefix| self.path.starts_with(prefix))
            || self.path.starts_with("/api/token");
        // A payment provider's message is known by its payment, and the orders of a batch have
        // keys of their own.
        let is_of_its_own = ["/api/payments/events", "/api/orders/batch"].contains(&self.path);
        self.method != HttpMethod::Get && !is_of_people && !is_of_its_own
    }

    /// Whether its answer has an `ETag`, so that a client can ask whether its copy is current.
    fn is_tagged(&self) -> bool {
        self.query.contains(&("source", "source"))
    }

    /// Every problem that it may answer.
    fn codes(&self) -> Vec<Code> {
        // The operation's own codes come first, because they are its examples.
        let mut codes = self.codes.to_vec();
        codes.extend([Code::BadRequest, Code::HeadersTooLarge]);
        codes.push(match self.method == HttpMethod::Get {
            true => Code::Timeout,
            false => Code::OutcomeUnknown,
        });
        if self.who != Who::Anyone {
            codes.extend([Code::Unauthorized, Code::IssuerUnavailable]);
        }
        if matches!(self.who, Who::Till | Who::Admin) {
            codes.push(Code::Forbidden);
        }
        if !self.scopes.is_empty() {
            codes.push(Code::ScopeMissing);
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
                // A key is checked even where none is honoured.
                Code::IdempotencyKeyInvalid,
            ]);
        }
        if self.is_keyed() {
            codes.extend([
                Code::IdempotencyKeyInvalid,
                Code::IdempotencyKeyReused,
                Code::RequestInProgress,
                Code::DatabaseUnavailable,
            ]);
        }
        codes
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut found = Vec::new();
        let names = self.path.split('/').filter_map(|part| {
            part.strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
        });
        for name in names {
            // Positions are strings, whatever the parameter is called.
            let is_position = ["order_id", "position"].contains(&name)
                || self.path.starts_with("/api/reservations/")
                || self.path.ends_with("/points/{id}/cancel")
                || self.path.contains("/oversold/{sale_id}") && name == "sale_id";
            let kind = match name {
                "account" => "account",
                _ if is_position => "id",
                _ => "integer",
            };
            found.push(parameter(name, ParameterIn::Path, kind));
        }
        let query = self.query.iter();
        found.extend(query.map(|(name, kind)| parameter(name, ParameterIn::Query, kind)));
        if self.is_keyed() {
            found.push(parameter("Idempotency-Key", ParameterIn::Header, "key"));
        }
        if !self.scopes.is_empty() && self.who == Who::User {
            found.push(parameter("Stock-Buyer", ParameterIn::Header, "text"));
        }
        if self.is_tagged() {
            found.push(parameter("If-None-Match", ParameterIn::Header, "text"));
        }
        if self.codes.contains(&Code::PreconditionFailed) {
            found.push(parameter("If-Match", ParameterIn::Header, "text"));
        }
        found
    }

    fn build(&self) -> OperationBuilder {
        let mut tag = self.path.trim_start_matches("/api").split('/').skip(1);
        let tag = tag
            .find(|part| !["redis", "v1", "v2"].contains(part))
            .unwrap_or_default();
        let tag = match tag {
            "livez" | "readyz" | "metrics" | "openapi.json" => "health",
            "auth" | "token" | "me" | "account" => "accounts",
            "events" | "stock" => "stock",
            tag => tag,
        };
        let (id, description) = words::operation(name(&self.method), self.path);
        let mut operation = OperationBuilder::new()
            .tag(tag)
            .operation_id(Some(id))
            .summary(Some(self.summary))
            .description(Some(description))
            .parameters(Some(self.parameters()))
            .responses(self.responses());
        operation = match self.who {
            // Nothing is needed: an empty list, because none would mean the document's own.
            Who::Anyone => operation.securities(Some([])),
            Who::User | Who::Till | Who::Admin => {
                operation.security(SecurityRequirement::new("bearer", [""; 0]))
            }
        };
        // Each of the scopes allows it, so each is an alternative.
        let for_people = self.who != Who::Anyone;
        for scope in self.scopes.iter().filter(|_| for_people) {
            let name = [scope.as_str()];
            operation = operation.security(SecurityRequirement::new("serviceKey", name));
        }
        let body = match self.carries {
            Carries::Nothing => None,
            Carries::Form(name) => Some((name, FORM, Required::True)),
            Carries::Csv => Some(("text", CSV, Required::True)),
            Carries::Body(name) => Some((name, JSON, Required::True)),
            Carries::Maybe(name) => Some((name, JSON, Required::False)),
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
            "events" => ok.content(
                "text/event-stream",
                ContentBuilder::new().schema(Some(text())).build(),
            ),
            "csv" => ok.content(CSV, ContentBuilder::new().schema(Some(text())).build()),
            "text" => ok.content(
                "text/plain",
                ContentBuilder::new().schema(Some(text())).build(),
            ),
            _ => ok.content("application/json", of(schema)),
        };
        let ok = self.with_headers(ok).build();
        let mut responses = ResponsesBuilder::new();
        if matches!(self.carries, Carries::Csv) {
            responses = responses.response("200", ok.clone());
        }
        responses = responses.response(status.to_string(), ok);
        if self.is_tagged() {
            let same = "The client has this answer already (`If-None-Match`).";
            let same = ResponseBuilder::new().description(same).build();
            responses = responses.response("304", same);
        }
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in self.codes() {
            by_status.entry(code.status()).or_default().push(code);
        }
        for (status, codes) in by_status {
            let mut names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
            let mut known = HashSet::new();
            names.retain(|name| known.insert(*name));
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                // The first code is the operation's own, if it has one.
                .example(codes.first().copied().map(problem));
            let mut problem = ResponseBuilder::new()
                .description(names.join(", "))
                .content("application/problem+json", content.build());
            // `Ready` is a body of its own, not a problem.
            let own = match self.path {
                "/readyz" => Some("Ready"),
                // A shard that did not follow is reported in the form of the success.
                "/api/ops/selling" => Some("SellingDone"),
                _ => None,
            };
            if let Some(own) = own.filter(|_| status == 503) {
                problem = problem.content("application/json", of(own));
            }
            if [429, 503].contains(&status) {
                problem = problem.header_ref("Retry-After", header("Retry-After"));
            }
            responses = responses.response(status.to_string(), problem);
        }
        responses
    }

    /// Adds the headers of a success.
    fn with_headers(&self, answer: ResponseBuilder) -> ResponseBuilder {
        let given = [
            ("X-Request-Id", true),
            ("Location", self.ok.0 == 201),
            ("Idempotency-Replayed", self.is_keyed()),
            ("ETag", self.is_tagged()),
        ];
        let names = given.into_iter().filter(|(_, is_given)| *is_given);
        names.fold(answer, |answer, (name, _)| {
            answer.header_ref(name, header(name))
        })
    }
}

fn header(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// The example of a problem with a code.
fn problem(code: Code) -> Value {
    json!({
        "type": format!("/problems/{}", code.as_str()),
        "title": code.title(),
        "status": code.status(),
        "detail": code.title(),
        "code": code.as_str(),
        "requestId": "5f2c81aa-1f",
    })
}

fn of(schema: &str) -> Content {
    let content = ContentBuilder::new().example(examples::example(schema));
    if schema == "text" {
        return content.schema(Some(text())).build();
    }
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
        "account" => text().pattern(Some("^[A-Z]{1,20}:[0-9]{1,19}:[0-9]{1,19}$")),
        "deliveryState" => names(&["PENDING", "DELIVERED", "FAILED"]),
        "ids" => text().pattern(Some("^[0-9]{1,19}(,[0-9]{1,19}){0,99}$")),
        "pair" => text().pattern(Some("^[0-9]{1,19}-[0-9]{1,9}$")),
        "boolean" => ObjectBuilder::new().schema_type(Type::Boolean),
        "date" => text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Date))),
        "reservationStatus" => names(&["PENDING", "CONFIRMED", "CANCELLED", "EXPIRED"]),
        "checkoutStatus" => names(&["OPEN", "CONFIRMED", "CANCELLED", "EXPIRED", "REFUND_DUE"]),
        "key" => text().pattern(Some("^[!-~]{1,255}$")),
        "source" => names(&["redis", "mysql"]).description(Some(SOURCE)),
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
    // An empty value in a query counts as absent.
    let schema: Schema = if matches!(place, ParameterIn::Query) {
        let empty = text().max_length(Some(0));
        AnyOfBuilder::new().item(schema).item(empty).into()
    } else {
        schema.into()
    };
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

/// Every operation that honours an Idempotency-Key, such as `POST /api/orders`.
pub fn keyed() -> impl Iterator<Item = String> {
    let keyed = OPERATIONS.iter().filter(|operation| operation.is_keyed());
    keyed.map(|operation| {
        let method = match operation.method {
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Get | HttpMethod::Options | HttpMethod::Head | HttpMethod::Trace => "",
        };
        format!("{method} {}", operation.path)
    })
}

/// Every path, with its parameters in braces.
pub fn paths() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.path)
}

/// The document, built once.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut document = serde_json::to_value(build()).unwrap_or_default();
        let parts = document.get_mut("components");
        if let Some(parts) = parts.and_then(Value::as_object_mut) {
            let schemas = parts.get_mut("schemas").and_then(Value::as_object_mut);
            schemas.into_iter().for_each(words::describe);
            parts.insert("headers".to_owned(), words::headers());
        }
        document
    })
}

fn build() -> OpenApi {
    let mut paths = Paths::new();
    for operation in OPERATIONS {
        let method = vec![operation.method.clone()];
        paths.add_path_operation(operation.path, method, operation.build());
    }
    let info = InfoBuilder::new()
        .title("Stock Flow")
        .version(env!("CARGO_PKG_VERSION"))
        .contact(Some(
            ContactBuilder::new()
                .name(Some("The operator of this service"))
                .build(),
        ))
        .license(Some(
            LicenseBuilder::new()
                .name("MIT")
                .identifier(Some("MIT"))
                .build(),
        ))
        .description(Some(
            "A flash-sale stock engine that is both fast and right. Get a token with \
             `POST /api/token` and send it as `Authorization: Bearer …`. Every change of the shop \
             takes an `Idempotency-Key`: the same key gets the first answer again. Every error is \
             `application/problem+json` with a stable `code`: [error codes](/problems).",
        ));
    let tags = words::tags().map(|(name, text)| {
        let tag = TagBuilder::new().name(name);
        tag.description(Some(text)).build()
    });
    let here = ServerBuilder::new()
        .url("/")
        .description(Some("The service that answers this document"));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([here.build()]))
        .tags(Some(tags))
        .paths(paths)
        .components(Some(schemas::components()))
        .build()
}
