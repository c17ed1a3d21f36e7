//! The OpenAPI document of each seed, made from its table of calls.
//!
//! A schema is drawn from an example: each member with its type. A client that sends more is not
//! refused, so no schema forbids other members.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use stock_common::config::Seed;

use super::call::Call;

/// The document of a seed's calls.
pub(super) fn document(seed: Seed, calls: &[Call]) -> Value {
    let mut paths = Map::new();
    for call in calls {
        let item = paths.entry(call.path).or_insert_with(|| json!({}));
        if let Some(methods) = item.as_object_mut() {
            let method = call.method.as_str().to_ascii_lowercase();
            methods.insert(method, operation(call));
        }
    }
    let name = seed.as_str();
    json!({
        "openapi": "3.1.0",
        "info": { "title": format!("Stock Flow for clients of {name}"),
            "version": env!("CARGO_PKG_VERSION") },
        "servers": [{ "url": format!("/seeds/{name}") }],
        "security": [{ "bearer": [] }, { "session": [] }],
        "paths": paths,
        "components": { "securitySchemes": {
            "bearer": { "type": "http", "scheme": "bearer" },
            "session": { "type": "apiKey", "in": "cookie", "name": "session" } } },
    })
}

fn operation(call: &Call) -> Value {
    let ids = call.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({ "name": name, "in": "path", "required": true,
            "schema": { "type": "string" } }))
    });
    let query = call.query.iter().map(|name| {
        json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" } })
    });
    let parameters: Vec<Value> = ids.chain(query).collect();
    let refused = json!({
        "description": "A problem, with the members that this interface's clients read.",
        "content": { "application/problem+json": { "schema": { "type": "object",
            "properties": { "status": { "type": "integer" }, "code": { "type": "string" },
                "detail": { "type": "string" } },
            "required": ["status", "code", "detail"] } } } });
    let kind = match call.path {
        "/data-init" => "text/plain",
        _ => "application/json",
    };
    let good = match call.status {
        StatusCode::NO_CONTENT => json!({ "description": "As asked for." }),
        _ => json!({ "description": "As asked for.", "content": { kind: { "schema": {} } } }),
    };
    let body = call.body.as_ref().map(|body| {
        let schema = schema(body, call.method != Method::PATCH);
        json!({ "required": true,
            "content": { "application/json": { "schema": schema, "example": body } } })
    });
    let mut operation = Map::new();
    operation.insert("summary".to_owned(), json!(call.about));
    operation.insert("parameters".to_owned(), json!(parameters));
    operation.insert(
        "responses".to_owned(),
        json!({ call.status.as_str(): good, "default": refused }),
    );
    if call.is_open {
        operation.insert("security".to_owned(), json!([]));
    }
    operation.extend(body.map(|body| ("requestBody".to_owned(), body)));
    Value::Object(operation)
}

/// The schema of values like this one.
fn schema(example: &Value, is_required: bool) -> Value {
    match example {
        Value::Object(members) => {
            let properties = members.iter();
            let properties: Map<String, Value> = properties
                .map(|(name, value)| (name.clone(), schema(value, true)))
                .collect();
            let required: Vec<&String> = members.keys().filter(|_| is_required).collect();
            json!({ "type": "object", "properties": properties, "required": required })
        }
        Value::Array(items) => {
            let items = items.first().map(|item| schema(item, true));
            json!({ "type": "array", "items": items.unwrap_or_default() })
        }
        Value::String(_) => json!({ "type": "string" }),
        Value::Number(number) if number.is_f64() => json!({ "type": "number" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Null => json!({}),
    }
}
