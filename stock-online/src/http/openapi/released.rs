//! The document of the last release, and what of it a later document may not break.
//!
//! Clients are made from the document, so a member that they read or an operation that they call
//! may not go, and nothing may be asked of them that was not asked before. At a release, write
//! `released.json` anew: `RELEASED=write cargo test -p stock-online --lib openapi::released`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::document;

const RELEASED: &str = include_str!("released.json");
/// Words for people, and problems, whose form is the same everywhere.
const LEFT_OUT: [&str; 7] = [
    "description",
    "example",
    "headers",
    "info",
    "servers",
    "summary",
    "tags",
];

/// A document without what a client does not depend on.
fn core_of(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let is_problem = |name: &str| {
                name.len() == 3 && name.parse::<u16>().is_ok_and(|status| status >= 400)
            };
            // A member of a schema may be called like a word that is left out.
            let kept = members.iter().filter(|(name, of)| {
                let is_word = LEFT_OUT.contains(&name.as_str()) && !is_schema(of);
                !is_word && !is_problem(name)
            });
            Value::Object(kept.map(|(name, of)| (name.clone(), core_of(of))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(core_of).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_schema(value: &Value) -> bool {
    ["type", "$ref", "oneOf", "anyOf", "allOf"]
        .iter()
        .any(|name| value.get(name).is_some())
}

/// Whether clients write a schema or read it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Written,
    Read,
}

/// The schema that a reference names.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        None => schema,
        Some(name) => {
            let found = document.pointer(name.trim_start_matches('#'));
            found.map_or(&Value::Null, |found| resolved(document, found))
        }
    }
}

/// Compares two documents.
struct Comparison<'a> {
    old: &'a Value,
    new: &'a Value,
    /// Schemas that were compared before, by name.
    seen: BTreeSet<(String, bool)>,
    broken: Vec<String>,
}

impl Comparison<'_> {
    fn complain(&mut self, at: &str, what: &str) {
        self.broken.push(format!("{at}: {what}"));
    }

    /// The parts of a schema that are given in one place: its members, and which are required.
    fn members(document: &Value, schema: &Value) -> (Map<String, Value>, BTreeSet<String>) {
        let (mut members, mut required) = (Map::new(), BTreeSet::new());
        let schema = resolved(document, schema);
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let (of_part, needed) = Self::members(document, part);
            members.extend(of_part);
            required.extend(needed);
        }
        members.extend(
            schema["properties"]
                .as_object()
                .cloned()
                .unwrap_or_default(),
        );
        let names = schema["required"].as_array().into_iter().flatten();
        required.extend(names.filter_map(Value::as_str).map(str::to_owned));
        (members, required)
    }

    fn types(schema: &Value) -> BTreeSet<&str> {
        let several = schema["type"].as_array().into_iter().flatten();
        let types = several.chain([&schema["type"]]);
        types.filter_map(Value::as_str).collect()
    }

    fn compare(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        if let Some(name) = old["$ref"].as_str()
            && !self.seen.insert((name.to_owned(), way == Way::Read))
        {
            return;
        }
        let (old, new) = (resolved(self.old, old), resolved(self.new, new));
        let ((before, needed), (after, asked)) =
            (Self::members(self.old, old), Self::members(self.new, new));
        for (name, member) in &before {
            let at = format!("{at}/{name}");
            match after.get(name) {
                None => self.complain(&at, "is gone"),
                Some(now) => self.compare(&at, member, now, way),
            }
        }
        let (more, why) = match way {
            Way::Written => (asked.difference(&needed), "is required now"),
            Way::Read => (needed.difference(&asked), "may be missing now"),
        };
        let more: Vec<String> = more.cloned().collect();
        for name in more {
            self.complain(&format!("{at}/{name}"), why);
        }
        let (was, is) = (Self::types(old), Self::types(new));
        let fits = match way {
            Way::Written => was.is_subset(&is) || is.is_empty(),
            Way::Read => is.is_subset(&was) || was.is_empty(),
        };
        if !fits {
            self.complain(at, &format!("was {was:?} and is {is:?}"));
        }
        if way == Way::Written {
            self.compare_bounds(at, old, new);
        }
        if !old["items"].is_null() {
            self.compare(&format!("{at}/*"), &old["items"], &new["items"], way);
        }
        for name in ["oneOf", "anyOf"] {
            let pairs = old[name].as_array().into_iter().flatten().enumerate();
            for (index, choice) in pairs {
                self.compare(at, choice, &new[name][index], way);
            }
        }
    }

    /// Everything that could be written before can still be written.
    fn compare_bounds(&mut self, at: &str, old: &Value, new: &Value) {
        for (name, is_lower) in [
            ("minimum", true),
            ("minLength", true),
            ("minItems", true),
            ("maximum", false),
            ("maxLength", false),
            ("maxItems", false),
        ] {
            let (was, is) = (old[name].as_f64(), new[name].as_f64());
            let is_narrower = match (was, is) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(was), Some(is)) => match is_lower {
                    true => is > was,
                    false => is < was,
                },
            };
            if is_narrower {
                self.complain(at, &format!("{name} was {was:?} and is {is:?}"));
            }
        }
        let words = |of: &Value| -> BTreeSet<String> {
            let words = of["enum"].as_array().into_iter().flatten();
            words.map(Value::to_string).collect()
        };
        let (was, is) = (words(old), words(new));
        if !is.is_empty() && (was.is_empty() || !was.is_subset(&is)) {
            self.complain(at, "takes fewer words");
        }
    }

    fn compare_operation(&mut self, at: &str, old: &Value, new: &Value) {
        if new.is_null() {
            return self.complain(at, "is gone");
        }
        if old["operationId"] != new["operationId"] {
            self.complain(at, "has another operationId");
        }
        let parameters = |of: &Value| of["parameters"].as_array().cloned().unwrap_or_default();
        let name = |of: &Value| (of["in"].clone(), of["name"].clone());
        let (before, after) = (parameters(old), parameters(new));
        for parameter in &before {
            let found = after.iter().find(|now| name(now) == name(parameter));
            let at = format!("{at}?{}", parameter["name"]);
            match found {
                None => self.complain(&at, "is gone"),
                Some(now) => {
                    self.compare(&at, &parameter["schema"], &now["schema"], Way::Written);
                }
            }
        }
        for parameter in &after {
            let was = before.iter().find(|was| name(was) == name(parameter));
            let was_required = was.is_some_and(|was| was["required"] == true);
            if parameter["required"] == true && !was_required {
                self.complain(at, &format!("needs {}", parameter["name"]));
            }
        }
        let (was, is) = (&old["requestBody"], &new["requestBody"]);
        if is["required"] == true && was["required"] != true {
            self.complain(at, "needs a body");
        }
        self.compare_contents(&format!("{at} request"), was, is, Way::Written);
        for (status, answer) in old["responses"].as_object().into_iter().flatten() {
            let at = format!("{at} {status}");
            match new["responses"].get(status) {
                None => self.complain(&at, "is gone"),
                Some(now) => self.compare_contents(&at, answer, now, Way::Read),
            }
        }
    }

    fn compare_contents(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        for (kind, content) in old["content"].as_object().into_iter().flatten() {
            match new["content"].get(kind) {
                None => self.complain(at, &format!("{kind} is gone")),
                Some(now) => self.compare(at, &content["schema"], &now["schema"], way),
            }
        }
    }
}

/// The parts of an old document that a new one breaks.
fn broken(old: &Value, new: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        old,
        new,
        seen: BTreeSet::new(),
        broken: Vec::new(),
    };
    for (path, methods) in old["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let now = &new["paths"][path][method];
            comparison.compare_operation(&format!("{method} {path}"), operation, now);
        }
    }
    comparison.broken
}

#[test]
fn nothing_that_was_released_is_broken() {
    let now = core_of(document());
    if std::env::var("RELEASED").is_ok_and(|word| word == "write") {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/http/openapi/released.json"
        );
        return std::fs::write(file, format!("{now}\n")).unwrap();
    }
    let released = serde_json::from_str(RELEASED).unwrap();
    assert_eq!(broken(&released, &now), Vec::<String>::new());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of breaks")]
fn each_kind_of_break_is_found() {
    let before = core_of(document());
    let with = |pointer: &str, change: &dyn Fn(&mut Value)| {
        let mut changed = before.clone();
        change(changed.pointer_mut(pointer).unwrap());
        broken(&before, &changed)
    };
    let without = |name: &'static str| {
        move |of: &mut Value| drop(of.as_object_mut().unwrap().remove(name).unwrap())
    };
    let order = "/paths/~1api~1redis~1orders";
    let schema = |name: &str| format!("/components/schemas/{name}");
    for (pointer, change, said) in [
        (
            "/paths",
            &without("/api/orders") as &dyn Fn(&mut Value),
            "is gone",
        ),
        (order, &without("post"), "is gone"),
        (
            &format!("{order}/post/responses"),
            &without("201"),
            "is gone",
        ),
        (
            &format!("{order}/post"),
            &without("operationId"),
            "operationId",
        ),
        (
            &format!("{}/properties", schema("OrderIn")),
            &without("reference"),
            "is gone",
        ),
        (
            &format!("{}/properties", schema("OrderOut")),
            &without("buyer"),
            "is gone",
        ),
        (
            &format!("{}/required", schema("OrderIn")),
            &|of| of.as_array_mut().unwrap().push(json!("reference")),
            "is required now",
        ),
        (
            &format!("{}/required", schema("OrderOut")),
            &|of| of.as_array_mut().unwrap().clear(),
            "may be missing now",
        ),
        (
            &format!("{}/properties/totalAmount/type", schema("OrderOut")),
            &|of| *of = json!("string"),
            "was {\"integer\"}",
        ),
        (
            &format!("{}/properties/reference/maxLength", schema("OrderIn")),
            &|of| *of = json!(50),
            "maxLength",
        ),
        (
            &format!("{}/enum", schema("DeliveryTypeName")),
            &|of| drop(of.as_array_mut().unwrap().pop()),
            "takes fewer words",
        ),
        (
            "/paths/~1api~1orders/get/parameters/0/required",
            &|of| *of = json!(true),
            "needs",
        ),
    ] {
        let found = with(pointer, change);
        assert!(
            found.iter().any(|text| text.contains(said)),
            "{pointer}: {found:?}"
        );
    }
    assert_eq!(broken(&before, &before), Vec::<String>::new());
}
