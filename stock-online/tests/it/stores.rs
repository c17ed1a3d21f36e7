//! Stores: their stock, the sales of their tills, and sales made while a till was cut off.

mod counters;
mod invalid_sales;

use serde_json::{Value, json};
use stock_common::clock::rfc3339;
use stock_common::id::{LocationId, UserId};
use stock_domain::user::Role;
use stock_online::tokens::{Caller, Tokens};

use crate::support::{Answer, Call, Client, SECRET, Shop, order_json};

/// A token of somebody who runs a store's till.
fn till(shop: &Shop, store: u64) -> String {
    let caller = Caller {
        user: UserId(3),
        role: Role::Store,
        store_id: Some(store),
    };
    let tokens = Tokens::new(SECRET, "", None, shop.clock.clone()).unwrap();
    tokens.issue(caller, None, 3_600).unwrap()
}

async fn stock(client: &Client, store: u64, product: u64, quantity: i64) {
    let body = json!({ "productId": product, "locationId": store, "quantity": quantity, "reason": "shelf" });
    let call = client.post("/api/products/stock/inbound").admin();
    let answer = call.json(&body).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

async fn available(client: &Client, store: u64, product: u64) -> i64 {
    let path = format!("/api/stores/{store}/products/{product}/stock");
    client.get(&path).send().await.body["available"]
        .as_i64()
        .unwrap()
}

fn sale(lines: &[(u64, i64)]) -> Value {
    let order = order_json(lines);
    json!({ "orderProducts": order["orderProducts"], "totalAmount": order["totalAmount"] })
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_are_made_listed_and_know_what_they_and_the_nearest_have() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let body = json!({ "name": "Suwon", "latitude": 37.2636, "longitude": 127.0286 });
    let made = client.post("/api/stores").admin().json(&body).send().await;
    assert_eq!(
        (made.status, &made.body["storeId"]),
        (201, &json!(4)),
        "{}",
        made.text
    );
    assert_eq!(made.body["sharesOnlineStock"], true);
    let mut taken = made.body.clone();
    taken["name"] = json!("Suwon 2");
    let again = client.post("/api/stores").admin().json(&taken).send().await;
    assert_eq!((again.status, again.code()), (409, "STORE_EXISTS"));
    let put = client
        .call("PUT", "/api/stores/4")
        .admin()
        .json(&taken)
        .send()
        .await;
    assert_eq!((put.status, &put.body["name"]), (200, &json!("Suwon 2")));
    let listed = client.get("/api/stores?limit=2&cursor=2").send().await;
    assert_eq!(listed.body["items"][1], put.body);
    for (change, value) in [
        ("latitude", json!(90.5)),
        ("longitude", json!(-181)),
        ("name", json!("")),
        ("latitude", json!(null)),
    ] {
        let mut bad = body.clone();
        bad[change] = value;
        assert_eq!(
            client
                .post("/api/stores")
                .admin()
                .json(&bad)
                .send()
                .await
                .code(),
            "UNPROCESSABLE",
            "{bad}"
        );
    }
    assert_eq!(
        client
            .call("PUT", "/api/stores/99")
            .admin()
            .json(&body)
            .send()
            .await
            .code(),
        "STORE_NOT_FOUND"
    );

    stock(client, 2, 1, 5).await;
    stock(client, 3, 1, 9).await;
    assert_eq!(
        (available(client, 2, 1).await, available(client, 1, 1).await),
        (5, 0)
    );
    let products = client.get("/api/stores/2/products").send().await;
    assert_eq!(
        products.body["items"].as_array().unwrap().len(),
        1,
        "{}",
        products.text
    );
    assert_eq!(products.body["items"][0]["name"], "product 1");
    // From Gangnam: Hongdae, Suwon, Busan.
    let nearby = client
        .get("/api/stores/1/products/1/stock/nearby")
        .send()
        .await;
    let items = nearby.body["items"].as_array().unwrap();
    let ids: Vec<u64> = items
        .iter()
        .map(|item| item["storeId"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [2, 4, 3], "{}", nearby.text);
    assert_eq!(
        (&items[0]["available"], &items[2]["available"]),
        (&json!(5), &json!(9))
    );
    let km = items[2]["distanceKm"].as_f64().unwrap();
    assert!((315.0..325.0).contains(&km), "{km}");
    let nearest = client
        .get("/api/stores/1/products/1/stock/nearby?limit=1")
        .send()
        .await;
    assert_eq!(nearest.body["items"].as_array().unwrap().len(), 1);
    for (path, code) in [
        ("/api/stores/99/products", "STORE_NOT_FOUND"),
        ("/api/stores/99/products/1/stock", "STORE_NOT_FOUND"),
        ("/api/stores/1/products/99/stock", "PRODUCT_NOT_FOUND"),
        ("/api/stores/x/products/1/stock/nearby", "STORE_NOT_FOUND"),
    ] {
        assert_eq!(client.get(path).send().await.code(), code, "{path}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pickup_takes_the_stores_stock_and_a_reservation_may_hold_it() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 1, 1, 3).await;
    let mut pickup = order_json(&[(1, 2)]);
    pickup["deliveryType"] = json!("TODAY_DELIVERY");
    pickup["storeId"] = json!(1);
    let placed = client
        .post("/api/redis/orders")
        .user(2)
        .json(&pickup)
        .send()
        .await;
    assert_eq!((placed.status, &placed.body["storeId"]), (201, &json!(1)));
    assert_eq!(
        (available(client, 1, 1).await, shop.available(1).await),
        (1, 10)
    );
    let hold = json!({ "productId": 1, "quantity": 1, "locationId": 1 });
    let held = client
        .post("/api/products/stock/reserve")
        .user(2)
        .json(&hold)
        .send()
        .await;
    assert_eq!(held.status, 201, "{}", held.text);
    assert_eq!(available(client, 1, 1).await, 0);
    pickup["orderProducts"][0]["quantity"] = json!(1);
    pickup["totalAmount"] = json!(1_000);
    let short = client
        .post("/api/redis/orders")
        .user(3)
        .json(&pickup)
        .send()
        .await;
    assert_eq!(short.code(), "INSUFFICIENT_STOCK");
    pickup["reservationId"] = held.body["reservationId"].clone();
    let placed = client
        .post("/api/redis/orders")
        .user(2)
        .json(&pickup)
        .send()
        .await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let cancel = format!("/api/redis/orders/{}/cancel", placed.order_id());
    client.patch(&cancel).user(2).send().await;
    assert_eq!(available(client, 1, 1).await, 1);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_sells_its_stores_stock_and_where_it_is_shared_the_online_stock_too() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 1, 1, 20).await;
    stock(client, 3, 1, 20).await;
    let sell = async |store: u64, token: &str, lines: &[(u64, i64)]| {
        let path = format!("/api/stores/{store}/orders");
        client
            .post(&path)
            .bearer(token)
            .json(&sale(lines))
            .send()
            .await
    };
    let (own, shared) = (till(&shop, 1), till(&shop, 3));
    let sold = sell(1, &own, &[(1, 4)]).await;
    assert_eq!(
        (sold.status, &sold.body["orderStatus"]),
        (201, &json!("SUCCESS")),
        "{}",
        sold.text
    );
    assert_eq!(
        (available(client, 1, 1).await, shop.available(1).await),
        (16, 10)
    );
    assert_eq!(sell(3, &own, &[(1, 1)]).await.code(), "FORBIDDEN");
    // Store 3 shares the online stock: a sale takes from both accounts, all or nothing.
    let sold = sell(3, &shared, &[(1, 6)]).await;
    assert_eq!(sold.status, 201, "{}", sold.text);
    assert_eq!(
        (available(client, 3, 1).await, shop.available(1).await),
        (14, 4)
    );
    let short = sell(3, &shared, &[(1, 5)]).await;
    assert_eq!(
        (short.status, short.code(), &short.body["available"]),
        (409, "INSUFFICIENT_STOCK", &json!(4))
    );
    assert_eq!(
        (available(client, 3, 1).await, shop.available(1).await),
        (14, 4)
    );

    let cancel = format!("/api/stores/3/orders/{}/cancel", sold.order_id());
    let elsewhere = cancel.replace("/stores/3/", "/stores/1/");
    assert_eq!(
        client.patch(&elsewhere).bearer(&own).send().await.code(),
        "ORDER_NOT_FOUND"
    );
    let back = client.patch(&cancel).bearer(&shared).send().await;
    assert_eq!(
        (back.status, &back.body["orderStatus"]),
        (200, &json!("CANCEL")),
        "{}",
        back.text
    );
    assert_eq!(
        (available(client, 3, 1).await, shop.available(1).await),
        (20, 10)
    );
    assert_eq!(
        client.patch(&cancel).bearer(&shared).send().await.code(),
        "INVALID_ORDER_STATUS"
    );
    let malformed = client
        .patch("/api/stores/1/orders/x/cancel")
        .bearer(&own)
        .send()
        .await;
    assert_eq!(
        (malformed.status, malformed.code()),
        (404, "ORDER_NOT_FOUND")
    );
    let online = client
        .order("/api/redis/orders", 3, &[(1, 1)])
        .send()
        .await
        .order_id();
    let foreign = format!("/api/stores/1/orders/{online}/cancel");
    assert_eq!(
        client.patch(&foreign).bearer(&own).send().await.code(),
        "ORDER_NOT_FOUND"
    );
    let wrong = json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }], "totalAmount": 1 });
    assert_eq!(
        client
            .post("/api/stores/1/orders")
            .bearer(&own)
            .json(&wrong)
            .send()
            .await
            .code(),
        "TOTAL_AMOUNT_MISMATCH"
    );
    assert_eq!(
        client
            .post("/api/stores/99/orders")
            .admin()
            .json(&wrong)
            .send()
            .await
            .code(),
        "STORE_NOT_FOUND"
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_gets_its_first_stock_of_a_stopped_product_does_not_sell_it() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let stop = json!({ "status": "INACTIVE" });
    client
        .patch("/api/products/1")
        .admin()
        .json(&stop)
        .send()
        .await;
    stock(client, 1, 1, 5).await;
    let account =
        stock_domain::account::Account::available(stock_common::id::ProductId(1), LocationId(1));
    let closed = async || shop.ledger.levels(&[account]).await.unwrap()[&account].closed;
    assert!(closed().await);
    let start = json!({ "status": "ACTIVE" });
    client
        .patch("/api/products/1")
        .admin()
        .json(&start)
        .send()
        .await;
    assert!(!closed().await);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

fn offline(shop: &Shop, key: &str, minutes_ago: i64, lines: &Value) -> Value {
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    json!({ "key": key, "soldAt": rfc3339(now - minutes_ago * 60_000), "orderProducts": lines })
}

async fn send(call: Call<'_>, sales: &[Value]) -> Answer {
    call.json(&json!({ "sales": sales })).send().await
}

fn statuses(answer: &Answer) -> Vec<&str> {
    let results = answer.body["results"].as_array().unwrap();
    results
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_off_till_sold_is_taken_once_in_the_order_of_its_times() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 1, 1, 5).await;
    let token = till(&shop, 1);
    let path = "/api/stores/1/orders/batch";
    let line = |quantity: i64| json!([{ "productId": 1, "quantity": quantity, "unitPrice": 900 }]);
    // The later sale comes first in the batch: there is stock for the earlier ones only.
    let batch = [
        offline(&shop, "c", 1, &line(3)),
        offline(&shop, "a", 30, &line(3)),
        offline(&shop, "b", 20, &line(2)),
        offline(&shop, "d", 10, &json!([{ "productId": 99, "quantity": 1 }])),
        offline(&shop, "e", -60, &line(1)),
        json!({ "key": "f" }),
        json!(7),
        offline(&shop, "k\u{e9}y", 1, &line(1)),
        offline(&shop, "a ", 1, &line(1)),
        offline(
            &shop,
            "two prices",
            1,
            &json!([
                { "productId": 2, "quantity": 1, "unitPrice": 900 },
                { "productId": 2, "quantity": 1, "unitPrice": 800 },
            ]),
        ),
    ];
    let answer = send(client.post(path).bearer(&token), &batch).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let expected = [
        "OVERSOLD", "ACCEPTED", "ACCEPTED", "INVALID", "INVALID", "INVALID", "INVALID", "INVALID",
        "INVALID", "INVALID",
    ];
    assert_eq!(statuses(&answer), expected, "{}", answer.text);
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results[0]["problem"]["code"], "INSUFFICIENT_STOCK");
    assert_eq!(results[0]["problem"]["available"], 0);
    assert_eq!(results[3]["problem"]["code"], "PRODUCT_NOT_FOUND");
    assert_eq!(available(client, 1, 1).await, 0);
    let order = results[1]["orderId"].as_str().unwrap();
    let shown = client
        .get(&format!("/api/orders/{order}"))
        .admin()
        .send()
        .await;
    assert_eq!(
        (&shown.body["totalAmount"], &shown.body["storeId"]),
        (&json!(2_700), &json!(1))
    );

    // The batch is sent again by another person, at once and after MySQL has it: the answers are
    // the same, and no stock moves.
    for round in 0..2 {
        let again = send(client.post(path).admin(), &batch[..3]).await;
        assert_eq!(
            statuses(&again),
            ["OVERSOLD", "REPLAYED", "REPLAYED"],
            "round {round}: {}",
            again.text
        );
        assert_eq!(again.body["results"][1]["orderId"], order);
        shop.drained().await;
    }
    let other = [offline(&shop, "a", 30, &line(1))];
    let other = send(client.post(path).bearer(&token), &other).await;
    assert_eq!(
        (
            statuses(&other),
            &other.body["results"][0]["problem"]["code"]
        ),
        (vec!["INVALID"], &json!("IDEMPOTENCY_KEY_REUSED"))
    );
    // Another store's till has keys of its own.
    stock(client, 2, 1, 5).await;
    let elsewhere = send(
        client
            .post("/api/stores/2/orders/batch")
            .bearer(&till(&shop, 2)),
        &batch[1..2],
    )
    .await;
    assert_eq!(statuses(&elsewhere), ["ACCEPTED"]);

    let listed = client
        .get("/api/stores/1/oversold")
        .bearer(&token)
        .send()
        .await;
    let items = listed.body["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["key"], &items[0]["totalAmount"]),
        (1, &json!("c"), &json!(2_700)),
        "{}",
        listed.text
    );
    let resolve = format!(
        "/api/stores/1/oversold/{}/resolve",
        items[0]["saleId"].as_str().unwrap()
    );
    let note = json!({ "note": "refunded" });
    assert_eq!(
        client
            .post(&resolve)
            .bearer(&token)
            .json(&note)
            .status()
            .await,
        200
    );
    assert_eq!(
        client
            .post(&resolve)
            .bearer(&token)
            .json(&note)
            .status()
            .await,
        404
    );
    assert_eq!(
        client
            .get("/api/stores/1/oversold")
            .bearer(&token)
            .send()
            .await
            .body["items"],
        json!([])
    );
    let done = client
        .get("/api/stores/1/oversold?resolved=true")
        .bearer(&token)
        .send()
        .await;
    assert_eq!(done.body["items"][0]["note"], "refunded");
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_many_times_at_once_is_taken_once() {
    // Danger: a till repeats a batch before it has the answer. Method: the same thousand sales from
    // ten clients at once, in a store that shares its stock; the end sums tell.
    let shop = Shop::open(1, 700).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 3, 1, 900).await;
    let line = json!([{ "productId": 1, "quantity": 1 }]);
    let batch: Vec<Value> = (0..1_000)
        .map(|n| offline(&shop, &format!("sale {n}"), 1_000 - n, &line))
        .collect();
    let running: Vec<_> = (0..10)
        .map(|_| {
            let (client, batch) = (client.clone(), batch.clone());
            tokio::spawn(async move {
                send(client.post("/api/stores/3/orders/batch").admin(), &batch).await
            })
        })
        .collect();
    let mut accepted = std::collections::HashSet::new();
    let mut oversold = std::collections::HashSet::new();
    for answer in running {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        for result in answer.body["results"].as_array().unwrap() {
            let key = result["key"].as_str().unwrap().to_owned();
            match result["status"].as_str().unwrap() {
                "ACCEPTED" => assert!(accepted.insert(key), "accepted twice"),
                "OVERSOLD" => {
                    oversold.insert(key);
                }
                "REPLAYED" => {}
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!((accepted.len(), oversold.len()), (700, 300));
    assert_eq!(
        (shop.available(1).await, available(client, 3, 1).await),
        (0, 200)
    );
    let too_many: Vec<Value> = (0..1_001)
        .map(|n| offline(&shop, &format!("{n}"), 1, &line))
        .collect();
    assert_eq!(
        send(client.post("/api/stores/3/orders/batch").admin(), &too_many)
            .await
            .code(),
        "UNPROCESSABLE"
    );
    assert_eq!(
        send(client.post("/api/stores/3/orders/batch").admin(), &[])
            .await
            .code(),
        "UNPROCESSABLE"
    );
    shop.drained().await;
    assert_eq!(
        shop.count("SELECT COUNT(*) FROM orders WHERE path = 'till'")
            .await,
        700
    );
    shop.verify().await;
    service.stop().await;
}
