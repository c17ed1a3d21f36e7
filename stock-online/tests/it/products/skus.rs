//! SKUs: the shop's own numbers of its products, in products, lines, lists and files.

use serde_json::{Value, json};
use stock_client::{Answer, Client};

use crate::ops::command;
use crate::support::{Shop, folder};

async fn make(client: &Client, sku: &str) -> Answer {
    let body = json!({ "name": "lamp", "price": 1_000, "stock": 10, "sku": sku });
    client
        .post("/api/products")
        .admin()
        .json(&body)
        .send()
        .await
}

async fn patch(client: &Client, id: u64, body: &Value) -> Answer {
    let path = format!("/api/products/{id}");
    client.patch(&path).admin().json(body).send().await
}

fn order(line: &Value) -> Value {
    json!({ "orderProducts": [line], "totalAmount": 1_000, "deliveryType": "ONLINE" })
}

async fn post(client: &Client, path: &str, body: &Value) -> Answer {
    client.post(path).user(2).json(body).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_may_name_its_product_by_its_sku() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let made = make(client, "LAMP-01/red").await;
    assert_eq!(
        (made.status, &made.body["sku"]),
        (201, &json!("LAMP-01/red")),
        "{}",
        made.text
    );
    let id = made.body["id"].as_u64().unwrap();
    let line = json!({ "sku": "LAMP-01/red", "quantity": 1 });

    for path in ["/api/redis/orders", "/api/orders", "/api/checkouts"] {
        let placed = post(client, path, &order(&line)).await;
        assert_eq!(placed.status, 201, "{path}: {}", placed.text);
        assert_eq!(
            placed.body["orderProductInfos"][0]["productId"], id,
            "{path}"
        );
    }
    let reserved = post(client, "/api/products/stock/reserve", &line).await;
    let of = (reserved.status, &reserved.body["productId"]);
    assert_eq!(of, (201, &json!(id)), "{}", reserved.text);
    // Both names of a product are one line.
    let mut both = order(&line);
    both["orderProducts"] = json!([line, { "productId": id, "quantity": 1 }]);
    both["totalAmount"] = json!(2_000);
    let both = post(client, "/api/redis/orders", &both).await;
    let lines = both.body["orderProductInfos"].as_array();
    assert_eq!(lines.map(Vec::len), Some(1), "{}", both.text);
    let part = json!({ "lines": [line] });
    let cancel = format!("/api/redis/orders/{}/cancel", both.member("orderId"));
    let cancelled = client.patch(&cancel).user(2).json(&part).send().await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    assert_eq!(cancelled.body["orderProductInfos"][0]["quantityLeft"], 1);
    assert_eq!(shop.available(id).await, 10 - 5);

    let path = "/api/redis/orders";
    let unknown = post(
        client,
        path,
        &order(&json!({ "sku": "lamp-01/red", "quantity": 1 })),
    )
    .await;
    assert_eq!(
        (unknown.status, unknown.code()),
        (404, "PRODUCT_NOT_FOUND"),
        "{}",
        unknown.text
    );
    for (line, pointer) in [
        (json!({ "quantity": 1 }), "/orderProducts/0/productId"),
        (
            json!({ "sku": "A", "productId": 1, "quantity": 1 }),
            "/orderProducts/0/sku",
        ),
        (
            json!({ "sku": "a,b", "quantity": 1 }),
            "/orderProducts/0/sku",
        ),
        (json!({ "sku": "", "quantity": 1 }), "/orderProducts/0/sku"),
        (json!({ "sku": 7, "quantity": 1 }), "/orderProducts/0/sku"),
    ] {
        let refused = post(client, path, &order(&line)).await;
        assert_eq!(refused.status, 422, "{line}: {}", refused.text);
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{line}");
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sku_belongs_to_one_product_and_a_deleted_one_gives_it_back() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let first = make(client, "A").await.body["id"].as_u64().unwrap();
    let twin = make(client, "A").await;
    assert_eq!(
        (twin.status, twin.code()),
        (409, "SKU_TAKEN"),
        "{}",
        twin.text
    );
    let second = make(client, "a").await.body["id"].as_u64().unwrap();
    let taken = patch(client, second, &json!({ "sku": "A" })).await;
    assert_eq!(
        (taken.status, taken.code()),
        (409, "SKU_TAKEN"),
        "{}",
        taken.text
    );
    // Nothing was half done: neither is the product stopped.
    let taken = patch(client, second, &json!({ "sku": "A", "status": "INACTIVE" })).await;
    assert_eq!(taken.code(), "SKU_TAKEN", "{}", taken.text);
    let placed = client
        .order("/api/redis/orders", 2, &[(second, 1)])
        .send()
        .await;
    assert_eq!(placed.status, 201, "{}", placed.text);

    let found = async |sku: &str| {
        let path = format!("/api/products?sku={sku}");
        let list = client.get(&path).send().await;
        let items = list.body["items"].as_array().unwrap().clone();
        let ids: Vec<u64> = items.iter().filter_map(|of| of["id"].as_u64()).collect();
        ids
    };
    assert_eq!(
        (found("A").await, found("a").await),
        (vec![first], vec![second])
    );
    assert_eq!(found("B").await, Vec::<u64>::new());
    // A repeated request gets its first answer, whatever became of the SKU.
    let body = order(&json!({ "sku": "A", "quantity": 1 }));
    let buy = async || {
        let call = client.post("/api/redis/orders").user(2).json(&body);
        call.header("idempotency-key", "one").send().await
    };
    let placed = buy().await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let path = format!("/api/products/{first}");
    assert_eq!(client.call("DELETE", &path).admin().status().await, 204);
    let again = buy().await;
    assert_eq!(
        again.member("orderId"),
        placed.member("orderId"),
        "{}",
        again.text
    );
    let moved = patch(client, second, &json!({ "sku": "A" })).await;
    assert_eq!(
        (moved.status, &moved.body["sku"]),
        (200, &json!("A")),
        "{}",
        moved.text
    );
    assert_eq!((found("A").await, found("a").await), (vec![second], vec![]));
    let put = json!({ "name": "lamp", "price": 1_000 });
    let path = format!("/api/products/{second}");
    let bare = client.call("PUT", &path).admin().json(&put).send().await;
    assert_eq!(bare.body["sku"], Value::Null, "{}", bare.text);
    assert_eq!(found("A").await, Vec::<u64>::new());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_name_products_by_their_skus() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = make(client, "LAMP-01").await.body["id"].as_u64().unwrap();
    let import = async |text: &str| {
        let call = client.post("/api/stock/import").admin();
        let call = call.raw(text.as_bytes());
        call.header("content-type", "text/csv").send().await
    };
    let head = "sku,location_id,quantity,mode\n";
    let done = import(&format!("{head}LAMP-01,0,5,delta\n")).await;
    assert_eq!(
        (done.status, &done.body["applied"]),
        (201, &json!(1)),
        "{}",
        done.text
    );
    assert_eq!(shop.available(id).await, 15);
    let refused = import(&format!("{head}LAMP-01,0,5,delta\nlamp-01,0,5,delta\n")).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(refused.body["errors"][0]["line"], 3, "{}", refused.text);

    // The same from the command line, and what was exported can be imported.
    let file = folder("skus").join("stock.csv");
    let path = file.to_str().unwrap();
    std::fs::write(&file, format!("{head}LAMP-01,0,7,set\n")).unwrap();
    let (status, _, said) = command(&shop, &["import", path]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(shop.available(id).await, 7);
    shop.drained().await;
    let export = client.get("/api/stock/export").admin().send().await.text;
    let row = export.lines().find(|row| row.ends_with(",LAMP-01"));
    assert!(
        row.is_some_and(|row| row.starts_with(&format!("{id},0,lamp,7,"))),
        "{export}"
    );
    assert_eq!(import(&export).await.status, 201);
    shop.verify().await;
    service.stop().await;
}
