//! The deployment files: each names only things that exist, and gives no more rights than needed.
//!
//! Compose and Docker themselves are not run, because they are not installed everywhere where tests
//! run.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use stock_common::config::{ADMIN_VARIABLES, Config};
use stock_online::http::code::Code;

#[path = "deployment/cluster.rs"]
mod cluster;
#[path = "deployment/kubernetes.rs"]
mod kubernetes;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn members<'a>(value: &'a Value, name: &str) -> &'a Map<String, Value> {
    value[name]
        .as_object()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

/// The environment variables of all settings.
fn variables() -> BTreeSet<String> {
    let settings = serde_json::to_value(Config::default()).unwrap();
    let names = settings.as_object().unwrap().keys();
    names
        .map(|name| format!("STOCK_{}", name.to_uppercase()))
        .collect()
}

/// Every file in a folder, however deep, as a path from the root.
fn files_in(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        if path.is_dir() {
            found.extend(files_in(&name));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Every word of a text that begins with `beginning` and is longer than it.
fn words<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(beginning) && word.len() > beginning.len())
        .collect()
}

/// A service with its anchors (`<<`) merged, also the anchors of an anchor.
fn merged(service: &Value) -> Value {
    let anchor = &service["<<"];
    let mut all = if anchor.is_null() {
        Value::Null
    } else {
        merged(anchor)
    };
    match (all.as_object_mut(), service.as_object()) {
        (Some(all), Some(own)) => all.extend(own.clone()),
        _ => return service.clone(),
    }
    all
}

/// The flaws of a service of the compose file.
fn flaws(name: &str, service: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut require = |holds: bool, rule: &str| {
        if !holds {
            found.push(format!("{name}: {rule}"));
        }
    };
    require(service["read_only"] == true, "its root can be written");
    require(service["cap_drop"][0] == "ALL", "it keeps capabilities");
    require(
        service["security_opt"][0] == "no-new-privileges:true",
        "it may gain privileges",
    );
    let user = service["user"].as_str().unwrap_or("root");
    require(
        !user.starts_with("root") && !user.starts_with('0'),
        "it runs as root",
    );
    require(service["healthcheck"].is_object(), "it has no health check");
    require(
        service["mem_limit"].is_string(),
        "it may take all of the memory",
    );
    let image = service["image"].as_str();
    let is_pinned = image.is_none_or(|image| image.contains(':') && !image.ends_with(":latest"));
    require(is_pinned, "its image has no version");
    for text in service["environment"]
        .as_object()
        .into_iter()
        .flat_map(Map::values)
    {
        // The file gives no secret a default value.
        let text = text.as_str().unwrap_or_default();
        require(
            !text.contains("PASSWORD:-") && !text.contains("SECRET:-"),
            "a secret has a default",
        );
    }
    found
}

#[test]
fn the_compose_file_gives_each_service_what_it_needs_and_no_more() {
    let compose = yaml("docker-compose.yml");
    let services = members(&compose, "services");
    let found: Vec<String> = services
        .iter()
        .flat_map(|(name, service)| flaws(name, &merged(service)))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    for name in [
        "redis",
        "mysql",
        "migrate",
        "stock-online",
        "prometheus",
        "grafana",
    ] {
        assert!(services.contains_key(name), "{name}");
    }
    for name in ["prometheus", "grafana"] {
        assert_eq!(services[name]["profiles"][0], "observability", "{name}");
    }
    // The settings on which the durability of accepted orders depends.
    let redis = services["redis"]["command"].to_string();
    for part in [
        "\"--appendonly\",\"yes\"",
        "\"--appendfsync\",\"always\"",
        "\"noeviction\"",
    ] {
        assert!(redis.contains(part), "{part} in {redis}");
    }
    assert!(
        services["mysql"]["command"]
            .to_string()
            .contains("innodb-flush-log-at-trx-commit=1")
    );
    // Every volume and every file that is named exists.
    let volumes = members(&compose, "volumes");
    for volume in services
        .values()
        .flat_map(|service| service["volumes"].as_array().into_iter().flatten())
    {
        let source = volume.as_str().unwrap().split(':').next().unwrap();
        assert!(
            volumes.contains_key(source) || root().join(source).exists(),
            "{source}"
        );
    }
    // A bad service is caught.
    let bad = serde_json::json!({ "image": "redis", "user": "0", "environment": { "A": "${MYSQL_PASSWORD:-root}" } });
    assert_eq!(flaws("bad", &bad).len(), 8);
}

#[test]
fn every_setting_that_a_file_names_exists() {
    let known = variables();
    let mut files = vec![
        "docker-compose.yml".to_owned(),
        "Dockerfile".to_owned(),
        "README.md".to_owned(),
    ];
    files.push("README.ko.md".to_owned());
    files.push("docker-compose.cluster.yml".to_owned());
    files.extend(files_in("deploy"));
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "md") {
            files.push(path.strip_prefix(root()).unwrap().display().to_string());
        }
    }
    for file in files {
        let text = read(&file);
        let codes = Code::ALL.iter().map(|code| code.as_str());
        let codes: BTreeSet<&str> = codes.collect();
        let named = words(&text, "STOCK_");
        let unknown: Vec<_> = named
            .into_iter()
            .filter(|name| !known.contains(*name) && !codes.contains(name))
            .filter(|name| !ADMIN_VARIABLES.contains(name))
            .collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn the_image_is_small_and_runs_as_an_ordinary_user() {
    let text = read("Dockerfile");
    let stages: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("FROM "))
        .collect();
    assert_eq!(
        stages.len(),
        2,
        "a stage that builds, one that runs: {stages:?}"
    );
    assert!(
        stages[1].contains("distroless") && stages[1].contains("nonroot"),
        "{stages:?}"
    );
    assert!(!text.contains(":latest") && text.contains("--locked") && text.contains("HEALTHCHECK"));
    // Only the program is copied from the build.
    let copied: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("COPY --from"))
        .collect();
    assert_eq!(copied.len(), 1);
    let ignored = read(".dockerignore");
    assert!(
        ignored.lines().any(|line| line == "target") && ignored.lines().any(|line| line == ".git")
    );
}

#[test]
fn the_workflow_calls_words_of_the_makefile_with_no_rights_to_spare() {
    let workflow = yaml(".github/workflows/ci.yml");
    assert_eq!(workflow["permissions"], serde_json::json!({}));
    let makefile = read("Makefile");
    let mut called = 0;
    for job in members(&workflow, "jobs").values() {
        assert_eq!(
            job["permissions"],
            serde_json::json!({ "contents": "read" })
        );
        assert!(job["timeout-minutes"].is_u64());
        let words = job["strategy"]["matrix"]["word"].as_array();
        for word in words.into_iter().flatten() {
            let rule = format!("\n{}:", word.as_str().unwrap());
            assert!(makefile.contains(&rule), "{word}");
            called += 1;
        }
        for step in job["steps"].as_array().unwrap() {
            if let Some(uses) = step["uses"].as_str() {
                let (_, commit) = uses.split_once('@').unwrap();
                assert!(
                    commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()),
                    "{uses} is not pinned"
                );
            }
        }
    }
    // The workflow calls as many words of the Makefile as `.ci/run` does.
    let here = read(".ci/run");
    let here: Vec<&str> = here
        .lines()
        .filter_map(|line| line.strip_prefix("make "))
        .collect();
    assert_eq!(called, here.len(), "{here:?}");
}

/// The names of metrics in the sources.
fn metrics() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> = [
        "stock-common/src",
        "stock-redis/src",
        "stock-engine/src",
        "stock-online/src",
    ]
    .iter()
    .map(|name| root().join(name))
    .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            for kind in ["counter!(", "gauge!(", "histogram!("] {
                for part in text.split(kind).skip(1) {
                    let name = part
                        .trim_start()
                        .strip_prefix('"')
                        .and_then(|part| part.split('"').next());
                    let suffixes: &[&str] = if kind == "histogram!(" {
                        &["_bucket", "_sum", "_count"]
                    } else {
                        &[""]
                    };
                    let names = name.into_iter().flat_map(|name| {
                        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
                    });
                    found.extend(names);
                }
            }
        }
    }
    found
}

/// The metrics of a query that do not exist.
fn unknown<'a>(known: &BTreeSet<String>, query: &'a str) -> Vec<&'a str> {
    let mut named = words(query, "stock_");
    named.extend(words(query, "http_"));
    named
        .into_iter()
        .filter(|name| !known.contains(*name))
        .collect()
}

/// Every value of a member called `name`, at any depth.
fn deep<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| deep(item, name, found)),
        Value::Object(members) => {
            found.extend(members.get(name).and_then(Value::as_str));
            members
                .values()
                .for_each(|member| deep(member, name, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn alerts_and_dashboards_ask_for_metrics_that_exist() {
    let known = metrics();
    assert!(
        known.contains("stock_orders_total")
            && known.contains("http_request_duration_seconds_bucket"),
        "{known:?}"
    );
    let alerts = yaml("observability/alerts.yml");
    let dashboard: Value =
        serde_json::from_str(&read("observability/grafana/dashboards/stock-flow.json")).unwrap();
    for (file, least) in [(&alerts, 10), (&dashboard, 20)] {
        let mut queries = Vec::new();
        deep(file, "expr", &mut queries);
        assert!(queries.len() >= least, "{queries:?}");
        for query in queries {
            let unknown = unknown(&known, query);
            assert!(unknown.is_empty(), "{unknown:?} in {query}");
        }
    }
    // Every documented metric exists; a histogram is documented under its own name.
    let documented = read("docs/observability.md");
    for name in words(&documented, "stock_")
        .into_iter()
        .chain(words(&documented, "http_request"))
    {
        let is_known = known.contains(name) || known.contains(&format!("{name}_bucket"));
        assert!(is_known, "{name} in docs/observability.md");
    }
    assert_eq!(
        unknown(&known, "rate(stock_order_total[1m])"),
        ["stock_order_total"]
    );
}
