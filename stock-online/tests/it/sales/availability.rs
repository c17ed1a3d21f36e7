//! A product that is sold outside its sale's window too: at its normal price, and not counted.

use serde_json::{Value, json};
use stock_common::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::{HOUR, buy, sale};
use crate::reservations::reserve;
use crate::support::{Client, Shop, order_json};

fn always(more: Value) -> Value {
    let mut body = json!({ "availability": "ALWAYS", "price": 600, "limitPerUser": 2 });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_the_window_it_is_sold_at_its_normal_price_without_the_limit() {
    let shop = Shop::open(1, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let discount = client.post("/api/products/1/discounts").admin();
    let discount = discount.json(&json!({ "percentage": 10 })).status();
    assert_eq!(discount.await, 201);
    for ((from, until), price, state) in [
        ((HOUR, 2 * HOUR), 900, "UPCOMING"),
        ((-HOUR, HOUR), 600, "RUNNING"),
        ((-2 * HOUR, -HOUR), 900, "OVER"),
    ] {
        let made = sale(&shop, client, from, until, always(json!({}))).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!(
            (&made.body["availability"], &made.body["state"]),
            (&json!("ALWAYS"), &json!(state))
        );
        let shown = client.get("/api/products/1").send().await;
        assert_eq!(shown.body["unitPrice"], price, "{state}");
        for path in ["/api/redis/orders", "/api/orders"] {
            let mut body = order_json(&[(1, 1)]);
            body["totalAmount"] = json!(price);
            body["orderProducts"][0]["unitPrice"] = json!(price);
            let placed = client.post(path).user(2).json(&body).send().await;
            assert_eq!(placed.status, 201, "{state} {path}: {}", placed.text);
        }
        let third = buy(client, 2, 1, price).await;
        let held = reserve(client, 2, 3).await;
        if state == "RUNNING" {
            assert_eq!(third.code(), "PURCHASE_LIMIT_REACHED");
            assert_eq!(held.code(), "PURCHASE_LIMIT_REACHED");
        } else {
            assert_eq!((third.status, held.status), (201, 201), "{state}");
        }
        super::delete_sale(client, &made).await;
    }
    shop.drained().await;
    // Only units that were bought in the window were counted.
    assert_eq!(
        shop.count("SELECT 1000000 - balance FROM accounts WHERE kind = 'ALLOWANCE'")
            .await,
        2
    );
    shop.verify().await;
    service.stop().await;
}

/// A buyer who buys again and again at either price while the window opens and closes.
async fn buy_on(
    client: Client,
    user: u64,
    number: u64,
    stop: CancellationToken,
) -> Vec<(String, i64)> {
    let mut bought = Vec::new();
    for round in 0_u64.. {
        if stop.is_cancelled() {
            break;
        }
        let price = if round % 2 == 0 { 600 } else { 1_001 };
        let mut body = order_json(&[(1, 1)]);
        body["totalAmount"] = json!(price);
        let path = match number % 2 {
            0 => "/api/redis/orders",
            _ => "/api/orders",
        };
        let call = client.post(path).user(user).json(&body);
        let answer = call.header("idempotency-key", &format!("{number}-{round}"));
        let answer = answer.send().await;
        match answer.status {
            201 => bought.push((answer.order_id(), price)),
            _ => assert!(answer.code() == "TOTAL_AMOUNT_MISMATCH", "{}", answer.text),
        }
    }
    bought
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pays_the_price_of_the_other_side_while_the_window_opens_and_closes() {
    // Danger: a price is found by a clock that is off, and the script accepts it on the other side
    // of the window. Method: an instance whose clock jumps back and one whose does not; a window
    // that opens and closes while buyers try both prices. Each order's own position says on which
    // side of the window it was decided.
    let shop = Shop::open(1, 100_000).await;
    let service = shop.serve().await;
    let mut behind = shop.clone();
    behind.clock = Clock::system();
    let other = behind.serve().await;
    let client = &service.client;
    let opens = shop.ledger.redis_now_ms() + 1_500;
    let closes = opens + 600;
    let time = |ms: u64| stock_common::clock::rfc3339(i64::try_from(ms).unwrap());
    let body = json!({ "startsAt": time(opens), "endsAt": time(closes), "price": 600,
        "limitPerUser": 500, "availability": "ALWAYS" });
    let made = client.post("/api/products/1/sales").admin();
    let made = made.json(&body).send().await;
    assert_eq!(made.status, 201, "{}", made.text);
    let price = json!({ "price": 1_001 });
    let changed = client.patch("/api/products/1").admin().json(&price);
    assert_eq!(changed.status().await, 200);
    // An instance that knows the price also knows the sale.
    crate::support::until("the other instance knows the sale", || async {
        buy(&other.client, 3, 1, 1_001).await.status == 201
    })
    .await;
    let stop = CancellationToken::new();
    let buyers: Vec<_> = (0..8_u64)
        .map(|number| {
            let client = if number % 4 < 2 {
                client
            } else {
                &other.client
            };
            tokio::spawn(buy_on(client.clone(), 100 + number, number, stop.clone()))
        })
        .collect();
    for step in 1..=5 {
        behind.clock.shift(step * -150);
        crate::support::until("the window has moved on", || async {
            shop.ledger.redis_now_ms() > opens + u64::try_from(step).unwrap() * 160
        })
        .await;
    }
    stop.cancel();
    let (mut inside, mut all) = (0, 0);
    for buyer in buyers {
        for (id, price) in buyer.await.unwrap() {
            let at_ms = stock_common::id::Position::new(id.parse().unwrap()).unix_ms();
            let is_inside = (opens..closes).contains(&at_ms);
            let expected = if is_inside { 600 } else { 1_001 };
            assert_eq!(price, expected, "{id} at {at_ms} of {opens}..{closes}");
            inside += i64::from(is_inside);
            all += 1;
        }
    }
    assert!(inside > 0 && all > inside, "{inside} of {all}");
    shop.drained().await;
    let counted = shop
        .count(
            "SELECT COALESCE(CAST(SUM(1000000 - balance) AS SIGNED), 0) FROM accounts \
             WHERE kind = 'ALLOWANCE'",
        )
        .await;
    assert_eq!(
        counted, inside,
        "what was bought in the window, and nothing else"
    );
    shop.verify().await;
    service.stop().await;
    other.stop().await;
}
