//! Product reads from memory: as fresh as the last order, tagged, and only of products that the
//! shop shows.

use serde_json::json;
use stock_online::ServiceRole;

use crate::support::{Client, Shop, until};

async fn seq(client: &Client, path: &str) -> u64 {
    let answer = client.get(path).send().await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    let item = answer.body.pointer("/items/0").unwrap_or(&answer.body);
    item["stockVersion"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_less_than_the_last_order_of_this_instance() {
    // Danger: levels are kept in memory for a moment, and an order is answered meanwhile. Method:
    // each order is followed at once by reads of every kind.
    let shop = Shop::open(1, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let first = seq(client, "/api/products/1").await;
    for round in 1..=40 {
        let order = client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
        assert_eq!(order.status, 201, "{}", order.text);
        for path in [
            "/api/products/1",
            "/api/products",
            "/api/redis/products/1",
            "/api/redis/products",
        ] {
            assert_eq!(seq(client, path).await, first + round, "{path}");
        }
    }
    shop.drained().await;
    assert_eq!(
        seq(client, "/api/products/1?source=mysql").await,
        first + 40
    );
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_that_was_just_created_is_in_the_next_list_with_its_stock() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for number in 0..10 {
        let body = json!({ "name": format!("lamp {number}"), "price": 5, "stock": 3 });
        let made = client
            .post("/api/products")
            .admin()
            .json(&body)
            .send()
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
        for path in ["/api/products", "/api/products?name=lamp"] {
            let list = client.get(path).send().await;
            let item = &list.body["items"][0];
            assert_eq!(item["id"], made.body["id"], "{path}");
            assert_eq!(item["isSoldOut"], false, "{path}: {item}");
            assert_eq!(item["stockVersion"], made.body["stockVersion"], "{path}");
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_client_has_is_not_sent_again() {
    let shop = Shop::open(2, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    for path in ["/api/products/1", "/api/redis/products?limit=2"] {
        let first = client.get(path).send().await;
        assert_eq!(first.headers["cache-control"], "public, max-age=1");
        let tag = &first.headers["etag"];
        let again = || client.get(path).header("if-none-match", tag);
        let same = again().send().await;
        assert_eq!((same.status, same.text.as_str()), (304, ""), "{path}");
        assert_eq!(
            (&same.headers["etag"], same.headers.get("content-type")),
            (tag, None)
        );
        let order = client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
        assert_eq!(order.status, 201);
        let changed = again().send().await;
        assert_eq!(changed.status, 200, "{path}");
        assert_ne!(&changed.headers["etag"], tag);
        // An answer to a user may not be cached.
        let own = client.get(path).user(2).send().await;
        assert_eq!(own.headers["cache-control"], "no-store");
    }
    // An order in between is no reason to refuse an edit; another edit is.
    let seen = client.get("/api/products/1").admin().send().await;
    let order = client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
    assert_eq!(order.status, 201);
    let edit = || {
        let body = json!({ "price": 7 });
        let edit = client.patch("/api/products/1").admin().json(&body);
        edit.header("if-match", &seen.headers["etag"])
    };
    assert_eq!(edit().send().await.status, 200);
    assert_eq!(edit().send().await.code(), "PRECONDITION_FAILED");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn products_that_are_not_for_sale_yet_are_shown_to_admins_only() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let body = json!({ "name": "secret", "price": 5, "status": "INACTIVE", "reorderPoint": 4 });
    let made = client
        .post("/api/products")
        .admin()
        .json(&body)
        .send()
        .await;
    let one = format!("/api/products/{}", made.body["id"]);
    for list in [
        "/api/products",
        "/api/products?status=INACTIVE",
        "/api/products?name=secret",
        "/api/redis/products?source=mysql",
    ] {
        for call in [client.get(list), client.get(list).user(2)] {
            let shown = call.send().await;
            assert!(!shown.text.contains("secret"), "{list}: {}", shown.text);
        }
        let shown = client.get(list).admin().send().await;
        assert!(shown.text.contains("secret"), "{list}: {}", shown.text);
    }
    assert_eq!(
        client.get(&one).user(2).send().await.code(),
        "PRODUCT_NOT_FOUND"
    );
    let page = one.replace("/api", "");
    assert_eq!(client.get(&page).send().await.status, 404);
    let shown = client.get(&one).admin().send().await;
    assert_eq!(
        (shown.status, shown.body["reorderPoint"].as_i64()),
        (200, Some(4))
    );
    // The numbers that an admin plans with are for admins only.
    let shown = client.get("/api/products/1").user(2).send().await;
    assert_eq!(shown.body.get("reorderPoint"), None);
    assert_eq!(shown.body.get("minStockLevel"), None);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_shows_an_order_within_a_moment() {
    // Danger: another instance shows an old level for ever. Method: an order on one instance, and
    // reads on another until they show it.
    let shop = Shop::open(1, 1_000).await;
    let (first, second) = (
        shop.serve().await,
        shop.serve_roles(&[ServiceRole::Http]).await,
    );
    let before = seq(&second.client, "/api/products/1").await;
    let order = first.client.order("/api/redis/orders", 2, &[(1, 1)]);
    assert_eq!(order.send().await.status, 201);
    until("the other instance shows it", || async {
        seq(&second.client, "/api/products/1").await == before + 1
    })
    .await;
    first.stop().await;
    second.stop().await;
}
