//! Poison: an entry whose own tables cannot be written; a journal that repeats, skips, or lies.

use serde_json::json;
use stock_common::id::{CouponId, ProductId, UserId};
use stock_common::money::Money;
use stock_domain::coupon::UsedCoupon;
use stock_domain::order::{self, DeliveryType, Order, OrderLine, Path, Terms};
use stock_domain::quantity::Quantity;
use stock_domain::verdict::Verdict;
use stock_engine::apply::{self, ApplyError, Written};
use stock_mysql::settle::Gap;
use stock_mysql::{dead_letters, shards};
use stock_online::ServiceRole;

use crate::support::{Shop, until};

/// An order that passes the script, but not its table: the product's name is too long for the
/// column.
fn poison() -> Order {
    Order {
        user_id: UserId(2),
        path: Path::Redis,
        delivery_type: DeliveryType::Online,
        store_id: None,
        lines: vec![OrderLine {
            product_id: ProductId(1),
            product_name: "x".repeat(101),
            quantity: Quantity::new(3).unwrap(),
            price: Money::new(1_000).unwrap(),
            unit_price: Money::new(1_000).unwrap(),
            sub_total: Money::new(3_000).unwrap(),
            allowance: None,
        }],
        total_amount: Money::new(3_000).unwrap(),
        coupon: None,
        used_points: Money::ZERO,
        earned_points: Money::ZERO,
        reservation_id: None,
        checkout_id: None,
        paid: None,
        shares_online_stock: false,
        offline: None,
        buyer: None,
        reference: None,
    }
}

async fn accept(shop: &Shop, order: &Order) -> stock_common::id::Position {
    match shop
        .ledger
        .decide(order::place(order, Terms::default(), None).unwrap())
        .await
        .unwrap()
    {
        Verdict::Accepted(accepted) => accepted.position,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_poison_order_is_settled_laid_aside_and_taken_back_once() {
    let shop = Shop::open(1, 100).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    let good = held
        .client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    let bad = accept(&shop, &poison()).await;
    let also = held
        .client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    assert_eq!(shop.available(1).await, 95);
    let service = shop.serve().await;
    until("it is compensated", || async {
        dead_letters::state(&shop.pool, bad)
            .await
            .unwrap()
            .as_deref()
            == Some("COMPENSATED")
    })
    .await;
    shop.drained().await;
    assert_eq!(shop.available(1).await, 98, "given back once");
    assert_eq!(
        shop.stored_orders().await,
        [good, also],
        "the others are stored"
    );
    let shown = service
        .client
        .get(&format!("/api/orders/{bad}"))
        .user(2)
        .send()
        .await;
    assert_eq!(
        (shown.status, shown.body["orderStatus"].clone()),
        (200, "FAIL".into())
    );
    let cancel = service
        .client
        .patch(&format!("/api/redis/orders/{bad}/cancel"))
        .user(2);
    assert_eq!(cancel.send().await.code(), "INVALID_ORDER_STATUS");
    shop.verify().await;
    held.stop().await;
    service.stop().await;
}

#[tokio::test]
async fn a_poison_order_gives_its_coupon_and_points_back_and_can_be_stored_later() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let admin = |path: &str, body: serde_json::Value| {
        let call = client.post(path).admin();
        call.json(&body).send()
    };
    let body = json!({ "name": "own", "discountAmount": 500, "userId": 2, "code": "OWN" });
    let made = admin("/api/coupons", body).await;
    let coupon_id = CouponId(made.body["id"].as_u64().unwrap());
    let gift = json!({ "userId": 2, "amount": 1_000, "description": "" });
    assert_eq!(admin("/api/v2/points/earn", gift).await.status, 201);
    let money = |units| Money::new(units).unwrap();
    let bad = Order {
        coupon: Some(UsedCoupon {
            code: "OWN".to_owned(),
            coupon_id,
            discount_amount: money(500),
        }),
        used_points: money(400),
        earned_points: money(30),
        total_amount: money(2_100),
        ..poison()
    };
    let bad = accept(&shop, &bad).await;
    until("it is compensated", || async {
        let state = dead_letters::state(&shop.pool, bad).await.unwrap();
        state.as_deref() == Some("COMPENSATED")
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    let balance = client.get("/api/v1/points/users/2/balance").user(2);
    assert_eq!(balance.send().await.body["balance"], 1_000);
    let history = client.get("/api/v1/points/users/2/history").user(2);
    let history = history.send().await;
    assert_eq!(
        history.body["items"].as_array().unwrap().len(),
        4,
        "{}",
        history.text
    );
    let mine = async || {
        let mine = client.get("/api/coupons/mine").user(2).send().await;
        mine.body["items"][0]["isUsed"].clone()
    };
    assert_eq!(mine().await, json!(false));

    // A person widens the column; then the order is stored, and it is a failed order.
    sqlx::query("ALTER TABLE order_products MODIFY product_name VARCHAR(200) NOT NULL")
        .execute(&shop.pool)
        .await
        .unwrap();
    let retried = std::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .args(["dead-letters", "retry"])
        .envs(shop.variables())
        .output()
        .unwrap();
    assert_eq!(retried.status.code(), Some(0), "{retried:?}");
    let state = dead_letters::state(&shop.pool, bad).await.unwrap();
    assert_eq!(state.as_deref(), Some("RESOLVED"));
    assert_eq!(mine().await, json!(false));
    shop.verify().await;
    service.stop().await;
}

#[tokio::test]
async fn a_cancel_that_races_the_compensation_gives_the_stock_back_once() {
    let shop = Shop::open(1, 100).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    let bad = accept(&shop, &poison()).await;
    // The buyer cancels before MySQL has seen the order.
    let cancel = held
        .client
        .patch(&format!("/api/redis/orders/{bad}/cancel"))
        .user(2);
    assert_eq!(cancel.send().await.status, 200);
    let service = shop.serve().await;
    until("the compensation finds the cancel", || async {
        dead_letters::state(&shop.pool, bad)
            .await
            .unwrap()
            .as_deref()
            == Some("CANCELLED")
    })
    .await;
    shop.drained().await;
    assert_eq!(shop.available(1).await, 100);
    let shown = service
        .client
        .get(&format!("/api/orders/{bad}"))
        .user(2)
        .send()
        .await;
    assert!(["CANCEL", "CANCEL_REQUESTED"].contains(&shown.body["orderStatus"].as_str().unwrap()));
    shop.verify().await;
    held.stop().await;
    service.stop().await;
}

#[tokio::test]
async fn a_synchronous_order_between_unapplied_ones_is_applied_in_its_place() {
    let shop = Shop::open(1, 100).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    let mut ids = Vec::new();
    for path in [
        "/api/redis/orders",
        "/api/orders",
        "/api/redis/orders",
        "/api/orders",
    ] {
        ids.push(
            held.client
                .order(path, 2, &[(1, 1)])
                .send()
                .await
                .order_id(),
        );
    }
    assert_eq!(shop.stored_orders().await, [ids[1].clone(), ids[3].clone()]);
    // A synchronous cancel of an order that MySQL lacks stores the order too.
    let cancel = held
        .client
        .patch(&format!("/api/orders/{}/cancel", ids[2]))
        .user(2)
        .send()
        .await;
    assert_eq!(
        (cancel.status, cancel.body["orderStatus"].clone()),
        (200, "CANCEL".into())
    );
    let service = shop.serve().await;
    shop.drained().await;
    assert_eq!(shop.stored_orders().await, ids);
    assert_eq!(shop.available(1).await, 97);
    shop.verify().await;
    held.stop().await;
    service.stop().await;
}

#[tokio::test]
async fn duplicated_entries_change_nothing_and_gaps_and_reorderings_stop_applying() {
    let shop = Shop::open(1, 100).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    for _ in 0..4 {
        assert_eq!(
            held.client
                .order("/api/redis/orders", 2, &[(1, 1)])
                .send()
                .await
                .status,
            201
        );
    }
    let start = shards::load(&shop.pool, 0).await.unwrap().unwrap();
    let entries = shop
        .ledger
        .shard(0)
        .unwrap()
        .tail(start.watermark, 1_000)
        .await
        .unwrap()
        .entries;
    let write = async |entries: &[stock_domain::journal::Entry]| {
        let mut transaction = shop.pool.begin().await.unwrap();
        let mut state = shards::try_lock(&mut transaction, 0)
            .await
            .unwrap()
            .unwrap();
        let result = apply::write(&mut transaction, &mut state, entries).await;
        // Rolled back explicitly, so that the next transaction finds the shard's row free.
        match &result {
            Ok(_) => transaction.commit().await.unwrap(),
            Err(_) => transaction.rollback().await.unwrap(),
        }
        result
    };
    let refused = |result: Result<Written, ApplyError>| {
        assert!(
            matches!(result, Err(ApplyError::Gap(Gap { .. }))),
            "{result:?}"
        );
    };
    refused(write(&entries[1..]).await);
    let mut swapped = entries.clone();
    let last = swapped.len() - 1;
    swapped.swap(last - 1, last);
    refused(write(&swapped).await);
    write(&entries).await.unwrap();
    refused(write(&entries).await);
    let mut tampered = entries.clone();
    tampered.truncate(0);
    write(&tampered).await.unwrap();
    let state = shards::load(&shop.pool, 0).await.unwrap().unwrap();
    assert_eq!(
        Some(state.watermark),
        entries.last().map(|entry| entry.position)
    );
    shop.verify().await;
    held.stop().await;
}
