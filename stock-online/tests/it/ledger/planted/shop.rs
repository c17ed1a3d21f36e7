//! A shop on two shards in which everything has happened once. A part of its journal is archived
//! already.

use serde_json::{Value, json};
use stock_common::clock::{datetime, day_begins_ms, rfc3339};
use stock_common::id::Position;
use stock_domain::order::{self, Terms};
use stock_domain::request::Request;
use stock_domain::verdict::Verdict;
use stock_engine::archive::archive;
use stock_engine::forget_sales::forget_sales;
use stock_mysql::point_reports;

use crate::benefits::{campaign, code, earn};
use crate::checkouts::{cancel, confirm, expired, opened, opened_for_ms, status};
use crate::ledger::verdicts;
use crate::reservations::{end, reserve};
use crate::sales::{HOUR, sale};
use crate::shards::one_on_each;
use crate::support::{Answer, Client, Shop, folder, order_json, until};

const REDIS: &str = "/api/redis/orders";

async fn post(client: &Client, path: &str, user: u64, body: &Value) -> Answer {
    let answer = client.post(path).user(user).json(body).send().await;
    assert!(answer.status < 300, "{path}: {}", answer.text);
    answer
}

async fn by_admin(client: &Client, path: &str, body: &Value) -> Answer {
    let answer = client.post(path).admin().json(body).send().await;
    assert!(answer.status < 300, "{path}: {}", answer.text);
    answer
}

/// An order of a product, with further members.
fn order(product: u64, more: &Value, total: i64) -> Value {
    let mut body = order_json(&[(product, 1)]);
    body["totalAmount"] = json!(total);
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body
}

async fn decide(shop: &Shop, request: Request) -> Position {
    match shop.ledger.decide(request).await.unwrap() {
        Verdict::Accepted(accepted) => accepted.position,
        other => panic!("{other:?}"),
    }
}

/// The shop, drained and without a service.
pub(super) async fn lived_in() -> Shop {
    let shop = Shop::open_in(2, 12, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    archived(&shop, client).await;
    checkouts(&shop, client).await;
    orders(&shop, client).await;
    holds(client).await;
    benefits(&shop, client).await;
    tills(&shop, client).await;
    let switched = json!({ "status": "END_OF_SALE" });
    let call = client.patch("/api/products/11").admin().json(&switched);
    let answer = call.header("if-match", "*").send().await;
    assert!(answer.status < 300, "{}", answer.text);
    shop.drained().await;
    report(&shop).await;
    shop.verify().await;
    service.stop().await;
    // Nothing runs any more, so planted changes stay as they are.
    shop.verify().await;
    shop
}

/// Places an order in a sale that then ends and is forgotten, and archives the order with
/// everything else until then.
async fn archived(shop: &Shop, client: &Client) {
    let made = sale(shop, client, -HOUR, HOUR, json!({ "limitPerUser": 5 })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    until("the sale is known", || async {
        let answer = client.order(REDIS, 2, &[(1, 6)]).send().await;
        answer.code() == "PURCHASE_LIMIT_REACHED"
    })
    .await;
    post(client, REDIS, 2, &order(1, &json!({}), 1_000)).await;
    let over = "UPDATE sales SET ends_at = NOW(3) - INTERVAL 1 SECOND";
    sqlx::query(over).execute(&shop.pool).await.unwrap();
    let delete = format!("/api/products/1/sales/{}", made.body["saleId"]);
    let status = client.call("DELETE", &delete).admin().status().await;
    assert!(matches!(status, 204 | 404 | 409), "{status}");
    shop.drained().await;
    let forgotten = forget_sales(&shop.pool, &shop.ledger, 0).await.unwrap();
    assert_eq!(forgotten, 1);
    shop.verify().await;
    let (to, now) = (folder("planted"), shop.ledger.redis_now_ms() + 1);
    until("the archive's end is past", || async {
        shop.ledger.redis_now_ms() > now
    })
    .await;
    archive(&shop.pool, &to, now, &mut |_, _| {}).await.unwrap();
    assert!(shop.count("SELECT COUNT(*) FROM archived_levels").await > 0);
}

async fn orders(shop: &Shop, client: &Client) {
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 10);
    let [first, second] = each.as_slice() else {
        panic!("{each:?}");
    };
    for (path, key) in [(REDIS, "one"), ("/api/orders", "two")] {
        for product in [*first, *second] {
            let call = client.order(path, 2, &[(product, 1)]);
            let key = format!("{key}-{product}");
            assert_eq!(call.header("idempotency-key", &key).status().await, 201);
        }
    }
    let short = client.order(REDIS, 2, &[(*first, 1_000)]);
    assert_eq!(short.header("idempotency-key", "short").status().await, 409);
    let over_both = client.order(REDIS, 3, &[(*first, 1), (*second, 2)]);
    assert_eq!(over_both.status().await, 201);
    let cancelled = client.order(REDIS, 2, &[(*second, 2)]).send().await;
    let cancel = format!("{REDIS}/{}/cancel", cancelled.order_id());
    assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    let reduced = client.order(REDIS, 2, &[(*second, 4)]).send().await;
    let part = json!({ "lines": [{ "productId": second, "quantity": 1 }] });
    let path = format!("{REDIS}/{}/cancel", reduced.order_id());
    assert_eq!(client.patch(&path).user(2).json(&part).status().await, 200);
    let path = format!("/api/orders/{}/returns", reduced.order_id());
    by_admin(client, &path, &part).await;
    let named = json!({ "buyer": "shopuser-77", "reference": "web-1" });
    by_admin(client, REDIS, &order(*first, &named, 1_000)).await;
    // An order that its table refuses.
    let mut poison = verdicts::order(*first, 1);
    poison.lines[0].product_name = "x".repeat(101);
    let id = decide(shop, order::place(&poison, Terms::default(), None).unwrap()).await;
    until("it is taken back", || async {
        let state = stock_mysql::dead_letters::state(&shop.pool, id).await;
        state.unwrap().as_deref() == Some("COMPENSATED")
    })
    .await;
    let made = sale(shop, client, -HOUR, HOUR, json!({ "limitPerUser": 5 })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    until("the sale is known", || async {
        let answer = client.order(REDIS, 2, &[(1, 6)]).send().await;
        answer.code() == "PURCHASE_LIMIT_REACHED"
    })
    .await;
    post(client, REDIS, 3, &order(1, &json!({}), 1_000)).await;
}

async fn holds(client: &Client) {
    let mut ids = Vec::new();
    for _ in 0..4 {
        let made = reserve(client, 2, 1).await;
        assert_eq!(made.status, 201, "{}", made.text);
        ids.push(made.member("reservationId").to_owned());
    }
    assert_eq!(end(client, &ids[0], "confirm").await.status, 200);
    assert_eq!(end(client, &ids[1], "cancel").await.status, 200);
    let taking = json!({ "reservationId": ids[2] });
    post(client, REDIS, 2, &order(1, &taking, 1_000)).await;
}

/// Checkouts in every state, the last one open; one of them is extended twice.
async fn checkouts(shop: &Shop, client: &Client) {
    let gone = opened_for_ms(shop, 1, 1).await;
    expired(client, &gone).await;
    assert_eq!(status(client, &gone).await, "EXPIRED");
    let late = opened_for_ms(shop, 1, 1).await;
    expired(client, &late).await;
    assert_eq!(confirm(client, &late, "late", 1_000).await.status, 200);
    let refunded = opened_for_ms(shop, 80, 1).await;
    expired(client, &refunded).await;
    let most = client.order(REDIS, 3, &[(1, 30)]).send().await;
    assert_eq!(most.status, 201, "{}", most.text);
    let due = confirm(client, &refunded, "too late", 80_000).await;
    assert_eq!(due.code(), "REFUND_DUE", "{}", due.text);
    let cancelled = opened(client, 2, &[(3, 1)]).await;
    assert_eq!(cancel(client, 2, &cancelled).await.status, 200);
    let paid = opened(client, 2, &[(3, 1), (4, 1), (5, 1)]).await;
    assert_eq!(confirm(client, &paid, "paid", 3_000).await.status, 200);
    let open = opened(client, 3, &[(3, 1), (4, 2)]).await;
    for _ in 0..2 {
        let path = format!("/api/checkouts/{open}/extend");
        post(client, &path, 3, &json!({ "ttlSeconds": 900 })).await;
    }
}

async fn benefits(shop: &Shop, client: &Client) {
    let id = campaign(client, &json!({ "discountAmount": 300, "count": 5 })).await;
    let (used, _free) = (code(client, 2, id).await, code(client, 3, id).await);
    let personal = json!({ "name": "own", "discountAmount": 100, "userId": 3, "code": "WELCOME" });
    by_admin(client, "/api/coupons", &personal).await;
    let endless = json!({ "discountAmount": 100 });
    campaign(client, &endless).await;
    earn(client, 2, 1_000).await;
    earn(client, 3, 1_000).await;
    let spent = json!({ "userId": 2, "amount": 50, "description": "spent" });
    let spent = post(client, "/api/v2/points/use", 2, &spent).await;
    let back = format!("/api/v2/points/{}/cancel", spent.member("id"));
    assert_eq!(client.post(&back).user(2).status().await, 200);
    shop.drained().await;
    let using = json!({ "couponCode": used, "usePoints": 200 });
    let placed = client
        .post(REDIS)
        .user(2)
        .json(&order(2, &using, 500))
        .send()
        .await;
    assert_eq!(placed.status, 201, "{}", placed.text);
}

async fn tills(shop: &Shop, client: &Client) {
    let shelf = json!({ "productId": 2, "locationId": 1, "quantity": 2, "reason": "shelf" });
    by_admin(client, "/api/products/stock/inbound", &shelf).await;
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    let sold = |key: &str, ago: i64, quantity: i64| {
        let lines = json!([{ "productId": 2, "quantity": quantity, "unitPrice": 900 }]);
        json!({ "key": key, "soldAt": rfc3339(now - ago * 1_000), "orderProducts": lines })
    };
    let sales = json!({ "sales": [sold("a", 30, 2), sold("b", 20, 1), sold("c", 10, 1)] });
    by_admin(client, "/api/stores/1/orders/batch", &sales).await;
    let sales = json!({ "deviceId": "d", "sales": [sold("a", 5, 1)] });
    by_admin(client, "/api/stores/1/orders/batch", &sales).await;
    shop.drained().await;
    let id: u64 =
        sqlx::query_scalar("SELECT MIN(journal_id) FROM offline_sales WHERE state = 'OVERSOLD'")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
    let resolve = format!("/api/stores/1/oversold/{id}/resolve");
    by_admin(client, &resolve, &json!({ "note": "refunded" })).await;
}

/// Writes today's reports, as if the day were over.
async fn report(shop: &Shop) {
    let today = datetime(shop.ledger.redis_now_ms()).date();
    let begins = |date| {
        let ms = day_begins_ms(date, chrono_tz::UTC).unwrap();
        Position::from_parts(ms, 0).unwrap()
    };
    let span = begins(today)..begins(today.succ_opt().unwrap());
    let mut connection = shop.pool.acquire().await.unwrap();
    let written = point_reports::write(&mut connection, today, span).await;
    assert!(written.unwrap() > 0);
}
