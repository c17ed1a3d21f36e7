//! S1 to S21.

use serde_json::{Value, json};

use super::{check, send, served};

fn order(user: u64, quantity: u64) -> Value {
    json!({ "userId": user, "orderProducts": [{ "productId": 1, "quantity": quantity,
        "unitPrice": 1_000 }],
        "totalAmount": quantity * 1_000, "deliveryTypeRequest": "ONLINE" })
}

const BASE: &str = "/seeds/stock-flow";

#[tokio::test(flavor = "multi_thread")]
async fn products_are_an_array_the_oldest_first() {
    let (_shop, service) = served(3, 10).await;
    let client = &service.client;
    for path in ["/api/products", "/api/redis/products"] {
        let list = client.get(&format!("{BASE}{path}")).send().await;
        assert_eq!(list.status, 200, "{}", list.text);
        let ids: Vec<u64> = list
            .body
            .as_array()
            .unwrap()
            .iter()
            .map(|of| of["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(
            list.body[0],
            json!({ "id": 1, "name": "product 1", "price": 1_000, "isSoldOut": false })
        );
        for base in [BASE, ""] {
            let one = client.get(&format!("{base}{path}/2")).send().await;
            let wanted = json!({ "id": 2, "name": "product 2", "price": 1_000, "description": "*",
                "isSoldOut": false });
            check(&one, 200, &wanted);
        }
    }
    let gone = client.get(&format!("{BASE}/api/products/99")).send().await;
    check(
        &gone,
        400,
        &json!({ "status": 400, "message": "*", "code": "PRODUCT_NOT_FOUND" }),
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_placed_and_cancelled_on_both_paths() {
    let (shop, service) = served(3, 100).await;
    let client = &service.client;
    let lines = |name: &str| {
        json!({ "productName": name, "quantity": 2, "unitPrice": 1_000,
        "subTotal": 2_000 })
    };
    for (path, placed, cancelled) in [
        ("/api/orders", "SUCCESS", "CANCEL"),
        ("/api/redis/orders", "ORDER_PENDING", "CANCEL_REQUESTED"),
    ] {
        for (base, status) in [(BASE, 200), ("", 201)] {
            let made = send(client.post(&format!("{base}{path}")).user(2), &order(2, 2)).await;
            let wanted = json!({ "orderStatus": placed, "deliveryType": "ONLINE",
                "totalAmount": 2_000, "orderId": "*" });
            check(&made, status, &wanted);
            super::check_members(
                &made.body["orderProductInfos"][0],
                &lines("product 1"),
                &made.text,
            );
            let cancel = format!("{base}{path}/{}/cancel", made.order_id());
            let cancel = client.patch(&cancel).user(2).send().await;
            check(&cancel, 200, &json!({ "orderStatus": cancelled }));
            // The seed's code names the user in the path.
            let made = send(client.post(&format!("{base}{path}")).user(2), &order(2, 2)).await;
            let own = format!("{base}{path}/{}/users/2/cancel", made.order_id());
            let other = format!("{base}{path}/{}/users/3/cancel", made.order_id());
            let refused = client.patch(&other).user(2).send().await;
            check(&refused, 403, &json!({ "status": 403, "message": "*" }));
            check(
                &client.patch(&own).user(2).send().await,
                200,
                &json!({ "orderStatus": cancelled }),
            );
            let again = client.patch(&own).user(2).send().await;
            check(
                &again,
                400,
                &json!({ "status": 400, "message": "*", "code": "INVALID_ORDER_STATUS" }),
            );
        }
        let three: Vec<Value> = (1..=3)
            .map(|id| json!({ "productId": id, "quantity": 1, "unitPrice": 1_000 }))
            .collect();
        let body = json!({ "userId": 2, "orderProducts": three, "totalAmount": 3_000,
            "deliveryTypeRequest": "ONLINE" });
        let made = send(client.post(&format!("{BASE}{path}")).user(2), &body).await;
        assert_eq!(
            made.body["orderProductInfos"].as_array().map(Vec::len),
            Some(3),
            "{}",
            made.text
        );
    }
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_400_with_a_message_under_the_base_path() {
    let (_shop, service) = served(1, 4).await;
    let client = &service.client;
    let mut wrong_total = order(2, 2);
    wrong_total["totalAmount"] = json!(20_000);
    let mut pickup = order(2, 1);
    pickup["deliveryTypeRequest"] = json!("PICKUP");
    for path in ["/api/orders", "/api/redis/orders"] {
        for (body, code, documented) in [
            (&order(2, 5), "INSUFFICIENT_STOCK", 409),
            (&wrong_total, "TOTAL_AMOUNT_MISMATCH", 422),
            (&pickup, "UNPROCESSABLE", 422),
        ] {
            let refused = send(client.post(&format!("{BASE}{path}")).user(2), body).await;
            check(
                &refused,
                400,
                &json!({ "status": 400, "message": "*", "code": code }),
            );
            let refused = send(client.post(path).user(2), body).await;
            check(&refused, documented, &json!({ "code": code }));
        }
        let unnamed = send(client.post(&format!("{BASE}{path}")).user(2), &pickup).await;
        assert_eq!(
            unnamed.body["errors"][0]["pointer"], "/storeId",
            "{}",
            unnamed.text
        );
        let stranger = send(client.post(&format!("{BASE}{path}")), &order(2, 1)).await;
        check(&stranger, 401, &json!({ "status": 401, "message": "*" }));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stores_stock_is_taken_by_pickup_and_by_its_till() {
    let (_shop, service) = served(1, 10).await;
    let client = &service.client;
    let inbound = json!({ "productId": 1, "locationId": 1, "quantity": 20, "reason": "first" });
    assert_eq!(
        send(client.post("/api/products/stock/inbound").admin(), &inbound)
            .await
            .status,
        201
    );
    for delivery in ["PICKUP", "TODAY_DELIVERY"] {
        let mut body = order(2, 1);
        body["deliveryTypeRequest"] = json!(delivery);
        body["storeId"] = json!(1);
        // The seed ignores what it does not know.
        body["memo"] = json!("by the door");
        body["orderProducts"][0]["color"] = json!("red");
        let made = send(
            client.post(&format!("{BASE}/api/redis/orders")).user(2),
            &body,
        )
        .await;
        check(
            &made,
            200,
            &json!({ "deliveryType": delivery, "storeId": 1 }),
        );
    }
    // Calls that the seed only planned are the contract's.
    for (path, wanted) in [
        ("/api/stores/1/products/", json!({ "items": "*" })),
        ("/api/stores/1/products/1/stock", json!({ "available": 18 })),
        (
            "/api/stores/1/products/1/stock/nearby",
            json!({ "items": "*" }),
        ),
    ] {
        check(&client.get(path).user(2).send().await, 200, &wanted);
    }
    let lines =
        json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }], "totalAmount": 1_000 });
    let sold = send(client.post("/api/stores/1/orders").admin(), &lines).await;
    check(&sold, 201, &json!({ "totalAmount": 1_000 }));
    let cancel = format!("/api/stores/1/orders/{}/cancel", sold.order_id());
    assert_eq!(client.patch(&cancel).admin().send().await.status, 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_init_says_that_data_are_there_and_writes_none() {
    let (shop, service) = served(1, 10).await;
    let count = "SELECT COUNT(*) FROM products";
    for path in ["/data-init", "/seeds/stock-flow/data-init"] {
        let answer = service.client.get(path).send().await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "success"));
        let products: i64 = sqlx::query_scalar(count)
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(products, 1);
    }
    service.stop().await;
}
