//! Operations: health, metrics, the selling switch, the commands.

mod access_log;
mod messages;
mod migrate;
mod rights;
mod statements;
mod tables;
mod upgrade;

use std::process::Command;

use redis::AsyncCommands as _;
use serde_json::{Value, json};
use stock_common::config::Durability;

use crate::support::{OwnServers, Shop, until};

#[tokio::test]
async fn health_and_metrics_tell_what_happens() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    assert_eq!(client.get("/livez").send().await.status, 200);
    let ready = client.get("/readyz").send().await;
    assert_eq!(
        ready.body,
        json!({ "status": "ready", "checks": { "redis": "ok", "mysql": "ok", "schema": "current",
            "epoch": "ok", "journal": "ok", "apply": "ok" } })
    );
    assert_eq!(
        client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status,
        201
    );
    assert_eq!(
        client
            .order("/api/redis/orders", 2, &[(1, 99)])
            .send()
            .await
            .status,
        409
    );
    shop.drained().await;
    until("the monitor has measured", || async {
        let text = client.get("/metrics").send().await.text;
        [
            "stock_orders_total{path=\"redis\",verdict=\"ACCEPTED\"}",
            "stock_orders_total{path=\"redis\",verdict=\"INSUFFICIENT\"}",
            "stock_decide_duration_seconds_bucket",
            "stock_decide_batch_size_bucket",
            "stock_journal_lag_entries",
            "stock_journal_lag_seconds",
            "stock_settled_entries_total",
            "stock_redis_memory_used_bytes",
            "stock_redis_memory_limit_bytes 0",
            "stock_drift_accounts",
            "stock_dead_letters",
            "http_request_duration_seconds_bucket",
            "http_request_duration_seconds_count{method=\"GET\",route=\"/metrics\",status=\"200\"}",
            "stock_build_info",
            "stock_schema{state=\"current\"} 1",
            "stock_schema{state=\"behind\"} 0",
            "stock_pubsub_up 1",
            "stock_redis_replicas{shard=\"0\"} 0",
            "stock_http_connections_max",
            "stock_http_connections ",
            "stock_clock_seconds 1",
            "process_resident_memory_bytes",
        ]
        .iter()
        .all(|name| text.contains(name))
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_may_not_subscribe_sells_and_says_so() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 10).await;
    let may = async |rule: &str| {
        let redis = redis::Client::open(own.redis.spec.url("0")).unwrap();
        let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("default").arg(rule);
        let () = command.query_async(&mut redis).await.unwrap();
    };
    may("-subscribe").await;
    let service = shop.serve().await;
    let is_up = async |is: &str| {
        let text = service.client.get("/metrics").send().await.text;
        text.contains(&format!("stock_pubsub_up {is}"))
    };
    until("it says that it hears nothing", || is_up("0")).await;
    let bought = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    assert_eq!(bought.send().await.status, 201);
    shop.drained().await;
    may("+subscribe").await;
    until("it says that it hears again", || is_up("1")).await;
    service.stop().await;
}

#[tokio::test]
async fn metrics_that_are_not_open_need_an_admin() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.http.metrics_open = false;
    let service = shop.serve().await;
    let get = || service.client.get("/metrics");
    assert_eq!(get().send().await.status, 401);
    assert_eq!(get().user(2).send().await.status, 403);
    assert_eq!(get().admin().send().await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn the_switch_stops_all_selling_on_every_instance_and_nothing_else() {
    let shop = Shop::open(1, 10).await;
    let (first, second) = (shop.serve().await, shop.serve().await);
    let id = first
        .client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    let put = |open: bool| {
        first
            .client
            .call("PUT", "/api/ops/selling")
            .admin()
            .json(&json!({ "open": open }))
            .send()
    };
    let forbidden = first.client.call("PUT", "/api/ops/selling").user(2);
    assert_eq!(
        forbidden
            .json(&json!({ "open": false }))
            .send()
            .await
            .status,
        403
    );
    let stopped = put(false).await;
    assert_eq!(stopped.status, 200);
    let shards = stopped.body["shards"].as_array().unwrap();
    assert_eq!(stopped.body["open"], false);
    assert!(shards.iter().all(|shard| shard["open"] == false));
    for path in ["/api/redis/orders", "/api/orders"] {
        let stopped = second.client.order(path, 2, &[(1, 1)]).send().await;
        assert_eq!((stopped.status, stopped.code()), (503, "SELLING_STOPPED"));
        assert!(stopped.headers.contains_key("retry-after"));
    }
    assert_eq!(second.client.get("/readyz").send().await.status, 200);
    let cancel = format!("/api/redis/orders/{id}/cancel");
    assert_eq!(
        second.client.patch(&cancel).user(2).send().await.status,
        200
    );
    assert_eq!(put(true).await.status, 200);
    assert_eq!(
        second
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status,
        201
    );
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_proves_the_ledger_and_says_what_it_found() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.schedule.verify_cron = "* * * * * *".to_owned();
    let service = shop.serve().await;
    let order = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    assert_eq!(order.send().await.status, 201);
    shop.drained().await;
    let says = async |differences: u32| {
        until("the metric follows the verification", || async {
            let text = service.client.get("/metrics").send().await.text;
            let line = format!("stock_verify_differences {differences}\n");
            text.contains(&line) && text.contains("stock_job_last_success_seconds{job=\"verify\"} ")
        })
        .await;
    };
    says(0).await;
    // A stray key is planted in Redis: each run compares all of Redis.
    let mut redis = shop.ledger.link().unwrap().read.clone();
    let stray = format!("{}:stray", shop.ledger.keys().states());
    let () = redis.set(&stray, 1).await.unwrap();
    says(1).await;
    let () = redis.del(&stray).await.unwrap();
    says(0).await;
    service.stop().await;
}

/// Runs a command on a shop; returns its exit code, its stdout as JSON where it is JSON, and its
/// stdout.
pub(crate) fn command(shop: &Shop, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .args(arguments)
        .envs(shop.variables())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    (
        out.status.code(),
        serde_json::from_str(&text).unwrap_or_default(),
        text,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_reports_and_exits_as_it_says() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let id = service
        .client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    shop.drained().await;
    let (code, report, _) = command(&shop, &["verify", "--full", "--json"]);
    assert_eq!(
        (code, report["ok"].clone(), report["lagEntries"].clone()),
        (Some(0), json!(true), json!(0))
    );
    let (code, report, text) = command(&shop, &["doctor", "--json"]);
    assert_eq!(
        (code, report["ok"].clone()),
        (Some(0), json!(true)),
        "{text}"
    );
    let (code, report, _) = command(&shop, &["reconcile", "--json"]);
    assert_eq!((code, report["differences"].clone()), (Some(0), json!([])));
    let (code, report, _) = command(&shop, &["explain", &id, "--json"]);
    assert_eq!(
        (code, report["order"]["status"].clone()),
        (Some(0), json!("SUCCESS"))
    );
    let (code, report, _) = command(&shop, &["explain", "AVAILABLE:1:0", "--json"]);
    assert_eq!(
        (code, report["mysql"]["balance"].clone()),
        (Some(0), json!(9))
    );
    assert_eq!(command(&shop, &["explain", "1"]).0, Some(1));
    let (code, report, _) = command(&shop, &["dead-letters", "list", "--json"]);
    assert_eq!((code, report), (Some(0), json!([])));
    assert_eq!(
        command(&shop, &["migrate"]).0,
        Some(0),
        "again changes nothing"
    );
    let (code, _, text) = command(&shop, &["seed"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("nothing was seeded"), "{text}");
    let (code, _, text) = command(&shop, &["token", "--user-id", "7", "--count", "2", "--csv"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 2));
    assert!(
        lines[0].starts_with("7,ey") && lines[1].starts_with("8,ey"),
        "{text}"
    );
    let (_, _, token) = command(&shop, &["token", "--user-id", "2"]);
    let shown = service.client.get(&format!("/api/orders/{id}"));
    let shown = shown
        .header("authorization", &format!("Bearer {}", token.trim()))
        .send()
        .await;
    assert_eq!(shown.status, 200);
    let (code, _, text) = command(&shop, &["serve", "--print-config"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("\"jwt_secret\": \"***\""), "{text}");
    assert_eq!(command(&shop, &["nonsense"]).0, Some(2));
    assert_eq!(command(&shop, &["token"]).0, Some(2));
    let (code, report, text) = command(&shop, &["recover", "--force", "--json"]);
    assert_eq!(
        (code, report["discarded"].clone()),
        (Some(0), json!(0)),
        "{text}"
    );
    until("selling goes on", || async {
        service
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status
            == 201
    })
    .await;
    service.stop().await;
}

/// A `dev` process in a folder and on a port of its own.
struct Dev {
    folder: std::path::PathBuf,
    address: String,
    child: tokio::process::Child,
}

impl Dev {
    fn spawn(folder: std::path::PathBuf) -> Self {
        let port = stock_servers::free_port().unwrap();
        for server in ["redis", "mysql"] {
            let pid = folder.join(server).join("stock.pid");
            let kill = format!("kill -9 $(cat '{}') 2>/dev/null; sleep 0.2", pid.display());
            crate::support::at_end(&kill);
        }
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(["dev", "--users", "3", "--products", "2", "--stock", "100"])
            .args(["--port", &port.to_string(), "--data-dir"])
            .arg(&folder)
            .stdout(std::process::Stdio::null())
            .env("STOCK_LOG", "off")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            folder,
            address: format!("127.0.0.1:{port}"),
            child,
        }
    }

    /// Waits until it sells, and orders one unit with a token made as the README says.
    async fn order(&self, shop: &Shop) -> u16 {
        let client = shop.client(&self.address);
        until("dev is ready", || async {
            client
                .get("/readyz")
                .try_send()
                .await
                .is_ok_and(|ready| ready.status == 200)
        })
        .await;
        let out = Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(["token", "--user-id", "2", "--env-file"])
            .arg(self.folder.join("env"))
            .output()
            .unwrap();
        let token = format!("Bearer {}", String::from_utf8(out.stdout).unwrap().trim());
        let body = crate::support::order_json(&[(1, 1)]);
        let call = client
            .post("/api/redis/orders")
            .header("authorization", &token)
            .json(&body);
        call.send().await.status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_starts_everything_survives_a_kill_and_stops_everything() {
    // Danger: a killed `dev` leaves servers behind that hold its data. Method: kill -9, start again
    // in the same folder; kill its Redis; then SIGTERM.
    let shop = Shop::open(1, 1).await;
    let folder = crate::support::folder("dev");
    let mut first = Dev::spawn(folder.clone());
    assert_eq!(first.order(&shop).await, 201);
    first.child.kill().await.unwrap();

    let mut again = Dev::spawn(folder.clone());
    assert_eq!(
        again.order(&shop).await,
        201,
        "the same data, started by itself"
    );
    let pid = || std::fs::read_to_string(folder.join("redis/stock.pid")).unwrap();
    let old = pid();
    assert!(
        Command::new("kill")
            .args(["-9", &old])
            .status()
            .unwrap()
            .success()
    );
    until("redis is started again", || async { pid() != old }).await;
    until("selling goes on", || async {
        again.order(&shop).await == 201
    })
    .await;

    let id = again.child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let status = tokio::time::timeout(std::time::Duration::from_secs(30), again.child.wait());
    assert_eq!(status.await.unwrap().unwrap().code(), Some(0));
    assert!(
        !folder.join("redis/stock.pid").exists(),
        "its servers are stopped"
    );
    assert!(
        !folder.join("mysql/stock.pid").exists(),
        "its servers are stopped"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_dev_that_is_killed_at_any_moment_is_finished_by_the_next() {
    // Danger: half made tables, a secret without text, servers left behind, products without stock.
    // Method: kill -9 when each of its files appears, then at random later moments; start again in
    // the same folder each time.
    let shop = Shop::open(1, 1).await;
    let folder = crate::support::folder("first");
    let files = [
        "dev.pid",
        "mysql/initialize.log",
        "redis/stock.pid",
        "mysql/data",
        "mysql/stock.pid",
        "secret",
        "env",
    ];
    for file in files {
        let mut dev = Dev::spawn(folder.clone());
        until(file, || async { folder.join(file).exists() }).await;
        dev.child.kill().await.unwrap();
    }
    let tables = |folder: &std::path::Path| {
        std::fs::read_dir(folder.join("mysql/data/stock")).map_or(0, |files| files.count())
    };
    for goal in [3, 20, 40] {
        let mut dev = Dev::spawn(folder.clone());
        until("it has made tables", || async { tables(&folder) >= goal }).await;
        let more = rand::random_range(0..400);
        tracing::info!(more, goal, "killed so many ms after so many tables");
        tokio::time::sleep(std::time::Duration::from_millis(more)).await;
        dev.child.kill().await.unwrap();
    }
    let dev = Dev::spawn(folder.clone());
    assert_eq!(dev.order(&shop).await, 201);
    let client = shop.client(&dev.address);
    until("both products are known, with their stock", || async {
        let listed = client.get("/api/redis/products").send().await.body;
        let all = listed["items"].as_array();
        all.is_some_and(|all| all.len() == 2 && all.iter().all(|one| one["isSoldOut"] == false))
    })
    .await;
}
