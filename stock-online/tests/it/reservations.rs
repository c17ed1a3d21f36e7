//! Reservations: made, confirmed, cancelled, expired; each ends exactly once.

mod expire;
mod frozen;
mod own;
mod units;

use serde_json::{Value, json};
use stock_common::id::{LocationId, Position, ProductId, UserId};
use stock_domain::quantity::Quantity;
use stock_domain::reservation::{self, Reservation};
use stock_domain::verdict::Verdict;

use crate::support::{Answer, Client, Shop, order_json};

/// Reserves units of product 1 for a user.
pub(crate) async fn reserve(client: &Client, user: u64, quantity: u64) -> Answer {
    let body = json!({ "productId": 1, "quantity": quantity });
    let call = client.post("/api/products/stock/reserve").user(user);
    call.json(&body).send().await
}

/// Reserves units of product 1 for user 2, for a time that no client may ask for.
pub(crate) async fn reserve_for_ms(shop: &Shop, quantity: u32, ttl_ms: u64) -> String {
    let reservation = Reservation {
        user_id: UserId(2),
        product_id: ProductId(1),
        location_id: LocationId::ONLINE,
        quantity: Quantity::new(quantity).unwrap(),
        ttl_ms,
        allowance: None,
        hold_limit: 0,
        frozen: None,
    };
    let request = reservation::reserve(&reservation, None, 0, None).unwrap();
    match shop.ledger.decide(request).await.unwrap() {
        Verdict::Accepted(accepted) => accepted.position.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Ends a reservation: `confirm` as an admin, `cancel` as user 2.
pub(crate) async fn end(client: &Client, id: &str, how: &str) -> Answer {
    let path = format!("/api/reservations/{id}/{how}");
    let call = client.post(&path);
    let call = if how == "confirm" {
        call.admin()
    } else {
        call.user(2)
    };
    call.json(&json!({})).send().await
}

/// Available, reserved and physical stock of product 1 online.
pub(crate) async fn levels(client: &Client) -> (i64, i64, i64) {
    let path = "/api/products/stock/available?productId=1&locationId=0";
    let answer = client.get(path).user(2).send().await;
    let item = &answer.body["items"][0];
    let number = |name: &str| item[name].as_i64().unwrap_or(-1);
    (number("available"), number("reserved"), number("physical"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_is_set_aside_and_a_confirm_sells_it() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let made = reserve(client, 2, 25).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.member("reservationId").to_owned();
    assert_eq!(made.body["status"], "PENDING");
    assert_eq!(made.body["locationId"], 0);
    assert_eq!(made.headers["location"], format!("/api/reservations/{id}"));
    assert_eq!(levels(client).await, (75, 25, 100));
    // The reservation can be read at once, stored or not.
    let shown = client.get(&made.headers["location"]).user(2).send().await;
    assert_eq!(shown.body, made.body);

    let confirmed = end(client, &id, "confirm").await;
    assert_eq!(
        (confirmed.status, &confirmed.body["status"]),
        (200, &json!("CONFIRMED"))
    );
    assert_eq!(levels(client).await, (75, 0, 75));
    for how in ["confirm", "cancel"] {
        let again = end(client, &id, how).await;
        assert_eq!(
            (again.status, again.code()),
            (409, "RESERVATION_ALREADY_CONFIRMED"),
            "{how}"
        );
    }
    assert_eq!(levels(client).await, (75, 0, 75));
    shop.drained().await;
    let listed = client
        .get("/api/reservations?status=CONFIRMED")
        .user(2)
        .send()
        .await;
    assert_eq!(listed.body["items"][0]["reservationId"], id);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_gives_back_and_blocks_a_confirm() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    // Eleven units of ten are too many; eight fit, and then only two are left.
    assert_eq!(reserve(client, 2, 11).await.code(), "INSUFFICIENT_STOCK");
    let id = reserve(client, 2, 8)
        .await
        .member("reservationId")
        .to_owned();
    let more = reserve(client, 3, 3).await;
    assert_eq!(
        (more.code(), &more.body["available"]),
        ("INSUFFICIENT_STOCK", &json!(2))
    );
    let order = client.order("/api/redis/orders", 3, &[(1, 3)]).send().await;
    assert_eq!(order.code(), "INSUFFICIENT_STOCK");

    let foreign = client
        .post(&format!("/api/reservations/{id}/cancel"))
        .user(3)
        .send()
        .await;
    assert_eq!(
        (foreign.status, foreign.code()),
        (404, "RESERVATION_NOT_FOUND")
    );
    let forbidden = client
        .post(&format!("/api/reservations/{id}/confirm"))
        .user(2)
        .send()
        .await;
    assert_eq!((forbidden.status, forbidden.code()), (403, "FORBIDDEN"));
    let cancelled = end(client, &id, "cancel").await;
    assert_eq!(
        (cancelled.status, &cancelled.body["status"]),
        (200, &json!("CANCELLED"))
    );
    for how in ["confirm", "cancel"] {
        let again = end(client, &id, how).await;
        assert_eq!(
            (again.status, again.code()),
            (409, "RESERVATION_ALREADY_CANCELLED"),
            "{how}"
        );
    }
    assert_eq!(levels(client).await, (10, 0, 10));
    shop.drained().await;
    // The answer is the same after MySQL has settled everything.
    assert_eq!(
        end(client, &id, "cancel").await.code(),
        "RESERVATION_ALREADY_CANCELLED"
    );
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_that_comes_in_while_some_is_held_is_available() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    reserve(client, 2, 40).await;
    let body = json!({ "productId": 1, "quantity": 50, "reason": "delivery" });
    let inbound = client
        .post("/api/products/stock/inbound")
        .admin()
        .json(&body)
        .send()
        .await;
    assert_eq!(
        (inbound.status, &inbound.body["available"]),
        (201, &json!(110)),
        "{}",
        inbound.text
    );
    assert_eq!(levels(client).await, (110, 40, 150));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sold_out_by_reservations_is_open_again_after_a_cancel() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let first = reserve(client, 2, 10)
        .await
        .member("reservationId")
        .to_owned();
    assert_eq!(reserve(client, 3, 1).await.code(), "INSUFFICIENT_STOCK");
    assert_eq!(end(client, &first, "cancel").await.status, 200);
    assert_eq!(reserve(client, 3, 5).await.status, 201);
    assert_eq!(levels(client).await, (5, 5, 10));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_takes_what_is_held_for_its_buyer() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for path in ["/api/redis/orders", "/api/orders"] {
        let id = reserve(client, 2, 4)
            .await
            .member("reservationId")
            .to_owned();
        let with = |lines: &[(u64, i64)]| {
            let mut body = order_json(lines);
            body["reservationId"] = json!(id);
            body
        };
        let place =
            async |user: u64, body: &Value| client.post(path).user(user).json(body).send().await;
        let before = levels(client).await;
        for (user, lines, status, code) in [
            (3, vec![(1, 4)], 404, "RESERVATION_NOT_FOUND"),
            (2, vec![(1, 3)], 409, "RESERVATION_MISMATCH"),
            (2, vec![(2, 4)], 409, "RESERVATION_MISMATCH"),
            (2, vec![(1, 4), (2, 1_000)], 409, "INSUFFICIENT_STOCK"),
        ] {
            let refused = place(user, &with(&lines)).await;
            assert_eq!(
                (refused.status, refused.code()),
                (status, code),
                "{lines:?}"
            );
        }
        assert_eq!(levels(client).await, before);
        let placed = place(2, &with(&[(1, 4), (2, 1)])).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        let (available, reserved, _) = levels(client).await;
        assert_eq!((available, reserved), (before.0, 0));
        assert_eq!(
            place(2, &with(&[(1, 4)])).await.code(),
            "RESERVATION_ALREADY_CONFIRMED"
        );
        let shown = client
            .get(&format!("/api/reservations/{id}"))
            .user(2)
            .send()
            .await;
        assert_eq!(shown.body["status"], "CONFIRMED");
        // Units that an order took belong to the order: `force` would return them twice.
        let forced = client
            .post(&format!("/api/reservations/{id}/cancel"))
            .admin();
        let forced = forced.json(&json!({ "force": true })).send().await;
        assert_eq!(
            (forced.status, forced.code()),
            (409, "RESERVATION_ALREADY_CONFIRMED")
        );
        let cancel = format!("/api/redis/orders/{}/cancel", placed.order_id());
        assert_eq!(client.patch(&cancel).user(2).status().await, 200);
        assert_eq!(levels(client).await, (10, 0, 10));
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admins_force_returns_what_was_confirmed_once() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = reserve(client, 2, 4)
        .await
        .member("reservationId")
        .to_owned();
    end(client, &id, "confirm").await;
    let path = format!("/api/reservations/{id}/cancel");
    let force = json!({ "force": true });
    let by_owner = client.post(&path).user(2).json(&force).send().await;
    assert_eq!((by_owner.status, by_owner.code()), (403, "FORBIDDEN"));
    let running: Vec<_> = (0..10)
        .map(|_| {
            let (client, path, force) = (client.clone(), path.clone(), force.clone());
            tokio::spawn(async move { client.post(&path).admin().json(&force).send().await.status })
        })
        .collect();
    let mut done = 0;
    for status in running {
        let status = status.await.unwrap();
        assert!([200, 409].contains(&status), "{status}");
        done += u64::from(status == 200);
    }
    assert_eq!(done, 1);
    assert_eq!(levels(client).await, (10, 0, 10));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_only_so_many_live_reservations_however_they_ask() {
    // Danger: parallel requests each see room for one more. Method: forty at once, a limit of five.
    let mut shop = Shop::open(1, 1_000).await;
    shop.config.selling.holds_per_user_max = 5;
    let service = shop.serve().await;
    let client = &service.client;
    let running: Vec<_> = (0..40)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { reserve(&client, 2, 1).await })
        })
        .collect();
    let mut made = Vec::new();
    for answer in running {
        let answer = answer.await.unwrap();
        match answer.status {
            201 => made.push(answer.member("reservationId").to_owned()),
            _ => assert_eq!((answer.status, answer.code()), (409, "HOLD_LIMIT_REACHED")),
        }
    }
    assert_eq!(made.len(), 5);
    assert_eq!(
        reserve(client, 3, 1).await.status,
        201,
        "another user has room"
    );
    // Each way to end a reservation makes room for one more.
    for (id, how) in made.iter().zip(["confirm", "cancel"]) {
        assert_eq!(end(client, id, how).await.status, 200);
        assert_eq!(reserve(client, 2, 1).await.status, 201);
        assert_eq!(reserve(client, 2, 1).await.code(), "HOLD_LIMIT_REACHED");
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_reserves_once_and_ends_once() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let body = json!({ "productId": 1, "quantity": 2 });
    let send = async |path: &str, body: &Value, key: &str| {
        let call = client.post(path).admin().json(body);
        call.header("idempotency-key", key).send().await
    };
    let path = "/api/products/stock/reserve";
    let (first, again) = (send(path, &body, "a").await, send(path, &body, "a").await);
    assert_eq!(
        (first.status, again.status, &again.body),
        (201, 201, &first.body)
    );
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = send(path, &json!({ "productId": 1, "quantity": 3 }), "a").await;
    assert_eq!(
        (other.status, other.code()),
        (422, "IDEMPOTENCY_KEY_REUSED")
    );
    let short = json!({ "productId": 1, "quantity": 9 });
    for _ in 0..2 {
        assert_eq!(send(path, &short, "b").await.code(), "INSUFFICIENT_STOCK");
    }
    let confirm = format!(
        "/api/reservations/{}/confirm",
        first.member("reservationId")
    );
    let (done, again) = (
        send(&confirm, &json!({}), "c").await,
        send(&confirm, &json!({}), "c").await,
    );
    assert_eq!(
        (done.status, again.status, &again.body),
        (200, 200, &done.body)
    );
    assert_eq!(levels(client).await, (8, 0, 8));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reserved_is_refused_with_its_code() {
    let shop = Shop::open(3, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let stop = json!({ "status": "INACTIVE" });
    assert_eq!(
        client
            .patch("/api/products/2")
            .admin()
            .json(&stop)
            .status()
            .await,
        200
    );
    assert_eq!(
        client
            .call("DELETE", "/api/products/3")
            .admin()
            .status()
            .await,
        204
    );
    for (body, status, code) in [
        (
            json!({ "productId": 2, "quantity": 1 }),
            409,
            "PRODUCT_NOT_ON_SALE",
        ),
        (
            json!({ "productId": 3, "quantity": 1 }),
            404,
            "PRODUCT_NOT_FOUND",
        ),
        (
            json!({ "productId": 99, "quantity": 1 }),
            404,
            "PRODUCT_NOT_FOUND",
        ),
        (
            json!({ "productId": 1, "quantity": 1, "locationId": 1 }),
            409,
            "INSUFFICIENT_STOCK",
        ),
        (
            json!({ "productId": 1, "quantity": 1, "ttlSeconds": 29 }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "productId": 1, "quantity": 1, "ttlSeconds": 1_801 }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "productId": 1, "quantity": 0 }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "productId": 1, "quantity": 1_000_001 }),
            422,
            "UNPROCESSABLE",
        ),
    ] {
        let answer = client
            .post("/api/products/stock/reserve")
            .user(2)
            .json(&body)
            .send()
            .await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}");
    }
    for id in ["1", "x", "99999999999999999999999"] {
        let shown = client
            .get(&format!("/api/reservations/{id}"))
            .user(2)
            .send()
            .await;
        assert_eq!(
            (shown.status, shown.code()),
            (404, "RESERVATION_NOT_FOUND"),
            "{id}"
        );
    }
    let order = client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    assert_eq!(
        end(client, &order, "cancel").await.code(),
        "RESERVATION_NOT_FOUND",
        "an order is none"
    );
    let selling = json!({ "open": false });
    client
        .call("PUT", "/api/ops/selling")
        .admin()
        .json(&selling)
        .send()
        .await;
    assert_eq!(reserve(client, 2, 1).await.code(), "SELLING_STOPPED");
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_reservations_survive_the_loss_of_redis() {
    // Danger: recover forgets deadlines, and held units stay held for ever. Method: empty Redis.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let live = reserve(client, 2, 2)
        .await
        .member("reservationId")
        .to_owned();
    let confirmed = reserve(client, 2, 3)
        .await
        .member("reservationId")
        .to_owned();
    end(client, &confirmed, "confirm").await;
    let short = reserve_for_ms(&shop, 4, 5_000).await;
    shop.drained().await;
    shop.rebuild().await;
    assert!(
        shop.ledger
            .wait_open(std::time::Duration::from_secs(10))
            .await
    );
    // The service learns of the new epoch by its next request, or within a second.
    crate::support::until("the live one is confirmed", || async {
        end(client, &live, "confirm").await.status == 200
    })
    .await;
    assert_eq!(
        end(client, &confirmed, "cancel").await.code(),
        "RESERVATION_ALREADY_CONFIRMED"
    );
    crate::support::until("the third expires", || async {
        levels(client).await == (5, 0, 5)
    })
    .await;
    assert_eq!(
        end(client, &short, "confirm").await.code(),
        "RESERVATION_ALREADY_EXPIRED"
    );
    assert!(short.parse::<Position>().is_ok());
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_under_row_locks_is_stored_before_its_reservation_was() {
    // Danger: MySQL learns of the order first, and then stores the reservation as live, so that its
    // units are given back a second time. Method: nobody applies until the order is stored; then
    // Redis is rebuilt from MySQL.
    let shop = Shop::open(1, 10).await;
    let http = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    let client = &http.client;
    let mut ids = Vec::new();
    for cancels in [false, true] {
        let id = reserve(client, 2, 2)
            .await
            .member("reservationId")
            .to_owned();
        let mut order = order_json(&[(1, 2)]);
        order["reservationId"] = json!(id);
        let path = if cancels {
            "/api/redis/orders"
        } else {
            "/api/orders"
        };
        let placed = client.post(path).user(2).json(&order).send().await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        if cancels {
            let cancel = format!("/api/orders/{}/cancel", placed.order_id());
            assert_eq!(client.patch(&cancel).user(2).status().await, 200);
        }
        ids.push(id);
    }
    let service = shop.serve().await;
    shop.drained().await;
    shop.verify().await;
    shop.rebuild().await;
    crate::support::until("the service is open again", || client.is_ready()).await;
    for id in ids {
        assert_eq!(
            end(client, &id, "cancel").await.code(),
            "RESERVATION_ALREADY_CONFIRMED"
        );
    }
    assert_eq!(levels(client).await, (8, 0, 8));
    shop.verify().await;
    http.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_same_when_it_is_given_again() {
    // Danger: a repeated answer is rendered from a later state. Method: the state that it depended
    // on changes in between.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let send = async |path: &str, user: u64, body: &Value, key: &str| {
        let call = client.post(path).user(user).json(body);
        let mut answer = call.header("idempotency-key", key).send().await;
        answer.body.as_object_mut().unwrap().remove("requestId");
        answer
    };
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    let time = |ms: i64| stock_common::clock::rfc3339(now + ms);
    let sale = json!({ "startsAt": time(-60_000), "endsAt": time(60_000), "limitPerUser": 2 });
    let sale = client
        .post("/api/products/1/sales")
        .admin()
        .json(&sale)
        .send()
        .await;
    let path = "/api/products/stock/reserve";
    let body = json!({ "productId": 1, "quantity": 3 });
    let first = send(path, 2, &body, "a").await;
    assert_eq!(first.code(), "PURCHASE_LIMIT_REACHED");
    let delete = format!("/api/products/1/sales/{}", sale.body["saleId"]);
    assert_eq!(client.call("DELETE", &delete).admin().status().await, 204);
    assert_eq!(send(path, 2, &body, "a").await.body, first.body);

    let id = reserve(client, 2, 1)
        .await
        .member("reservationId")
        .to_owned();
    let mut order = order_json(&[(1, 1)]);
    order["reservationId"] = json!(id);
    let both: Vec<_> = ["b", "c"]
        .into_iter()
        .map(|key| {
            let (client, order) = (client.clone(), order.clone());
            tokio::spawn(async move {
                let call = client.post("/api/redis/orders").user(2).json(&order);
                (key, call.header("idempotency-key", key).send().await)
            })
        })
        .collect();
    for answer in both {
        let (key, mut answer) = answer.await.unwrap();
        answer.body.as_object_mut().unwrap().remove("requestId");
        assert!(
            answer.status == 201 || answer.code() == "RESERVATION_ALREADY_CONFIRMED",
            "{}",
            answer.text
        );
        let again = send("/api/redis/orders", 2, &order, key).await;
        assert_eq!(
            (again.status, &again.body),
            (answer.status, &answer.body),
            "{key}"
        );
    }
    service.stop().await;
}
