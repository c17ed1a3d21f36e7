//! The emergency stop over several shards, one of which cannot be reached.

use rustix::process::Signal;
use serde_json::{Value, json};
use stock_client::{Answer, Client};
use stock_servers::cluster::Shape;

use super::{one_on_each, order};
use crate::support::{OwnCluster, until};

async fn switch(client: &Client, open: bool) -> Answer {
    let put = client.call("PUT", "/api/ops/selling").admin();
    put.json(&json!({ "open": open })).send().await
}

/// The shards that have not followed the switch.
fn stayed_behind(answer: &Answer, asked: bool) -> Vec<u64> {
    assert_eq!(answer.body["open"], asked);
    let shards = answer.body["shards"].as_array().unwrap();
    let behind = shards.iter().filter(|shard| shard["open"] != asked);
    behind
        .map(|shard| shard["shard"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_reaches_every_instance_though_a_shard_is_away() {
    // Danger: the stop gives up at the first shard that is fenced, and the others go on selling; or
    // the shard that missed the stop sells when it is back. Method: a master of a cluster without
    // replicas is dead meanwhile.
    let shape = Shape {
        replicas: 0,
        ..Shape::default()
    };
    let mut own = OwnCluster::start(shape).await;
    let shop = own.shop(3, 24, 100).await;
    let (one, two) = (shop.serve().await, shop.serve().await);
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let clients = [&one.client, &two.client];
    for product in &each {
        assert_eq!(order(&one.client, 2, &[(*product, 1)]).await.status, 201);
    }
    let keyed = async |key: &str| {
        let call = two.client.order("/api/redis/orders", 2, &[(each[1], 1)]);
        call.header("idempotency-key", key).send().await
    };
    let kept = keyed("before").await;
    assert_eq!(kept.status, 201);
    let away = own
        .cluster
        .master_of(&shop.ledger.shard(0).unwrap().keys().epoch())
        .await
        .unwrap();
    own.cluster.nodes[away].kill().await;
    until("the shard is away", || async {
        order(&one.client, 2, &[(each[0], 1)]).await.code() == "FENCED"
    })
    .await;

    let stopped = switch(&one.client, false).await;
    assert_eq!(stopped.status, 503, "{}", stopped.text);
    assert!(stopped.headers.contains_key("retry-after"));
    assert_eq!(stayed_behind(&stopped, false), [0]);
    assert_eq!(
        stopped.body["code"],
        Value::Null,
        "no problem, but what became of it"
    );
    // One instance stops at once, the other one as soon as it hears of the stop; both also for the
    // shard that nobody can reach.
    for client in clients {
        for product in &each {
            until("it is refused", || async {
                order(client, 2, &[(*product, 1)]).await.code() == "SELLING_STOPPED"
            })
            .await;
        }
    }
    assert_eq!(
        order(&one.client, 2, &[(each[0], 1)]).await.code(),
        "SELLING_STOPPED"
    );
    // An order that was accepted before gets its answer again where the script itself refuses new
    // ones.
    until("the key is remembered", || async {
        keyed("before").await.body == kept.body
    })
    .await;
    assert_eq!(keyed("meanwhile").await.code(), "SELLING_STOPPED");

    // The shard comes back without having heard of the stop, and so does a new instance.
    own.cluster.nodes[away].restart().await.unwrap();
    let three = shop.serve().await;
    until("the shard is there again", || async {
        shop.ledger.fenced().is_empty()
    })
    .await;
    for client in [&one.client, &two.client, &three.client] {
        let refused = order(client, 2, &[(each[0], 1)]).await;
        assert_eq!((refused.status, refused.code()), (503, "SELLING_STOPPED"));
    }
    // Each instance opens its fence by itself.
    until("the stop reaches every shard", || async {
        let again = switch(&two.client, false).await;
        again.status == 200 && stayed_behind(&again, false).is_empty()
    })
    .await;
    until("the third is open as well", || async {
        three.client.get("/readyz").send().await.status == 200
    })
    .await;

    // Any instance can lift the stop everywhere.
    let open = switch(&three.client, true).await;
    assert_eq!((open.status, stayed_behind(&open, true)), (200, vec![]));
    for client in [&one.client, &two.client, &three.client] {
        for product in &each {
            until("it sells again", || async {
                order(client, 2, &[(*product, 1)]).await.status == 201
            })
            .await;
        }
    }
    shop.drained().await;
    shop.verify().await;
    for service in [one, two, three] {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_holds_without_mysql_and_without_redis() {
    // Danger: the server that spreads the stop is away. Method: without MySQL the channel spreads
    // it; without Redis MySQL does.
    let mut own =
        crate::support::OwnServers::start(stock_common::config::Durability::Everysec).await;
    let shop = crate::support::Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 100).await;
    let (one, two) = (shop.serve().await, shop.serve().await);
    for client in [&one.client, &two.client] {
        assert_eq!(order(client, 2, &[(1, 1)]).await.status, 201);
    }
    own.mysql.signal(Signal::STOP);
    assert_eq!(switch(&one.client, false).await.status, 200);
    assert_eq!(
        order(&two.client, 2, &[(1, 1)]).await.code(),
        "SELLING_STOPPED"
    );
    assert_eq!(switch(&two.client, true).await.status, 200);
    for client in [&one.client, &two.client] {
        until("it sells again", || async {
            order(client, 2, &[(1, 1)]).await.status == 201
        })
        .await;
    }
    own.mysql.signal(Signal::CONT);
    shop.drained().await;

    own.redis.kill().await;
    until("it is fenced", || async {
        order(&one.client, 2, &[(1, 1)]).await.code() == "FENCED"
    })
    .await;
    let stopped = switch(&one.client, false).await;
    assert_eq!(
        (stopped.status, &stopped.body["open"]),
        (503, &json!(false))
    );
    until("the other has heard it", || async {
        order(&two.client, 2, &[(1, 1)]).await.code() == "SELLING_STOPPED"
    })
    .await;
    own.redis.restart().await.unwrap();
    until("redis is there again", || async {
        shop.ledger.fenced().is_empty()
    })
    .await;
    for client in [&one.client, &two.client] {
        assert_eq!(order(client, 2, &[(1, 1)]).await.code(), "SELLING_STOPPED");
    }
    until("it can be lifted", || async {
        switch(&two.client, true).await.status == 200
    })
    .await;
    for client in [&one.client, &two.client] {
        until("it sells again", || async {
            order(client, 2, &[(1, 1)]).await.status == 201
        })
        .await;
    }
    shop.drained().await;
    shop.verify().await;
    one.stop().await;
    two.stop().await;
}
