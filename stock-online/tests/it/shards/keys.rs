//! An Idempotency-Key is one key, whichever shard decides.

use serde_json::Value;
use stock_client::{Answer, Client};
use stock_engine::rehome::rehome;

use super::one_on_each;
use crate::support::{Shop, until};

async fn send(client: &Client, key: &str, product: u64, quantity: i64) -> Answer {
    let call = client.order("/api/redis/orders", 2, &[(product, quantity)]);
    call.header("idempotency-key", key).send().await
}

fn shown(answer: &Answer) -> (u16, Value) {
    let mut body = answer.body.clone();
    body.as_object_mut().unwrap().remove("requestId");
    (answer.status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_decided_once_on_whichever_shard() {
    let mut shop = Shop::open_in(3, 24, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    for product in &each {
        let key = format!("first-{product}");
        let first = send(client, &key, *product, 1).await;
        assert_eq!(first.status, 201, "{}", first.text);
        assert_eq!(shown(&send(client, &key, *product, 1).await), shown(&first));
        for other in &each {
            if other != product {
                let reused = send(client, &key, *other, 1).await;
                assert_eq!(
                    (reused.status, reused.code()),
                    (422, "IDEMPOTENCY_KEY_REUSED")
                );
            }
        }
        // A refusal is remembered as well.
        let key = format!("short-{product}");
        let short = send(client, &key, *product, 1_000).await;
        assert_eq!(short.code(), "INSUFFICIENT_STOCK");
        assert_eq!(
            shown(&send(client, &key, *product, 1_000).await),
            shown(&short)
        );
    }
    let many: Vec<_> = (0..30)
        .map(|number: usize| {
            let (client, product) = (client.clone(), each[number % each.len()]);
            tokio::spawn(async move { (product, send(&client, "many", product, 1).await) })
        })
        .collect();
    let mut ids = Vec::new();
    for one in many {
        let (_, answer) = one.await.unwrap();
        match answer.status {
            201 => ids.push(answer.order_id()),
            _ => assert_eq!(answer.code(), "IDEMPOTENCY_KEY_REUSED", "{}", answer.text),
        }
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1, "one of them was first");
    let all = each.len() as u64;
    let several: Vec<(u64, i64)> = each.iter().map(|product| (*product, 1)).collect();
    let twice: Vec<_> = (0..10)
        .map(|_| {
            let (client, several) = (client.clone(), several.clone());
            tokio::spawn(async move {
                let call = client.order("/api/redis/orders", 3, &several);
                call.header("idempotency-key", "several").send().await
            })
        })
        .collect();
    let mut ids = Vec::new();
    for one in twice {
        let answer = one.await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text);
        ids.push(answer.order_id());
    }
    ids.dedup();
    assert_eq!((ids.len(), all), (1, 3), "ten attempts are one order");

    // A key also counts when its product and its user have moved to other shards meanwhile.
    let before: Vec<Answer> = {
        let mut before = Vec::new();
        for product in 1..=24 {
            before.push(send(client, &format!("moved-{product}"), product, 1).await);
        }
        before
    };
    shop.config.redis.shards = 5;
    let mut quiet = |_, _| {};
    rehome(&shop.config, &shop.config, &shop.pool, 5, &mut quiet)
        .await
        .unwrap();
    until("every shard decides again", || async {
        let lines: Vec<(u64, i64)> = (1..=24).map(|product| (product, 1)).collect();
        client
            .order("/api/redis/orders", 3, &lines)
            .send()
            .await
            .status
            == 201
    })
    .await;
    for (product, first) in (1..=24).zip(&before) {
        let again = send(client, &format!("moved-{product}"), product, 1).await;
        assert_eq!(shown(&again), shown(first), "product {product}");
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
