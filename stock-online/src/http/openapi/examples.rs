//! Examples of bodies, by the name of their schema; a test compares each with its schema.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// Names a list: its one item is the example of another schema.
const LIST: &str = "list of";

static EXAMPLES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

/// The example of a schema, unless the schema brings its own.
pub(super) fn example(schema: &str) -> Option<Value> {
    let found = EXAMPLES.get(schema)?;
    match found.get(LIST).and_then(Value::as_str) {
        Some(item) => Some(json!({ "items": [example(item)?], "nextCursor": null })),
        None => Some(found.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{EXAMPLES, example};
    use crate::http::openapi::document;

    /// Collects the differences between an example and its schema, by the schema's JSON.
    fn misfits(forms: &Value, form: &Value, example: &Value, at: &str, found: &mut Vec<String>) {
        if let Some(name) = form["$ref"].as_str() {
            let form = &forms[name.rsplit('/').next().unwrap_or_default()];
            return misfits(forms, form, example, at, found);
        }
        if let Some(choices) = form["oneOf"].as_array() {
            let form = choices.iter().find(|choice| choice["type"] != "null");
            if let (Some(form), false) = (form, example.is_null()) {
                misfits(forms, form, example, at, found);
            }
            return;
        }
        let types = [&form["type"]]
            .into_iter()
            .chain(form["type"].as_array().into_iter().flatten());
        let types: Vec<&str> = types.filter_map(Value::as_str).collect();
        let fits = match example {
            Value::Null => types.contains(&"null"),
            Value::Bool(_) => types.contains(&"boolean"),
            Value::Number(number) => {
                types.contains(&"number") || types.contains(&"integer") && !number.is_f64()
            }
            Value::String(_) => types.contains(&"string"),
            Value::Array(_) => types.contains(&"array"),
            Value::Object(_) => types.contains(&"object") || form["allOf"].is_array(),
        };
        if !fits && !types.is_empty() {
            found.push(format!("{at} is {example}, and should be {types:?}"));
        }
        for (index, item) in example.as_array().into_iter().flatten().enumerate() {
            misfits(forms, &form["items"], item, &format!("{at}/{index}"), found);
        }
        let Some(members) = example.as_object() else {
            return;
        };
        let (mut known, mut required) = (serde_json::Map::new(), Vec::new());
        gather(forms, form, &mut known, &mut required);
        for name in required.iter().filter(|name| !members.contains_key(*name)) {
            found.push(format!("{at}/{name} is missing"));
        }
        for (name, member) in members {
            match known.get(name) {
                Some(form) => misfits(forms, form, member, &format!("{at}/{name}"), found),
                None if known.is_empty() => {}
                None => found.push(format!("{at}/{name} is in no form")),
            }
        }
    }

    /// Collects a schema's members and its required members, including those of the schemas that it
    /// is composed of.
    fn gather(
        forms: &Value,
        form: &Value,
        known: &mut serde_json::Map<String, Value>,
        required: &mut Vec<String>,
    ) {
        if let Some(name) = form["$ref"].as_str() {
            return gather(
                forms,
                &forms[name.rsplit('/').next().unwrap_or_default()],
                known,
                required,
            );
        }
        for part in form["allOf"].as_array().into_iter().flatten() {
            gather(forms, part, known, required);
        }
        known.extend(form["properties"].as_object().cloned().unwrap_or_default());
        let names = form["required"].as_array().into_iter().flatten();
        required.extend(names.filter_map(|name| Some(name.as_str()?.to_owned())));
    }

    #[test]
    fn every_example_has_its_form_and_every_body_an_example() {
        let document = document();
        let forms = &document["components"]["schemas"];
        let mut found = Vec::new();
        for name in EXAMPLES.keys() {
            let example = example(name).unwrap_or_default();
            misfits(forms, &forms[name], &example, name, &mut found);
        }
        assert!(found.is_empty(), "{found:#?}");
        let mut without = Vec::new();
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (format!("{method} {path}"), operation))
        });
        for (name, operation) in operations {
            let answers = operation["responses"].as_object().unwrap().values();
            for body in answers.chain([&operation["requestBody"]]) {
                for (kind, content) in body["content"].as_object().into_iter().flatten() {
                    // A body without a schema of its own is a word or two.
                    let Some(form) = content["schema"]["$ref"].as_str() else {
                        continue;
                    };
                    let form = &forms[form.rsplit('/').next().unwrap_or_default()];
                    if content["example"].is_null()
                        && form["example"].is_null()
                        && kind.contains("json")
                    {
                        without.push(format!("{name} {kind}"));
                    }
                }
            }
        }
        assert!(without.is_empty(), "{without:#?}");
    }
}
