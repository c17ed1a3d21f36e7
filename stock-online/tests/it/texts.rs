//! Texts as people type them: normal forms, emoji, names that nobody can see, empty fields of
//! forms, byte order marks.

use serde_json::json;

use crate::support::{Answer, Client, Shop};

async fn make(client: &Client, path: &str, member: &str, text: &str) -> Answer {
    let body = match path {
        "/api/works" => json!({ member: text }),
        _ => json!({ member: text, "price": 1 }),
    };
    client.post(path).admin().json(&body).send().await
}

/// The names of the products that a search finds.
async fn found(client: &Client, name: &str) -> Vec<String> {
    let query = serde_urlencoded::to_string([("name", name)]).unwrap();
    let list = client.get(&format!("/api/products?{query}")).send().await;
    assert_eq!(list.status, 200, "{}", list.text);
    let items = list.body["items"].as_array().unwrap();
    let name = |item: &serde_json::Value| item["name"].as_str().unwrap().to_owned();
    items.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_told_apart_and_found_as_people_see_them() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for name in [
        "sushi 🍣",
        "beer 🍺",
        "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}",
    ] {
        assert_eq!(
            make(client, "/api/products", "name", name).await.status,
            201
        );
    }
    assert_eq!(found(client, "🦄").await, [""; 0]);
    assert_eq!(found(client, "🍣").await, ["sushi 🍣"]);
    assert_eq!(found(client, "SUSHI").await, ["sushi 🍣"]);
    // A name may be typed in either normal form, and is stored in one.
    assert_eq!(found(client, "한글").await, ["한글"]);
    assert_eq!(found(client, "\u{1112}\u{1161}\u{11ab}").await, ["한글"]);
    assert_eq!(make(client, "/api/works", "title", "🍣").await.status, 201);
    assert_eq!(make(client, "/api/works", "title", "🍺").await.status, 201);
    assert_eq!(
        make(client, "/api/works", "title", "cafe\u{301}")
            .await
            .status,
        201
    );
    let twin = make(client, "/api/works", "title", "café").await;
    assert_eq!(twin.status, 409, "{}", twin.text);
    for blank in ["\u{3164}", "\u{200b}", "\u{202e}\u{2066}", "\u{3000}"] {
        for (path, member) in [("/api/products", "name"), ("/api/works", "title")] {
            let refused = make(client, path, member, blank).await;
            assert_eq!(refused.status, 422, "{path} {blank:?}: {}", refused.text);
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_fields_are_absent_and_common_marks_are_taken() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let list = client.get("/api/products?name=&status=&priceGte=&limit=1&cursor=");
    let list = list.send().await;
    assert_eq!(list.status, 200, "{}", list.text);
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
    let body = format!("\u{feff}{}", stock_client::order_json(&[(1, 1)]));
    let order = client
        .post("/api/redis/orders")
        .user(2)
        .raw(body.as_bytes());
    let order = order.header("content-type", "application/json; charset=utf8");
    let placed = order.send().await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_that_is_sold_out_by_hand_is_still_owed_to_its_holders() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let hold = async || {
        let body = json!({ "productId": 1, "quantity": 2 });
        let made = client
            .post("/api/products/stock/reserve")
            .user(2)
            .json(&body);
        let made = made.send().await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.member("reservationId").to_owned()
    };
    let (first, second) = (hold().await, hold().await);
    let set = async |status: &str| {
        let body = json!({ "status": status });
        let edit = client.patch("/api/products/1").admin().json(&body);
        assert_eq!(edit.send().await.status, 200);
    };
    set("SOLD_OUT").await;
    let plain = client.order("/api/redis/orders", 3, &[(1, 2)]).send().await;
    assert_eq!(plain.code(), "PRODUCT_NOT_ON_SALE");
    let mut body = stock_client::order_json(&[(1, 2)]);
    body["reservationId"] = json!(first);
    let order = client.post("/api/redis/orders").user(2).json(&body);
    let order = order.send().await;
    assert_eq!(order.status, 201, "{}", order.text);
    let confirm = format!("/api/reservations/{second}/confirm");
    let confirmed = client.post(&confirm).admin().json(&json!({})).send().await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reorder_points_are_for_admins() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let path = "/api/products/stock/available";
    let shown = client.get(path).user(2).send().await;
    let item = &shown.body["items"][0];
    assert_eq!(item["available"], 10);
    for member in ["minStockLevel", "reorderPoint", "isLow", "needsReorder"] {
        assert!(item[member].is_null(), "{member}: {item}");
    }
    let shown = client.get(path).admin().send().await;
    assert_eq!(shown.body["items"][0]["reorderPoint"], 100);
    service.stop().await;
}
