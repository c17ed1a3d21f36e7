//! Stock: taken in, corrected and listed; its history, and the sums of its history.

use serde_json::{Value, json};

use crate::reservations::{end, reserve};
use crate::support::{Answer, Client, Shop};

async fn inbound(client: &Client, body: Value) -> Answer {
    let call = client.post("/api/products/stock/inbound").admin();
    call.json(&body).send().await
}

async fn adjust(client: &Client, product: u64, body: Value) -> Answer {
    let path = format!("/api/products/{product}/stock");
    client.post(&path).admin().json(&body).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_comes_in_once_under_its_key_and_is_corrected_never_below_zero() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let body = json!({ "productId": 1, "quantity": 50, "reason": "delivery 17" });
    let send = async |key: &str| {
        let call = client
            .post("/api/products/stock/inbound")
            .admin()
            .json(&body);
        call.header("idempotency-key", key).send().await
    };
    let (first, again) = (send("a").await, send("a").await);
    assert_eq!(
        (first.status, &first.body["available"]),
        (201, &json!(150)),
        "{}",
        first.text
    );
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(
        adjust(client, 1, json!({ "change": -30, "reason": "broken" }))
            .await
            .body,
        json!({ "newStockCount": 120 })
    );
    let below = adjust(client, 1, json!({ "change": -121 })).await;
    assert_eq!(
        (below.status, below.code(), &below.body["available"]),
        (409, "INSUFFICIENT_STOCK", &json!(120))
    );
    let stale = adjust(client, 1, json!({ "change": 5, "expectedAvailable": 121 })).await;
    assert_eq!(
        (stale.status, stale.code(), &stale.body["available"]),
        (409, "STOCK_CHANGED", &json!(120))
    );
    assert_eq!(
        adjust(client, 1, json!({ "change": 5, "expectedAvailable": 120 }))
            .await
            .body,
        json!({ "newStockCount": 125 })
    );

    for (body, status, code) in [
        (
            json!({ "productId": 99, "quantity": 1, "reason": "" }),
            404,
            "PRODUCT_NOT_FOUND",
        ),
        (
            json!({ "productId": 1, "quantity": 1, "reason": "", "locationId": 99 }),
            404,
            "STORE_NOT_FOUND",
        ),
        (
            json!({ "productId": 1, "quantity": 0, "reason": "" }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "productId": 1, "quantity": -5, "reason": "" }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "productId": 1, "quantity": 1_000_000_000_001_i64, "reason": "" }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "productId": 1, "quantity": 1 }),
            422,
            "UNPROCESSABLE",
        ),
    ] {
        let answer = inbound(client, body.clone()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}");
    }
    for body in [
        json!({ "change": 0 }),
        json!({ "change": 1, "expectedAvailable": -1 }),
        json!({ "change": i64::MIN }),
    ] {
        assert_eq!(
            adjust(client, 1, body.clone()).await.code(),
            "UNPROCESSABLE",
            "{body}"
        );
    }
    // A product that is not on sale may still be corrected; a deleted one may not.
    let stop = json!({ "status": "INACTIVE" });
    client
        .patch("/api/products/1")
        .admin()
        .json(&stop)
        .send()
        .await;
    assert_eq!(
        adjust(client, 1, json!({ "change": -25 })).await.body,
        json!({ "newStockCount": 100 })
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn corrections_that_compare_are_made_by_exactly_one_of_many() {
    // Danger: two people correct the same level. Method: twenty at once, each expecting the level
    // that they saw.
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let running: Vec<_> = (0..20)
        .map(|_| {
            let client = service.client.clone();
            let body = json!({ "change": -1, "expectedAvailable": 100 });
            tokio::spawn(async move { adjust(&client, 1, body).await.status })
        })
        .collect();
    let mut made = 0;
    for status in running {
        made += u64::from(status.await.unwrap() == 200);
    }
    assert_eq!((made, shop.available(1).await), (1, 99));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_say_what_is_low_and_what_to_order_and_page_through_all() {
    let shop = Shop::open(25, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    // Seeded products are low at 10 and to be ordered at 100.
    adjust(client, 3, json!({ "change": -40 })).await;
    adjust(client, 4, json!({ "change": 51 })).await;
    let list = async |query: &str| {
        let path = format!("/api/products/stock/available?{query}");
        let answer = client.get(&path).admin().send().await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body
    };
    let low = list("low=true").await;
    assert_eq!(low["items"].as_array().unwrap().len(), 1, "{low}");
    let item = &low["items"][0];
    assert_eq!(
        (&item["productId"], &item["isLow"], &item["available"]),
        (&json!(3), &json!(true), &json!(10))
    );
    let reorder = list("reorder=true&limit=100").await;
    let ids: Vec<u64> = reorder["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["productId"].as_u64().unwrap())
        .collect();
    assert_eq!((ids.len(), ids.contains(&4)), (24, false));
    // Flags are cleared as soon as stock is there.
    inbound(
        client,
        json!({ "productId": 3, "quantity": 1, "reason": "" }),
    )
    .await;
    assert_eq!(list("low=true").await["items"], json!([]));

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("limit=10{cursor}")).await;
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| i["productId"].as_u64().unwrap()),
        );
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());
    for query in [
        "limit=0",
        "limit=101",
        "cursor=x",
        "cursor=1-",
        "low=2",
        "productId=-1",
        "other=1",
    ] {
        let path = format!("/api/products/stock/available?{query}");
        let answer = client.get(&path).user(2).send().await;
        assert_eq!(
            (answer.status, answer.code()),
            (422, "UNPROCESSABLE"),
            "{query}"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_posting_is_in_the_history_and_the_days_add_up_to_it() {
    let shop = Shop::open(2, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    inbound(
        client,
        json!({ "productId": 1, "quantity": 20, "reason": "delivery 9" }),
    )
    .await;
    adjust(client, 1, json!({ "change": -5, "reason": "broken" })).await;
    inbound(
        client,
        json!({ "productId": 1, "locationId": 3, "quantity": 7, "reason": "moved" }),
    )
    .await;
    let order = client
        .order("/api/redis/orders", 2, &[(1, 10)])
        .send()
        .await
        .order_id();
    client
        .order("/api/orders", 2, &[(1, 3), (2, 1)])
        .send()
        .await;
    let held = reserve(client, 2, 4)
        .await
        .member("reservationId")
        .to_owned();
    end(client, &held, "confirm").await;
    let held = reserve(client, 2, 6)
        .await
        .member("reservationId")
        .to_owned();
    end(client, &held, "cancel").await;
    client
        .patch(&format!("/api/redis/orders/{order}/cancel"))
        .user(2)
        .send()
        .await;

    let page = async |query: &str| {
        let path = format!("/api/products/1/stock/movements?{query}");
        client.get(&path).admin().send().await
    };
    let all = page("limit=100").await.body;
    let items = all["items"].as_array().unwrap();
    let sum = |kind: &str, location: u64| {
        let own = items
            .iter()
            .filter(|i| i["kind"] == kind && i["locationId"] == location);
        own.map(|i| i["delta"].as_i64().unwrap()).sum::<i64>()
    };
    assert_eq!(
        (sum("AVAILABLE", 0), sum("RESERVED", 0), sum("AVAILABLE", 3)),
        (108, 0, 7)
    );
    assert_eq!(shop.available(1).await, 108);
    let broken = items.iter().find(|i| i["reason"] == "broken").unwrap();
    assert_eq!(
        (&broken["cause"], &broken["delta"], &broken["actorId"]),
        (&json!("stock_adjusted"), &json!(-5), &json!(1))
    );
    let cancelled = items
        .iter()
        .find(|i| i["cause"] == "order_cancelled")
        .unwrap();
    assert_eq!(cancelled["reference"], order);
    // Newest first, and pages of any size show the same.
    for size in [1, 2, 3, 5] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let part = page(&format!("limit={size}{cursor}")).await.body;
            let part_items = part["items"].as_array().unwrap().clone();
            assert!(part_items.len() <= size);
            seen.extend(part_items);
            match part["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(&seen, items, "pages of {size}");
    }
    let online = page("limit=100&locationId=0").await.body;
    assert_eq!(
        online["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|i| i["locationId"] != 0)
            .count(),
        0
    );

    let days = client
        .get("/api/products/1/stock/statistics")
        .admin()
        .send()
        .await;
    assert_eq!(days.status, 200, "{}", days.text);
    let items = days.body["items"].as_array().unwrap();
    let total = |name: &str| {
        items
            .iter()
            .map(|day| day[name].as_i64().unwrap())
            .sum::<i64>()
    };
    assert_eq!(
        [
            "in",
            "sold",
            "cancelled",
            "reserved",
            "released",
            "adjusted"
        ]
        .map(total),
        [127, 17, 10, 10, 6, -5]
    );
    let before = client
        .get("/api/products/1/stock/statistics?from=2025-01-01&to=2025-01-31")
        .admin()
        .send()
        .await;
    assert_eq!(before.body["items"], json!([]));
    for query in [
        "from=2026-02-02&to=2026-02-01",
        "from=2020-01-01&to=2026-01-01",
        "from=2026-13-01",
        "to=x",
    ] {
        let path = format!("/api/products/1/stock/statistics?{query}");
        assert_eq!(
            client.get(&path).admin().send().await.code(),
            "UNPROCESSABLE",
            "{query}"
        );
    }
    let future = client
        .get("/api/products/1/stock/statistics?from=9998-01-01&to=9998-02-01")
        .admin()
        .send()
        .await;
    assert_eq!((future.status, &future.body["items"]), (200, &json!([])));

    // Deleting a product closes it for sale and keeps its history.
    client
        .call("DELETE", "/api/products/1")
        .admin()
        .send()
        .await;
    assert_eq!(
        client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .code(),
        "PRODUCT_NOT_FOUND"
    );
    assert_eq!(page("limit=100").await.body, all);
    assert_eq!(
        client
            .get("/api/products/99/stock/movements")
            .admin()
            .send()
            .await
            .code(),
        "PRODUCT_NOT_FOUND"
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
