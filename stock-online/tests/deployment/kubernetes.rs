//! deploy/kubernetes: its documents fit the service, and no pod has more rights than it needs.
//!
//! `make deploy-check` checks the documents against the schemas of Kubernetes.

use std::collections::BTreeSet;

use serde_json::Value;
use stock_common::config::Config;

use super::{files_in, members, read, variables, words, yaml};

const FOLDER: &str = "deploy/kubernetes";

/// Every document, with its file.
fn documents() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for file in files_in(FOLDER) {
        if file.ends_with(".yaml") {
            let all: Vec<Value> = serde_saphyr::from_multiple(&read(&file))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            found.extend(all.into_iter().map(|document| (file.clone(), document)));
        }
    }
    found
}

fn document(kind: &str, name: &str) -> Value {
    let is_it = |document: &Value| document["kind"] == kind && document["metadata"]["name"] == name;
    let found = documents()
        .into_iter()
        .find(|(_, document)| is_it(document));
    found.unwrap_or_else(|| panic!("{kind} {name}")).1
}

fn containers(pod: &Value) -> Vec<&Value> {
    ["initContainers", "containers"]
        .iter()
        .flat_map(|list| pod[*list].as_array().into_iter().flatten())
        .collect()
}

/// The flaws of a pod.
fn flaws(name: &str, pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut require = |holds: bool, rule: &str| {
        if !holds {
            found.push(format!("{name}: {rule}"));
        }
    };
    let security = &pod["securityContext"];
    require(security["runAsNonRoot"] == true, "it may run as root");
    require(
        security["runAsUser"].as_u64().is_some_and(|user| user > 0),
        "it names no user",
    );
    require(
        security["seccompProfile"]["type"] == "RuntimeDefault",
        "it may call everything",
    );
    require(
        pod["automountServiceAccountToken"] == false,
        "it holds a token of Kubernetes",
    );
    require(
        pod["enableServiceLinks"] == false,
        "it gets variables that begin like settings",
    );
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        require(pod[shared].is_null(), "it shares what is the node's");
    }
    for container in containers(pod) {
        let security = &container["securityContext"];
        require(
            security["readOnlyRootFilesystem"] == true,
            "its root can be written",
        );
        require(
            security["allowPrivilegeEscalation"] == false,
            "it may gain privileges",
        );
        require(
            security["capabilities"]["drop"][0] == "ALL"
                && security["capabilities"]["add"].is_null(),
            "it keeps capabilities",
        );
        let image = container["image"].as_str().unwrap_or_default();
        // The image of the service gets its version from the overlay.
        require(
            image == "stock-flow" || image.contains(':') && !image.ends_with(":latest"),
            "its image has no version",
        );
        require(
            container["resources"]["limits"]["memory"].is_string()
                && container["resources"]["requests"]["cpu"].is_string(),
            "it may take any memory, or is promised no core",
        );
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().unwrap_or_default();
            let is_secret = ["SECRET", "PASSWORD", "AUTH", "DATABASE_URL"]
                .iter()
                .any(|part| name.contains(part));
            let value = variable["value"].as_str().unwrap_or_default();
            require(
                !is_secret || value.is_empty() || value.starts_with("$("),
                "a secret stands in it",
            );
        }
    }
    found
}

#[test]
fn no_pod_may_do_more_than_it_needs() {
    let all = documents();
    let pods: Vec<(&str, &Value)> = all
        .iter()
        .filter(|(_, document)| document["spec"]["template"]["spec"].is_object())
        .map(|(file, document)| (file.as_str(), &document["spec"]["template"]["spec"]))
        .collect();
    assert_eq!(pods.len(), 4, "service, migration, Redis and its creation");
    let found: Vec<String> = pods
        .iter()
        .flat_map(|(file, pod)| flaws(file, pod))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    // No document holds a secret: an operator or a store of secrets makes them.
    assert!(all.iter().all(|(_, document)| document["kind"] != "Secret"));
    // A bad pod is caught.
    let bad = serde_json::json!({ "hostNetwork": true, "containers": [
        { "image": "redis", "env": [{ "name": "REDIS_PASSWORD", "value": "geheim" }] },
    ] });
    assert_eq!(flaws("bad", &bad).len(), 12);
}

#[test]
fn an_upgrade_takes_nobody_away_before_another_is_there() {
    let service = document("Deployment", "stock-flow");
    let spec = &service["spec"];
    assert!(spec["replicas"].as_u64().unwrap() >= 2);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    let waits = &container["lifecycle"]["preStop"]["sleep"]["seconds"];
    let grace_ms = pod["terminationGracePeriodSeconds"].as_u64().unwrap() * 1_000;
    // The service exits within 10 s of SIGTERM (Config::check).
    let longest_ms = waits.as_u64().unwrap() * 1_000 + 10_000;
    assert!(Config::default().http.shutdown_timeout_ms < 10_000 && grace_ms > longest_ms);
    let autoscaler = document("HorizontalPodAutoscaler", "stock-flow");
    assert!(autoscaler["spec"]["minReplicas"].as_u64().unwrap() >= 2);
    let budget = document("PodDisruptionBudget", "stock-flow");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
}

#[test]
fn ports_paths_and_commands_are_those_of_the_service() {
    let settings = settings();
    let listens = settings
        .iter()
        .find(|(name, _)| name == "STOCK_HTTP_ADDR")
        .unwrap();
    let service = document("Deployment", "stock-flow");
    let container = &service["spec"]["template"]["spec"]["containers"][0];
    let port = container["ports"][0]["containerPort"].to_string();
    assert_eq!(listens.1, format!("0.0.0.0:{port}"));
    let routes = read("stock-online/src/http.rs");
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("readinessProbe", "/readyz"),
        ("livenessProbe", "/livez"),
    ] {
        assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"], "http");
        assert!(routes.contains(&format!("\"{path}\"")), "{path}");
    }
    let monitor = document("ServiceMonitor", "stock-flow");
    assert_eq!(monitor["spec"]["endpoints"][0]["path"], "/metrics");
    // The image starts the program, as the Dockerfile says.
    assert!(read("Dockerfile").contains("ENTRYPOINT [\"stock-online\"]"));
    let commands = read("stock-online/src/cli.rs");
    let migration = document("Job", "stock-flow-migrate");
    for (pod, command, variant) in [
        (&service, "serve", "Serve("),
        (&migration, "migrate", "Migrate,"),
    ] {
        let args = &pod["spec"]["template"]["spec"]["containers"][0]["args"];
        assert_eq!(args, &serde_json::json!([command]));
        assert!(commands.contains(variant), "{command}");
    }
    // The overlays run this version of the service, and all use the same Redis as compose.
    let version = cargo_version();
    for overlay in ["redis-inside", "redis-outside"] {
        let images = yaml(&format!("{FOLDER}/overlays/{overlay}/kustomization.yaml"));
        assert_eq!(images["images"][0]["newTag"], version.as_str(), "{overlay}");
    }
    let redis = yaml("docker-compose.yml")["services"]["redis"]["image"].clone();
    for (kind, name) in [
        ("StatefulSet", "stock-flow-redis"),
        ("Job", "stock-flow-redis-create"),
    ] {
        let pod = document(kind, name);
        for container in containers(&pod["spec"]["template"]["spec"]) {
            assert_eq!(container["image"], redis, "{name}");
        }
    }
}

/// The version in Cargo.toml.
fn cargo_version() -> String {
    let text = read("Cargo.toml");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("version = "));
    line.unwrap().trim_matches('"').to_owned()
}

/// The lines of settings.env.
fn settings() -> Vec<(String, String)> {
    let text = read(&format!("{FOLDER}/base/settings.env"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn settings_have_values_that_the_service_takes() {
    let known = variables();
    let settings = settings();
    assert!(settings.len() >= 4);
    let mut values = serde_json::to_value(Config::default()).unwrap();
    for (name, value) in settings {
        assert!(known.contains(&name), "{name}");
        for secret in ["SECRET", "PASSWORD", "URL"] {
            assert!(!name.contains(secret), "{name} belongs into a secret");
        }
        let member = name.trim_start_matches("STOCK_").to_lowercase();
        // Parsed as the service parses variables: a number or a boolean becomes one.
        let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
        if let Some(own) = values.get_mut(&member) {
            *own = value;
        }
    }
    let config: Config = serde_json::from_value(values).unwrap();
    config.check().unwrap();
}

#[test]
fn the_nodes_are_as_many_as_are_named_and_keep_what_they_accept() {
    let folder = format!("{FOLDER}/components/redis-cluster");
    let nodes = document("StatefulSet", "stock-flow-redis");
    let count = nodes["spec"]["replicas"].as_u64().unwrap();
    let expected: BTreeSet<String> = (0..count)
        .map(|number| format!("stock-flow-redis-{number}.stock-flow-redis:6379"))
        .collect();
    assert_eq!(count, 6);
    let named = read(&format!("{folder}/nodes.env"));
    let named = named
        .lines()
        .find_map(|line| line.strip_prefix("NODES="))
        .unwrap();
    let named: BTreeSet<String> = named.split(' ').map(str::to_owned).collect();
    assert_eq!(named, expected);
    let kustomization = read(&format!("{folder}/kustomization.yaml"));
    let url = kustomization.lines().find_map(|line| {
        line.trim()
            .strip_prefix("value: redis-cluster://:$(REDIS_PASSWORD)@")
    });
    let hosts: BTreeSet<String> = url
        .unwrap()
        .replace("node=", "")
        .split(['?', '&'])
        .map(str::to_owned)
        .collect();
    assert_eq!(hosts, expected);
    // Every script that a pod starts is a file of the config map.
    let parsed = yaml(&format!("{folder}/kustomization.yaml"));
    let files = parsed["configMapGenerator"][0]["files"].to_string();
    for container in containers(&nodes["spec"]["template"]["spec"]) {
        let script = container["command"][1].as_str().unwrap();
        let script = script.rsplit('/').next().unwrap();
        assert!(files.contains(script), "{script}");
    }
    // The settings on which the durability of accepted orders depends.
    let conf = read(&format!("{folder}/redis.conf"));
    for line in [
        "appendonly yes",
        "appendfsync always",
        "no-appendfsync-on-rewrite no",
        "maxmemory-policy noeviction",
        "cluster-require-full-coverage no",
        "min-replicas-to-write 1",
    ] {
        assert!(conf.lines().any(|own| own == line), "{line}");
    }
    let durability = settings()
        .into_iter()
        .find(|(name, _)| name == "STOCK_DURABILITY");
    assert_eq!(durability.unwrap().1, "always");
    let apart = &nodes["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    assert!(apart["requiredDuringSchedulingIgnoredDuringExecution"][0].is_object());
    assert_eq!(
        nodes["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"],
        "Retain"
    );
}

#[test]
fn what_the_ingress_promises_fits_the_service() {
    let config = Config::default();
    for (name, least_ms, bytes) in [
        (
            "stock-flow",
            config.http.http_timeout_ms,
            config.http.http_body_bytes_max,
        ),
        (
            "stock-flow-import",
            config.http.import_timeout_ms,
            config.http.import_bytes_max,
        ),
    ] {
        let ingress = document("Ingress", name);
        let notes = members(&ingress["metadata"], "annotations");
        let note = |name: &str| notes[&format!("nginx.ingress.kubernetes.io/{name}")].as_str();
        let waits: u64 = note("proxy-read-timeout").unwrap().parse().unwrap();
        assert!(waits * 1_000 > least_ms, "{name}");
        let largest = note("proxy-body-size").unwrap().trim_end_matches('m');
        assert!(largest.parse::<usize>().unwrap() << 20 > bytes, "{name}");
        // A change is never sent to a second instance.
        assert_eq!(note("proxy-next-upstream"), Some("off"), "{name}");
    }
}

#[test]
fn the_steps_of_the_guide_name_what_there_is() {
    let guide = read("docs/deployment.md");
    let mut components = BTreeSet::new();
    for (_, document) in documents() {
        let label = &document["metadata"]["labels"]["app.kubernetes.io/component"];
        components.extend(label.as_str().map(str::to_owned));
    }
    let mut steps = BTreeSet::new();
    for part in guide.split("component=").skip(1) {
        let name = part.split([' ', '`', '\n', '\'']).next().unwrap();
        assert!(components.contains(name), "{name} of {components:?}");
        steps.insert(name.to_owned());
    }
    // No component is left out.
    assert_eq!(steps, components);
    // The guide makes each key of the secret that a pod reads.
    for (file, document) in documents() {
        for container in containers(&document["spec"]["template"]["spec"]) {
            for variable in container["env"].as_array().into_iter().flatten() {
                let key = &variable["valueFrom"]["secretKeyRef"];
                if let (Some(key), false) = (key["key"].as_str(), key["optional"] == true) {
                    assert!(
                        guide.contains(&format!("--from-literal={key}=")),
                        "{file}: {key}"
                    );
                }
            }
        }
    }
    assert!(words(&guide, "STOCK_").contains("STOCK_SHARDS"));
}
