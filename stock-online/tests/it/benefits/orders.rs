//! Orders that use a coupon and points: their price, one verdict over everything, and their cancel.

use serde_json::{Value, json};
use stock_common::clock::rfc3339;
use stock_online::ServiceRole;

use super::{PATHS, balance, campaign, code, coupon, earn, order_using};
use crate::support::{Answer, Client, Shop};

async fn place(client: &Client, path: &str, user: u64, body: &Value) -> Answer {
    client.post(path).user(user).json(body).send().await
}

async fn cancel(client: &Client, path: &str, user: u64, order: &Answer) -> Answer {
    let path = format!("{path}/{}/cancel", order.order_id());
    client.patch(&path).user(user).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_is_discount_then_coupon_then_points_and_the_page_says_the_same() {
    let shop = Shop::open(1, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    for (price, total) in [(20_000, 16_200), (999, 810)] {
        let product = json!({ "name": "x", "price": price, "stock": 50 });
        let made = client.post("/api/products").admin().json(&product);
        let id = made.send().await.body["id"].as_u64().unwrap();
        let discounts = format!("/api/products/{id}/discounts");
        let discount = client.post(&discounts).admin();
        let discount = discount.json(&json!({ "percentage": 10 })).send().await;
        assert_eq!(discount.status, 201);
        let unit = total * 10 / 9;
        for (user, path) in [(2, PATHS[0]), (3, PATHS[1])] {
            let rate = campaign(client, &json!({ "discountRate": 10, "count": 5 })).await;
            let own = code(client, user, rate).await;
            shop.drained().await;
            for path in ["/api/products", "/api/redis/products"] {
                let shown = client.get(&format!("{path}/{id}")).user(user).send().await;
                assert_eq!(
                    (&shown.body["unitPrice"], &shown.body["finalPrice"]),
                    (&json!(unit), &json!(total)),
                    "{}",
                    shown.text
                );
                let anonymous = client.get(&format!("{path}/{id}")).send().await;
                assert_eq!(anonymous.body["finalPrice"], unit);
                assert_eq!(anonymous.body["couponDiscountAmount"], 0);
            }
            earn(client, user, 100).await;
            let using = json!({ "couponCode": own, "usePoints": 100 });
            let wrong = place(client, path, user, &order_using(&[(id, 1)], &using, total)).await;
            assert_eq!(
                (wrong.code(), &wrong.body["expected"]),
                ("TOTAL_AMOUNT_MISMATCH", &json!(total - 100))
            );
            let order = order_using(&[(id, 1)], &using, total - 100);
            let placed = place(client, path, user, &order).await;
            assert_eq!(placed.status, 201, "{}", placed.text);
            let breakdown = |order: &Answer| {
                let of = |name: &str| order.body[name].as_i64().unwrap();
                [
                    of("discountAmount"),
                    of("couponDiscountAmount"),
                    of("usedPoints"),
                    of("earnedPoints"),
                    of("totalAmount"),
                ]
            };
            let expected = [price - unit, unit - total, 100, 0, total - 100];
            assert_eq!(breakdown(&placed), expected);
            let path = format!("/api/orders/{}", placed.order_id());
            let shown = client.get(&path).user(user).send().await;
            assert_eq!(breakdown(&shown), expected, "before it is stored");
            shop.drained().await;
            let shown = client.get(&path).user(user).send().await;
            assert_eq!(breakdown(&shown), expected, "once it is stored");
            assert_eq!(balance(client, user).await, 0);
        }
    }
    // Points cannot exceed the amount to pay; a coupon is capped at that amount.
    let using = json!({ "usePoints": 1_001 });
    let order = order_using(&[(1, 1)], &using, 0);
    let refused = place(client, PATHS[0], 2, &order).await;
    assert_eq!((refused.status, refused.code()), (422, "UNPROCESSABLE"));
    let all = campaign(client, &json!({ "discountAmount": 5_000 })).await;
    let own = code(client, 2, all).await;
    let order = order_using(&[(1, 1)], &json!({ "couponCode": own }), 0);
    let placed = place(client, PATHS[0], 2, &order).await;
    assert_eq!(
        (placed.status, &placed.body["couponDiscountAmount"]),
        (201, &json!(1_000))
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_used_by_one_order_until_that_is_taken_back() {
    let shop = Shop::open(1, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    for (index, path) in PATHS.into_iter().enumerate() {
        let id = campaign(client, &json!({ "discountAmount": 300 })).await;
        let own = code(client, 2, id).await;
        let order = order_using(&[(1, 1)], &json!({ "couponCode": own }), 700);
        let foreign = place(client, path, 3, &order).await;
        assert_eq!((foreign.status, foreign.code()), (409, "COUPON_NOT_USABLE"));
        let placed = place(client, path, 2, &order).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        for path in PATHS {
            assert_eq!(
                place(client, path, 2, &order).await.code(),
                "COUPON_NOT_USABLE"
            );
        }
        let mine = async || {
            let path = "/api/coupons/mine?limit=1";
            let mine = client.get(path).user(2).send().await;
            let own = &mine.body["items"][0];
            (own["isUsed"].clone(), own["orderId"].clone())
        };
        assert_eq!(mine().await, (json!(true), json!(placed.order_id())));
        // The order is cancelled on the other path.
        let back = cancel(client, PATHS[1 - index], 2, &placed).await;
        assert_eq!(back.status, 200, "{}", back.text);
        assert_eq!(
            cancel(client, path, 2, &placed).await.code(),
            "INVALID_ORDER_STATUS"
        );
        assert_eq!(mine().await, (json!(false), Value::Null));
        let again = place(client, path, 2, &order).await;
        assert_eq!(again.status, 201, "{}", again.text);
        assert_eq!(mine().await, (json!(true), json!(again.order_id())));
    }
    // Stock is checked before the coupon, and both before points.
    let short = json!({ "couponCode": "NOBODYS1", "usePoints": 5 });
    let refused = place(client, PATHS[0], 2, &order_using(&[(1, 60)], &short, 1)).await;
    assert_eq!(refused.code(), "INSUFFICIENT_STOCK");
    for code in ["NOBODYS1", "", "a b", &"x".repeat(51)] {
        let short = json!({ "couponCode": code, "usePoints": 5 });
        let refused = place(client, PATHS[1], 2, &order_using(&[(1, 1)], &short, 1)).await;
        assert_eq!(refused.code(), "COUPON_NOT_USABLE", "{code}");
    }
    let soon = rfc3339(shop.clock.now_ms() + 3_600_000);
    for window in [
        json!({ "discountAmount": 1, "userId": 2, "code": "EARLY", "validFrom": soon }),
        json!({ "discountAmount": 1, "userId": 2, "code": "LATE", "validTo": "2026-01-01T00:00:00Z" }),
    ] {
        let made = coupon(client, &window).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let using = json!({ "couponCode": window["code"] });
        let refused = place(client, PATHS[0], 2, &order_using(&[(1, 1)], &using, 999)).await;
        assert_eq!(refused.code(), "COUPON_NOT_USABLE", "{window}");
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_order_waits_for_mysql_to_know_its_code() {
    // Danger: the use of a code is recorded before the code itself, and is lost. Method: a code
    // that MySQL does not have yet; then a code that MySQL gets while the order waits.
    let shop = Shop::open(1, 50).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    let client = &held.client;
    let id = campaign(client, &json!({ "discountAmount": 300 })).await;
    let own = code(client, 2, id).await;
    let order = order_using(&[(1, 1)], &json!({ "couponCode": own }), 700);
    let early = place(client, PATHS[1], 2, &order).await;
    assert_eq!((early.status, early.code()), (503, "BACKLOG"));
    assert_eq!(shop.available(1).await, 50);
    let service = shop.serve().await;
    let placed = place(client, PATHS[1], 2, &order).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let used = client.get("/api/coupons/mine").user(2).send().await;
    assert_eq!(used.body["items"][0]["orderId"], placed.order_id());
    shop.drained().await;
    shop.verify().await;
    held.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_falls_below_the_points_changes_no_answer_under_a_key() {
    let shop = Shop::open(1, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    earn(client, 2, 2_000).await;
    let order = order_using(&[(1, 1)], &json!({ "usePoints": 800 }), 200);
    let keyed = |key: &str| {
        let call = client.post(PATHS[0]).user(2).header("idempotency-key", key);
        call.json(&order).send()
    };
    let placed = keyed("a").await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let cheaper = client.patch("/api/products/1").admin();
    let cheaper = cheaper.json(&json!({ "price": 700 })).send().await;
    assert_eq!(cheaper.status, 200);
    let again = keyed("a").await;
    assert_eq!((again.status, &again.body), (201, &placed.body));
    let refused = keyed("b").await;
    assert_eq!((refused.status, refused.code()), (422, "UNPROCESSABLE"));
    assert_eq!(refused.body["errors"][0]["pointer"], "/usePoints");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_was_forgotten_long_after_its_coupon_hinders_no_cancel() {
    let shop = Shop::open_undivided(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = campaign(client, &json!({ "discountAmount": 300 })).await;
    let own = code(client, 2, id).await;
    let order = order_using(&[(1, 1)], &json!({ "couponCode": own }), 700);
    let placed = place(client, PATHS[0], 2, &order).await;
    shop.drained().await;
    let client_of_redis = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client_of_redis
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    // A day after its end a coupon's states are forgotten.
    sqlx::query("UPDATE coupons SET valid_to = NOW(3) - INTERVAL 2 DAY")
        .execute(&shop.pool)
        .await
        .unwrap();
    let removed: i64 = redis::cmd("HDEL")
        .arg(shop.ledger.keys().states())
        .arg(format!("code:{own}"))
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(removed, 1);
    assert_eq!(cancel(client, PATHS[0], 2, &placed).await.status, 200);
    assert_eq!(shop.available(1).await, 5);
    assert_eq!(
        place(client, PATHS[0], 2, &order).await.code(),
        "COUPON_NOT_USABLE"
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_orders_at_once_for_more_points_than_there_are_leave_one() {
    // Danger: both orders read 1,000 points and take 800. Method: both paths at once, and a use of
    // points besides.
    let shop = Shop::open(1, 500).await;
    let service = shop.serve().await;
    let client = &service.client;
    for user in 100..110 {
        let opened: Result<_, sqlx::Error> =
            sqlx::query("INSERT INTO users (id, email, name) VALUES (?, CONCAT(?, '@x'), '')")
                .bind(user)
                .bind(user)
                .execute(&shop.pool)
                .await;
        opened.unwrap();
        earn(client, user, 1_000).await;
        let order = order_using(&[(1, 1)], &json!({ "usePoints": 800 }), 200);
        let use_body = json!({ "userId": user, "amount": 800, "description": "" });
        let (redis, lock, used) = tokio::join!(
            place(client, PATHS[0], user, &order),
            place(client, PATHS[1], user, &order),
            place(client, "/api/v1/points/use", user, &use_body),
        );
        let answers = [redis, lock, used];
        let accepted = answers.iter().filter(|answer| answer.status == 201);
        assert_eq!(accepted.count(), 1, "{answers:?}");
        let refused = answers.iter().filter(|answer| answer.status != 201);
        for refused in refused {
            assert_eq!(refused.code(), "INSUFFICIENT_POINTS", "{}", refused.text);
            assert_eq!(refused.body["available"], 200);
        }
        assert_eq!(balance(client, user).await, 200);
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_unit_with_a_coupon_and_points_goes_to_one_of_a_hundred_and_nobody_else_loses() {
    // Danger: a refused buyer loses a code, points, or stock of the other product. Method: a
    // hundred buyers at once on both paths, each with a code and points of their own, for the last
    // unit of one product among others.
    let shop = Shop::open(2, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let taken = place(
        client,
        PATHS[0],
        2,
        &order_using(&[(2, 99)], &json!({}), 99_000),
    )
    .await;
    assert_eq!(taken.status, 201);
    let id = campaign(client, &json!({ "discountAmount": 500, "count": 101 })).await;
    let users: Vec<u64> = (200..300).collect();
    let mut codes = Vec::new();
    for user in &users {
        codes.push(code(client, *user, id).await);
        sqlx::query("INSERT INTO users (id, email, name) VALUES (?, CONCAT(?, '@x'), '')")
            .bind(user)
            .bind(user)
            .execute(&shop.pool)
            .await
            .unwrap();
        earn(client, *user, 100).await;
    }
    let buyers: Vec<_> = users
        .iter()
        .zip(&codes)
        .map(|(user, code)| {
            let (client, user) = (client.clone(), *user);
            let using = json!({ "couponCode": code, "usePoints": 100 });
            let order = order_using(&[(1, 1), (2, 1)], &using, 1_400);
            let path = PATHS[usize::try_from(user % 2).unwrap()];
            tokio::spawn(async move { (user, place(&client, path, user, &order).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for buyer in buyers {
        let (user, answer) = buyer.await.unwrap();
        match (answer.status, answer.code()) {
            (201, _) => winners.push(user),
            (409, "INSUFFICIENT_STOCK") => assert_eq!(answer.body["productId"], 2),
            _ => panic!("{}", answer.text),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!((shop.available(1).await, shop.available(2).await), (99, 0));
    shop.drained().await;
    for user in users {
        let is_winner = winners.contains(&user);
        assert_eq!(balance(client, user).await, if is_winner { 0 } else { 100 });
        let mine = client.get("/api/coupons/mine").user(user).send().await;
        assert_eq!(mine.body["items"][0]["isUsed"], is_winner, "{}", mine.text);
    }

    // One code and plenty of stock: the same user sends a hundred orders at once.
    let own = code(client, 3, id).await;
    let order = order_using(&[(1, 1)], &json!({ "couponCode": own }), 500);
    let orders: Vec<_> = (0..100)
        .map(|number| {
            let (client, order) = (client.clone(), order.clone());
            tokio::spawn(async move { place(&client, PATHS[number % 2], 3, &order).await })
        })
        .collect();
    let mut accepted = 0;
    for order in orders {
        let answer = order.await.unwrap();
        match (answer.status, answer.code()) {
            (201, _) => accepted += 1,
            (409, "COUPON_NOT_USABLE") => {}
            _ => panic!("{}", answer.text),
        }
    }
    assert_eq!((accepted, shop.available(1).await), (1, 98));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_earns_points_and_its_cancel_nets_what_it_used_and_earned() {
    let mut shop = Shop::open(1, 50).await;
    shop.config.selling.points_earn_hundredths = 1_000;
    let shop = Shop::at(shop.config);
    let service = shop.serve().await;
    let client = &service.client;
    for (path, user) in PATHS.into_iter().zip([2, 3]) {
        let first = place(
            client,
            path,
            user,
            &order_using(&[(1, 2)], &json!({}), 2_000),
        )
        .await;
        assert_eq!(
            (first.status, &first.body["earnedPoints"]),
            (201, &json!(200))
        );
        assert_eq!(balance(client, user).await, 200, "an account of their own");
        let using = json!({ "usePoints": 150 });
        let second = place(client, path, user, &order_using(&[(1, 1)], &using, 850)).await;
        assert_eq!(
            second.body["earnedPoints"], 85,
            "of what is paid: {}",
            second.text
        );
        assert_eq!(balance(client, user).await, 135);
        // Cancelling the first order would take 200 points of 135.
        let refused = cancel(client, path, user, &first).await;
        assert_eq!(
            (refused.status, refused.code()),
            (409, "INSUFFICIENT_POINTS")
        );
        let back = cancel(client, path, user, &second).await;
        assert_eq!(back.status, 200, "{}", back.text);
        assert_eq!(balance(client, user).await, 200, "+150 and -85 at once");
        let back = cancel(client, path, user, &first).await;
        assert_eq!(back.status, 200, "{}", back.text);
        assert_eq!(balance(client, user).await, 0);

        let path = format!("/api/v2/points/users/{user}/history");
        let history = client.get(&path).user(user).send().await;
        let rows = history.body["items"].as_array().unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let of = |name: &str| row[name].as_i64().unwrap();
                let order = row["orderId"].as_str().unwrap();
                (
                    row["type"].as_str().unwrap(),
                    of("amount"),
                    of("balanceSnapshot"),
                    order == first.order_id(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("CANCELED", 200, 0, true),
                ("CANCELED", 65, 200, false),
                ("EARN", 85, 135, false),
                ("USED", 150, 50, false),
                ("EARN", 200, 200, true),
            ]
        );
        // Points that an order moved go back only with the order.
        let point = format!("/api/v1/points/{}/cancel", first.order_id());
        let refused = client.post(&point).user(user).send().await;
        assert_eq!(
            (refused.status, refused.code()),
            (409, "POINT_NOT_CANCELABLE")
        );
    }
    assert_eq!(shop.available(1).await, 50);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
