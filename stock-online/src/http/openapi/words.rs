//! The document's words: an id and a description of every operation, and a description of every tag
//! and of every member that does not bring its own. A test finds what has none.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Default, Deserialize)]
struct Words {
    /// Id and description by method and path.
    operations: BTreeMap<String, (String, String)>,
    tags: BTreeMap<String, String>,
    /// Descriptions by the name of a member, whatever its schema.
    members: BTreeMap<String, String>,
    /// Descriptions by schema and member, where the name alone says too little.
    of: BTreeMap<String, String>,
    schemas: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
}

static WORDS: LazyLock<Words> =
    LazyLock::new(|| serde_json::from_str(include_str!("words.json")).unwrap_or_default());

/// The id and the description of an operation.
pub(super) fn operation(method: &str, path: &str) -> (&'static str, &'static str) {
    let found = WORDS.operations.get(&format!("{method} {path}"));
    found.map_or(("", ""), |(id, text)| (id.as_str(), text.as_str()))
}

/// The tags with their descriptions.
pub(super) fn tags() -> impl Iterator<Item = (&'static str, &'static str)> {
    let tags = WORDS.tags.iter();
    tags.map(|(name, text)| (name.as_str(), text.as_str()))
}

/// The headers of answers.
pub(super) fn headers() -> Value {
    let headers = WORDS.headers.iter().map(|(name, text)| {
        let header = json!({ "description": text, "schema": { "type": "string" } });
        (name.clone(), header)
    });
    Value::Object(headers.collect())
}

/// Describes the schemas and members that bring no description.
pub(super) fn describe(schemas: &mut Map<String, Value>) {
    for (name, schema) in schemas {
        if let Some(text) = WORDS.schemas.get(name) {
            let schema = schema.as_object_mut();
            schema.map(|of| of.insert("description".to_owned(), json!(text)));
        }
        describe_members(name, schema);
    }
}

fn describe_members(name: &str, schema: &mut Value) {
    let parts = schema.get_mut("allOf").and_then(Value::as_array_mut);
    for part in parts.into_iter().flatten() {
        describe_members(name, part);
    }
    let members = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (member, form) in members.into_iter().flatten() {
        let own = WORDS.of.get(&format!("{name}.{member}"));
        let Some(form) = form
            .as_object_mut()
            .filter(|of| !of.contains_key("description"))
        else {
            continue;
        };
        if let Some(text) = own.or_else(|| WORDS.members.get(member)) {
            form.insert("description".to_owned(), json!(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::http::openapi::document;

    /// Collects the members of a schema that have no description.
    fn silent(name: &str, schema: &Value, found: &mut Vec<String>) {
        for part in schema["allOf"].as_array().into_iter().flatten() {
            silent(name, part, found);
        }
        for (member, form) in schema["properties"].as_object().into_iter().flatten() {
            if form["description"].is_null() {
                found.push(format!("{name}.{member}"));
            }
        }
    }

    #[test]
    fn every_operation_and_member_is_described_and_every_id_names_one_operation() {
        let document = document();
        let mut missing = Vec::new();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            silent(name, schema, &mut missing);
        }
        let tags = document["tags"].as_array().unwrap();
        let tags: BTreeSet<&str> = tags.iter().filter_map(|tag| tag["name"].as_str()).collect();
        let mut ids = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let text = |name: &str| operation[name].as_str().unwrap_or_default().to_owned();
                let (id, said) = (text("operationId"), text("description"));
                if id.is_empty() || said.is_empty() || !ids.insert(id) {
                    missing.push(format!("{method} {path}"));
                }
                let tag = operation["tags"][0].as_str().unwrap_or_default();
                if !tags.contains(tag) {
                    missing.push(format!("the tag {tag}"));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }
}
