//! The keys of tills' sales: counters of several devices, and times that are spelled differently.

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stock_common::clock::rfc3339;
use stock_common::id::{Position, UserId};
use stock_domain::order::{self, DeliveryType, OfflineSale, Path, Terms};
use stock_domain::verdict::Verdict;

use super::{available, offline, send, statuses, stock, till};
use crate::ledger::verdicts;
use crate::support::{Answer, Client, Shop};

const BATCH: &str = "/api/stores/1/orders/batch";

fn lines(product: u64, quantity: i64) -> Value {
    json!([{ "productId": product, "quantity": quantity, "unitPrice": 1_000 }])
}

async fn by(client: &Client, token: &str, device: &str, sales: &[Value]) -> Answer {
    let body = json!({ "deviceId": device, "sales": sales });
    client.post(BATCH).bearer(token).json(&body).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_with_the_same_counter_sell_twice_and_each_once() {
    let shop = Shop::open_in(2, 4, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let token = till(&shop, 1);
    stock(client, 1, 1, 4).await;
    // Sales of the same moment with the same lines: only the device tells them apart, even where
    // device and key join to the same text.
    let same = offline(&shop, "17", 20, &lines(1, 1));
    let joined = |key: &str| offline(&shop, key, 10, &lines(1, 1));
    let mut orders = std::collections::BTreeSet::new();
    let sold = async |device: &str, sales: &[Value]| match device {
        "" => send(client.post(BATCH).bearer(&token), sales).await,
        _ => by(client, &token, device, sales).await,
    };
    let batches = [
        ("", [same.clone(), joined("b:17")]),
        ("A", [same.clone(), joined("b:17")]),
        ("A:b", [same.clone(), joined("17:x")]),
    ];
    for (device, sales) in &batches {
        let answer = sold(device, sales).await;
        for result in answer.body["results"].as_array().unwrap() {
            match result["status"].as_str().unwrap() {
                "ACCEPTED" => assert!(orders.insert(result["orderId"].to_string())),
                "OVERSOLD" => {}
                other => panic!("{other}: {}", answer.text),
            }
        }
    }
    assert_eq!((orders.len(), available(client, 1, 1).await), (4, 0));
    // At once, when MySQL has the sales, and from a rebuilt Redis.
    for round in 0..3 {
        for (device, sales) in &batches {
            let answer = sold(device, sales).await;
            for (result, status) in answer.body["results"]
                .as_array()
                .unwrap()
                .iter()
                .zip(statuses(&answer))
            {
                match status {
                    "REPLAYED" => assert!(orders.contains(&result["orderId"].to_string())),
                    "OVERSOLD" => {}
                    other => panic!("{round}: {other}: {}", answer.text),
                }
            }
        }
        shop.drained().await;
        shop.verify().await;
        if round == 1 {
            shop.rebuild().await;
            shop.verify().await;
        }
    }
    // Within a device a number of the counter counts once.
    let other = offline(&shop, "17", 5, &lines(1, 2));
    assert_eq!(
        statuses(&by(client, &token, "A", &[other]).await),
        ["INVALID"]
    );
    let listed = client
        .get("/api/stores/1/oversold")
        .bearer(&token)
        .send()
        .await;
    let devices: Vec<&Value> = listed.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["deviceId"])
        .collect();
    assert_eq!(devices, [&json!("A:b"), &json!("A:b")]);
    let kept = client
        .get("/api/stores/1/invalid-sales")
        .bearer(&token)
        .send()
        .await;
    assert_eq!(kept.body["items"][0]["deviceId"], "A");
    for device in ["", " A", "A ", "\u{e9}", &"x".repeat(65)] {
        let answer = by(client, &token, device, std::slice::from_ref(&same)).await;
        assert_eq!(
            (answer.status, &answer.body["errors"][0]["pointer"]),
            (422, &json!("/deviceId")),
            "{device}: {}",
            answer.text
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_text_of_two_devices_is_kept_for_each() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let token = till(&shop, 1);
    let ahead = [offline(&shop, "17", -60, &lines(1, 1))];
    for device in ["A", "B", "A"] {
        let answer = by(client, &token, device, &ahead).await;
        assert_eq!(statuses(&answer), ["INVALID"], "{}", answer.text);
    }
    assert_eq!(shop.count("SELECT COUNT(*) FROM invalid_sales").await, 2);
    service.stop().await;
}

/// Spellings of one time.
fn spellings(ms: i64) -> [String; 5] {
    let time: DateTime<Utc> = DateTime::from_timestamp_millis(ms).unwrap();
    let seoul = time.with_timezone(&FixedOffset::east_opt(9 * 3_600).unwrap());
    let newfoundland = time.with_timezone(&FixedOffset::west_opt(12_600).unwrap());
    [
        time.to_rfc3339_opts(SecondsFormat::Secs, true),
        seoul.to_rfc3339_opts(SecondsFormat::Secs, false),
        time.to_rfc3339_opts(SecondsFormat::Millis, true),
        newfoundland.to_rfc3339_opts(SecondsFormat::Nanos, false),
        time.to_rfc3339_opts(SecondsFormat::Secs, false)
            .to_lowercase(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_spelled_differently_is_the_same_time() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let token = till(&shop, 1);
    stock(client, 1, 1, 1).await;
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    let ms = now / 1_000 * 1_000 - 60_000;
    let [first, rest @ ..] = spellings(ms);
    let sales = |at: &str| {
        ["sold", "oversold"]
            .map(|key| json!({ "orderProducts": lines(1, 1), "soldAt": at, "key": key }))
    };
    let answer = send(client.post(BATCH).bearer(&token), &sales(&first)).await;
    assert_eq!(
        statuses(&answer),
        ["ACCEPTED", "OVERSOLD"],
        "{}",
        answer.text
    );
    for round in 0..2 {
        for spelling in &rest {
            let answer = send(client.post(BATCH).bearer(&token), &sales(spelling)).await;
            assert_eq!(
                statuses(&answer),
                ["REPLAYED", "OVERSOLD"],
                "{round} {spelling}: {}",
                answer.text
            );
        }
        shop.drained().await;
    }
    let other = rfc3339(ms + 1);
    let answer = send(client.post(BATCH).bearer(&token), &sales(&other)).await;
    assert_eq!(statuses(&answer), ["INVALID", "INVALID"], "{}", answer.text);
    shop.verify().await;
    service.stop().await;
}

/// The fingerprint as the previous version wrote it: of the text as it was spelled, its members in
/// order.
fn spelled(sale: &Value) -> String {
    let mut hasher = Sha256::new();
    hasher.update(sale.to_string());
    hasher.update([0xff]);
    hex::encode(&hasher.finalize()[..16])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_version_before_has_sold_is_known_to_this_one() {
    // Danger: an upgrade between two sendings of one batch makes every sale INVALID. Method: the
    // entries and states of the previous version, then the same batch: as soon as Redis has them,
    // when MySQL has them, from a rebuilt Redis.
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let token = till(&shop, 1);
    stock(client, 1, 1, 1).await;
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    let ms = now / 1_000 * 1_000 - 60_000;
    let [at, ..] = spellings(ms);
    let batch = ["sold", "oversold"]
        .map(|key| json!({ "key": key, "orderProducts": lines(1, 1), "soldAt": at }));
    let mut ids = Vec::new();
    for sale in &batch {
        let mut order = verdicts::order(1, 1);
        order.user_id = UserId(3);
        order.path = Path::Till;
        order.delivery_type = DeliveryType::Pickup;
        order.store_id = Some(1);
        order.offline = Some(OfflineSale {
            key: sale["key"].as_str().unwrap().to_owned(),
            device_id: String::new(),
            fingerprint: spelled(sale),
            sold_ms: ms,
        });
        let body = serde_json::to_value(&order).unwrap();
        let members: Vec<&String> = body["offline"].as_object().unwrap().keys().collect();
        assert_eq!(members, ["fingerprint", "key", "sold_ms"]);
        let request = match ids.is_empty() {
            true => order::place(&order, Terms::default(), None).unwrap(),
            false => order::oversold(&order).unwrap(),
        };
        match shop.ledger.decide(request).await.unwrap() {
            Verdict::Accepted(accepted) => ids.push(accepted.position),
            other => panic!("{other:?}"),
        }
    }
    let sold: Position = ids[0];
    for round in 0..3 {
        let answer = send(client.post(BATCH).bearer(&token), &batch).await;
        assert_eq!(
            statuses(&answer),
            ["REPLAYED", "OVERSOLD"],
            "{round}: {}",
            answer.text
        );
        assert_eq!(answer.body["results"][0]["orderId"], sold.to_string());
        shop.drained().await;
        shop.verify().await;
        if round == 1 {
            shop.rebuild().await;
        }
    }
    // The previous version writes no device, so its row is that of a till without one.
    sqlx::query(
        "INSERT INTO offline_sales (journal_id, store_id, sale_key, fingerprint, sold_ms, state) \
         VALUES (1, 1, 'before', REPEAT('x', 16), 0, 'RESOLVED')",
    )
    .execute(&shop.pool)
    .await
    .unwrap();
    let row = "SELECT COUNT(*) FROM offline_sales WHERE sale_key = 'before' AND device_id = ''";
    assert_eq!(shop.count(row).await, 1);
    service.stop().await;
}
