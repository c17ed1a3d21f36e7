//! The admin's pages about the ledger: its state, its checks, the audit log, dead letters, sales.

use serde_json::{Value, json};
use stock_mysql::dead_letters;

use crate::support::{Shop, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_on_demand_stands_in_the_checks() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    assert_eq!(
        client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status,
        201
    );
    shop.drained().await;
    let before = client.get("/api/ops/status").admin().send().await.body;
    for (name, value) in [
        ("selling", json!(true)),
        ("durability", json!(shop.config.redis.durability.as_str())),
        ("lagEntries", json!(0)),
        ("fenced", Value::Null),
    ] {
        assert_eq!(before[name], value, "{name}: {before}");
    }
    assert_eq!(before["epoch"].as_str().unwrap().len(), 32);
    assert!(
        before["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|job| job["job"] != "seed")
    );
    let known = before["lastVerify"]["id"].as_u64().unwrap_or_default();
    // The body may be missing. A second request is told to wait only while the first run lasts.
    let started = client
        .post("/api/ops/verify")
        .admin()
        .json(&json!({ "full": true }))
        .send()
        .await;
    assert_eq!((started.status, started.member("status")), (202, "RUNNING"));
    until("the verification is noted", || async {
        let status = client.get("/api/ops/status").admin().send().await.body;
        status["lastVerify"]["id"].as_u64().unwrap_or_default() > known
    })
    .await;
    let checks = client
        .get("/api/ops/checks?limit=1")
        .admin()
        .send()
        .await
        .body;
    assert_eq!(checks["items"][0]["differences"], 0);
    assert_eq!(checks["items"][0]["report"]["ok"], true);
    assert!(checks["items"][0]["report"]["entries"].as_u64() > Some(0));
    let next = format!(
        "/api/ops/checks?cursor={}",
        checks["nextCursor"].as_str().unwrap()
    );
    assert_eq!(client.get(&next).admin().send().await.status, 200);
    // A difference is shown, with its reason.
    sqlx::query("UPDATE accounts SET balance = balance + 1 WHERE kind = 'AVAILABLE'")
        .execute(&shop.pool)
        .await
        .unwrap();
    until("the difference is found", || async {
        client.post("/api/ops/verify").admin().send().await;
        let checks = client
            .get("/api/ops/checks?limit=100")
            .admin()
            .send()
            .await
            .body;
        let items = checks["items"].as_array().unwrap();
        items
            .iter()
            .any(|check| check["kind"] == "verify" && check["differences"].as_u64() > Some(0))
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_who_did_what() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let work = client
        .post("/api/works")
        .admin()
        .json(&json!({ "title": "One" }));
    assert_eq!(work.send().await.status, 201);
    until("the line is written", || async {
        let log = client
            .get("/api/ops/audit-log?limit=5")
            .admin()
            .send()
            .await
            .body;
        let lines = log["items"].as_array().unwrap();
        lines.iter().any(|line| {
            line["action"] == "work_created"
                && line["actorId"] == 1
                && line["address"] == "127.0.0.1"
        })
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_sent_again_from_the_page() {
    // Danger: the page's button sells again, or says done when nothing was done. Method: an order
    // whose row is refused by a table that an operator mends; the button is pressed before and
    // after.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for statement in [
        "DROP TRIGGER IF EXISTS refuse",
        "CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW \
         IF NEW.user_id = 3 THEN SIGNAL SQLSTATE '22003' SET MYSQL_ERRNO = 1264, MESSAGE_TEXT = 'refused'; END IF",
    ] {
        sqlx::raw_sql(statement).execute(&shop.pool).await.unwrap();
    }
    let order = client
        .order("/api/redis/orders", 3, &[(1, 2)])
        .send()
        .await
        .order_id();
    let position = order.parse().unwrap();
    until("the order is a dead letter and taken back", || async {
        dead_letters::state(&shop.pool, position)
            .await
            .unwrap()
            .as_deref()
            == Some("COMPENSATED")
    })
    .await;
    let list = client
        .get("/api/ops/dead-letters")
        .admin()
        .send()
        .await
        .body;
    assert_eq!(list["items"][0]["position"], order.as_str());
    let retry = format!("/api/ops/dead-letters/{order}/retry");
    let refused = client.post(&retry).admin().send().await;
    assert_eq!(
        (refused.status, refused.code()),
        (409, "DEAD_LETTER_STAYS"),
        "{}",
        refused.text
    );
    assert!(!refused.text.contains("refused") && !refused.text.contains("INSERT"));
    sqlx::raw_sql("DROP TRIGGER refuse")
        .execute(&shop.pool)
        .await
        .unwrap();
    // Two requests at once, and one later: all are told that it is resolved.
    let press = async || {
        let done = client.post(&retry).admin().send().await;
        assert_eq!(
            (done.status, done.member("state")),
            (200, "RESOLVED"),
            "{}",
            done.text
        );
    };
    tokio::join!(press(), press());
    press().await;
    let shown = client
        .get(&format!("/api/orders/{order}"))
        .user(3)
        .send()
        .await;
    assert_eq!(shown.member("orderStatus"), "FAIL");
    assert_eq!(shop.available(1).await, 10);
    let nothing = client
        .post("/api/ops/dead-letters/7/retry")
        .admin()
        .send()
        .await;
    assert_eq!(nothing.status, 404);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_of_all_products_are_listed_and_say_which_governs() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let plan = async |ends: &str| {
        let sale = json!({ "startsAt": "2020-01-01T00:00:00Z", "endsAt": ends, "price": 900 });
        let made = client
            .post("/api/products/2/sales")
            .admin()
            .json(&sale)
            .send()
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.body["saleId"].as_u64().unwrap()
    };
    let (first, second) = (
        plan("2020-01-02T00:00:00Z").await,
        plan("2099-01-02T00:00:00Z").await,
    );
    let list = client.get("/api/sales").admin().send().await.body;
    let seen: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| {
            (
                sale["saleId"].as_u64().unwrap(),
                sale["governs"].as_bool().unwrap(),
                sale["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, [(second, true, "RUNNING"), (first, false, "OVER")]);
    assert_eq!(list["items"][0]["productName"], "product 2");
    let gone = client
        .call("DELETE", &format!("/api/products/2/sales/{second}"))
        .admin();
    assert_eq!(gone.status().await, 204);
    let list = client.get("/api/sales").admin().send().await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    service.stop().await;
}
