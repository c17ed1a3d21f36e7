//! Every SQL text of the sources is prepared on the server that the tests run on, MariaDB or MySQL.
//!
//! The compiler does not check the texts. A text that is assembled while the program runs is
//! checked if its parts are constants. [`ASSEMBLED`] counts the other texts, which run in the tests
//! of their features.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use crate::support::Shop;

/// Number of texts that are assembled from parts other than constants. A new one needs a reason.
const ASSEMBLED: usize = 66;

/// The sources of all crates that speak SQL to the shop's database.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<_> = ["stock-mysql/src", "stock-engine/src", "stock-online/src"]
        .iter()
        .map(|name| root.join(name))
        .collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
                found.push((path.display().to_string(), text));
            }
        }
    }
    found
}

/// The string literal that a text begins with, and the rest of the text.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut rest = text.trim_start().strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let at = rest.find(['"', '\\'])?;
        value.push_str(&rest[..at]);
        let (mark, behind) = (&rest[at..=at], &rest[at + 1..]);
        if mark == "\"" {
            return Some((value, behind));
        }
        match behind.chars().next()? {
            // A line continuation.
            '\n' => rest = behind.trim_start(),
            'n' => {
                value.push('\n');
                rest = &behind[1..];
            }
            other => {
                value.push(other);
                rest = &behind[other.len_utf8()..];
            }
        }
    }
}

/// The text constants of all sources, by name. A name that occurs twice is left out.
fn constants_of(sources: &[(String, String)]) -> HashMap<String, String> {
    let mut found: HashMap<String, Option<String>> = HashMap::new();
    for (_, text) in sources {
        for part in text.split("const ").skip(1) {
            let Some((name, rest)) = part.split_once(": &str =") else {
                continue;
            };
            if let Some((value, _)) = literal(rest).filter(|_| !name.contains(['\n', ' '])) {
                found
                    .entry(name.to_owned())
                    .and_modify(|known| *known = None)
                    .or_insert(Some(value));
            }
        }
    }
    let whole = |(name, value): (String, Option<String>)| Some((name, value?));
    found.into_iter().filter_map(whole).collect()
}

/// A text of `format!` with its constants in place; `None` when it has other parts.
fn filled(text: &str, constants: &HashMap<String, String>) -> Option<String> {
    let mut value = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}')?;
        value.push_str(before);
        value.push_str(constants.get(name)?);
        rest = behind;
    }
    value.push_str(rest);
    (!value.contains('{')).then_some(value)
}

/// Every text of a source with its file and line, and the texts that are assembled while the
/// program runs.
fn statements(
    (name, text): &(String, String),
    constants: &HashMap<String, String>,
) -> (Vec<(String, String)>, Vec<String>) {
    let (mut whole, mut assembled) = (Vec::new(), Vec::new());
    let place = |rest: &str| {
        let line = text[..text.len() - rest.len()].lines().count();
        format!("{name}:{line}")
    };
    for call in ["query", "query_as", "query_scalar"] {
        for part in text.split(&format!("sqlx::{call}")).skip(1) {
            let rest = match part.strip_prefix("::<") {
                Some(typed) => typed.split_once(">(").map(|(_, rest)| rest),
                None => part.strip_prefix('('),
            };
            let Some(rest) = rest else { continue };
            let at = place(&text[text.find(part).unwrap()..]);
            if let Some((statement, _)) = literal(rest) {
                whole.push((at, statement));
                continue;
            }
            let format = rest.trim_start().strip_prefix("AssertSqlSafe(format!(");
            let text = format.and_then(literal);
            match text.and_then(|(text, _)| filled(&text, constants)) {
                Some(statement) => whole.push((at, statement)),
                None => assembled.push(at),
            }
        }
    }
    for part in text.split("MultiRow::new(").skip(1) {
        let at = place(&text[text.find(part).unwrap()..]);
        let parts = literal(part).and_then(|(head, rest)| {
            let (row, rest) = literal(rest.trim_start_matches([',', ' ', '\n']))?;
            let (tail, _) = literal(rest.trim_start_matches([',', ' ', '\n']))?;
            Some(format!("{head} {row} {tail}"))
        });
        match parts {
            Some(statement) => whole.push((at, statement)),
            None => assembled.push(at),
        }
    }
    (whole, assembled)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_of_the_sources_can_be_prepared() {
    let shop = Shop::open(1, 1).await;
    let sources = sources();
    let constants = constants_of(&sources);
    let mut connection = shop.pool.acquire().await.unwrap();
    let (mut prepared, mut assembled, mut wrong) = (0, Vec::new(), Vec::new());
    for source in &sources {
        // A source's own constants come before those of other sources.
        let mut known = constants.clone();
        known.extend(constants_of(std::slice::from_ref(source)));
        let (whole, others) = statements(source, &known);
        assembled.extend(others);
        for (at, text) in whole {
            let statement = AssertSqlSafe(text.clone()).into_sql_str();
            match connection.prepare(statement).await {
                Ok(_) => prepared += 1,
                Err(error) => wrong.push(format!("{at}: {error}\n  {text}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(prepared > 250, "only {prepared} were found");
    assert!(
        assembled.len() <= ASSEMBLED,
        "{}:\n{}",
        assembled.len(),
        assembled.join("\n")
    );
    let gone = AssertSqlSafe("SELECT gone FROM orders").into_sql_str();
    assert!(
        connection.prepare(gone).await.is_err(),
        "a bad sample is caught"
    );
}

#[test]
fn a_literal_is_read_as_the_compiler_reads_it() {
    let source = "  \"SELECT \\\"a\\\" \\\n     FROM b\", rest";
    let (value, rest) = literal(source).unwrap();
    assert_eq!((value.as_str(), rest), ("SELECT \"a\" FROM b", ", rest"));
    let known = HashMap::from([("C".to_owned(), "c, d".to_owned())]);
    assert_eq!(
        filled("SELECT {C} FROM b", &known).unwrap(),
        "SELECT c, d FROM b"
    );
    assert!(filled("SELECT {other} FROM b", &known).is_none());
}
