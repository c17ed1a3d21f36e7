//! MySQL is dead or silent, and a link to Redis breaks: the service goes on with the same Redis at
//! once.

use std::time::{Duration, Instant};

use redis::cmd;
use rustix::process::Signal;
use stock_common::config::Durability;
use stock_redis::FenceState;
use stock_servers::Spec;
use stock_servers::proxy::{Mode, Proxy};

use crate::support::{OwnServers, Service, Shop, until};

/// Longer than an instance may be silent towards MySQL before others go on without it.
const OUTAGE: Duration = Duration::from_secs(4);

async fn order(service: &Service) -> (u16, String) {
    let call = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    let answer = call.send().await;
    (answer.status, answer.text)
}

/// Resets every link to Redis except its own.
async fn reset_links(redis: &Spec) {
    let client = redis::Client::open(redis.url("0")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let killed: i64 = cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(killed > 0);
}

/// Sends orders over links that are reset again and again, for as long as `OUTAGE`.
async fn sells_over_reset_links(own: &OwnServers, service: &Service) {
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        reset_links(&own.redis.spec).await;
        let asked = Instant::now();
        let key = format!("{}", began.elapsed().as_nanos());
        loop {
            let call = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
            let answer = call.header("idempotency-key", &key).send().await;
            if answer.status == 201 {
                break;
            }
            // A request that was under way when the link was reset may have been decided; its key
            // tells.
            assert_eq!(answer.code(), "OUTCOME_UNKNOWN", "{}", answer.text);
        }
        assert!(asked.elapsed() < Duration::from_secs(1), "at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_redis_behind_a_reset_link_needs_no_word_of_mysql() {
    // Danger: one link is reset while MySQL is away, and nothing is sold until MySQL is back.
    // Method: links are reset under orders while MySQL is dead, and while it is silent.
    let mut own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1_000_000).await;
    let service = shop.serve().await;
    assert_eq!(order(&service).await.0, 201);
    own.mysql.kill().await;
    until("it says that mysql is down", || async {
        let ready = service.client.get("/readyz").send().await;
        ready.body["checks"]["mysql"] == "down"
    })
    .await;
    let ready = service.client.get("/readyz").send().await;
    assert_eq!(
        ready.body["checks"]["schema"], "current",
        "as it was seen last"
    );
    sells_over_reset_links(&own, &service).await;
    own.mysql.restart().await.unwrap();
    shop.drained().await;
    own.mysql.signal(Signal::STOP);
    sells_over_reset_links(&own, &service).await;
    own.mysql.signal(Signal::CONT);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_reached_again_is_gone_on_with_while_mysql_is_silent() {
    // Danger: each attempt to reach Redis first asks MySQL, which does not answer. Method: Redis
    // cannot be reached for a while.
    let own = OwnServers::start(Durability::Everysec).await;
    let mut shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1_000).await;
    let proxy = Proxy::start(own.redis.spec.port).await.unwrap();
    shop.config.redis.redis_url = format!("redis://{}/0", proxy.address);
    // A request that waits for MySQL waits for long.
    shop.config.mysql.database_acquire_timeout_ms = 30_000;
    let service = shop.serve().await;
    assert_eq!(order(&service).await.0, 201);
    own.mysql.signal(Signal::STOP);
    proxy.set(Mode::Down);
    until("it cannot sell", || async {
        order(&service).await.0 == 503
    })
    .await;
    until("it says so", || async {
        let ready = service.client.get("/readyz").send().await;
        ready.body["checks"]["redis"] == "down" && ready.status == 503
    })
    .await;
    proxy.set(Mode::Pass);
    let back = Instant::now();
    until("it sells again", || async {
        order(&service).await.0 == 201
    })
    .await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    own.mysql.signal(Signal::CONT);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_redis_needs_the_word_of_mysql() {
    // Danger: a restarted Redis that has lost its last entries is taken for the Redis of before.
    // Method: Redis is killed and started again while MySQL is away.
    let mut own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 1_000).await;
    let service = shop.serve().await;
    assert_eq!(order(&service).await.0, 201);
    shop.drained().await;
    own.mysql.kill().await;
    own.redis.kill().await;
    own.redis.restart().await.unwrap();
    until("the true reason is said", || async {
        match shop.ledger.fence_state() {
            FenceState::Fenced(reason) => reason.contains("only mysql can tell whether"),
            FenceState::Open(_) | FenceState::Mending(_) => false,
        }
    })
    .await;
    let (status, text) = order(&service).await;
    assert_eq!(status, 503);
    assert!(text.contains("FENCED"), "{text}");
    own.mysql.restart().await.unwrap();
    until("it sells again", || async {
        order(&service).await.0 == 201
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_hears_afterwards_of_a_redis_that_needed_no_word_of_it() {
    // Danger: instances go on with a restarted Redis while MySQL is away, and never tell MySQL; a
    // new instance then waits for their word for ever. Method: another instance is started when
    // MySQL is back.
    let mut own = OwnServers::start(Durability::Always).await;
    let mut shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 1_000).await;
    let proxy = Proxy::start(own.mysql.spec.port).await.unwrap();
    let direct = format!("127.0.0.1:{}", own.mysql.spec.port);
    shop.config.mysql.database_url = shop
        .config
        .mysql
        .database_url
        .replace(&direct, &proxy.address);
    let service = shop.serve().await;
    assert_eq!(order(&service).await.0, 201);
    shop.drained().await;
    proxy.set(Mode::Down);
    own.redis.kill().await;
    own.redis.restart().await.unwrap();
    let away = Instant::now();
    until("it sells, since nothing can be lost", || async {
        // After a silence of its own, the service would wait for MySQL.
        order(&service).await.0 == 201 || away.elapsed() > OUTAGE
    })
    .await;
    proxy.set(Mode::Pass);
    let another = shop.serve().await;
    until("another instance sells too", || async {
        order(&another).await.0 == 201
    })
    .await;
    assert_eq!(order(&service).await.0, 201);
    shop.drained().await;
    shop.verify().await;
    another.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_process_that_lost_entries_is_not_the_same_redis() {
    // Danger: the run id alone would let an emptied Redis sell. Method: the journal of a Redis is
    // emptied, and its links are reset.
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 1_000).await;
    let service = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    assert_eq!(order(&service).await.0, 201);
    let client = redis::Client::open(own.redis.spec.url("0")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let journal = shop.ledger.keys().journal();
    let trimmed: i64 = cmd("XTRIM")
        .arg(&journal)
        .arg("MAXLEN")
        .arg(0)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(trimmed > 0);
    reset_links(&own.redis.spec).await;
    until("it is fenced", || async {
        order(&service).await.1.contains("FENCED")
    })
    .await;
    service.stop().await;
}
