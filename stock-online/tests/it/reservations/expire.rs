//! Expired reservations: their stock comes back by itself, once, and blocks no buyer meanwhile.

use redis::cmd;
use serde_json::json;
use stock_common::id::Position;
use stock_engine::reconcile::reconcile;
use stock_online::ServiceRole;
use stock_redis::epoch;
use stock_redis::keys::SENTINEL_SCORE;

use super::{end, levels, reserve, reserve_for_ms};
use crate::support::{Shop, until};

/// Makes a hold that has expired when this returns, by Redis' clock, which alone counts.
async fn expired_hold(shop: &Shop, quantity: u32) -> String {
    let id = reserve_for_ms(shop, quantity, 1).await;
    let expires_ms = id.parse::<Position>().unwrap().unix_ms() + 1;
    until("the hold's time is over", || async {
        let mut link = shop.ledger.link().unwrap();
        epoch::time_ms(&mut link.read).await.unwrap() >= expires_ms
    })
    .await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_comes_back_and_cannot_be_confirmed() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = reserve_for_ms(&shop, 25, 1).await;
    until("it has expired", || async {
        levels(client).await == (100, 0, 100)
    })
    .await;
    for how in ["confirm", "cancel"] {
        let late = end(client, &id, how).await;
        assert_eq!(
            (late.status, late.code()),
            (409, "RESERVATION_ALREADY_EXPIRED"),
            "{how}"
        );
    }
    let shown = client
        .get(&format!("/api/reservations/{id}"))
        .user(2)
        .send()
        .await;
    assert_eq!(shown.body["status"], "EXPIRED");
    let path = "/api/products/1/stock/movements?limit=1";
    let movements = client.get(path).admin().send().await;
    let last = &movements.body["items"][0];
    assert_eq!(last["cause"], "reservation_expired", "{}", movements.text);
    assert_eq!(
        (last["reference"].as_str(), last["actorId"].as_u64()),
        (Some(id.as_str()), Some(0))
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_four_one_expires_one_is_cancelled_and_two_are_sold() {
    let shop = Shop::open(1, 200).await;
    let service = shop.serve().await;
    let client = &service.client;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            reserve(client, 2, 30)
                .await
                .member("reservationId")
                .to_owned(),
        );
    }
    reserve_for_ms(&shop, 30, 1).await;
    for (id, how) in ids.iter().zip(["confirm", "confirm", "cancel"]) {
        assert_eq!(end(client, id, how).await.status, 200);
    }
    until("the fourth has expired", || async {
        levels(client).await == (140, 0, 140)
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_end_is_refused_before_anybody_has_swept() {
    // Danger: between the deadline and the sweep a confirm sells what the sweep gives back as well.
    let shop = Shop::open(1, 10).await;
    let service = shop
        .serve_roles(&[ServiceRole::Http, ServiceRole::Subscriber])
        .await;
    let client = &service.client;
    let id = expired_hold(&shop, 4).await;
    for how in ["confirm", "cancel"] {
        assert_eq!(
            end(client, &id, how).await.code(),
            "RESERVATION_ALREADY_EXPIRED",
            "{how}"
        );
    }
    assert_eq!(levels(client).await, (6, 4, 10), "nobody sweeps here");
    let mut order = crate::support::order_json(&[(1, 4)]);
    order["reservationId"] = json!(id);
    let order = client
        .post("/api/redis/orders")
        .user(2)
        .json(&order)
        .send()
        .await;
    assert_eq!(
        (order.status, order.code()),
        (409, "RESERVATION_ALREADY_EXPIRED")
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_short_of_stock_releases_what_has_expired_and_gets_it() {
    // Danger: an expired hold blocks a buyer until somebody sweeps. Method: nobody sweeps by
    // schedule.
    let shop = Shop::open(1, 10).await;
    let service = shop
        .serve_roles(&[ServiceRole::Http, ServiceRole::Subscriber])
        .await;
    let client = &service.client;
    for (path, key) in [("/api/redis/orders", "a"), ("/api/orders", "b")] {
        expired_hold(&shop, 10).await;
        let call = client
            .order(path, 3, &[(1, 10)])
            .header("idempotency-key", key);
        let placed = call.send().await;
        assert_eq!(placed.status, 201, "{path}: {}", placed.text);
        let cancel = format!("/api/redis/orders/{}/cancel", placed.order_id());
        assert_eq!(client.patch(&cancel).user(3).status().await, 200);
    }
    expired_hold(&shop, 10).await;
    assert_eq!(reserve(client, 3, 10).await.status, 201);
    // Nothing is left to release: the answer stays, and is remembered under its key.
    for _ in 0..2 {
        let call = client.order("/api/redis/orders", 3, &[(1, 1)]);
        let answer = call.header("idempotency-key", "c").send().await;
        assert_eq!((answer.status, answer.code()), (409, "INSUFFICIENT_STOCK"));
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirm_cancel_and_expiry_race_and_exactly_one_wins() {
    // Danger: two ends of one hold. Method: holds that run out while they are confirmed and
    // cancelled, two schedulers; the end sums tell.
    let shop = Shop::open(1, 1_000).await;
    let (first, second) = (shop.serve().await, shop.serve().await);
    let client = &first.client;
    let mut confirmed = 0;
    for round in 0..20 {
        let id = reserve_for_ms(&shop, 7, 1 + round % 5).await;
        let ends: Vec<_> = ["confirm", "cancel", "confirm", "cancel"]
            .into_iter()
            .zip([client, &second.client].into_iter().cycle())
            .map(|(how, client)| {
                let (client, id) = (client.clone(), id.clone());
                tokio::spawn(async move { (how, end(&client, &id, how).await) })
            })
            .collect();
        let mut won = 0;
        for ended in ends {
            let (how, answer) = ended.await.unwrap();
            match answer.status {
                200 => {
                    won += 1;
                    confirmed += i64::from(how == "confirm");
                }
                409 => assert!(
                    answer.code().starts_with("RESERVATION_ALREADY_"),
                    "{}",
                    answer.text
                ),
                _ => panic!("{}", answer.text),
            }
        }
        assert!(won <= 1, "{won} ends of one hold");
    }
    let left = 1_000 - 7 * confirmed;
    until("the rest has expired", || async {
        levels(client).await == (left, 0, left)
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_keeps_live_holds_and_brings_back_a_lost_deadline() {
    let shop = Shop::open_undivided(1, 10).await;
    let service = shop
        .serve_roles(&[ServiceRole::Http, ServiceRole::Subscriber])
        .await;
    let client = &service.client;
    let id = reserve(client, 2, 4)
        .await
        .member("reservationId")
        .to_owned();
    shop.drained().await;
    let healthy = reconcile(&shop.pool, &shop.ledger, true)
        .await
        .unwrap()
        .unwrap();
    assert!(healthy.differences.is_empty(), "{healthy:?}");
    assert_eq!(levels(client).await, (6, 4, 10));

    let mut redis = shop.ledger.link().unwrap().read;
    let deadlines = shop.ledger.keys().deadlines();
    // The hold's own member is lost, not the whole key.
    let _: i64 = cmd("ZREMRANGEBYSCORE")
        .arg(&deadlines)
        .arg("-inf")
        .arg(SENTINEL_SCORE - 1)
        .query_async(&mut redis)
        .await
        .unwrap();
    let stray = "1795250000123-5 2 1 0 4 0 0";
    let add = cmd("ZADD").arg(&deadlines).arg(1).arg(stray).to_owned();
    let _: i64 = add.query_async(&mut redis).await.unwrap();
    let mut quiet = |_, _| {};
    let report = stock_engine::verify::verify(&shop.pool, &shop.ledger, true, &mut quiet);
    let report = report.await.unwrap();
    assert_eq!(report.differences.len(), 2, "{:?}", report.differences);
    let healed = reconcile(&shop.pool, &shop.ledger, true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((healed.differences.len(), healed.corrected), (2, 2));
    shop.verify().await;
    assert_eq!(end(client, &id, "confirm").await.status, 200);
    service.stop().await;
}
