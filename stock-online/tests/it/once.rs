//! Every request that changes something of the shop is carried out once under its Idempotency-Key.

mod made;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stock_common::config::Durability;
use stock_online::ServiceRole;
use stock_online::http::openapi;

use self::made::{Made, prepare};
use crate::support::{Answer, Client, OwnServers, Shop, order_json, until};

/// A request to send: an operation, its path, its body, another body for the same key, and the user
/// who sends it.
struct Sent {
    operation: &'static str,
    path: String,
    body: Option<Value>,
    other: Option<Value>,
    user: Option<u64>,
}

fn sent(operation: &'static str, path: impl Into<String>, body: Value, other: Value) -> Sent {
    Sent {
        operation,
        path: path.into(),
        body: Some(body),
        other: Some(other),
        user: None,
    }
}

/// A request without a body.
fn bare(operation: &'static str, path: impl Into<String>) -> Sent {
    Sent {
        operation,
        path: path.into(),
        body: None,
        other: None,
        user: None,
    }
}

impl Sent {
    fn by(self, user: u64) -> Self {
        Self {
            user: Some(user),
            ..self
        }
    }

    async fn send(&self, client: &Client, key: &str, body: Option<&Value>) -> Answer {
        let method = self.operation.split(' ').next().unwrap();
        let call = client.call(method, &self.path);
        let call = match self.user {
            Some(user) => call.user(user),
            None => call.admin(),
        };
        let call = match body {
            Some(Value::String(csv)) => call.raw(csv.as_bytes()).header("content-type", "text/csv"),
            Some(body) => call.json(body),
            None => call,
        };
        call.header("idempotency-key", key).send().await
    }
}

/// An answer's body without the request's own id.
fn told(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    if let Some(members) = body.as_object_mut() {
        members.remove("requestId");
        // A key's secret is told once.
        members.remove("secret");
    }
    body
}

/// One request of every operation, in an order in which each can be carried out.
fn requests(made: &Made) -> Vec<Sent> {
    let order = |quantity| order_json(&[(1, quantity)]);
    let till = |quantity: u64| json!({ "orderProducts": [{ "productId": 1, "quantity": quantity }], "totalAmount": quantity * 1000 });
    let reserve = |quantity: u64| json!({ "productId": 1, "quantity": quantity });
    let hold = |number: usize, how: &str| format!("/api/reservations/{}/{how}", made.holds[number]);
    let checkout =
        |number: usize, how: &str| format!("/api/checkouts/{}/{how}", made.checkouts[number]);
    let inbound = |quantity: u64| json!({ "productId": 1, "quantity": quantity, "reason": "test" });
    let points = |amount: u64| json!({ "userId": 2, "amount": amount, "description": "test" });
    let sale = |price: u64| json!({ "startsAt": "2099-01-01T00:00:00Z", "endsAt": "2099-01-02T00:00:00Z", "price": price });
    let sale_path = format!("/api/products/3/sales/{}", made.sale);
    let store = |name: &str| json!({ "name": name, "latitude": 37.5, "longitude": 127.0 });
    let offline = |key: &str| {
        json!({ "sales": [{ "key": key, "soldAt": "2026-11-21T09:00:00Z",
        "orderProducts": [{ "productId": 1, "quantity": 1, "unitPrice": 1000 }] }] })
    };
    let hook = format!("/api/webhooks/{}", made.webhook);
    let url = |name: &str| json!({ "url": format!("https://{name}.example.com/stock") });
    vec![
        sent(
            "POST /api/redis/orders",
            "/api/redis/orders",
            order(1),
            order(2),
        )
        .by(2),
        sent("POST /api/orders", "/api/orders", order(1), order(2)).by(2),
        bare(
            "PATCH /api/redis/orders/{order_id}/cancel",
            format!("/api/redis/orders/{}/cancel", made.orders[0]),
        ),
        bare(
            "PATCH /api/orders/{order_id}/cancel",
            format!("/api/orders/{}/cancel", made.orders[1]),
        ),
        sent(
            "POST /api/products/stock/reserve",
            "/api/products/stock/reserve",
            reserve(1),
            reserve(2),
        )
        .by(2),
        bare("POST /api/reservations/{id}/confirm", hold(0, "confirm")),
        sent("POST /api/checkouts", "/api/checkouts", order(1), order(2)).by(2),
        sent(
            "POST /api/checkouts/{id}/extend",
            checkout(1, "extend"),
            json!({ "ttlSeconds": 900 }),
            json!({ "ttlSeconds": 901 }),
        ),
        sent(
            "POST /api/checkouts/{id}/confirm",
            checkout(0, "confirm"),
            json!({ "paymentId": "p", "amount": 1_000 }),
            json!({ "paymentId": "q", "amount": 1_000 }),
        ),
        bare("POST /api/checkouts/{id}/cancel", checkout(1, "cancel")),
        sent(
            "POST /api/orders/{order_id}/returns",
            format!("/api/orders/{}/returns", made.orders[2]),
            json!({ "lines": [{ "productId": 1, "quantity": 1 }] }),
            json!({ "lines": [{ "productId": 1, "quantity": 1 }], "writtenOff": true }),
        ),
        sent(
            "POST /api/reservations/{id}/cancel",
            hold(1, "cancel"),
            json!({}),
            json!({ "force": true }),
        ),
        sent(
            "POST /api/products/stock/inbound",
            "/api/products/stock/inbound",
            inbound(5),
            inbound(6),
        ),
        sent(
            "POST /api/products/{id}/stock",
            "/api/products/1/stock",
            json!({ "change": 1 }),
            json!({ "change": 2 }),
        ),
        sent(
            "POST /api/products",
            "/api/products",
            json!({ "name": "once", "price": 5 }),
            json!({ "name": "twice", "price": 5 }),
        ),
        sent(
            "PUT /api/products/{id}",
            "/api/products/2",
            json!({ "name": "written", "price": 7 }),
            json!({ "name": "again", "price": 7 }),
        ),
        sent(
            "PATCH /api/products/{id}",
            "/api/products/2",
            json!({ "price": 8 }),
            json!({ "price": 9 }),
        ),
        sent(
            "POST /api/products/{id}/discounts",
            "/api/products/2/discounts",
            json!({ "percentage": 10 }),
            json!({ "percentage": 11 }),
        ),
        sent(
            "POST /api/products/{id}/sales",
            "/api/products/2/sales",
            sale(5),
            sale(6),
        ),
        sent(
            "PATCH /api/products/{id}/sales/{sale_id}",
            &sale_path,
            json!({ "price": 3 }),
            json!({ "price": 4 }),
        ),
        bare("DELETE /api/products/{id}/sales/{sale_id}", &sale_path),
        bare("DELETE /api/products/{id}", "/api/products/3"),
        sent(
            "POST /api/stores",
            "/api/stores",
            store("new"),
            store("newer"),
        ),
        sent(
            "PUT /api/stores/{store_id}",
            "/api/stores/1",
            store("written"),
            store("again"),
        ),
        sent(
            "POST /api/stores/{store_id}/orders",
            "/api/stores/1/orders",
            till(1),
            till(2),
        ),
        bare(
            "PATCH /api/stores/{store_id}/orders/{order_id}/cancel",
            format!("/api/stores/1/orders/{}/cancel", made.till_orders[0]),
        ),
        sent(
            "POST /api/stores/{store_id}/orders/batch",
            "/api/stores/1/orders/batch",
            offline("a"),
            offline("b"),
        ),
        sent(
            "POST /api/stores/{store_id}/oversold/{sale_id}/resolve",
            format!("/api/stores/1/oversold/{}/resolve", made.oversold),
            json!({ "note": "called" }),
            json!({ "note": "called again" }),
        ),
        sent(
            "POST /api/stores/{store_id}/invalid-sales/{id}/resolve",
            format!("/api/stores/1/invalid-sales/{}/resolve", made.invalid),
            json!({ "note": "booked" }),
            json!({ "note": "booked again" }),
        ),
        sent(
            "POST /api/stock/import",
            "/api/stock/import",
            json!("product_id,location_id,quantity,mode\n1,0,1,delta\n"),
            json!("product_id,location_id,quantity,mode\n1,0,2,delta\n"),
        ),
        sent(
            "POST /api/works",
            "/api/works",
            json!({ "title": "one" }),
            json!({ "title": "two" }),
        ),
        sent(
            "PUT /api/works/{id}",
            "/api/works/1",
            json!({ "title": "three" }),
            json!({ "title": "four" }),
        ),
        bare("DELETE /api/works/{id}", "/api/works/1"),
        sent(
            "POST /api/coupons",
            "/api/coupons",
            json!({ "name": "ten", "discountRate": 10, "count": 5 }),
            json!({ "name": "ten", "discountRate": 10, "count": 6 }),
        ),
        sent(
            "POST /api/coupons/{id}/issue",
            "/api/coupons/1/issue",
            json!({}),
            json!({ "workId": 9 }),
        )
        .by(2),
        sent(
            "POST /api/v1/points/earn",
            "/api/v1/points/earn",
            points(5),
            points(6),
        ),
        sent(
            "POST /api/v2/points/earn",
            "/api/v2/points/earn",
            points(5),
            points(6),
        ),
        sent(
            "POST /api/v1/points/use",
            "/api/v1/points/use",
            points(1),
            points(2),
        )
        .by(2),
        sent(
            "POST /api/v2/points/use",
            "/api/v2/points/use",
            points(1),
            points(2),
        )
        .by(2),
        bare(
            "POST /api/v1/points/{id}/cancel",
            format!("/api/v1/points/{}/cancel", made.points[0]),
        ),
        bare(
            "POST /api/v2/points/{id}/cancel",
            format!("/api/v2/points/{}/cancel", made.points[1]),
        ),
        sent(
            "POST /api/keys",
            "/api/keys",
            json!({ "name": "new", "scopes": ["orders:read"] }),
            json!({ "name": "newer", "scopes": ["orders:read"] }),
        ),
        bare("DELETE /api/keys/{id}", format!("/api/keys/{}", made.key)),
        sent(
            "POST /api/webhooks",
            "/api/webhooks",
            url("new"),
            url("newer"),
        ),
        sent("PUT /api/webhooks/{id}", &hook, url("put"), url("other")),
        sent(
            "PATCH /api/webhooks/{id}",
            &hook,
            json!({ "state": "PAUSED" }),
            json!({ "state": "ACTIVE" }),
        ),
        bare(
            "POST /api/webhooks/{id}/deliveries/{delivery_id}/resend",
            format!("{hook}/deliveries/{}/resend", made.delivery),
        ),
        bare("DELETE /api/webhooks/{id}", &hook),
        sent(
            "PUT /api/ops/selling",
            "/api/ops/selling",
            json!({ "open": true }),
            json!({ "open": false }),
        ),
        sent(
            "POST /api/ops/verify",
            "/api/ops/verify",
            json!({}),
            json!({ "full": true }),
        ),
        bare(
            "POST /api/ops/dead-letters/{position}/retry",
            "/api/ops/dead-letters/1/retry",
        ),
        sent(
            "POST /api/ops/quarantine/{account}/release",
            "/api/ops/quarantine/POINTS:999:0/release",
            json!({}),
            json!({ "force": true }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_carried_out_once_under_its_key() {
    // Danger: a route forgets the key, and a client that repeats after a timeout makes a second
    // sale. Method: each operation of the document is sent twice under one key, and then with
    // another body under it.
    let shop = Shop::open(3, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let made = prepare(&shop, client).await;
    let requests = requests(&made);
    let known: BTreeSet<String> = openapi::keyed().collect();
    let sent: BTreeSet<String> = requests
        .iter()
        .map(|sent| sent.operation.to_owned())
        .collect();
    assert_eq!(known, sent, "each operation that takes a key, and no other");
    assert_eq!(sent.len(), requests.len());
    for (number, request) in requests.iter().enumerate() {
        let (name, key) = (request.operation, format!("key-{number}"));
        let first = request.send(client, &key, request.body.as_ref()).await;
        assert!((200..300).contains(&first.status), "{name}: {}", first.text);
        assert!(
            !first.headers.contains_key("idempotency-replayed"),
            "{name}"
        );
        let again = request.send(client, &key, request.body.as_ref()).await;
        assert_eq!(
            (again.status, told(&again)),
            (first.status, told(&first)),
            "{name}: {}",
            again.text
        );
        assert_eq!(again.headers["idempotency-replayed"], "true", "{name}");
        for header in ["location", "etag"] {
            assert_eq!(
                again.headers.get(header),
                first.headers.get(header),
                "{name}"
            );
        }
        if let Some(other) = &request.other {
            let reused = request.send(client, &key, Some(other)).await;
            assert_eq!(
                (reused.status, reused.code()),
                (422, "IDEMPOTENCY_KEY_REUSED"),
                "{name}: {}",
                reused.text
            );
        }
        let long = "k".repeat(256);
        let wrong = request.send(client, &long, request.body.as_ref()).await;
        assert_eq!(
            (wrong.status, wrong.code()),
            (400, "IDEMPOTENCY_KEY_INVALID"),
            "{name}"
        );
    }
    for (count, expected) in [
        ("SELECT COUNT(*) FROM discounts", 1),
        ("SELECT COUNT(*) FROM sales", 2),
        ("SELECT COUNT(*) FROM webhooks", 1),
        ("SELECT COUNT(*) FROM service_keys", 1),
        ("SELECT COUNT(*) FROM works", 1),
        ("SELECT COUNT(*) FROM coupons", 1),
        ("SELECT COUNT(*) FROM products", 4),
        (
            "SELECT COUNT(*) FROM locations WHERE name IN ('new', 'newer')",
            1,
        ),
    ] {
        assert_eq!(shop.count(count).await, expected, "{count}");
    }
    shop.drained().await;
    service.stop().await;
}

async fn work(client: &Client, title: &str, key: &str) -> Answer {
    let call = client
        .post("/api/works")
        .admin()
        .json(&json!({ "title": title }));
    call.header("idempotency-key", key).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_that_come_at_once_make_one_change() {
    let shop = Shop::open(1, 1).await;
    let service = shop.serve().await;
    let twins: Vec<_> = (0..30)
        .map(|_| {
            let client = service.client.clone();
            tokio::spawn(async move { work(&client, "one", "k").await })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for twin in twins {
        let answer = twin.await.unwrap();
        if answer.status == 201 {
            ids.insert(answer.body["id"].as_u64().unwrap());
        } else {
            assert_eq!(
                (answer.status, answer.code()),
                (409, "REQUEST_IN_PROGRESS"),
                "{}",
                answer.text
            );
        }
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(shop.count("SELECT COUNT(*) FROM works").await, 1);
    assert_eq!(work(&service.client, "one", "k").await.status, 201);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_cannot_be_kept_is_not_made() {
    // Danger: the change is made and the process ends before the answer is noted, so that the retry
    // makes it again. Method: noting the answer fails. Change and answer are one transaction, so
    // neither is there.
    let shop = Shop::open(1, 1).await;
    let service = shop.serve().await;
    let client = &service.client;
    let alter = async |text: &'static str| sqlx::query(text).execute(&shop.pool).await.unwrap();
    alter("ALTER TABLE idempotent_requests RENAME COLUMN headers TO gone").await;
    let failed = work(client, "one", "k").await;
    assert_eq!(failed.status, 503, "{}", failed.text);
    assert_eq!(shop.count("SELECT COUNT(*) FROM works").await, 0);
    alter("ALTER TABLE idempotent_requests RENAME COLUMN gone TO headers").await;
    assert_eq!(work(client, "one", "k").await.status, 201);
    assert_eq!(work(client, "one", "k").await.status, 201);
    assert_eq!(shop.count("SELECT COUNT(*) FROM works").await, 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_state_is_remembered_for_a_while_and_one_by_the_request_is_not() {
    let shop = Shop::open(1, 1).await;
    let service = shop.serve().await;
    let client = &service.client;
    assert_eq!(work(client, "", "bad").await.status, 422);
    let first = work(client, "one", "bad").await;
    assert_eq!(first.status, 201, "a 422 does not use the key up");
    let taken = work(client, "one", "late").await;
    assert_eq!((taken.status, taken.code()), (409, "WORK_TITLE_TAKEN"));
    assert_eq!(
        client.call("DELETE", "/api/works/1").admin().status().await,
        204
    );
    let alter = async |text: &'static str| sqlx::query(text).execute(&shop.pool).await.unwrap();
    alter("DELETE FROM works").await;
    let again = work(client, "one", "late").await;
    assert_eq!((again.status, told(&again)), (409, told(&taken)));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let kept: i64 = shop
        .count(
            "SELECT CAST(TIMESTAMPDIFF(MINUTE, created_at, expires_at) AS SIGNED) \
             FROM idempotent_requests ORDER BY 1 LIMIT 1",
        )
        .await;
    assert!((9..=10).contains(&kept), "{kept} minutes");
    // An answer whose time is over is not given again, even before the job has removed it.
    alter("UPDATE idempotent_requests SET expires_at = NOW(3) - INTERVAL 1 SECOND").await;
    assert_eq!(work(client, "one", "late").await.status, 201);
    let removed = stock_mysql::idempotent_requests::forget(&shop.pool).await;
    assert_eq!(removed.unwrap(), 1, "the other one");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_that_stops_selling_works_with_a_key_while_mysql_is_away() {
    let servers = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&servers.redis.spec, &servers.mysql.spec, 1, 10).await;
    let service = shop.serve_roles(&[ServiceRole::Http]).await;
    let client = &service.client;
    let mut mysql = servers.mysql;
    mysql.kill().await;
    let stop = client.call("PUT", "/api/ops/selling").admin();
    let stop = stop
        .json(&json!({ "open": false }))
        .header("idempotency-key", "k");
    let stopped = stop.send().await;
    assert_eq!(stopped.status, 200, "{}", stopped.text);
    until("selling is stopped", || async {
        let answer = client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
        answer.code() == "SELLING_STOPPED"
    })
    .await;
    service.stop().await;
}
