//! The house rules as an ordinary test, so that a reviewer need not look for them each time.
//!
//! Each check is a function from texts to complaints, and each has a bad sample that it must catch.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use stock_domain::verdict::{Refusal, Remembered};
use stock_online::http::code::Code;
use stock_redis::encoded_request::FLAGS;
use stock_redis::scripts::SCRIPTS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every file below a folder whose name ends in one of the endings, with its text.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if endings
                .iter()
                .any(|ending| path.to_string_lossy().ends_with(ending))
            {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The crates, one per layer, and the dependencies that each must not have.
const LAYERS: [(&str, &[&str]); 9] = [
    (
        "stock-common",
        &["stock-", "redis", "sqlx", "axum", "hyper"],
    ),
    ("stock-domain", &["redis", "sqlx", "tokio", "axum", "hyper"]),
    ("stock-redis", &["sqlx", "axum", "hyper", "stock-mysql"]),
    ("stock-mysql", &["redis", "axum", "hyper", "stock-redis"]),
    ("stock-engine", &["axum", "hyper", "stock-online"]),
    ("stock-client", &["redis", "sqlx", "axum", "stock-engine"]),
    ("stock-servers", &["axum", "stock-domain", "stock-engine"]),
    ("stock-online", &["stock-proof"]),
    ("stock-proof", &[]),
];

fn sources() -> Vec<(String, String)> {
    LAYERS
        .iter()
        .flat_map(|(name, _)| files(name, &[".rs"]))
        .collect()
}

/// The dependencies of a crate's `Cargo.toml`, those of its tests too, that begin with a forbidden
/// word.
fn forbidden_dependencies(manifest: &str, forbidden: &[&str]) -> Vec<String> {
    let sections = manifest.split("\n[").filter(|section| {
        section.starts_with("dependencies]") || section.starts_with("dev-dependencies]")
    });
    let names = sections.flat_map(|section| section.lines().skip(1));
    let names = names.filter_map(|line| line.split(['.', ' ', '=']).next());
    names
        .filter(|name| forbidden.iter().any(|word| name.starts_with(word)))
        .map(str::to_owned)
        .collect()
}

/// A file's name and text.
type File = (String, String);
/// A check and a bad sample that it must catch.
type Check = (fn(&File) -> Option<String>, File);

fn opens_with_docs((name, text): &File) -> Option<String> {
    (!text.starts_with("//!")).then(|| format!("{name} does not open with //!"))
}

fn has_leftovers((name, text): &File) -> Option<String> {
    let marks = [
        concat!("todo", "!("),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("#[ig", "nore"),
    ];
    let mark = marks.iter().find(|mark| text.contains(**mark))?;
    Some(format!("{name} still has {mark}"))
}

fn is_long((name, text): &File) -> Option<String> {
    let lines = text.lines().count();
    (lines > 650).then(|| format!("{name} has {lines} lines: not one sitting"))
}

/// No key name outside `keys.rs`, no SQL in handlers and pages, no clock outside `clock.rs`.
fn breaks_an_absence((name, text): &File) -> Option<String> {
    let is_production = !name.contains("/tests/");
    let rules: [(&str, &[&str], bool); 3] = [
        (
            "a key",
            &[":journal\"", ":states\"", ":a:{"],
            !name.ends_with("stock-redis/src/keys.rs"),
        ),
        (
            "a clock read",
            &["SystemTime::now()"],
            !name.ends_with("clock.rs"),
        ),
        (
            "SQL",
            &["sqlx::query"],
            name.contains("src/http") || name.contains("src/pages"),
        ),
    ];
    let broken = rules.iter().find(|(_, words, applies)| {
        is_production && *applies && words.iter().any(|word| text.contains(word))
    })?;
    Some(format!("{name} holds {}", broken.0))
}

/// The codes of a script's header, its body's comments and the Rust enum are the same, in order.
fn codes_differ(script: &str, codes: &[(u8, &str)]) -> Option<String> {
    let (header, body) = script.split_once("\nlocal ")?;
    let pairs = |text: &str| -> Vec<(u8, String)> {
        let words: Vec<&str> = text.split_whitespace().collect();
        words
            .windows(2)
            .filter_map(|pair| match pair {
                [number, name]
                    if name.len() > 3
                        && name.chars().all(|c| c.is_ascii_uppercase() || c == '_') =>
                {
                    Some((number.parse().ok()?, (*name).to_owned()))
                }
                _ => None,
            })
            .collect()
    };
    let expected: Vec<(u8, String)> = codes
        .iter()
        .map(|(n, name)| (*n, (*name).to_owned()))
        .collect();
    let listed = header
        .split("-- CODES")
        .nth(1)?
        .split("-- PUBLISHES")
        .next()?;
    if pairs(listed) != expected {
        return Some(format!("the header lists {:?}", pairs(listed)));
    }
    let in_body = |(number, name): &&(u8, String)| {
        body.lines().any(|line| {
            line.contains(&format!("{number}")) && line.ends_with(&format!("-- {name}"))
        })
    };
    let missing = expected.iter().find(|code| !in_body(code))?;
    Some(format!("the body has no line for {missing:?}"))
}

/// Every file that ARCHITECTURE.md names exists.
fn names_missing_files(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            let is_path = name.contains('/') && !name.contains([' ', '{', '<', '*', ':', '…', '|']);
            is_path && !name.starts_with('/') && name.contains('.') && !root().join(name).exists()
        })
        .map(|name| format!("ARCHITECTURE.md names {name}, which is not there"))
        .collect()
}

/// Links of a document that lead to no file.
fn broken_links(name: &str, text: &str) -> Vec<String> {
    let folder = root().join(name).parent().unwrap().to_owned();
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.starts_with("http") && !target.starts_with('#'))
        .filter(|target| !folder.join(target.split('#').next().unwrap()).exists())
        .map(|target| format!("{name} leads to {target}, which is not there"))
        .collect()
}

/// Alerts and sections of docs/operations.md that lack each other, and alerts that no recorded
/// series fires.
fn alerts_differ(rules: &str, sections: &str, series: &str) -> Vec<String> {
    let named = |text: &str, mark: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim_start);
        let names = lines.filter_map(|line| line.strip_prefix(mark));
        names.map(str::to_owned).collect()
    };
    let (alerts, sections) = (named(rules, "- alert: "), named(sections, "## "));
    let runbooks = named(rules, "runbook: docs/operations.md#");
    let anchors: Vec<String> = alerts.iter().map(|name| name.to_lowercase()).collect();
    let mut found = Vec::new();
    if runbooks != anchors {
        found.push(format!("the runbooks {runbooks:?} are not the alerts' own"));
    }
    let (alerts, sections) = (BTreeSet::from_iter(alerts), BTreeSet::from_iter(sections));
    for name in alerts.symmetric_difference(&sections) {
        found.push(format!("{name} is only an alert, or only a section"));
    }
    for name in &alerts {
        if !series.contains(&format!("alertname=\"{name}\"")) {
            found.push(format!("no recorded series fires {name}"));
        }
    }
    found
}

fn bad(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[test]
fn every_source_file_keeps_the_rules() {
    let checks: [Check; 4] = [
        (opens_with_docs, bad("a.rs", "use std;")),
        (
            has_leftovers,
            bad("a.rs", concat!("fn a() { todo", "!() }")),
        ),
        (is_long, bad("a.rs", &"\n".repeat(651))),
        (
            breaks_an_absence,
            bad("stock-online/src/http/a.rs", "sqlx::query(\"\")"),
        ),
    ];
    let sources = sources();
    assert!(sources.len() > 50, "the sources were found");
    for (check, sample) in checks {
        assert!(
            check(&sample).is_some(),
            "the bad sample {sample:?} is caught"
        );
        let complaints: Vec<String> = sources.iter().filter_map(check).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

/// Counts the comments of a source that begin with a question word instead of the thing that they
/// describe.
fn riddles(text: &str) -> usize {
    let begins = |line: &str| {
        let comment = line.trim_start();
        let text = ["//", "--"]
            .iter()
            .find_map(|mark| comment.strip_prefix(mark));
        let word = text.map(|text| text.trim_start_matches(['/', '!', ' ']).split(' ').next());
        matches!(word, Some(Some("What" | "Who" | "Whoever" | "Whose")))
    };
    text.lines().filter(|line| begins(line)).count()
}

/// Lines above 100 columns: of comments, tables and addresses aside, and of code, where only a text
/// cannot be broken.
fn long_lines(text: &str) -> (usize, usize) {
    let long = text.lines().filter(|line| line.chars().count() > 100);
    let (comments, code): (Vec<&str>, Vec<&str>) = long.partition(|line| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with("--")
    });
    let is_prose = |line: &&&str| !line.contains(" | ") && !line.contains("://");
    (comments.iter().filter(is_prose).count(), code.len())
}

#[test]
fn comments_name_their_subject_and_lines_end_within_100_columns() {
    assert_eq!(
        riddles("/// Who calls.\n// What is it\n-- The caller.\n"),
        2
    );
    let long = "x".repeat(101);
    assert_eq!(long_lines(&format!("// {long}\n{long}\nshort\n")), (1, 1));
    let (mut found, mut comments, mut code) = (0, 0, 0);
    for (_, text) in sources().into_iter().chain(files("lua", &[".lua"])) {
        found += riddles(&text);
        let (in_comments, in_code) = long_lines(&text);
        comments += in_comments;
        code += in_code;
    }
    assert!(
        found <= 5,
        "{found} comments begin with What, Who, Whoever or Whose"
    );
    assert_eq!(comments, 0, "comments are longer than a line");
    assert!(
        code <= 200,
        "{code} lines of code are longer than 100 columns"
    );
}

/// The top-level modules of a crate that a source names, by `crate::` or by enough `super::`.
fn named_modules(name: &str, text: &str) -> BTreeSet<String> {
    let production = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = production.lines();
    let code: String = lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let depth = name
        .split("/src/")
        .nth(1)
        .map_or(0, |path| path.matches('/').count());
    let from_root = format!("super::{}", "super::".repeat(depth));
    let ident = |text: &str| -> String {
        let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(is_part).collect()
    };
    let mut found = BTreeSet::new();
    for root in ["crate::", from_root.as_str()] {
        for rest in code.split(root).skip(1) {
            match rest.strip_prefix('{') {
                Some(list) => {
                    let list = list.split('}').next().unwrap_or(list);
                    found.extend(list.split(',').map(ident));
                }
                None => drop(found.insert(ident(rest))),
            }
        }
    }
    found
}

/// The first circle of modules that name each other, from one of them back to it.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        edges: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        let Some(last) = path.last().cloned() else {
            return false;
        };
        for next in edges.get(&last).into_iter().flatten() {
            if path.contains(next) {
                path.push(next.clone());
                return true;
            }
            if !done.contains(next) {
                path.push(next.clone());
                if walk(edges, path, done) {
                    return true;
                }
                path.pop();
            }
        }
        done.insert(last);
        false
    }
    let mut done = BTreeSet::new();
    for start in edges.keys().filter(|start| edges.contains_key(*start)) {
        let mut path = vec![start.clone()];
        if !done.contains(start) && walk(edges, &mut path, &mut done) {
            return Some(path);
        }
    }
    None
}

#[test]
fn no_crate_has_a_circle_of_modules() {
    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    let bad = BTreeMap::from([edge("a", "b"), edge("b", "a")]);
    assert_eq!(circle(&bad).map(|path| path.len()), Some(3));
    for (crate_name, _) in LAYERS {
        let sources = files(&format!("{crate_name}/src"), &[".rs"]);
        let module = |name: &str| -> Option<String> {
            let path = name.split("/src/").nth(1)?;
            let top = path.split('/').next()?.trim_end_matches(".rs");
            (!["lib", "main", "bin"].contains(&top)).then(|| top.to_owned())
        };
        let known: BTreeSet<String> = sources
            .iter()
            .filter_map(|(name, _)| module(name))
            .collect();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, text) in &sources {
            let Some(from) = module(name) else { continue };
            let named = named_modules(name, text).into_iter();
            let others = named.filter(|to| known.contains(to) && *to != from);
            edges.entry(from.clone()).or_default().extend(others);
        }
        assert_eq!(circle(&edges), None, "{crate_name}");
    }
}

#[test]
fn no_crate_can_touch_what_is_not_its_own() {
    for (name, forbidden) in LAYERS {
        let manifest = read(&format!("{name}/Cargo.toml"));
        let found = forbidden_dependencies(&manifest, forbidden);
        assert!(found.is_empty(), "{name} must not know {found:?}");
    }
    let sample = "[dev-dependencies]\nx = \"1\"\n\n[dependencies]\nsqlx.workspace = true\n";
    assert_eq!(forbidden_dependencies(sample, &["sqlx"]), ["sqlx"]);
}

#[test]
fn the_codes_stand_in_one_order_three_times() {
    let script = read("lua/decide.lua");
    assert_eq!(codes_differ(&script, &Refusal::CODES), None);
    let swapped = script.replacen("10 FENCED", "11 FENCED", 1);
    assert!(codes_differ(&swapped, &Refusal::CODES).is_some());
    let numbers: Vec<u8> = Refusal::CODES.iter().map(|(code, _)| *code).collect();
    assert!(numbers.is_sorted());
}

#[test]
fn the_rule_of_what_is_remembered_under_a_key_stands_twice_and_is_one() {
    let script = read("lua/decide.lua");
    assert_eq!(remembered_differs(&script), None);
    for (is, was) in [
        ("['62'] = true", "['61'] = true"),
        ("'retried_with_new_code'", "'retried_anew'"),
    ] {
        assert!(remembered_differs(&script.replacen(is, was, 1)).is_some());
    }
}

/// The first code for which the script remembers something else than [`Refusal::remembered`] says.
/// The script returns the codes below 30 before it reads these tables.
fn remembered_differs(script: &str) -> Option<String> {
    let table = |name: &str| {
        let begin = format!("local {name} = {{");
        let at = script.find(&begin)? + begin.len();
        script.get(at..)?.split('}').next()
    };
    let (passing, back, anew) = (
        table("PASSING")?,
        table("MAY_COME_BACK")?,
        table("MADE_ANEW")?,
    );
    Refusal::CODES.iter().find_map(|(code, name)| {
        let rest = match code {
            12 => "keys",
            21 | 32 | 52 | 54 => "0",
            60..=64 => "0 AVAILABLE:1:0 0",
            _ => "0 X",
        };
        let refusal = Refusal::parse(&format!("{code} {rest}"))?;
        let has = |table: &str, value: &str| table.contains(&format!("['{code}'] = {value}"));
        let says = match () {
            () if *code < 30 || has(passing, "true") => Remembered::Never,
            () if has(back, "true") => Remembered::UnlessBack,
            () if has(anew, "'retried_anew'") => Remembered::UnlessAnew,
            () if has(anew, "'retried_with_new_code'") => Remembered::UnlessRedraws,
            () => Remembered::Always,
        };
        (says != refusal.remembered()).then(|| format!("{name}: the script says {says:?}"))
    })
}

/// The flags that a script reads and the header explains, compared with those that a request is
/// encoded with.
fn flags_differ(script: &str) -> Option<String> {
    let read: BTreeSet<(u32, &str)> = script
        .split(['{', ','])
        .filter_map(|part| {
            let (name, bit) = part.trim().split_once(" = has(")?;
            Some((
                bit.trim_end_matches([')', '}', ' ', '\n']).parse().ok()?,
                name,
            ))
        })
        .collect();
    if read != BTreeSet::from(FLAGS) {
        return Some(format!("the script reads {read:?}"));
    }
    let header = script.split("\nlocal ").next()?;
    let explains = |bit: u32| {
        let words = header.split([' ', '\n']);
        words.into_iter().any(|word| word == bit.to_string())
    };
    let (bit, name) = FLAGS.into_iter().find(|(bit, _)| !explains(*bit))?;
    Some(format!("the header does not explain {bit}, {name}"))
}

#[test]
fn the_flags_of_a_request_have_one_list() {
    let script = read("lua/decide.lua");
    assert_eq!(flags_differ(&script), None);
    for (is, was) in [
        ("hold = has(2048)", "hold = has(1024)"),
        ("--     2048 hold", "--     hold"),
    ] {
        assert!(flags_differ(&script.replacen(is, was, 1)).is_some());
    }
}

#[test]
fn every_script_is_registered_and_says_what_it_takes() {
    let registered: BTreeSet<String> = SCRIPTS
        .all()
        .iter()
        .map(|script| format!("lua/{}.lua", script.name))
        .collect();
    let present: BTreeSet<String> = files("lua", &[".lua"])
        .into_iter()
        .map(|file| file.0)
        .collect();
    assert_eq!(registered, present);
    for script in SCRIPTS.all() {
        for part in ["#!lua\n", "-- KEYS", "-- ARGV", "-- RETURNS"] {
            assert!(script.text.contains(part), "{} has no {part}", script.name);
        }
    }
}

#[test]
fn what_the_documents_name_exists() {
    assert_eq!(
        names_missing_files(&read("ARCHITECTURE.md")),
        Vec::<String>::new()
    );
    assert_eq!(names_missing_files("see `lua/gone.lua`").len(), 1);
    let errors = read("docs/errors.md");
    for code in Code::ALL {
        let row = format!("| `{}` | {} |", code.as_str(), code.status());
        assert!(errors.contains(&row), "docs/errors.md has no row {row}");
    }
}

#[test]
fn the_book_has_every_document_and_no_broken_link() {
    let summary = read("docs/SUMMARY.md");
    let mut documents = files("docs", &[".md"]);
    for (name, _) in documents
        .iter()
        .filter(|(name, _)| !name.ends_with("SUMMARY.md"))
    {
        let chapter = format!("({})", name.trim_start_matches("docs/"));
        assert!(summary.contains(&chapter), "docs/SUMMARY.md has no {name}");
    }
    for name in ["README.md", "README.ko.md"] {
        documents.push((name.to_owned(), read(name)));
    }
    let broken: Vec<String> = documents
        .iter()
        .flat_map(|(name, text)| broken_links(name, text))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(broken_links("docs/a.md", "see [b](gone.md#x)").len(), 1);
    // The recipes include the files that CI runs.
    for part in read("docs/recipes.md").split("{{#include ").skip(1) {
        let name = part.split("}}").next().unwrap();
        assert!(root().join("docs").join(name).exists(), "{name}");
    }
}

#[test]
fn every_alert_has_its_section_and_its_recorded_series() {
    let rules = read("observability/alerts.yml");
    let (sections, series) = (
        read("docs/operations.md"),
        read("observability/alerts_test.yml"),
    );
    assert!(rules.matches("- alert: ").count() > 30);
    assert_eq!(
        alerts_differ(&rules, &sections, &series),
        Vec::<String>::new()
    );
    let sample = "- alert: Gone\n  runbook: docs/operations.md#other\n";
    assert_eq!(alerts_differ(sample, "## Other", "").len(), 4);
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let text = read("docs/settings.md");
    let config = serde_json::to_value(stock_common::config::Config::default()).unwrap();
    for (name, value) in config.as_object().unwrap() {
        let row = match value.to_string().trim_matches('"') {
            "null" => format!("| `{name}` | |"),
            value => format!("| `{name}` | `{value}` |"),
        };
        assert!(text.contains(&row), "docs/settings.md has no row {row}");
    }
}
