//! POST `/api/redis/orders` and POST `/api/orders`.

use serde_json::{Value, json};

use crate::support::{Shop, order_json};

const PATHS: [(&str, &str); 2] = [
    ("/api/redis/orders", "ORDER_PENDING"),
    ("/api/orders", "SUCCESS"),
];

#[tokio::test]
async fn an_order_is_accepted_on_both_paths_and_takes_its_stock() {
    let shop = Shop::open(3, 10).await;
    let service = shop.serve().await;
    for (path, status) in PATHS {
        let answer = service
            .client
            .order(path, 2, &[(1, 2), (2, 1)])
            .send()
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(answer.body["orderStatus"], status);
        assert_eq!(answer.body["totalAmount"], 3_000);
        assert_eq!(answer.body["storeId"], Value::Null);
        assert_eq!(
            answer.body["orderProductInfos"][0],
            json!({ "productId": 1, "productName": "product 1", "quantity": 2,
                "unitPrice": 1_000, "subTotal": 2_000 })
        );
        assert_eq!(
            answer.headers["location"],
            format!("/api/orders/{}", answer.order_id())
        );
    }
    assert_eq!((shop.available(1).await, shop.available(2).await), (6, 8));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test]
async fn one_product_on_two_lines_is_one_line_with_the_sum() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    for (path, _) in PATHS {
        let answer = service
            .client
            .order(path, 2, &[(1, 1), (1, 1)])
            .send()
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(
            answer.body["orderProductInfos"].as_array().unwrap().len(),
            1
        );
        assert_eq!(answer.body["orderProductInfos"][0]["quantity"], 2);
        let answer = service
            .client
            .order(path, 2, &[(1, 3), (1, 3)])
            .send()
            .await;
        assert_eq!((answer.status, answer.code()), (409, "INSUFFICIENT_STOCK"));
        assert_eq!(answer.body["productId"], 1);
    }
    assert_eq!(shop.available(1).await, 1);
    service.stop().await;
}

#[tokio::test]
async fn an_order_of_several_products_is_all_or_nothing() {
    let shop = Shop::open(2, 5).await;
    let service = shop.serve().await;
    let answer = service
        .client
        .order("/api/redis/orders", 2, &[(1, 5), (2, 6)])
        .send()
        .await;
    assert_eq!((answer.status, answer.code()), (409, "INSUFFICIENT_STOCK"));
    assert_eq!(
        (
            answer.body["productId"].clone(),
            answer.body["available"].clone()
        ),
        (2.into(), 5.into())
    );
    assert_eq!((shop.available(1).await, shop.available(2).await), (5, 5));
    service.stop().await;
}

/// Sends `body` on both paths, which must refuse it.
async fn refuses(client: &crate::support::Client, body: &Value, status: u16, code: &str) {
    for (path, _) in PATHS {
        let answer = client.post(path).user(2).json(body).send().await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {body}: {}",
            answer.text
        );
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.body["status"], status);
        assert!(!answer.body["requestId"].as_str().unwrap().is_empty());
    }
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = order_json(&[(1, 1)]);
    change(&mut body);
    body
}

#[tokio::test]
async fn what_cannot_be_ordered_is_refused_with_its_code_and_changes_nothing() {
    let shop = Shop::open(2, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let deleted = client
        .call("DELETE", "/api/products/2")
        .admin()
        .send()
        .await;
    assert_eq!(deleted.status, 204);

    refuses(client, &order_json(&[(2, 1)]), 404, "PRODUCT_NOT_FOUND").await;
    refuses(client, &order_json(&[(99, 1)]), 404, "PRODUCT_NOT_FOUND").await;
    refuses(
        client,
        &with(|b| b["totalAmount"] = json!(1)),
        422,
        "TOTAL_AMOUNT_MISMATCH",
    )
    .await;
    let price = |unit: Value| with(move |b| b["orderProducts"][0]["unitPrice"] = unit);
    refuses(client, &price(json!(999)), 409, "PRICE_CHANGED").await;
    refuses(
        client,
        &with(|b| b["userId"] = json!(3)),
        403,
        "USER_MISMATCH",
    )
    .await;
    refuses(
        client,
        &with(|b| b["couponCode"] = json!("AB12CD34")),
        409,
        "COUPON_NOT_USABLE",
    )
    .await;
    refuses(
        client,
        &with(|b| {
            b["usePoints"] = json!(5);
            b["totalAmount"] = json!(995);
        }),
        409,
        "INSUFFICIENT_POINTS",
    )
    .await;
    refuses(
        client,
        &with(|b| b["deliveryType"] = json!("PICKUP")),
        422,
        "UNPROCESSABLE",
    )
    .await;
    let pickup = with(|b| {
        b["deliveryType"] = json!("PICKUP");
        b["storeId"] = json!(3);
    });
    refuses(client, &pickup, 409, "INSUFFICIENT_STOCK").await;
    for quantity in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_992_u64),
        json!("1"),
        json!(null),
        json!(true),
        json!(1_000_001),
        json!(u64::MAX),
    ] {
        let body = with(|b| b["orderProducts"][0]["quantity"] = quantity);
        refuses(client, &body, 422, "UNPROCESSABLE").await;
    }
    refuses(
        client,
        &with(|b| b["price"] = json!(1)),
        422,
        "UNPROCESSABLE",
    )
    .await;
    refuses(
        client,
        &with(|b| b["orderProducts"] = json!([])),
        422,
        "UNPROCESSABLE",
    )
    .await;
    refuses(
        client,
        &with(|b| b["totalAmount"] = json!(-1)),
        422,
        "UNPROCESSABLE",
    )
    .await;
    refuses(client, &json!([]), 422, "UNPROCESSABLE").await;
    let many: Vec<(u64, i64)> = vec![(1, 1); 101];
    refuses(client, &order_json(&many), 422, "UNPROCESSABLE").await;
    let sum = order_json(&[(1, 1_000_000), (1, 1)]);
    refuses(client, &sum, 422, "UNPROCESSABLE").await;

    shop.drained().await;
    assert_eq!(shop.available(1).await, 5);
    assert_eq!(shop.count("SELECT COUNT(*) FROM orders").await, 0);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_before_anything_is_decided() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let path = "/api/redis/orders";
    let body = order_json(&[(1, 1)]).to_string();
    let json = ("content-type", "application/json");
    let check = async |call: crate::support::Call<'_>, status: u16, code: &str| {
        let answer = call.send().await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{}",
            answer.text
        );
    };
    check(
        client
            .post(path)
            .raw(body.as_bytes())
            .header(json.0, json.1),
        401,
        "UNAUTHORIZED",
    )
    .await;
    let bad = client
        .post(path)
        .header("authorization", "Bearer x.y.z")
        .raw(body.as_bytes());
    check(bad.header(json.0, json.1), 401, "UNAUTHORIZED").await;
    check(
        client.post(path).user(2).raw(body.as_bytes()),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    )
    .await;
    let text = client
        .post(path)
        .user(2)
        .raw(body.as_bytes())
        .header(json.0, "text/plain");
    check(text, 415, "UNSUPPORTED_MEDIA_TYPE").await;
    for broken in ["", "{", "{\"orderProducts\":", "\u{feff}", "{} x", "nul"] {
        let call = client
            .post(path)
            .user(2)
            .raw(broken.as_bytes())
            .header(json.0, json.1);
        check(call, 400, "MALFORMED_JSON").await;
    }
    let huge = vec![b' '; 100_000];
    let call = client.post(path).user(2).raw(&huge).header(json.0, json.1);
    check(call, 413, "PAYLOAD_TOO_LARGE").await;
    for key in ["", "two words", &"k".repeat(256)] {
        let call = client
            .post(path)
            .user(2)
            .raw(body.as_bytes())
            .header(json.0, json.1);
        check(
            call.header("idempotency-key", key),
            400,
            "IDEMPOTENCY_KEY_INVALID",
        )
        .await;
    }
    check(client.get("/api/nothing"), 404, "NOT_FOUND").await;
    check(
        client.call("DELETE", path).user(2),
        405,
        "METHOD_NOT_ALLOWED",
    )
    .await;
    assert_eq!(shop.available(1).await, 5);
    let slash = client
        .post("/api/redis/orders/")
        .user(2)
        .json(&order_json(&[(1, 1)]));
    assert_eq!(slash.send().await.status, 201);
    service.stop().await;
}
