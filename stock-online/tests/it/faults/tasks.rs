//! Tasks that panic: each is started again, orders go on, and a closed ledger leaves no task
//! behind.

use redis::cmd;
use stock_common::config::Durability;
use stock_common::supervise::break_task;
use stock_redis::info::Info;
use stock_servers::Spec;

use crate::support::{Load, Shop, folder, start, until};

/// How often a task of this name was started again in this process.
async fn restarts(service: &crate::support::Service, task: &str) -> u64 {
    let metrics = service.client.get("/metrics").send().await.text;
    let name = format!("stock_task_restarts_total{{task=\"{task}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_breaks_is_started_again_and_orders_go_on() {
    // Danger: a task that panics is gone for good, while the process looks well. Method: each task
    // of a service is made to panic under load, more than once.
    let shop = Shop::open_undivided(1, 1_000_000).await;
    let service = shop.serve().await;
    let load = Load::start(std::slice::from_ref(&service.client), 8);
    load.accept(50).await;
    let of_shard = shop.ledger.keys().epoch();
    let of_service = shop.config.redis.redis_prefix.as_str();
    for (task, of) in [
        ("batcher", &*of_shard),
        ("gate", &of_shard),
        ("ledger", of_service),
        ("pubsub", of_service),
        ("catalog", of_service),
        ("monitor", of_service),
        ("health", of_service),
        ("subscriber", of_service),
        ("limits", of_service),
        ("tokens", of_service),
        ("expire_reservations", of_service),
        ("apply_imports", of_service),
        ("webhooks", of_service),
        ("batcher", &of_shard),
        ("gate", &of_shard),
    ] {
        let before = restarts(&service, task).await;
        break_task(task, of);
        until("it is started again", || async {
            // The test and the service have a ledger each, and either may take the request to
            // break.
            break_task(task, of);
            restarts(&service, task).await > before + 1
        })
        .await;
        load.accept(20).await;
    }
    let history = load.stop().await;
    assert_eq!(service.client.get("/livez").send().await.status, 200);
    until("it is ready", || service.client.is_ready()).await;
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in &history.accepted {
        assert!(stored.contains(id), "{id} was accepted and is not stored");
    }
    assert!(stored.len() as u64 <= history.accepted.len() as u64 + history.unknown);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_closed_leaves_redis_alone() {
    let redis = Spec::redis(&folder("closed").join("redis"), Durability::Everysec).unwrap();
    let redis = start(&redis).await;
    let other = Shop::open(1, 1).await;
    let client = redis::Client::open(redis.spec.url("0")).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let clients = async || -> usize {
        let list: String = cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut connection.clone())
            .await
            .unwrap();
        list.lines().count()
    };
    // The shard stays fenced, since this Redis is empty: the ledger connects again and again.
    let mut config = other.config.clone();
    config.redis.redis_url = redis.spec.url("0");
    let closed = Shop::at(config);
    until("it tries", || async { clients().await > 1 }).await;
    let received = async || -> u64 {
        let stats = Info::read(&mut connection.clone(), &["stats"])
            .await
            .unwrap();
        stats.number("total_connections_received").unwrap()
    };
    drop(closed);
    until("its links are closed", || async { clients().await == 1 }).await;
    let before = received().await;
    // Three times the pause between two attempts.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(received().await, before);
}
