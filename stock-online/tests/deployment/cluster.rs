//! Several instances behind nginx: docker-compose.cluster.yml and deploy/nginx fit each other and
//! the service's time limits.

use std::collections::BTreeSet;

use serde_json::Value;
use stock_common::config::Config;

use super::{flaws, members, merged, read, root, yaml};

/// The services of the file, each with all that it takes from other files and anchors.
fn services() -> Vec<(String, Value)> {
    let compose = yaml("docker-compose.cluster.yml");
    let whole = |(name, service): (&String, &Value)| {
        let from = &service["extends"];
        let service = match from["file"].as_str() {
            Some(file) => merged(&yaml(file)["services"][from["service"].as_str().unwrap()]),
            None => merged(service),
        };
        (name.clone(), service)
    };
    members(&compose, "services").iter().map(whole).collect()
}

fn service(name: &str) -> Value {
    let found = services().into_iter().find(|(own, _)| own == name);
    found.unwrap_or_else(|| panic!("{name}")).1
}

/// The hosts with ports that a text names, as in `redis-1:6379`.
fn hosts<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    text.split(['/', '?', '=', '&', ' ', '@', '"', ';'])
        .filter(|part| part.starts_with(beginning) && part.ends_with(":6379"))
        .collect()
}

/// The values of a directive in nginx' configuration, one for each occurrence.
fn nginx(text: &str, word: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(word)?.strip_prefix(' '))
        .map(|value| value.trim_end_matches(';').to_owned())
        .collect()
}

/// A number of seconds or of megabytes, as in `15s` and `65m`.
fn number(text: &str) -> u64 {
    text.trim_end_matches(['s', 'm']).parse().unwrap()
}

#[test]
fn the_cluster_gives_each_service_what_it_needs_and_no_more() {
    let services = services();
    let found: Vec<String> = services
        .iter()
        .flat_map(|(name, service)| flaws(name, service))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    let compose = yaml("docker-compose.cluster.yml");
    let volumes = members(&compose, "volumes");
    let alone = yaml("docker-compose.yml");
    assert_ne!(
        compose["name"], alone["name"],
        "the other's database would meet an empty Redis"
    );
    let dynamic = compose["networks"]["default"]["ipam"]["config"][0]["ip_range"].as_str();
    assert_eq!(dynamic, Some("172.30.53.128/25"));
    for (name, service) in &services {
        // A fixed address lies outside the range from which other containers get theirs.
        if let Some(address) = service["networks"]["default"]["ipv4_address"].as_str() {
            let last: u8 = address.rsplit('.').next().unwrap().parse().unwrap();
            assert!(last < 128, "{name}: {address}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(
                volumes.contains_key(source) || root().join(source).exists(),
                "{name}: {source}"
            );
        }
        for other in service["depends_on"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(other, _)| other)
        {
            assert!(services.iter().any(|(own, _)| own == other), "{other}");
        }
        // Every Redis has the same version.
        if name.starts_with("redis") {
            assert_eq!(
                service["image"], alone["services"]["redis"]["image"],
                "{name}"
            );
        }
    }
}

#[test]
fn the_nodes_of_the_cluster_are_those_that_are_named() {
    let services = services();
    let nodes: BTreeSet<String> = services
        .iter()
        .filter(|(_, service)| service["command"].to_string().contains("start.sh"))
        .map(|(name, service)| {
            let address = &service["networks"]["default"]["ipv4_address"];
            assert!(address.is_string(), "{name}");
            assert_eq!(address, &service["environment"]["POD_IP"], "{name}");
            assert_eq!(
                service["environment"]["NODE_HOST"],
                name.as_str(),
                "a node goes by its name"
            );
            format!("{name}:6379")
        })
        .collect();
    let nodes: BTreeSet<&str> = nodes.iter().map(String::as_str).collect();
    assert_eq!(nodes.len(), 6);
    let create = service("redis-create")["environment"]["NODES"].clone();
    assert_eq!(hosts(create.as_str().unwrap(), "redis-"), nodes);
    for name in ["stock-online-1", "stock-online-2", "migrate"] {
        let environment = service(name)["environment"].clone();
        let url = environment["STOCK_REDIS_URL"].as_str().unwrap();
        assert!(url.starts_with("redis-cluster://"), "{url}");
        assert_eq!(hosts(url, "redis-"), nodes, "{name}");
    }
}

#[test]
fn nginx_leads_to_the_instances_and_is_believed() {
    let site = read("deploy/nginx/stock-flow.conf");
    let servers = nginx(&site, "server");
    let named: BTreeSet<&str> = servers
        .iter()
        .filter_map(|line| line.split(' ').next())
        .filter(|host| *host != "{")
        .collect();
    assert_eq!(
        named,
        BTreeSet::from(["stock-online-1:8080", "stock-online-2:8080"])
    );
    let proxy = service("nginx");
    let address = &proxy["networks"]["default"]["ipv4_address"];
    for host in named {
        let (name, port) = host.split_once(':').unwrap();
        let environment = service(name)["environment"].clone();
        let listens = environment["STOCK_HTTP_ADDR"].as_str().unwrap();
        assert!(listens.ends_with(&format!(":{port}")), "{listens}");
        assert_eq!(&environment["STOCK_TRUSTED_PROXIES"], address);
        // From outside, an instance can be reached through nginx only.
        assert!(service(name)["ports"].is_null());
    }
    assert_eq!(nginx(&site, "listen"), ["8080"]);
    assert_eq!(proxy["ports"], serde_json::json!(["8080:8080"]));
    for file in proxy["volumes"].as_array().unwrap() {
        assert!(file.as_str().unwrap().ends_with(":ro"), "{file}");
    }
}

#[test]
fn nginx_is_more_patient_than_the_service() {
    let config = Config::default();
    let site = read("deploy/nginx/stock-flow.conf");
    let reads = nginx(&site, "proxy_read_timeout");
    assert!(reads.len() >= 3);
    // The service answers before nginx gives up.
    for wait in &reads {
        assert!(number(wait) * 1_000 > config.http.http_timeout_ms, "{wait}");
    }
    let import = site.split("/api/stock/import").nth(1);
    let import = import.and_then(|rest| rest.split("location").next());
    let import = import.unwrap();
    let waits = nginx(import, "proxy_read_timeout");
    assert!(number(&waits[0]) * 1_000 > config.http.import_timeout_ms);
    let largest = nginx(import, "client_max_body_size");
    assert!(number(&largest[0]) << 20 > config.http.import_bytes_max as u64);
    let body = nginx(&site, "client_max_body_size");
    assert!(number(&body[0]) << 20 > config.http.http_body_bytes_max as u64);
    // nginx closes an idle connection before the service does, so that no request meets a closed
    // one.
    let pool = site.split("upstream stock_flow {").nth(1).unwrap();
    let idle = nginx(pool, "keepalive_timeout");
    assert!(number(&idle[0]) * 1_000 < config.http.http_idle_timeout_ms);
    // nginx never sends a change twice.
    for rule in nginx(&site, "proxy_next_upstream") {
        assert!(rule == "off" || rule == "error timeout", "{rule}");
    }
    // Each path that the file names is a path of the service.
    let known = read("stock-online/src/http.rs") + &read("stock-online/src/pages.rs");
    let streams = site
        .split("^/(")
        .nth(1)
        .and_then(|rest| rest.split(')').next());
    let streams: Vec<&str> = streams.unwrap().split('|').collect();
    assert_eq!(streams.len(), 3);
    for path in streams
        .into_iter()
        .chain(["api/stock/import", "api/stock/export", "metrics"])
    {
        assert!(known.contains(&format!("\"/{path}\"")), "{path}");
        assert!(site.contains(path));
    }
    // Every path that answers with a stream is among the streams.
    for (file, path) in [
        ("stock-online/src/http/events.rs", "api/events/levels"),
        ("stock-online/src/pages/live.rs", "live/levels"),
        ("stock-online/src/pages/dashboard.rs", "dashboard/live"),
    ] {
        assert!(
            read(file).contains(&format!("/{path}")),
            "{file} is no longer about {path}"
        );
    }
}
