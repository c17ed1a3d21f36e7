//! Idle links that the server closed, or that were lost silently: no request pays for them.

use std::time::{Duration, Instant};

use redis::cmd;
use serde_json::json;
use stock_common::config::Durability;
use stock_servers::proxy::Proxy;

use crate::support::{OwnServers, Service, Shop, until};

/// The time that a request may take when it finds several links lost: less than any time limit of a
/// link.
const AT_ONCE: Duration = Duration::from_millis(1_900);
/// A link that was silent for so long is tested before it is used.
const IDLE: Duration = Duration::from_millis(200);

/// Sends requests that need Redis in different ways: an order on either path, stock, an order's
/// state, and a counter of login attempts.
async fn all_are_answered(service: &Service, id: &str, between: impl AsyncFn()) {
    let client = &service.client;
    let login = json!({ "email": "user2@example.com", "password": "wrong-password" });
    for (call, expected) in [
        (client.order("/api/redis/orders", 2, &[(1, 1)]), 201),
        (
            client
                .get("/api/products/stock/available?productId=1")
                .user(2),
            200,
        ),
        (client.order("/api/orders", 2, &[(1, 1)]), 201),
        (client.get(&format!("/api/orders/{id}")).user(2), 200),
        (client.post("/api/token").json(&login), 401),
        (client.get("/api/orders").user(2), 200),
    ] {
        between().await;
        let asked = Instant::now();
        let answer = call.send().await;
        assert_eq!(answer.status, expected, "{}", answer.text);
        let took = asked.elapsed();
        // Hashing a password may take longer.
        let is_hashed = expected == 401;
        assert!(is_hashed || took < AT_ONCE, "{took:?} for {}", answer.text);
    }
}

async fn order(service: &Service) -> String {
    let call = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    let answer = call.send().await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.order_id()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_pays_for_a_link_that_its_server_has_closed() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1_000).await;
    sqlx::query("SET GLOBAL wait_timeout = 1")
        .execute(&shop.pool)
        .await
        .unwrap();
    let client = redis::Client::open(own.redis.spec.url("0")).unwrap();
    let connect = async || client.get_multiplexed_async_connection().await.unwrap();
    let _: () = cmd("CONFIG")
        .arg("SET")
        .arg("timeout")
        .arg(3)
        .query_async(&mut connect().await)
        .await
        .unwrap();
    let service = shop.serve().await;
    let id = order(&service).await;
    shop.drained().await;
    // Redis meanwhile closes this unused link, but none of the service.
    let mut idle = tokio::net::TcpStream::connect(("127.0.0.1", own.redis.spec.port))
        .await
        .unwrap();
    let mut nothing = [0];
    let closed = tokio::io::AsyncReadExt::read(&mut idle, &mut nothing).await;
    assert_eq!(closed.unwrap(), 0);
    all_are_answered(&service, &id, async || {}).await;

    // Links that were closed a moment ago, with no request since.
    all_are_answered(&service, &id, async || {
        let _: i64 = cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .query_async(&mut connect().await)
            .await
            .unwrap();
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_pays_for_a_link_that_is_silently_lost() {
    // Danger: a request over a lost link is never answered, and waits for its timeout with an
    // unknown outcome. Method: a proxy swallows everything that comes over its open connections.
    let own = OwnServers::start(Durability::Everysec).await;
    let mut shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1_000).await;
    let redis = Proxy::start(own.redis.spec.port).await.unwrap();
    let mysql = Proxy::start(own.mysql.spec.port).await.unwrap();
    shop.config.redis.redis_url = format!("redis://{}/0", redis.address);
    let direct = format!("127.0.0.1:{}", own.mysql.spec.port);
    shop.config.mysql.database_url = shop
        .config
        .mysql
        .database_url
        .replace(&direct, &mysql.address);
    let service = shop.serve().await;
    let id = order(&service).await;
    shop.drained().await;
    for proxy in [&redis, &mysql] {
        all_are_answered(&service, &id, async || {
            // A link counts as idle after this time.
            tokio::time::sleep(IDLE).await;
            proxy.lose();
        })
        .await;
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_silently_lost_is_subscribed_again() {
    let own = OwnServers::start(Durability::Everysec).await;
    let mut shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 10).await;
    let proxy = Proxy::start(own.redis.spec.port).await.unwrap();
    shop.config.redis.redis_url = format!("redis://{}/0", proxy.address);
    let service = shop.serve().await;
    let client = redis::Client::open(own.redis.spec.url("0")).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let heard = async || -> i64 {
        let told = cmd("PUBLISH")
            .arg(shop.ledger.keys().catalog())
            .arg("changed")
            .to_owned();
        told.query_async(&mut connection.clone()).await.unwrap()
    };
    until("it has subscribed", || async { heard().await == 1 }).await;
    proxy.lose();
    // Redis does not notice the loss, so it counts the lost connection too.
    until("it has subscribed again", || async { heard().await == 2 }).await;
    service.stop().await;
}
