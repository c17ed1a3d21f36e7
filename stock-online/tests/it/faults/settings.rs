//! Settings of the servers that are changed while the service runs (F26).

use std::time::{Duration, Instant};

use redis::cmd;
use serde_json::{Value, json};
use stock_common::config::Durability;

use super::super::ops::command;
use crate::support::{Answer, OwnServers, Service, Shop, until};

/// Time within which a change must be noticed.
const NOTICED: Duration = Duration::from_secs(10);

async fn set(shop: &Shop, name: &str, value: &str) {
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = cmd("CONFIG")
        .arg("SET")
        .arg(name)
        .arg(value)
        .query_async(&mut connection)
        .await
        .unwrap();
}

async fn order(service: &Service) -> Answer {
    let call = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    call.send().await
}

/// The answer of `/readyz`: its code, its status, and the settings that it names.
async fn readiness(service: &Service) -> (u16, Value, Vec<String>) {
    let ready = service.client.get("/readyz").send().await;
    let named = ready.body["settings"].as_array().cloned();
    let named = named.unwrap_or_default().into_iter().map(|setting| {
        let text = |name: &str| setting[name].as_str().unwrap().to_owned();
        format!("{} {} {}", text("server"), text("setting"), text("found"))
    });
    (ready.status, ready.body["status"].clone(), named.collect())
}

async fn says(service: &Service, status: &str, named: &[&str]) {
    let began = Instant::now();
    until("it is said", || async {
        let (_, found, settings) = readiness(service).await;
        found == status && settings == named
    })
    .await;
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_does_not_keep_is_not_sold_until_it_does() {
    let own = OwnServers::start(Durability::Always).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 1_000).await;
    let service = shop.serve().await;
    assert_eq!(order(&service).await.status, 201);
    says(&service, "ready", &[]).await;
    for (name, wrong, right) in [
        ("appendonly", "no", "yes"),
        ("appendfsync", "everysec", "always"),
        ("appendfsync", "no", "always"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("maxmemory-policy", "volatile-ttl", "noeviction"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
    ] {
        set(&shop, name, wrong).await;
        let named = format!("redis {name} {wrong}");
        says(&service, "unready", &[&named]).await;
        let held = json!({ "productId": 1, "quantity": 1 });
        let reserve = service.client.post("/api/products/stock/reserve").user(2);
        for answer in [
            order(&service).await,
            service
                .client
                .order("/api/orders", 2, &[(1, 1)])
                .send()
                .await,
            reserve.json(&held).send().await,
        ] {
            assert_eq!((answer.status, answer.code()), (503, "UNSAFE_REDIS"));
            assert!(answer.headers.contains_key("retry-after"));
        }
        let gauge = format!("stock_server_setting{{server=\"redis\",setting=\"{name}\"}} 2");
        until("a metric names it", || async {
            let metrics = service.client.get("/metrics").send().await.text;
            metrics.contains(&gauge)
        })
        .await;
        let (code, report, text) = command(&shop, &["doctor", "--json"]);
        assert_eq!(code, Some(1), "{text}");
        let failed: Vec<&Value> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["ok"] == false)
            .collect();
        assert_eq!(failed.len(), 1, "{text}");
        assert_eq!(failed[0]["check"], format!("redis {name}"));

        set(&shop, name, right).await;
        until("it sells again by itself", || async {
            order(&service).await.status == 201
        })
        .await;
        says(&service, "ready", &[]).await;
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_to_sells_on_an_unsafe_redis_and_is_told_all_the_same() {
    let own = OwnServers::start(Durability::Everysec).await;
    let mut shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 10).await;
    // A setting that is stricter than promised is right.
    set(&shop, "appendfsync", "always").await;
    shop.config.redis.allow_unsafe_redis = true;
    let service = shop.serve().await;
    says(&service, "ready", &[]).await;
    set(&shop, "maxmemory-policy", "volatile-lru").await;
    says(
        &service,
        "degraded",
        &["redis maxmemory-policy volatile-lru"],
    )
    .await;
    assert_eq!(order(&service).await.status, 201);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selling_can_be_stopped_on_an_unsafe_redis() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 10).await;
    let service = shop.serve().await;
    set(&shop, "appendonly", "no").await;
    says(&service, "unready", &["redis appendonly no"]).await;
    let put = service.client.call("PUT", "/api/ops/selling").admin();
    let stopped = put.json(&json!({ "open": false })).send().await;
    assert_eq!(stopped.status, 200, "{}", stopped.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_config_is_forbidden_info_tells_what_it_can() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 10).await;
    let client = redis::Client::open(own.redis.spec.url("0")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = cmd("ACL")
        .arg("SETUSER")
        .arg("shop")
        .arg(&["on", ">word", "~*", "&*", "+@all", "-config"])
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut config = shop.config.clone();
    config.redis.redis_url = config.redis.redis_url.replace("://", "://shop:word@");
    let least = Shop::at(config);
    let service = least.serve().await;
    says(&service, "ready", &[]).await;
    let (code, report, text) = command(&least, &["doctor", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let checks = report["checks"].as_array().unwrap();
    let of = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap();
    assert_eq!(of("redis appendonly")["found"], "yes");
    assert_eq!(of("redis maxmemory-policy")["found"], "noeviction");
    let untold = of("redis appendfsync")["found"].as_str().unwrap();
    assert!(untold.contains("CONFIG is not allowed"), "{untold}");

    for (name, wrong, right) in [
        ("appendonly", "no", "yes"),
        ("maxmemory-policy", "allkeys-random", "noeviction"),
    ] {
        set(&shop, name, wrong).await;
        says(&service, "unready", &[&format!("redis {name} {wrong}")]).await;
        assert_eq!(order(&service).await.code(), "UNSAFE_REDIS");
        let (code, _, text) = command(&least, &["doctor", "--json"]);
        assert_eq!(code, Some(1), "{text}");
        set(&shop, name, right).await;
        until("it sells again by itself", || async {
            order(&service).await.status == 201
        })
        .await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mysql_does_not_keep_is_told_and_orders_go_on() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 1_000).await;
    let service = shop.serve().await;
    says(&service, "ready", &[]).await;
    for (text, back, named) in [
        (
            "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
            "mysql innodb_flush_log_at_trx_commit 2",
        ),
        (
            "SET GLOBAL read_only = 1",
            "SET GLOBAL read_only = 0",
            "mysql read_only on",
        ),
    ] {
        sqlx::query(text).execute(&shop.pool).await.unwrap();
        says(&service, "degraded", &[named]).await;
        assert_eq!(order(&service).await.status, 201);
        let (code, _, said) = command(&shop, &["doctor", "--json"]);
        assert_eq!(code, Some(1), "{said}");
        sqlx::query(back).execute(&shop.pool).await.unwrap();
        says(&service, "ready", &[]).await;
    }
    shop.drained().await;
    service.stop().await;
}
