//! M1 to M13.

use serde_json::{Value, json};

use super::{check, send, served};

const BOTH: [&str; 2] = ["", "/seeds/milly"];

fn product(price: f64, stock: i64) -> Value {
    json!({ "name": "테스트 상품", "description": "설명", "price": price, "stock": stock })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_made_listed_and_stocked() {
    let (shop, service) = served(2, 10).await;
    let client = &service.client;
    for (base, number) in BOTH.iter().zip([3, 4]) {
        let path = format!("{base}/commerce/products/");
        let made = send(client.post(&path).admin(), &product(10_000.0, 100)).await;
        let id = format!("PROD{number}");
        check(
            &made,
            200,
            &json!({ "id": id, "name": "테스트 상품", "description": "설명", "price": 10_000.0,
            "stock_count": 100, "discount_amount": null, "final_price": null }),
        );
        let stocked = send(
            client.post(&format!("{path}{id}/stock/")).admin(),
            &json!({ "change": 50 }),
        )
        .await;
        assert_eq!(
            (stocked.status, &stocked.body),
            (200, &json!({ "new_stock_count": 150 }))
        );
        let below = send(
            client.post(&format!("{path}{id}/stock/")).admin(),
            &json!({ "change": -500 }),
        )
        .await;
        check(&below, 400, &json!({ "msg": "*", "detail": "*" }));
        for body in [
            product(-1_000.0, 1),
            product(1_000.0, -10),
            product(10.5, 1),
        ] {
            let refused = send(client.post(&path).admin(), &body).await;
            check(&refused, 400, &json!({ "msg": "*", "detail": "*" }));
        }
        assert_eq!(
            send(client.post(&path).user(2), &product(1.0, 1))
                .await
                .status,
            403
        );
        let list = client.get(&path).send().await;
        assert_eq!(list.body["products"][0]["id"], "PROD1", "{}", list.text);
        super::check_members(
            &list.body["products"][number - 1],
            &json!({ "id": id, "stock_count": 150,
            "price": 10_000.0, "discount_amount": 0.0, "final_price": 10_000.0 }),
            &list.text,
        );
        let found = client.get(&format!(
            "{path}?product_name=%ED%85%8C%EC%8A%A4%ED%8A%B8&page_size=1&page_index=1"
        ));
        assert_eq!(found.send().await.body["products"][0]["id"], "PROD3");
        let beyond = client
            .get(&format!("{path}?page_size=10&page_index=9000"))
            .send()
            .await;
        assert_eq!((beyond.status, &beyond.body["products"]), (200, &json!([])));
        let wrong = client.get(&format!("{path}?page_index=0")).send().await;
        check(&wrong, 400, &json!({ "msg": "*", "detail": "*" }));
        let unknown = client.get(&format!("{path}PROD99/")).send().await;
        check(&unknown, 404, &json!({ "msg": "*", "detail": "*" }));
    }
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_price_takes_the_discount_and_the_coupon() {
    let (_shop, service) = served(1, 10).await;
    let client = &service.client;
    for (base, id) in BOTH.iter().zip(["PROD2", "PROD3"]) {
        let path = format!("{base}/commerce/products/");
        send(client.post(&path).admin(), &product(20_000.0, 5)).await;
        let own = format!("{path}{id}/");
        let body = json!({ "percentage": 10.0, "is_active": true });
        let off = send(client.post(&format!("{own}discounts/")).admin(), &body).await;
        check(
            &off,
            200,
            &json!({ "discount_id": "*", "product_id": id, "percentage": 10.0, "is_active": true }),
        );
        let none = send(
            client.post(&format!("{own}discounts/")).admin(),
            &json!({ "percentage": 0 }),
        )
        .await;
        check(&none, 400, &json!({ "msg": "*" }));
        let coupon = |code: &str| {
            json!({ "code": code, "discount_percentage": 10.0,
            "valid_from": "2024-01-01T00:00:00Z", "valid_to": "2099-12-31T23:59:59Z" })
        };
        let coupons = format!("{base}/commerce/coupons/");
        let code = format!("TEN-{id}");
        let made = send(client.post(&coupons).admin(), &coupon(&code)).await;
        check(
            &made,
            200,
            &json!({ "cupon_id": "*", "user_id": "1", "code": code, "discount_percentage": 10.0 }),
        );
        assert!(
            made.member("cupon_id").starts_with("CUPON"),
            "{}",
            made.text
        );
        let past = json!({ "discount_percentage": 20.0, "valid_from": "2024-01-01T00:00:00Z",
            "valid_to": "2024-12-31T23:59:59Z" });
        check(
            &send(client.post(&coupons).admin(), &past).await,
            200,
            &json!({ "code": "*" }),
        );
        check(
            &send(client.post(&coupons), &coupon("x")).await,
            401,
            &json!({ "error": "*" }),
        );
        assert_eq!(
            send(client.post(&coupons).user(2), &coupon("x"))
                .await
                .status,
            403
        );
        let shown = client.get(&own).admin().send().await;
        check(
            &shown,
            200,
            &json!({ "product": { "id": id, "name": "*", "description": "*", "price": 20_000.0,
            "created_at": "*", "updated_at": "*" }, "product_discount_amount": 2_000.0,
            "cupon_discount_amount": 1_800.0, "total_amount": 16_200.0, "final_price": 16_200.0 }),
        );
        let anonymous = client.get(&own).send().await;
        check(
            &anonymous,
            200,
            &json!({ "cupon_discount_amount": 0.0, "final_price": 18_000.0 }),
        );
    }
    service.stop().await;
}
