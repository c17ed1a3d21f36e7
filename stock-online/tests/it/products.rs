//! Products: reads by shoppers and changes by admins.

mod skus;

use serde_json::{Value, json};

use crate::support::{Shop, until};

#[tokio::test]
async fn an_admin_creates_edits_stops_and_deletes_a_product() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let body = json!({ "name": "lamp", "description": "bright", "price": 1_000, "stock": 7 });
    assert_eq!(
        client
            .post("/api/products")
            .user(2)
            .json(&body)
            .send()
            .await
            .status,
        403
    );
    let made = client
        .post("/api/products")
        .admin()
        .json(&body)
        .send()
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.body["id"].as_u64().unwrap();
    assert_eq!(made.headers["location"], format!("/api/products/{id}"));
    assert_eq!(
        (
            made.body["isSoldOut"].clone(),
            made.body["finalPrice"].clone()
        ),
        (false.into(), 1_000.into())
    );
    // A confirmed change holds on this instance as soon as it has answered.
    assert_eq!(
        client
            .order("/api/redis/orders", 2, &[(id, 1)])
            .send()
            .await
            .status,
        201
    );

    let path = format!("/api/products/{id}");
    let edited = client
        .patch(&path)
        .admin()
        .json(&json!({ "price": 900 }))
        .send()
        .await;
    assert_eq!(
        (edited.status, edited.body["price"].clone()),
        (200, 900.into())
    );
    assert_eq!(edited.body["name"], "lamp");
    let order = client
        .order("/api/redis/orders", 2, &[(id, 1)])
        .send()
        .await;
    assert_eq!(order.code(), "TOTAL_AMOUNT_MISMATCH");
    assert_eq!(order.body["expected"], 900);

    let stale = client
        .patch(&path)
        .admin()
        .header("if-match", &made.headers["etag"]);
    let stale = stale.json(&json!({ "price": 1 })).send().await;
    assert_eq!((stale.status, stale.code()), (412, "PRECONDITION_FAILED"));
    let stopped = json!({ "name": "lamp", "price": 1_000, "status": "END_OF_SALE" });
    let put = client
        .call("PUT", &path)
        .admin()
        .header("if-match", &edited.headers["etag"]);
    let put = put.json(&stopped).send().await;
    assert_eq!(
        (put.status, put.body["isSoldOut"].clone()),
        (200, true.into()),
        "{}",
        put.text
    );
    let order = client
        .order("/api/redis/orders", 2, &[(id, 1)])
        .send()
        .await;
    assert_eq!((order.status, order.code()), (409, "PRODUCT_NOT_ON_SALE"));
    let again = client
        .patch(&path)
        .admin()
        .json(&json!({ "status": "ACTIVE" }))
        .send()
        .await;
    assert_eq!(again.status, 200);
    assert_eq!(
        client
            .order("/api/redis/orders", 2, &[(id, 1)])
            .send()
            .await
            .status,
        201
    );

    assert_eq!(
        client.call("DELETE", &path).admin().send().await.status,
        204
    );
    assert_eq!(client.get(&path).send().await.code(), "PRODUCT_NOT_FOUND");
    let order = client
        .order("/api/redis/orders", 2, &[(id, 1)])
        .send()
        .await;
    assert_eq!(order.code(), "PRODUCT_NOT_FOUND");
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test]
async fn a_stop_holds_at_once_on_an_instance_that_has_not_heard_of_it() {
    // Danger: another instance prices from an older catalog. Method: two instances; the second
    // one's catalog is made to refresh late, the script must refuse all the same.
    let mut shop = Shop::open(2, 5).await;
    let first = shop.serve().await;
    shop.config.selling.catalog_refresh_ms = 3_600_000;
    let second = shop.serve().await;
    let order = || {
        second
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
    };
    assert_eq!(order().await.status, 201);
    assert_eq!(
        first
            .client
            .call("DELETE", "/api/products/1")
            .admin()
            .send()
            .await
            .status,
        204
    );
    let refused = order().await;
    assert!(
        ["PRODUCT_NOT_ON_SALE", "PRODUCT_NOT_FOUND"].contains(&refused.code()),
        "{}",
        refused.text
    );
    // A changed price is sent to other instances by message.
    let edit = first
        .client
        .patch("/api/products/2")
        .admin()
        .json(&json!({ "price": 5 }));
    assert_eq!(edit.send().await.status, 200);
    until("the second instance has heard of the price", || async {
        let answer = second
            .client
            .order("/api/redis/orders", 2, &[(2, 1)])
            .send()
            .await;
        answer.body["expected"] == 5
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_product_that_does_not_fit_is_refused_and_not_made() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let good = json!({ "name": "lamp", "price": 1 });
    let bad: [(&str, Value); 12] = [
        ("name", json!("")),
        ("name", json!("   ")),
        ("name", json!("x".repeat(101))),
        ("name", json!("a\u{0}b")),
        ("name", json!("a\r\nb")),
        ("description", json!("x".repeat(256))),
        ("price", json!(-1)),
        ("price", json!(1.5)),
        ("status", json!("GONE")),
        ("stock", json!(-1)),
        ("stock", json!(1_000_000_000_001_i64)),
        ("isDeleted", json!(true)),
    ];
    for (name, value) in bad {
        let mut body = good.clone();
        body[name] = value;
        let answer = service
            .client
            .post("/api/products")
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
    assert_eq!(shop.count("SELECT COUNT(*) FROM products").await, 1);
    let emoji = json!({ "name": "램프 💡 \u{202e}", "price": 1 });
    let made = service
        .client
        .post("/api/products")
        .admin()
        .json(&emoji)
        .send()
        .await;
    assert_eq!(
        (made.status, made.body["name"].clone()),
        (201, emoji["name"].clone())
    );
    service.stop().await;
}

#[tokio::test]
async fn a_product_is_created_once_under_one_key() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let send = |price: i64| {
        let body = json!({ "name": "lamp", "price": price, "stock": 3 });
        let call = service.client.post("/api/products").admin().json(&body);
        call.header("idempotency-key", "new-lamp").send()
    };
    let (first, again) = (send(1).await, send(1).await);
    assert_eq!((first.status, again.status), (201, 201), "{}", again.text);
    assert_eq!(first.body["id"], again.body["id"]);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(send(2).await.code(), "IDEMPOTENCY_KEY_REUSED");
    let id = first.body["id"].as_u64().unwrap();
    assert_eq!(shop.available(id).await, 3);
    service.stop().await;
}

#[tokio::test]
async fn products_are_listed_from_both_sides_with_filters_and_pages() {
    let shop = Shop::open(3, 1).await;
    let service = shop.serve().await;
    let client = &service.client;
    assert_eq!(
        client
            .order("/api/redis/orders", 2, &[(2, 1)])
            .send()
            .await
            .status,
        201
    );
    shop.drained().await;
    for path in ["/api/products", "/api/redis/products"] {
        let page = client.get(&format!("{path}?limit=2")).send().await.body;
        let ids: Vec<u64> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["id"].as_u64().unwrap())
            .collect();
        assert_eq!((ids, page["nextCursor"].clone()), (vec![3, 2], json!("2")));
        assert_eq!(page["items"][0]["isSoldOut"], false);
        assert_eq!(page["items"][1]["isSoldOut"], true);
        let found = client
            .get(&format!("{path}?name=duct%203&status=ACTIVE&priceGte=1000"))
            .send();
        assert_eq!(found.await.body["items"].as_array().unwrap().len(), 1);
        let none = client.get(&format!("{path}?name=%25")).send().await;
        assert_eq!(
            none.body["items"],
            json!([]),
            "a % is a character, not a pattern"
        );
        assert_eq!(
            client.get(&format!("{path}?limit=0")).send().await.status,
            422
        );
        let shown = client.get(&format!("{path}/2")).send().await;
        assert_eq!(
            (shown.status, shown.body["isSoldOut"].clone()),
            (200, json!(true))
        );
    }
    service.stop().await;
}
