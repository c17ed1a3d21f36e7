//! Texts of pages: both languages define the same ids, and every id that a page names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use stock_online::pages::texts::Lang;

fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pages")
}

fn files(folder: &Path, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|kind| kind == ending) {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
    found
}

/// The ids that a language's files define.
fn defined(lang: Lang) -> BTreeSet<String> {
    let texts = files(&pages().join("texts").join(lang.as_str()), "ftl");
    let lines = texts.iter().flat_map(|text| text.lines());
    let ids = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    ids.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned()))
        .collect()
}

/// Every text between `begin` and the next quotation mark.
fn between(text: &str, begin: &str) -> Vec<String> {
    let parts = text.split(begin).skip(1);
    parts
        .filter_map(|part| Some(part.split_once('"')?.0.to_owned()))
        .collect()
}

#[test]
fn both_languages_say_the_same_and_every_named_text_is_said() {
    let (english, korean) = (defined(Lang::En), defined(Lang::Ko));
    assert_eq!(english, korean);
    let mut sources = files(&pages(), "html");
    sources.extend(files(&pages(), "rs"));
    let (mut named, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
    for source in &sources {
        for begin in [
            "context.t(\"",
            "context.count(\"",
            "context.with(\"",
            " t(\"",
            ".t(\"",
        ] {
            named.extend(between(source, begin));
        }
        prefixes.extend(between(source, "context.of(\""));
    }
    assert!(
        named.len() > 100 && prefixes.len() > 8,
        "{named:?} {prefixes:?}"
    );
    let missing: Vec<_> = named.difference(&english).collect();
    assert!(missing.is_empty(), "no text says {missing:?}");
    // No text is unused: a page names it, or it belongs to a group that is named while the program
    // runs.
    prefixes.extend([
        "problem-".to_owned(),
        "rule-".to_owned(),
        "money".to_owned(),
        "units-left".to_owned(),
        "yes".to_owned(),
        "no".to_owned(),
    ]);
    let idle: Vec<_> = english
        .difference(&named)
        .filter(|id| {
            !prefixes
                .iter()
                .any(|prefix| id.starts_with(prefix.as_str()))
        })
        .collect();
    assert!(idle.is_empty(), "no page says {idle:?}");
}
