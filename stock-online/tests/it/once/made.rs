//! The objects that the requests are about.

use serde_json::{Value, json};

use crate::support::{Client, Shop, order_json};

/// The objects, made beforehand.
pub(super) struct Made {
    pub(super) orders: Vec<String>,
    pub(super) till_orders: Vec<String>,
    pub(super) holds: Vec<String>,
    pub(super) checkouts: Vec<String>,
    pub(super) points: Vec<String>,
    pub(super) sale: u64,
    pub(super) oversold: String,
    pub(super) invalid: u64,
    pub(super) webhook: u64,
    pub(super) delivery: u64,
    pub(super) key: String,
}

async fn id(client: &Client, path: &str, body: &Value, member: &str) -> String {
    let made = client.post(path).admin().json(body).send().await;
    assert!([200, 201].contains(&made.status), "{path}: {}", made.text);
    match &made.body[member] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) async fn prepare(shop: &Shop, client: &Client) -> Made {
    let order = order_json(&[(1, 1)]);
    let till = json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }], "totalAmount": 1000 });
    let stock = json!({ "productId": 1, "locationId": 1, "quantity": 100, "reason": "test" });
    let store = json!({ "storeId": 1, "name": "Gangnam", "latitude": 37.4, "longitude": 127.0 });
    if client.get("/api/stores").send().await.body["items"] == json!([]) {
        id(client, "/api/stores", &store, "storeId").await;
    }
    id(client, "/api/products/stock/inbound", &stock, "position").await;
    let mut made = Made {
        orders: Vec::new(),
        till_orders: Vec::new(),
        holds: Vec::new(),
        checkouts: Vec::new(),
        points: Vec::new(),
        sale: 0,
        oversold: String::new(),
        invalid: 0,
        webhook: 0,
        delivery: 0,
        key: String::new(),
    };
    let returned = order_json(&[(1, 2)]);
    for _ in 0..2 {
        made.orders
            .push(id(client, "/api/redis/orders", &order, "orderId").await);
        made.till_orders
            .push(id(client, "/api/stores/1/orders", &till, "orderId").await);
        // The orders are of fewer units, so none of them takes it.
        let hold = json!({ "productId": 1, "quantity": 3 });
        made.holds.push(
            id(
                client,
                "/api/products/stock/reserve",
                &hold,
                "reservationId",
            )
            .await,
        );
        made.checkouts
            .push(id(client, "/api/checkouts", &order, "checkoutId").await);
        let points = json!({ "userId": 2, "amount": 100, "description": "test" });
        made.points
            .push(id(client, "/api/v2/points/earn", &points, "id").await);
    }
    made.orders
        .push(id(client, "/api/redis/orders", &returned, "orderId").await);
    let sale = json!({ "startsAt": "2099-01-01T00:00:00Z", "endsAt": "2099-01-02T00:00:00Z" });
    made.sale = id(client, "/api/products/3/sales", &sale, "saleId")
        .await
        .parse()
        .unwrap();
    let oversold = json!({ "sales": [{ "key": "gone", "soldAt": "2026-11-21T09:00:00Z",
        "orderProducts": [{ "productId": 2, "quantity": 1, "unitPrice": 1000 }] }, 7] });
    let told = client
        .post("/api/stores/1/orders/batch")
        .admin()
        .json(&oversold)
        .send()
        .await;
    assert_eq!(
        told.body["results"][0]["status"], "OVERSOLD",
        "{}",
        told.text
    );
    shop.drained().await;
    let listed = client.get("/api/stores/1/oversold").admin().send().await;
    made.oversold = listed.body["items"][0]["saleId"]
        .as_str()
        .unwrap()
        .to_owned();
    let kept = client.get("/api/stores/1/invalid-sales").admin();
    made.invalid = kept.send().await.body["items"][0]["id"].as_u64().unwrap();
    let hook = json!({ "url": "https://shop.example.com/stock", "state": "PAUSED" });
    let key = json!({ "name": "old", "scopes": ["orders:read"] });
    made.key = id(client, "/api/keys", &key, "keyId").await;
    made.webhook = id(client, "/api/webhooks", &hook, "id")
        .await
        .parse()
        .unwrap();
    let text = "INSERT INTO webhook_deliveries (webhook_id, first_number, last_number, state) \
                VALUES (?, 1, 1, 'DELIVERED')";
    let row = sqlx::query(text)
        .bind(made.webhook)
        .execute(&shop.pool)
        .await
        .unwrap();
    made.delivery = row.last_insert_id();
    let text = "INSERT INTO dead_letters (journal_id, kind, reason, state) \
                VALUES (1, 'order_placed', 'test', 'RESOLVED')";
    sqlx::query(text).execute(&shop.pool).await.unwrap();
    let text = "INSERT INTO quarantined_accounts (kind, owner_id, place_id, shard, journal_id, reason) \
                VALUES ('POINTS', 999, 0, 0, 1, 'test')";
    sqlx::query(text).execute(&shop.pool).await.unwrap();
    made
}
