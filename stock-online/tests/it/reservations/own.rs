//! A buyer's own live reservation is taken by their order of the same units, also when the order
//! does not name it.

use serde_json::json;

use super::{levels, reserve};
use crate::checkouts::{confirm, opened};
use crate::sales::{HOUR, sale};
use crate::support::{Answer, Client, Shop, order_json};

const PATHS: [&str; 2] = ["/api/redis/orders", "/api/orders"];

async fn held(client: &Client, user: u64, quantity: u64) -> String {
    let made = reserve(client, user, quantity).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.member("reservationId").to_owned()
}

async fn status(client: &Client, id: &str) -> String {
    let path = format!("/api/reservations/{id}");
    let shown = client.get(&path).admin().send().await;
    shown.member("status").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_takes_its_buyers_own_reservation_of_exactly_its_units() {
    for shards in [1, 3] {
        let shop = Shop::open_in(shards, 2, 10).await;
        let service = shop.serve().await;
        let client = &service.client;
        for path in PATHS {
            let before = shop.available(1).await;
            let (own, others) = (held(client, 2, 2).await, held(client, 3, 1).await);
            // Other units than the reservation's are free stock's.
            let other = client.order(path, 2, &[(1, 1)]).send().await;
            assert_eq!(other.status, 201, "{path}: {}", other.text);
            assert_eq!(status(client, &own).await, "PENDING");
            let same = client.order(path, 2, &[(1, 2), (2, 1)]).send().await;
            assert_eq!(same.status, 201, "{path}: {}", same.text);
            assert_eq!(status(client, &own).await, "CONFIRMED", "{path}");
            assert_eq!(status(client, &others).await, "PENDING");
            // The second one finds no reservation any more.
            let again = client.order(path, 2, &[(1, 1)]).send().await;
            assert_eq!(again.status, 201, "{path}: {}", again.text);
            let cancel = format!("/api/reservations/{others}/cancel");
            let ended = client.post(&cancel).user(3).json(&json!({})).send().await;
            assert_eq!(ended.status, 200);
            shop.drained().await;
            assert_eq!(shop.available(1).await, before - 4, "{path}");
        }
        shop.verify().await;
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_reservation_never_blocks_its_buyers_order() {
    // Danger: the last units are held by the buyer who orders them, and the order is refused for
    // want of stock, by the sale's limit, or for a price that has changed since.
    let shop = Shop::open(1, 3).await;
    let service = shop.serve().await;
    let client = &service.client;
    let running = sale(
        &shop,
        client,
        -HOUR,
        HOUR,
        json!({ "price": 700, "limitPerUser": 3 }),
    );
    assert_eq!(running.await.status, 201);
    let id = held(client, 2, 3).await;
    assert_eq!(levels(client).await, (0, 3, 3));
    let at = |total: i64| {
        let mut body = order_json(&[(1, 3)]);
        body["totalAmount"] = json!(total);
        body
    };
    let place = async |user: u64, total: i64| -> Answer {
        let call = client.post("/api/redis/orders").user(user);
        call.json(&at(total)).send().await
    };
    assert_eq!(place(3, 2_100).await.code(), "INSUFFICIENT_STOCK");
    let dearer = json!({ "price": 5_000 });
    let changed = client
        .patch("/api/products/1")
        .admin()
        .json(&dearer)
        .send()
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let placed = place(2, 2_100).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    assert_eq!(status(client, &id).await, "CONFIRMED");
    assert_eq!(levels(client).await, (0, 0, 0));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_checkout_is_left_alone_by_its_buyers_order() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = opened(client, 2, &[(1, 2)]).await;
    for path in PATHS {
        let placed = client.order(path, 2, &[(1, 2)]).send().await;
        assert_eq!(placed.status, 201, "{path}: {}", placed.text);
    }
    assert_eq!(levels(client).await, (4, 2, 6));
    assert_eq!(confirm(client, &id, "p", 2_000).await.status, 200);
    assert_eq!(levels(client).await, (4, 0, 4));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
