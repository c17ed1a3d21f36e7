//! Fail closed: a Redis that is not the one that MySQL knows sells nothing until `recover`.

use redis::cmd;
use serde_json::json;
use stock_common::id::Position;
use stock_engine::recover::{Allowed, RecoverError, recover};
use stock_engine::verify::verify;
use stock_redis::Heard;
use stock_redis::levels::LevelsMessage;

use crate::support::{OwnServers, Service, Shop, until};

async fn redis(shop: &Shop) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn is_fenced(service: &Service) {
    for path in ["/api/redis/orders", "/api/orders"] {
        let answer = service.client.order(path, 2, &[(1, 1)]).send().await;
        assert_eq!(
            (answer.status, answer.code()),
            (503, "FENCED"),
            "{}",
            answer.text
        );
    }
    let ready = service.client.get("/readyz").send().await;
    assert_eq!(
        (ready.status, ready.body["status"].clone()),
        (503, json!("unready"))
    );
    assert_eq!(service.client.get("/livez").send().await.status, 200);
}

async fn sells_again(shop: &Shop, service: &Service) {
    let order = || {
        service
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
    };
    until("selling goes on", || async { order().await.status == 201 }).await;
    shop.drained().await;
    shop.verify().await;
}

#[tokio::test]
async fn an_emptied_redis_is_fenced_at_the_next_order_and_recover_brings_its_levels_back() {
    let own = OwnServers::start(stock_common::config::Durability::Everysec).await;
    let url = own.redis.spec.url("0");
    let shop = Shop::open_divided(url, &own.mysql.spec, 1, 2, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let keyed = || {
        client
            .order("/api/redis/orders", 2, &[(1, 7)])
            .header("idempotency-key", "k")
            .send()
    };
    let kept = keyed().await;
    let cancelled = client
        .order("/api/redis/orders", 2, &[(2, 5)])
        .send()
        .await
        .order_id();
    let path = format!("/api/redis/orders/{cancelled}/cancel");
    assert_eq!(client.patch(&path).user(2).send().await.status, 200);
    let stop = json!({ "status": "INACTIVE" });
    assert_eq!(
        client
            .patch("/api/products/2")
            .admin()
            .json(&stop)
            .send()
            .await
            .status,
        200
    );
    shop.drained().await;
    let _: () = cmd("FLUSHALL")
        .query_async(&mut redis(&shop).await)
        .await
        .unwrap();
    is_fenced(&service).await;
    let report = verify(&shop.pool, &shop.ledger, true, &mut |_, _| {}).await;
    assert!(
        !report.is_ok_and(|report| report.ok),
        "nothing is verified without redis"
    );

    let done = recover(&shop.config, &shop.pool, Allowed::default(), &mut |_, _| {})
        .await
        .unwrap();
    assert_eq!((done.applied, done.discarded, done.keys), (0, 0, 1));
    until("the fence is open", || async {
        client.get("/readyz").send().await.status == 200
    })
    .await;
    assert_eq!(
        (shop.available(1).await, shop.available(2).await),
        (93, 100)
    );
    let again = keyed().await;
    assert_eq!(again.body, kept.body, "the key is remembered");
    assert_eq!(
        client.patch(&path).user(2).send().await.code(),
        "INVALID_ORDER_STATUS"
    );
    let closed = shop
        .ledger
        .levels(&[crate::support::account(2)])
        .await
        .unwrap();
    assert!(
        closed.values().all(|level| level.closed),
        "a stopped product stays stopped"
    );
    sells_again(&shop, &service).await;
    service.stop().await;
}

#[tokio::test]
async fn another_epoch_and_a_missing_watermark_are_fenced() {
    let (shop, _redis) = Shop::open_on_own_redis(1, 100).await;
    let service = shop.serve().await;
    assert_eq!(
        service
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status,
        201
    );
    shop.drained().await;
    let mut connection = redis(&shop).await;
    let epoch = shop.ledger.keys().epoch();
    let _: i64 = cmd("HSET")
        .arg(&epoch)
        .arg("epoch")
        .arg("foreign")
        .query_async(&mut connection)
        .await
        .unwrap();
    is_fenced(&service).await;
    recover(&shop.config, &shop.pool, Allowed::default(), &mut |_, _| {})
        .await
        .unwrap();
    sells_again(&shop, &service).await;

    // As after an old snapshot: the same epoch, without the watermark's entry.
    let journal = shop.ledger.keys().journal();
    let _: i64 = cmd("XTRIM")
        .arg(&journal)
        .arg("MAXLEN")
        .arg(0)
        .query_async(&mut connection)
        .await
        .unwrap();
    let _: String = cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut connection)
        .await
        .unwrap();
    until("the missing entry is noticed", || async {
        service
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status
            == 503
            && service.client.get("/readyz").send().await.status == 503
    })
    .await;
    recover(&shop.config, &shop.pool, Allowed::default(), &mut |_, _| {})
        .await
        .unwrap();
    sells_again(&shop, &service).await;
    service.stop().await;
}

#[tokio::test]
async fn lost_scripts_are_loaded_again_once_redis_is_proved() {
    let (shop, _redis) = Shop::open_on_own_redis(1, 100).await;
    let service = shop.serve().await;
    let mut connection = redis(&shop).await;
    let _: String = cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut connection)
        .await
        .unwrap();
    sells_again(&shop, &service).await;
    service.stop().await;
}

#[tokio::test]
async fn recover_keeps_what_continues_and_drops_the_rest_only_into_a_file() {
    // Danger: recover throws accepted orders away. Method: accepted and unapplied orders, then an
    // entry in the journal that does not continue MySQL's state.
    let shop = Shop::open_undivided(1, 100).await;
    let held = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    let applied = held
        .client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    let lost = held
        .client
        .order("/api/redis/orders", 2, &[(1, 2)])
        .send()
        .await
        .order_id();
    let state = stock_mysql::shards::load(&shop.pool, 0)
        .await
        .unwrap()
        .unwrap();
    let skipped: u64 = lost.parse().unwrap();
    let skipped = Position::new(skipped);
    let mut connection = redis(&shop).await;
    let journal = shop.ledger.keys().journal();
    let gone: i64 = cmd("XDEL")
        .arg(&journal)
        .arg(skipped.stream_id())
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(gone, 1);
    let behind = held
        .client
        .order("/api/redis/orders", 2, &[(1, 3)])
        .send()
        .await
        .order_id();
    held.stop().await;

    let refused = recover(&shop.config, &shop.pool, Allowed::default(), &mut |_, _| {}).await;
    assert!(
        matches!(refused, Err(RecoverError::WouldDiscard(1))),
        "{refused:?}"
    );
    let unchanged = stock_mysql::shards::load(&shop.pool, 0)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(state, unchanged);
    let file = crate::support::folder("discarded").join("entries.jsonl");
    let done = recover(
        &shop.config,
        &shop.pool,
        Allowed {
            discard: Some(&file),
            force: false,
        },
        &mut |_, _| {},
    )
    .await
    .unwrap();
    assert_eq!(done.discarded, 1);
    assert!(std::fs::read_to_string(&file).unwrap().contains(&behind));
    assert_eq!(shop.stored_orders().await, [applied]);
    assert_eq!(shop.available(1).await, 99);
    let service = shop.serve().await;
    sells_again(&shop, &service).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_instance_takes_no_message_for_a_strangers() {
    let mut own = OwnServers::start(stock_common::config::Durability::Everysec).await;
    let url = own.redis.spec.url("0");
    let shop = Shop::open_divided(url, &own.mysql.spec, 1, 1, 10).await;
    let shard = shop.ledger.shards().remove(0);
    let epoch: Box<str> = shop.ledger.link().unwrap().epoch.to_string().into();
    let message = |epoch: &str| LevelsMessage {
        epoch: epoch.into(),
        position: Position::from_parts(1_763_700_000_000, 0).unwrap(),
        levels: Vec::new(),
    };
    assert_eq!(shop.ledger.hear(&message(&epoch)), Heard::Own);
    assert_eq!(shop.ledger.hear(&message("another")), Heard::Foreign);
    own.redis.kill().await;
    until("it is closed", || async {
        shard.check_fence().await;
        !shard.is_open()
    })
    .await;
    assert_eq!(shop.ledger.hear(&message(&epoch)), Heard::TooEarly);
}
