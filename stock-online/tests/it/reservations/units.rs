//! Units of one product that a user holds at once: a cap that parallel requests do not exceed.

use redis::cmd;
use serde_json::json;
use stock_common::id::Position;
use stock_redis::keys::SENTINEL;

use super::{end, reserve, reserve_for_ms};
use crate::sales::{HOUR, sale};
use crate::support::{Client, Shop, order_json, until};

async fn held(client: &Client, user: u64, quantity: u64) -> String {
    let made = reserve(client, user, quantity).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.member("reservationId").to_owned()
}

async fn refused(client: &Client, user: u64, quantity: u64, left: i64) {
    let answer = reserve(client, user, quantity).await;
    assert_eq!(
        (answer.status, answer.code(), &answer.body["remaining"]),
        (409, "HOLD_UNITS_REACHED", &json!(left)),
        "{}",
        answer.text
    );
}

/// The fields of `held_units` on every shard.
async fn counted(shop: &Shop) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for shard in shop.ledger.shards() {
        let mut link = shard.link().unwrap();
        let fields: Vec<(String, u64)> = cmd("HGETALL")
            .arg(shard.keys().held_units())
            .query_async(&mut link.read)
            .await
            .unwrap();
        found.extend(fields.into_iter().filter(|(field, _)| field != SENTINEL));
    }
    found.sort_unstable();
    found
}

async fn open(units: u32) -> Shop {
    let mut shop = Shop::open(2, 1_000).await;
    shop.config.selling.hold_units_per_user_max = units;
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_hold_makes_room_and_nothing_stays_behind() {
    let shop = open(10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for how in ["confirm", "cancel", "order", "expire"] {
        let first = match how {
            "expire" => reserve_for_ms(&shop, 8, 2_000).await,
            _ => held(client, 2, 8).await,
        };
        refused(client, 2, 3, 2).await;
        let rest = held(client, 2, 2).await;
        refused(client, 2, 1, 0).await;
        let stranger = held(client, 3, 10).await;
        let other = json!({ "productId": 2, "quantity": 10 });
        let other = client
            .post("/api/products/stock/reserve")
            .user(2)
            .json(&other);
        let other = other.send().await;
        assert_eq!(other.status, 201, "another product: {}", other.text);
        match how {
            "order" => {
                let mut body = order_json(&[(1, 8)]);
                body["reservationId"] = json!(first);
                let placed = client.post("/api/redis/orders").user(2).json(&body);
                assert_eq!(placed.status().await, 201);
            }
            "expire" => {
                until("it has expired", || async {
                    counted(&shop).await.contains(&("1:2".to_owned(), 2))
                })
                .await;
            }
            how => assert_eq!(end(client, &first, how).await.status, 200),
        }
        let again = held(client, 2, 8).await;
        refused(client, 2, 1, 0).await;
        for id in [&rest, &again, &other.member("reservationId").to_owned()] {
            assert_eq!(end(client, id, "cancel").await.status, 200);
        }
        let cancel = client.post(&format!("/api/reservations/{stranger}/cancel"));
        assert_eq!(cancel.user(3).json(&json!({})).status().await, 200);
        assert_eq!(counted(&shop).await, [], "{how}");
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_do_not_pass_the_cap() {
    // Danger: each of many parallel requests sees room for itself, also those of one script call.
    // Method: sixty at once on two instances; the end sum of the user tells.
    let mut shop = open(7).await;
    shop.config.selling.holds_per_user_max = 0;
    let (service, other) = (shop.serve().await, shop.serve().await);
    let running: Vec<_> = (0..60)
        .map(|n| {
            let client = if n % 2 == 0 {
                &service.client
            } else {
                &other.client
            };
            let client = client.clone();
            tokio::spawn(async move { reserve(&client, 2, 1 + n % 2).await })
        })
        .collect();
    let mut units = 0;
    for answer in running {
        let answer = answer.await.unwrap();
        if answer.status == 201 {
            units += answer.body["quantity"].as_u64().unwrap();
        } else {
            assert_eq!((answer.status, answer.code()), (409, "HOLD_UNITS_REACHED"));
        }
    }
    assert!(
        (6..=7).contains(&units),
        "{units}: a pair may not fit into the last unit"
    );
    assert_eq!(counted(&shop).await, [("1:2".to_owned(), units)]);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_with_a_limit_caps_by_that_and_zero_is_no_cap() {
    let shop = open(2).await;
    let service = shop.serve().await;
    let client = &service.client;
    let running = sale(&shop, client, -HOUR, HOUR, json!({ "limitPerUser": 5 })).await;
    let id = held(client, 2, 5).await;
    assert_eq!(reserve(client, 2, 1).await.code(), "PURCHASE_LIMIT_REACHED");
    crate::sales::delete_sale(client, &running).await;
    // Held units count, also those that were held in the sale.
    refused(client, 2, 1, 0).await;
    assert_eq!(end(client, &id, "cancel").await.status, 200);
    let unlimited = sale(&shop, client, -HOUR, HOUR, json!({ "price": 5 })).await;
    assert_eq!(unlimited.status, 201);
    refused(client, 2, 3, 2).await;
    service.stop().await;
    let mut free = shop.clone();
    free.config.selling.hold_units_per_user_max = 0;
    let service = free.serve().await;
    held(&service.client, 2, 900).await;
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_outlives_the_loss_of_redis_and_a_wrong_count_is_named_and_mended() {
    let shop = open(10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = held(client, 2, 8).await;
    shop.drained().await;
    shop.rebuild().await;
    assert!(shop.ledger.wait_open(crate::support::PATIENCE).await);
    until("the service is open again", || async {
        reserve(client, 2, 3).await.code() != "FENCED"
    })
    .await;
    refused(client, 2, 3, 2).await;
    shop.verify().await;

    let position = Position::new(id.parse().unwrap());
    let shard = shop.ledger.shard_of(position).unwrap();
    let key = shard.keys().held_units();
    for wrong in [Some(3), Some(9), None] {
        let mut link = shard.link().unwrap();
        let change = match wrong {
            Some(units) => cmd("HSET").arg(&key).arg("1:2").arg(units).to_owned(),
            None => cmd("DEL").arg(&key).to_owned(),
        };
        let _changed: i64 = change.query_async(&mut link.read).await.unwrap();
        let mut quiet = |_, _| {};
        let proving = stock_engine::verify::verify(&shop.pool, &shop.ledger, true, &mut quiet);
        let report = proving.await.unwrap();
        let named = format!("{:?}", report.differences);
        // The first reader that met the lost key may have rebuilt it.
        let is_healed = wrong.is_none() && report.ok;
        assert!(
            is_healed || !report.ok && named.contains("held_units"),
            "{wrong:?}: {named}"
        );
        let mended = stock_engine::reconcile::reconcile(&shop.pool, &shop.ledger, true).await;
        mended.unwrap();
        assert_eq!(counted(&shop).await, [("1:2".to_owned(), 8)], "{wrong:?}");
        shop.verify().await;
    }
    assert_eq!(end(client, &id, "cancel").await.status, 200);
    assert_eq!(counted(&shop).await, []);
    service.stop().await;
}
