//! A hold is a promise: its price, its sale and its limit stay as they were when it was made.

use std::time::Duration;

use serde_json::json;
use stock_common::id::{LocationId, Position, ProductId, SaleId, UserId};
use stock_domain::quantity::Quantity;
use stock_domain::reservation::{self, Reservation};
use stock_domain::verdict::Verdict;

use super::{end, levels, reserve};
use crate::sales::{HOUR, buy, delete_sale, sale};
use crate::support::{Answer, Client, Shop, order_json};

/// Orders the units of a reservation of user 2, at a unit price.
async fn take(client: &Client, path: &str, id: &str, quantity: i64, unit_price: i64) -> Answer {
    let mut body = order_json(&[(1, quantity)]);
    body["totalAmount"] = json!(quantity * unit_price);
    body["reservationId"] = json!(id);
    client.post(path).user(2).json(&body).send().await
}

async fn held(client: &Client, quantity: u64) -> String {
    let made = reserve(client, 2, quantity).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.member("reservationId").to_owned()
}

const PATHS: [&str; 2] = ["/api/redis/orders", "/api/orders"];

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_made_before_a_sale_is_sold_at_the_normal_price_and_not_counted() {
    // Danger: a buyer who holds units before a sale is announced gets its price, before it opens
    // and beyond its limit.
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let holds = [held(client, 5).await, held(client, 5).await];
    let more = json!({ "price": 100, "limitPerUser": 2 });
    let planned = sale(&shop, client, HOUR, 2 * HOUR, more).await;
    assert_eq!(planned.status, 201, "{}", planned.text);
    for (path, id) in PATHS.into_iter().zip(&holds) {
        let at_sale = take(client, path, id, 5, 100).await;
        assert_eq!(at_sale.code(), "TOTAL_AMOUNT_MISMATCH", "{path}");
        let placed = take(client, path, id, 5, 1_000).await;
        assert_eq!(placed.status, 201, "{path}: {}", placed.text);
        assert_eq!(placed.body["orderProductInfos"][0]["unitPrice"], 1_000);
        assert_eq!(placed.body["discountAmount"], 0);
    }
    // An order without a hold follows the sale.
    assert_eq!(buy(client, 2, 1, 100).await.code(), "SALE_NOT_OPEN");
    let path = format!("/api/products/1/sales/{}", planned.body["saleId"]);
    let now = json!({ "startsAt": "2026-01-01T00:00:00Z" });
    let opened = client.patch(&path).admin().json(&now).send().await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    assert_eq!(
        buy(client, 2, 2, 100).await.status,
        201,
        "nothing was counted"
    );
    assert_eq!(
        buy(client, 2, 1, 100).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_made_in_a_sale_keeps_its_price_when_the_sale_is_deleted_or_over() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    for way in ["deleted", "over"] {
        let more = json!({ "price": 600, "limitPerUser": 4 });
        let running = sale(&shop, client, -HOUR, HOUR, more).await;
        let holds = [held(client, 2).await, held(client, 2).await];
        let path = format!("/api/products/1/sales/{}", running.body["saleId"]);
        if way == "over" {
            let ended = json!({ "endsAt": "2026-01-02T00:00:00Z", "price": 1 });
            let wrong = client.patch(&path).admin().json(&ended).send().await;
            assert_eq!(wrong.status, 422, "it would end before it begins");
            let soon =
                stock_common::clock::rfc3339(i64::try_from(shop.ledger.redis_now_ms()).unwrap());
            let ended = json!({ "endsAt": soon, "price": 1 });
            let done = client.patch(&path).admin().json(&ended).send().await;
            assert_eq!(done.status, 200, "{}", done.text);
            assert_eq!(buy(client, 3, 1, 1).await.code(), "SALE_CLOSED");
        } else {
            delete_sale(client, &running).await;
            assert_eq!(buy(client, 3, 1, 1_000).await.status, 201);
        }
        for (order, id) in PATHS.into_iter().zip(&holds) {
            let now = take(client, order, id, 2, 1_000).await;
            assert_eq!(now.code(), "TOTAL_AMOUNT_MISMATCH", "{way} {order}");
            let mut claimed = order_json(&[(1, 2)]);
            claimed["orderProducts"][0]["unitPrice"] = json!(1_000);
            claimed["totalAmount"] = json!(2_000);
            claimed["reservationId"] = json!(id);
            let claimed = client.post(order).user(2).json(&claimed).send().await;
            assert_eq!(
                (claimed.code(), &claimed.body["expected"]),
                ("PRICE_CHANGED", &json!(600))
            );
            let placed = take(client, order, id, 2, 600).await;
            assert_eq!(placed.status, 201, "{way} {order}: {}", placed.text);
            assert_eq!(placed.body["discountAmount"], 800);
        }
        if way == "over" {
            delete_sale(client, &running).await;
        }
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_of_one_sale_counts_there_while_another_runs() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let first = sale(
        &shop,
        client,
        -HOUR,
        HOUR,
        json!({ "price": 600, "limitPerUser": 3 }),
    )
    .await;
    let id = held(client, 3).await;
    delete_sale(client, &first).await;
    let second = json!({ "price": 500, "limitPerUser": 2 });
    let second = sale(&shop, client, -HOUR, HOUR, second).await;
    assert_eq!(second.status, 201, "{}", second.text);
    let placed = take(client, "/api/redis/orders", &id, 3, 600).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    assert_eq!(
        buy(client, 2, 2, 500).await.status,
        201,
        "the second's whole"
    );
    assert_eq!(
        buy(client, 2, 1, 500).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    // Its cancel gives the units back to the first sale's limit, not to the second one's.
    let cancel = format!("/api/redis/orders/{}/cancel", placed.order_id());
    assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    assert_eq!(
        buy(client, 2, 1, 500).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    shop.drained().await;
    let taken: Vec<(u64, i64)> = sqlx::query_as(
        "SELECT owner_id, balance FROM accounts WHERE kind = 'ALLOWANCE' ORDER BY owner_id",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let (first, second) = (&first.body["saleId"], &second.body["saleId"]);
    assert_eq!(
        taken,
        [
            (first.as_u64().unwrap(), 1_000_000),
            (second.as_u64().unwrap(), 999_998)
        ]
    );
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_outlives_the_service_and_the_loss_of_redis() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let more = json!({ "price": 600, "limitPerUser": 4 });
    let running = sale(&shop, client, -HOUR, HOUR, more).await;
    let holds = [held(client, 2).await, held(client, 2).await];
    delete_sale(client, &running).await;
    shop.drained().await;
    service.stop().await;
    let service = shop.serve().await;
    let client = &service.client;
    let placed = take(client, "/api/orders", &holds[0], 2, 600).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    shop.drained().await;
    shop.rebuild().await;
    assert!(shop.ledger.wait_open(Duration::from_secs(10)).await);
    // The service learns of the new epoch by its next request, or within a second.
    crate::support::until("the service sells at the promised price again", || async {
        let placed = take(client, "/api/redis/orders", &holds[1], 2, 600).await;
        assert!([201, 503].contains(&placed.status), "{}", placed.text);
        placed.status == 201
    })
    .await;
    assert_eq!(levels(client).await, (96, 0, 96));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_of_before_is_priced_when_it_is_ordered() {
    // An entry of an earlier program, which kept no price with a hold.
    let old = r#"{"user_id":2,"product_id":1,"location_id":0,"quantity":2,"ttl_ms":60000,
        "allowance":[7,3],"hold_limit":0}"#;
    let read: Reservation = serde_json::from_str(old).unwrap();
    assert_eq!(read.frozen, None);
    assert_eq!(read.allowance.map(|of| of.sale_id), Some(SaleId(7)));
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let make = async || {
        let reservation = Reservation {
            user_id: UserId(2),
            product_id: ProductId(1),
            location_id: LocationId::ONLINE,
            quantity: Quantity::new(2).unwrap(),
            ttl_ms: 600_000,
            allowance: None,
            hold_limit: 0,
            frozen: None,
        };
        let request = reservation::reserve(&reservation, None, 0, None).unwrap();
        match shop.ledger.decide(request).await.unwrap() {
            Verdict::Accepted(accepted) => accepted.position,
            other => panic!("{other:?}"),
        }
    };
    let (first, second): (Position, Position) = (make().await, make().await);
    let shown = client.get(&format!("/api/reservations/{first}")).user(2);
    assert_eq!(shown.send().await.body["status"], "PENDING");
    sale(&shop, client, -HOUR, HOUR, json!({ "price": 600 })).await;
    let placed = take(client, "/api/redis/orders", &first.to_string(), 2, 600).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    shop.drained().await;
    let stored = sqlx::query_scalar::<_, Option<i64>>("SELECT unit_price FROM reservations");
    assert_eq!(stored.fetch_all(&shop.pool).await.unwrap(), [None, None]);
    assert_eq!(
        end(client, &second.to_string(), "confirm").await.status,
        200
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_keeps_its_price_when_the_product_changes_its_own() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let (early, late) = (held(client, 1).await, held(client, 1).await);
    for price in [400, 4_000] {
        let body = json!({ "price": price });
        let changed = client.patch("/api/products/1").admin().json(&body);
        assert_eq!(changed.status().await, 200);
        let id = if price == 400 { &early } else { &late };
        let placed = take(client, "/api/redis/orders", id, 1, 1_000).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        // The list price is the held one too, so the order shows no discount.
        assert_eq!(placed.body["discountAmount"], 0);
    }

    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
