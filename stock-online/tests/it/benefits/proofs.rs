//! Checks and repairs of coupons and points: `verify` finds changes made behind the engine's back,
//! `recover` brings back codes, draws and cancels.

use redis::cmd;
use serde_json::json;
use sqlx::AssertSqlSafe;
use stock_common::config::Durability;
use stock_common::id::{Position, UserId};
use stock_domain::account::Account;
use stock_engine::recover::{Allowed, recover};
use stock_engine::verify::verify;
use stock_mysql::point_reports;

use super::{PATHS, balance, campaign, code, draw, earn, order_using};
use crate::support::{OwnServers, Shop, until};

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_what_was_changed_behind_the_engines_back() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = campaign(client, &json!({ "discountAmount": 300, "count": 5 })).await;
    let (used, free) = (code(client, 2, id).await, code(client, 3, id).await);
    earn(client, 2, 1_000).await;
    let using = json!({ "couponCode": used, "usePoints": 200 });
    let order = order_using(&[(1, 1)], &using, 500);
    let placed = client.post(PATHS[0]).user(2).json(&order).send().await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    shop.drained().await;
    let today = stock_common::clock::datetime(shop.ledger.redis_now_ms()).date();
    let mut connection = shop.pool.acquire().await.unwrap();
    let begins = |date| {
        let ms = stock_common::clock::day_begins_ms(date, chrono_tz::UTC);
        Position::from_parts(ms.unwrap(), 0).unwrap()
    };
    let span = begins(today)..begins(today.succ_opt().unwrap());
    let written = point_reports::write(&mut connection, today, span).await;
    assert_eq!(written.unwrap(), 1);
    shop.verify().await;
    service.stop().await;

    let order = placed.order_id();
    for (check, change, back) in [
        (
            "coupon_issues",
            format!("UPDATE coupon_issues SET code = 'NNNNNNNN' WHERE code = '{free}'"),
            format!("UPDATE coupon_issues SET code = '{free}' WHERE code = 'NNNNNNNN'"),
        ),
        (
            "coupon_issues",
            format!("UPDATE coupon_issues SET order_id = NULL WHERE code = '{used}'"),
            format!("UPDATE coupon_issues SET order_id = {order} WHERE code = '{used}'"),
        ),
        (
            "coupons",
            "INSERT INTO coupon_issues (id, coupon_id, user_id, code) VALUES (1, 1, 9, 'YYYYYYYY')"
                .to_owned(),
            "DELETE FROM coupon_issues WHERE id = 1".to_owned(),
        ),
        (
            "point_transactions",
            "UPDATE point_transactions SET balance_snapshot = 1 WHERE type = 'USED'".to_owned(),
            "UPDATE point_transactions SET balance_snapshot = 800 WHERE type = 'USED'".to_owned(),
        ),
        (
            "point_transactions",
            "UPDATE point_transactions SET description = 'another' WHERE type = 'EARN'".to_owned(),
            "UPDATE point_transactions SET description = 'a gift' WHERE type = 'EARN'".to_owned(),
        ),
        (
            "daily_point_reports",
            "UPDATE daily_point_reports SET use_amount = use_amount - 1".to_owned(),
            "UPDATE daily_point_reports SET use_amount = use_amount + 1".to_owned(),
        ),
        (
            "daily_point_reports",
            "UPDATE daily_point_reports SET net_amount = net_amount + 1".to_owned(),
            "UPDATE daily_point_reports SET net_amount = net_amount - 1".to_owned(),
        ),
        (
            "orders",
            format!("UPDATE orders SET used_points = 100 WHERE id = {order}"),
            format!("UPDATE orders SET used_points = 200 WHERE id = {order}"),
        ),
        (
            "orders",
            format!("UPDATE orders SET coupon_code = 'ZZZZZZZZ' WHERE id = {order}"),
            format!("UPDATE orders SET coupon_code = '{used}' WHERE id = {order}"),
        ),
    ] {
        let run = async |text: &str| {
            let done = sqlx::query(AssertSqlSafe(text.to_owned())).execute(&shop.pool);
            assert_eq!(done.await.unwrap().rows_affected(), 1, "{text}");
        };
        run(&change).await;
        let report = verify(&shop.pool, &shop.ledger, true, &mut |_, _| {}).await;
        let report = report.unwrap();
        let named = report.differences.iter().any(|found| found.check == check);
        assert!(named, "{change}: {:?}", report.differences);
        run(&back).await;
    }
    shop.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_gets_its_codes_draws_and_cancels_back() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = campaign(client, &json!({ "discountAmount": 300, "count": 5 })).await;
    let (used, free) = (code(client, 2, id).await, code(client, 3, id).await);
    let personal = json!({ "discountAmount": 100, "userId": 3, "code": "WELCOME" });
    assert_eq!(super::coupon(client, &personal).await.status, 201);
    let gift = earn(client, 2, 1_000).await;
    let order = order_using(
        &[(1, 1)],
        &json!({ "couponCode": used, "usePoints": 200 }),
        500,
    );
    let placed = client.post(PATHS[0]).user(2).json(&order).send().await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let spent = json!({ "userId": 2, "amount": 50, "description": "" });
    let spent = client
        .post("/api/v2/points/use")
        .user(2)
        .json(&spent)
        .send()
        .await;
    let back = format!("/api/v2/points/{}/cancel", spent.member("id"));
    assert_eq!(client.post(&back).user(2).status().await, 200);
    shop.drained().await;

    let redis = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let _: () = cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
    until("the service is fenced", || async {
        client.post(&back).user(2).send().await.code() == "FENCED"
    })
    .await;
    recover(&shop.config, &shop.pool, Allowed::default(), &mut |_, _| {})
        .await
        .unwrap();
    until("the fence is open", || async {
        client.get("/readyz").send().await.status == 200
    })
    .await;

    assert_eq!(balance(client, 2).await, 800);
    let levels = shop.ledger.levels(&[Account::points(UserId(2))]).await;
    assert_eq!(levels.unwrap().len(), 1);
    assert_eq!(
        draw(client, 2, id, &json!({})).await.code(),
        "COUPON_ALREADY_ISSUED"
    );
    let again = client.post(PATHS[0]).user(2).json(&order).send().await;
    assert_eq!(again.code(), "COUPON_NOT_USABLE", "{}", again.text);
    assert_eq!(
        client.post(&back).user(2).send().await.code(),
        "POINT_ALREADY_CANCELED"
    );
    for (code, total) in [(free.as_str(), 700), ("WELCOME", 900)] {
        let order = order_using(&[(1, 1)], &json!({ "couponCode": code }), total);
        let placed = client.post(PATHS[1]).user(3).json(&order).send().await;
        assert_eq!(placed.status, 201, "{}", placed.text);
    }
    let cancel = format!("{}/{}/cancel", PATHS[0], placed.order_id());
    assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    let gift = format!("/api/v1/points/{}/cancel", gift.member("id"));
    assert_eq!(client.post(&gift).admin().status().await, 200);
    assert_eq!(balance(client, 2).await, 0);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
