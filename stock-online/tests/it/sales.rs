//! Flash sales and discounts: windows by Redis' clock, prices, limits per buyer.

mod availability;
mod change;

use serde_json::{Value, json};
use stock_common::clock::rfc3339;
use stock_domain::order::{self, Terms};
use stock_domain::verdict::{Refusal, Verdict};

use crate::ledger::verdicts;
use crate::support::{Answer, Client, Shop, order_json};

/// Makes a sale of product 1 that starts and ends so many ms from now.
pub(crate) async fn sale(
    shop: &Shop,
    client: &Client,
    from: i64,
    until: i64,
    more: Value,
) -> Answer {
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    let mut body = json!({ "startsAt": rfc3339(now + from), "endsAt": rfc3339(now + until) });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let call = client.post("/api/products/1/sales").admin();
    call.json(&body).send().await
}

/// Deletes a sale of product 1.
pub(crate) async fn delete_sale(client: &Client, sale: &Answer) {
    let path = format!("/api/products/1/sales/{}", sale.body["saleId"]);
    assert_eq!(client.call("DELETE", &path).admin().status().await, 204);
}

pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) async fn buy(client: &Client, user: u64, quantity: i64, unit_price: i64) -> Answer {
    let mut body = order_json(&[(1, quantity)]);
    body["totalAmount"] = json!(quantity * unit_price);
    client
        .post("/api/redis/orders")
        .user(user)
        .json(&body)
        .send()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_governs_its_product_until_it_is_deleted() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let soon = sale(&shop, client, HOUR, 2 * HOUR, json!({ "price": 700 })).await;
    assert_eq!(
        (soon.status, &soon.body["state"]),
        (201, &json!("UPCOMING")),
        "{}",
        soon.text
    );
    assert_eq!(buy(client, 2, 1, 700).await.code(), "SALE_NOT_OPEN");
    let body = json!({ "productId": 1, "quantity": 1 });
    let reserve = client
        .post("/api/products/stock/reserve")
        .user(2)
        .json(&body)
        .send()
        .await;
    assert_eq!(reserve.code(), "SALE_NOT_OPEN");
    let second = sale(&shop, client, -HOUR, HOUR, json!({})).await;
    assert_eq!(
        (second.status, second.code(), &second.body["saleId"]),
        (409, "SALE_EXISTS", &soon.body["saleId"])
    );
    delete_sale(client, &soon).await;

    let over = sale(&shop, client, -2 * HOUR, -HOUR, json!({})).await;
    assert_eq!(over.body["state"], "OVER");
    assert_eq!(buy(client, 2, 1, 1_000).await.code(), "SALE_CLOSED");

    let running = sale(&shop, client, -HOUR, HOUR, json!({ "price": 600 })).await;
    let shown = client.get("/api/products/1").send().await;
    assert_eq!(shown.body["sale"], running.body);
    assert_eq!(
        (&shown.body["unitPrice"], &shown.body["finalPrice"]),
        (&json!(600), &json!(600))
    );
    assert_eq!(shown.body["discountAmount"], 400);
    assert_eq!(
        buy(client, 2, 1, 1_000).await.code(),
        "TOTAL_AMOUNT_MISMATCH"
    );
    let placed = buy(client, 2, 2, 600).await;
    assert_eq!(
        (placed.status, &placed.body["discountAmount"]),
        (201, &json!(800))
    );

    let id = running.body["saleId"].as_u64().unwrap();
    let path = format!("/api/products/1/sales/{id}");
    assert_eq!(client.call("DELETE", &path).admin().status().await, 204);
    let again = client.call("DELETE", &path).admin().send().await;
    assert_eq!((again.status, again.code()), (404, "SALE_NOT_FOUND"));
    assert_eq!(
        client.get("/api/products/1").send().await.body["sale"],
        Value::Null
    );
    assert_eq!(buy(client, 2, 1, 1_000).await.status, 201);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_opens_and_closes_by_redis_clock_alone() {
    // Danger: an instance whose clock is ahead opens early. Method: its clock is five hours ahead.
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let opens = shop.ledger.redis_now_ms() + 1_500;
    sale(&shop, client, 1_500, HOUR, json!({})).await;
    assert_eq!(buy(client, 2, 1, 1_000).await.code(), "SALE_NOT_OPEN");
    shop.clock.shift(5 * HOUR);
    let terms = Terms {
        window_ms: Some((opens, 0)),
        ..Terms::default()
    };
    let request = order::place(&verdicts::order(1, 1), terms, None).unwrap();
    let verdict = shop.ledger.decide(request).await.unwrap();
    assert_eq!(verdict, Verdict::Refused(Refusal::NotOpen));
    shop.clock.shift(0);
    crate::support::until("it opens", || async {
        buy(client, 2, 1, 1_000).await.status == 201
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_buyer_gets_only_as_much_as_a_sale_allows_however_they_ask() {
    // Danger: parallel requests of one buyer, on both paths and as reservations, each see room.
    // Method: sixty at once, a limit of five; the end sum of one buyer tells.
    let shop = Shop::open(2, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    sale(&shop, client, -HOUR, HOUR, json!({ "limitPerUser": 5 })).await;
    let running: Vec<_> = (0..60)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                match n % 3 {
                    0 => {
                        client
                            .order("/api/redis/orders", 2, &[(2, 1), (1, 2)])
                            .send()
                            .await
                    }
                    1 => client.order("/api/orders", 2, &[(1, 1)]).send().await,
                    // No order is of three units, so none takes the reservation.
                    _ => crate::reservations::reserve(&client, 2, 3).await,
                }
            })
        })
        .collect();
    let (mut had, mut orders, mut holds) = (0, Vec::new(), Vec::new());
    for answer in running {
        let answer = answer.await.unwrap();
        if answer.status != 201 {
            assert_eq!(
                (answer.status, answer.code()),
                (409, "PURCHASE_LIMIT_REACHED"),
                "{}",
                answer.text
            );
            continue;
        }
        match answer.order_id().as_str() {
            "" => {
                had += 3;
                holds.push(answer.member("reservationId").to_owned());
            }
            id => {
                let infos = answer.body["orderProductInfos"].as_array().unwrap();
                had += infos.iter().find(|line| line["productId"] == 1).unwrap()["quantity"]
                    .as_i64()
                    .unwrap();
                orders.push(id.to_owned());
            }
        }
    }
    assert!(
        (4..=5).contains(&had),
        "{had}: a pair may not fit into the last unit"
    );
    assert_eq!(
        buy(client, 2, 6, 1_000).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    assert_eq!(
        buy(client, 3, 5, 1_000).await.status,
        201,
        "another buyer has a limit of their own"
    );
    // Units that are given back may be bought again, once.
    for id in &orders {
        let cancel = format!("/api/redis/orders/{id}/cancel");
        assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    }
    for id in &holds {
        assert_eq!(
            crate::reservations::end(client, id, "cancel").await.status,
            200
        );
    }
    let placed = buy(client, 2, 5, 1_000).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let refused = buy(client, 2, 1, 1_000).await;
    assert_eq!(
        (refused.code(), &refused.body["remaining"]),
        ("PURCHASE_LIMIT_REACHED", &json!(0))
    );
    assert!(refused.body["saleId"].is_u64());
    shop.drained().await;
    // The cancel of a stored order finds the limit in MySQL.
    let cancel = format!("/api/orders/{}/cancel", placed.order_id());
    assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    assert_eq!(buy(client, 2, 5, 1_000).await.status, 201);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_units_order_counts_once_against_the_limit() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    sale(&shop, client, -HOUR, HOUR, json!({ "limitPerUser": 3 })).await;
    let id = crate::reservations::reserve(client, 2, 3)
        .await
        .member("reservationId")
        .to_owned();
    assert_eq!(
        buy(client, 2, 1, 1_000).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    let mut body = order_json(&[(1, 3)]);
    body["reservationId"] = json!(id);
    let placed = client
        .post("/api/redis/orders")
        .user(2)
        .json(&body)
        .send()
        .await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    assert_eq!(
        buy(client, 2, 1, 1_000).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    let cancel = format!("/api/redis/orders/{}/cancel", placed.order_id());
    assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    assert_eq!(buy(client, 2, 3, 1_000).await.status, 201);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discount_takes_a_percentage_off_rounded_down_while_its_dates_count() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let discount = async |body: Value| {
        client
            .post("/api/products/1/discounts")
            .admin()
            .json(&body)
            .send()
            .await
    };
    let price = json!({ "price": 999 });
    client
        .patch("/api/products/1")
        .admin()
        .json(&price)
        .send()
        .await;
    let made = discount(json!({ "percentage": 10 })).await;
    assert_eq!(
        (
            made.status,
            &made.body["isActive"],
            &made.body["percentage"]
        ),
        (201, &json!(true), &json!(10))
    );
    let shown = client.get("/api/products/1").send().await;
    assert_eq!(
        (&shown.body["discountAmount"], &shown.body["unitPrice"]),
        (&json!(99), &json!(900))
    );
    let listed = client.get("/api/products").send().await;
    assert_eq!(listed.body["items"][0]["finalPrice"], 900);
    let placed = buy(client, 2, 2, 900).await;
    assert_eq!(
        (placed.status, &placed.body["discountAmount"]),
        (201, &json!(198))
    );
    let mut dear = order_json(&[(1, 1)]);
    dear["orderProducts"][0]["unitPrice"] = json!(999);
    dear["totalAmount"] = json!(999);
    let changed = client
        .post("/api/redis/orders")
        .user(2)
        .json(&dear)
        .send()
        .await;
    assert_eq!(
        (changed.code(), &changed.body["expected"]),
        ("PRICE_CHANGED", &json!(900))
    );

    // A new discount replaces the old one, and its dates count.
    discount(json!({ "percentage": 33.33 })).await;
    assert_eq!(
        client.get("/api/products/1").send().await.body["unitPrice"],
        667
    );
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    let later = json!({ "percentage": 50, "startsAt": rfc3339(now + HOUR) });
    assert_eq!(discount(later).await.status, 201);
    assert_eq!(
        client.get("/api/products/1").send().await.body["unitPrice"],
        999
    );
    // A sale's price gets no discount.
    discount(json!({ "percentage": 50 })).await;
    sale(&shop, client, -HOUR, HOUR, json!({ "price": 800 })).await;
    assert_eq!(
        client.get("/api/products/1").send().await.body["unitPrice"],
        800
    );

    for bad in [
        json!(0),
        json!(-1),
        json!(100.01),
        json!(1.001),
        json!("10"),
        json!(null),
        json!(1e300),
    ] {
        let answer = discount(json!({ "percentage": bad })).await;
        assert_eq!(
            (answer.status, answer.code()),
            (422, "UNPROCESSABLE"),
            "{bad}"
        );
    }
    let backwards = json!({ "percentage": 1, "startsAt": rfc3339(now), "endsAt": rfc3339(now) });
    assert_eq!(discount(backwards).await.status, 422);
    let unknown = client
        .post("/api/products/99/discounts")
        .admin()
        .json(&json!({ "percentage": 1 }))
        .send()
        .await;
    assert_eq!((unknown.status, unknown.code()), (404, "PRODUCT_NOT_FOUND"));
    for body in [
        json!({ "startsAt": "tomorrow", "endsAt": rfc3339(now) }),
        json!({ "startsAt": rfc3339(now), "endsAt": rfc3339(now - 1) }),
        json!({ "startsAt": rfc3339(now), "endsAt": rfc3339(now + 1), "limitPerUser": 0 }),
        json!({ "startsAt": rfc3339(now), "endsAt": rfc3339(now + 1), "price": -1 }),
        json!({ "startsAt": "+010000-01-01T00:00:00Z", "endsAt": "9999-12-31T23:59:59Z" }),
    ] {
        let answer = client
            .post("/api/products/1/sales")
            .admin()
            .json(&body)
            .send()
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (422, "UNPROCESSABLE"),
            "{body}"
        );
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
