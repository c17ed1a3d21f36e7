//! Read replicas: a real second server follows the first. Its applier is stopped so that it lags;
//! it is killed, and it is paused. All users see their own writes, and no request fails.
//!
//! An answer of the replica is known by `MARK`, a stock version that a product has only there.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, MySqlPool};
use stock_common::config::{ConfigError, Durability};
use stock_servers::{Server, Spec};
use tokio_util::sync::CancellationToken;

use crate::support::{Client, Service, Shop, folder, start, until};

const MARK: u64 = 999_999;
/// Both paths of orders.
const PATHS: [&str; 2] = ["/api/redis/orders", "/api/orders"];

/// A shop whose database has a replica that the services read from.
struct Replicated {
    shop: Shop,
    replica: Server,
    pool: MySqlPool,
    _redis: Server,
    _primary: Server,
}

impl Replicated {
    async fn open(products: u64) -> Self {
        let folder = folder("replicated");
        let redis = Spec::redis(&folder.join("redis"), Durability::Everysec).unwrap();
        let primary = Spec::mysql(&folder.join("primary")).await.unwrap();
        let primary = primary.with(&["--log-bin=bin", "--binlog-format=ROW", "--server-id=1"]);
        let replica = Spec::mysql(&folder.join("replica")).await.unwrap();
        let replica = replica.with(&["--server-id=2", "--read-only=1"]);
        let (redis, primary) = (start(&redis).await, start(&primary).await);
        let replica = start(&replica).await;
        let root = MySqlPool::connect_lazy(&format!("{}?ssl-mode=DISABLED", replica.spec.url("")));
        let root = root.unwrap();
        let version: String = sqlx::query_scalar("SELECT VERSION()")
            .fetch_one(&root)
            .await
            .unwrap();
        let port = primary.spec.port;
        let follow = if version.contains("MariaDB") {
            format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
                 MASTER_USER = 'root', MASTER_USE_GTID = slave_pos"
            )
        } else {
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                 SOURCE_USER = 'root', GET_SOURCE_PUBLIC_KEY = 1"
            )
        };
        for text in [follow, "START REPLICA".to_owned()] {
            sqlx::raw_sql(AssertSqlSafe(text))
                .execute(&root)
                .await
                .unwrap();
        }
        let mut shop = Shop::open_on(&redis.spec, &primary.spec, products, 1_000).await;
        let name = shop
            .config
            .mysql
            .database_url
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        shop.config.mysql.database_read_urls = replica.spec.url(&name);
        shop.config.mysql.read_lag_ms_max = 600;
        shop.config.mysql.read_your_writes_ms = 1_200;
        shop.config.mysql.read_timeout_ms = 300;
        let pool =
            MySqlPool::connect_lazy(&format!("{}?ssl-mode=DISABLED", replica.spec.url(&name)));
        let pool = pool.unwrap();
        until("the replica has the products", || async {
            let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM products");
            count.fetch_one(&pool).await.is_ok_and(|count| count > 0)
        })
        .await;
        Self {
            shop,
            replica,
            pool,
            _redis: redis,
            _primary: primary,
        }
    }

    async fn run(&self, text: &'static str) {
        sqlx::raw_sql(text).execute(&self.pool).await.unwrap();
    }

    /// Waits until every service reads product 1 from the replica. A change of its stock on the
    /// primary would overwrite `MARK`.
    async fn is_used(&self, services: &[&Service]) {
        for service in services {
            until("the replica is asked", || async {
                let mark = sqlx::query(
                    "UPDATE accounts SET seq = ? WHERE kind = 'AVAILABLE' AND owner_id = 1 AND place_id = 0",
                );
                mark.bind(MARK).execute(&self.pool).await.unwrap();
                version(&service.client).await == MARK
            })
            .await;
        }
    }
}

async fn version(client: &Client) -> u64 {
    let shown = client.get("/api/products/1?source=mysql").send().await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    shown.body["stockVersion"].as_u64().unwrap()
}

async fn is_not_used(services: &[&Service]) {
    for service in services {
        until("the replica is not asked", || async {
            version(&service.client).await != MARK
        })
        .await;
    }
}

/// Asserts that all instances show the order by its id and in the list, with one of these statuses.
async fn sees(services: &[&Service], order: &str, statuses: &[&str]) {
    for service in services {
        let get = async |path: &str| {
            let shown = service.client.get(path).user(2).send().await;
            assert_eq!(shown.status, 200, "{}", shown.text);
            shown.body
        };
        let shown = get(&format!("/api/orders/{order}")).await;
        let status = shown["orderStatus"].as_str().unwrap();
        assert!(statuses.contains(&status), "{shown}");
        let list = get("/api/orders").await;
        let items = list["items"].as_array().unwrap();
        let own = items.iter().find(|item| item["orderId"] == order);
        let status = own.map_or("missing", |own| own["orderStatus"].as_str().unwrap());
        assert!(
            statuses.contains(&status),
            "{order} is {status} in the list"
        );
    }
}

/// Whether `doctor` finds that all replicas follow, and how many it has looked at.
fn doctor(shop: &Shop) -> (bool, usize) {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .args(["doctor", "--json"])
        .envs(shop.variables())
        .env(
            "STOCK_DATABASE_READ_URLS",
            &shop.config.mysql.database_read_urls,
        )
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let own: Vec<_> = checks.filter(|of| of["check"] == "read replica").collect();
    (own.iter().all(|of| of["ok"] == true), own.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_written_sees_it_on_every_instance_while_the_replica_lags() {
    let replicated = Replicated::open(2).await;
    let shop = &replicated.shop;
    let (first, second) = (shop.serve().await, shop.serve().await);
    let both = [&first, &second];
    replicated.is_used(&both).await;
    let listed = second.client.get("/api/products?source=mysql").send().await;
    let text = listed.text;
    assert!(text.contains(&MARK.to_string()), "lists are read there too");

    // The replica stands still from here on. It was fresh a moment ago, and is still asked.
    replicated.run("STOP REPLICA SQL_THREAD").await;
    assert_eq!(version(&first.client).await, MARK);
    let mut orders = Vec::new();
    for path in PATHS {
        let placed = first.client.order(path, 2, &[(2, 1)]).send().await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        sees(&both, &placed.order_id(), &["ORDER_PENDING", "SUCCESS"]).await;
        orders.push((path, placed.order_id()));
    }
    for (path, order) in &orders {
        let cancel = second.client.patch(&format!("{path}/{order}/cancel"));
        assert_eq!(cancel.user(2).status().await, 200);
        sees(&both, order, &["CANCEL_REQUESTED", "CANCEL"]).await;
    }
    let edit = first.client.call("PATCH", "/api/products/1").admin();
    let edit = edit.json(&json!({ "price": 777 })).send().await;
    assert_eq!(edit.status, 200, "{}", edit.text);
    for service in both {
        for path in ["/api/products/1", "/api/products"] {
            until("the instance shows the edit", || async {
                let shown = service.client.get(path).admin().send().await;
                shown.text.contains("\"price\":777")
            })
            .await;
        }
    }
    // A user who has written nothing still sees everything that was accepted, in lists that wait
    // for it.
    let body = json!({ "productId": 2, "locationId": 0, "quantity": 5, "reason": "more" });
    let inbound = first.client.post("/api/products/stock/inbound").admin();
    let inbound = inbound.json(&body).send().await;
    assert!(inbound.status < 300, "{}", inbound.text);
    let path = "/api/products/2/stock/movements?limit=1";
    let role = stock_online::http::auth::Role::Admin;
    let shown = second.client.get(path).role(3, role).send().await;
    assert_eq!(shown.body["items"][0]["delta"], 5, "{}", shown.text);

    // It stays so when these writes are no longer remembered, because a replica that lags is not
    // asked.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(3 * shop.config.mysql.read_your_writes_ms) {
        for (_, order) in &orders {
            sees(&both, order, &["CANCEL_REQUESTED", "CANCEL"]).await;
        }
    }
    for service in both {
        assert_ne!(version(&service.client).await, MARK);
    }
    replicated.run("START REPLICA SQL_THREAD").await;
    until("the replica has followed", || async {
        let price: i64 = sqlx::query_scalar("SELECT price FROM products WHERE id = 1")
            .fetch_one(&replicated.pool)
            .await
            .unwrap();
        price == 777
    })
    .await;
    replicated.is_used(&both).await;
    assert_eq!(doctor(shop), (true, 1));
    let text = first.client.get("/metrics").send().await.text;
    for wanted in [
        "stock_reads_total{source=\"replica\"}",
        "stock_reads_total{source=\"primary\"}",
        "stock_replica_lag_seconds{replica=\"127.0.0.1:",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    shop.drained().await;
    shop.verify().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_or_hangs_costs_no_request() {
    let mut replicated = Replicated::open(2).await;
    let shop = replicated.shop.clone();
    let service = shop.serve().await;
    replicated.is_used(&[&service]).await;
    let stop = CancellationToken::new();
    let paths = [
        "/api/products?source=mysql",
        "/api/products/1?source=mysql",
        "/api/orders",
        "/api/redis/products/2",
    ];
    let workers: Vec<_> = (0..8)
        .map(|number| {
            let (client, stop) = (service.client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.is_cancelled() {
                    let call = client.get(paths[number % paths.len()]).user(3);
                    let shown = call.send().await;
                    assert_eq!(shown.status, 200, "{}", shown.text);
                    count += 1;
                }
                count
            })
        })
        .collect();
    replicated.replica.kill().await;
    is_not_used(&[&service]).await;
    replicated.replica.restart().await.unwrap();
    replicated.is_used(&[&service]).await;
    replicated.replica.signal(Signal::STOP);
    is_not_used(&[&service]).await;
    replicated.replica.signal(Signal::CONT);
    replicated.is_used(&[&service]).await;
    stop.cancel();
    for worker in workers {
        assert!(worker.await.unwrap() > 0);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_never_answers_is_never_asked() {
    let mut shop = Shop::open(1, 5).await;
    let port = stock_servers::free_port().unwrap();
    shop.config.mysql.database_read_urls = format!("mysql://root@127.0.0.1:{port}/away");
    let service = shop.serve().await;
    let placed = service.client.order(PATHS[0], 2, &[(1, 1)]).send().await;
    sees(
        &[&service],
        &placed.order_id(),
        &["ORDER_PENDING", "SUCCESS"],
    )
    .await;
    assert_eq!(service.client.get("/api/products").status().await, 200);
    assert_eq!(doctor(&shop), (false, 1));
    service.stop().await;
    let wrong = shop.config.with(|config| {
        config.mysql.read_your_writes_ms = 1_000;
    });
    let refused = wrong.check().unwrap_err();
    assert!(matches!(refused, ConfigError::Contradiction(_)));
}
