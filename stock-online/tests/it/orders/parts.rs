//! A part of an order is taken back, as often as something is left, or comes back as goods.

use serde_json::{Value, json};

use crate::benefits::{balance, campaign, code, earn};
use crate::sales::{HOUR, buy, sale};
use crate::support::{Answer, Client, Shop, order_json, until};

const PATHS: [&str; 2] = ["/api/redis/orders", "/api/orders"];

async fn cancel(client: &Client, path: &str, order: &str, lines: &[(u64, i64)]) -> Answer {
    let lines: Vec<Value> = lines
        .iter()
        .map(|(product, quantity)| json!({ "productId": product, "quantity": quantity }))
        .collect();
    let path = format!("{path}/{order}/cancel");
    let body = json!({ "lines": lines });
    client.patch(&path).user(2).json(&body).send().await
}

async fn give_back(client: &Client, order: &str, body: &Value) -> Answer {
    let path = format!("/api/orders/{order}/returns");
    client.post(&path).admin().json(body).send().await
}

async fn show(client: &Client, order: &str) -> Answer {
    client
        .get(&format!("/api/orders/{order}"))
        .user(2)
        .send()
        .await
}

fn left(order: &Answer) -> Vec<i64> {
    let lines = order.body["orderProductInfos"].as_array().unwrap();
    let of = |line: &Value| line["quantityLeft"].as_i64().unwrap_or(-1);
    lines.iter().map(of).collect()
}

/// An order of three and two units at 1,000, with a coupon of 101 and 50 points.
async fn order_with_benefits(shop: &Shop, client: &Client, path: &str) -> String {
    let coupon = campaign(client, &json!({ "discountAmount": 101, "count": 5 })).await;
    let own = code(client, 2, coupon).await;
    earn(client, 2, 50).await;
    shop.drained().await;
    let mut body = order_json(&[(1, 3), (2, 2)]);
    body["couponCode"] = json!(own);
    body["usePoints"] = json!(50);
    body["totalAmount"] = json!(4_849);
    let placed = client.post(path).user(2).json(&body).send().await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    placed.order_id()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_give_back_their_shares_and_the_last_one_the_rest_and_the_coupon() {
    for shards in [1, 3] {
        let shop = Shop::open_in(shards, 2, 100).await;
        let service = shop.serve().await;
        let client = &service.client;
        for path in PATHS {
            let order = order_with_benefits(&shop, client, path).await;
            let first = cancel(client, path, &order, &[(1, 1), (2, 1)]).await;
            assert_eq!(first.status, 200, "{}", first.text);
            assert_eq!(left(&first), [2, 1]);
            let step = &first.body["changes"][0];
            // ⌊101·1000/5000⌋ for each of two lines, and ⌊50·1000/5000⌋ likewise.
            for (name, value) in [
                ("way", json!("CANCELLED")),
                ("couponDiscountAmount", json!(40)),
                ("usedPoints", json!(20)),
                ("refundAmount", json!(2_000 - 40 - 20)),
                (
                    "lines",
                    json!([{ "productId": 1, "quantity": 1 }, { "productId": 2, "quantity": 1 }]),
                ),
            ] {
                assert_eq!(step[name], value, "{name}: {}", first.text);
            }
            assert_eq!(balance(client, 2).await, 20);
            let mut standing = show(client, &order).await;
            assert_eq!(left(&standing), [2, 1]);
            assert_eq!(standing.body["changes"], first.body["changes"]);
            let more = cancel(client, path, &order, &[(1, 3)]).await;
            assert_eq!(
                (more.status, more.code(), &more.body["remaining"]),
                (409, "ORDER_UNITS_EXCEEDED", &json!(2))
            );
            assert_eq!(cancel(client, path, &order, &[(7, 1)]).await.status, 409);
            for lines in [
                json!([]),
                json!([{ "productId": 1, "quantity": 0 }]),
                json!(7),
            ] {
                let path = format!("{path}/{order}/cancel");
                let call = client.patch(&path).user(2).json(&json!({ "lines": lines }));
                assert_eq!(call.send().await.code(), "UNPROCESSABLE");
            }
            // The same product in two lines counts once.
            let second = cancel(client, path, &order, &[(1, 1), (1, 1)]).await;
            assert_eq!(
                (second.status, left(&second)),
                (200, vec![0, 1]),
                "{}",
                second.text
            );
            shop.drained().await;
            standing = show(client, &order).await;
            assert_eq!(standing.body["orderStatus"], "SUCCESS");
            assert_eq!(standing.body["changes"].as_array().unwrap().len(), 2);
            shop.verify().await;
            // The rest, without naming it.
            let last = client.patch(&format!("{path}/{order}/cancel")).user(2);
            let last = last.send().await;
            assert_eq!(
                (last.status, left(&last)),
                (200, vec![0, 0]),
                "{}",
                last.text
            );
            let steps = last.body["changes"].as_array().unwrap();
            let sum = |name: &str| {
                steps
                    .iter()
                    .map(|of| of[name].as_i64().unwrap())
                    .sum::<i64>()
            };
            assert_eq!(
                (
                    sum("couponDiscountAmount"),
                    sum("usedPoints"),
                    sum("refundAmount")
                ),
                (101, 50, 4_849)
            );
            assert_eq!(
                cancel(client, path, &order, &[(1, 1)]).await.code(),
                "INVALID_ORDER_STATUS"
            );
            shop.drained().await;
            assert_eq!(show(client, &order).await.body["orderStatus"], "CANCEL");
            assert_eq!(balance(client, 2).await, 50);
            let mine = client.get("/api/coupons/mine").user(2).send().await;
            assert_eq!(mine.body["items"][0]["isUsed"], false, "{}", mine.text);
            for product in [1, 2] {
                assert_eq!(shop.available(product).await, 100);
            }
            let gone = json!({ "userId": 2, "amount": 50, "description": "gone" });
            client
                .post("/api/v2/points/use")
                .user(2)
                .json(&gone)
                .send()
                .await;
        }
        shop.drained().await;
        shop.verify().await;
        shop.rebuild().await;
        shop.verify().await;
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_parts_at_once_never_take_the_same_unit() {
    // Danger: two cancels of a part both see what is left, and a unit comes back twice. Method:
    // many at once, of more units than there are; then Redis forgets the state, and again.
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let placed = client.order(PATHS[0], 2, &[(1, 10)]).send().await;
    let order = placed.order_id();
    // Seven of ten units, then seven of the three that are left.
    for (round, expected) in [7, 3].into_iter().enumerate() {
        let one = |path: &'static str| cancel(client, path, &order, &[(1, 1)]);
        let calls = (0..7).map(|number| one(PATHS[(number + round) % 2]));
        let answers = futures_util::future::join_all(calls).await;
        let done = answers.iter().filter(|answer| answer.status == 200).count();
        let texts: Vec<_> = answers.iter().map(|answer| &answer.text).collect();
        assert_eq!(done, expected, "{texts:?}");
        shop.drained().await;
        if round == 0 {
            let shard = shop.ledger.shard(0).unwrap();
            let mut link = shard.link().unwrap();
            let gone: i64 = redis::cmd("HDEL")
                .arg(shard.keys().states())
                .arg(format!("order:{order}"))
                .query_async(&mut link.read)
                .await
                .unwrap();
            assert_eq!(gone, 1);
        }
    }
    until("it is stored", || async {
        show(client, &order).await.body["orderStatus"] == "CANCEL"
    })
    .await;
    assert_eq!(shop.available(1).await, 100);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goods_come_back_to_a_location_or_are_written_off() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let store = json!({ "storeId": 4, "name": "Mapo", "latitude": 37.5, "longitude": 126.9 });
    assert_eq!(
        client
            .post("/api/stores")
            .admin()
            .json(&store)
            .status()
            .await,
        201
    );
    let running = sale(&shop, client, -HOUR, HOUR, json!({ "limitPerUser": 5 })).await;
    assert_eq!(running.status, 201, "{}", running.text);
    let placed = buy(client, 2, 5, 1_000).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let order = placed.order_id();
    shop.drained().await;
    let part = |quantity: i64| json!([{ "productId": 1, "quantity": quantity }]);
    let at = |location: u64| json!({ "lines": part(1), "locationId": location });
    assert_eq!(
        give_back(client, &order, &at(9)).await.code(),
        "STORE_NOT_FOUND"
    );
    let both = json!({ "lines": part(1), "locationId": 4, "writtenOff": true });
    assert_eq!(
        give_back(client, &order, &both).await.code(),
        "UNPROCESSABLE"
    );
    let by_user = client.post(&format!("/api/orders/{order}/returns")).user(2);
    assert_eq!(by_user.json(&at(4)).status().await, 403);
    let at_store = give_back(client, &order, &at(4)).await;
    assert_eq!(at_store.status, 200, "{}", at_store.text);
    assert_eq!(at_store.body["changes"][0]["locationId"], 4);
    let home = json!({ "lines": part(1) });
    let home = give_back(client, &order, &home).await;
    assert_eq!(home.body["changes"][1]["locationId"], 0, "{}", home.text);
    let broken = json!({ "lines": part(2), "writtenOff": true });
    let broken = give_back(client, &order, &broken).await;
    assert_eq!(
        (broken.status, left(&broken)),
        (200, vec![1]),
        "{}",
        broken.text
    );
    assert_eq!(broken.body["changes"][2]["way"], "WRITTEN_OFF");
    shop.drained().await;
    assert_eq!(shop.available(1).await, 96);
    let stock = client.get("/api/stores/4/products/1/stock").send().await;
    assert_eq!(stock.body["available"], 1, "{}", stock.text);
    // The sale's limit counts what the buyer keeps.
    assert_eq!(
        buy(client, 2, 5, 1_000).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    assert_eq!(buy(client, 2, 4, 1_000).await.status, 201);
    shop.drained().await;
    shop.verify().await;
    shop.rebuild().await;
    let last = give_back(
        client,
        &order,
        &json!({ "lines": part(1), "locationId": 4 }),
    )
    .await;
    assert_eq!((last.status, left(&last)), (200, vec![0]), "{}", last.text);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
