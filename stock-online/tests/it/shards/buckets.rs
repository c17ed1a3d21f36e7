//! A product whose stock is divided over shards sells as one that is not.

use redis::cmd;
use serde_json::{Value, json};
use stock_common::id::{ProductId, UserId};
use stock_domain::account::Account;
use stock_domain::bucket::divide;
use stock_domain::journal::Closing;
use stock_domain::product;
use stock_domain::reshard::reshard;
use stock_domain::verdict::Verdict;
use stock_proof::client::{Answer, Client};

use super::{command, order};
use crate::support::{Load, Shop, account, until};

const PRODUCT: ProductId = ProductId(1);

async fn into(shop: &Shop, count: usize) -> i64 {
    divide(&shop.config, (&shop.pool, &shop.ledger), PRODUCT, count)
        .await
        .unwrap()
}

/// What each share holds.
async fn shares(shop: &Shop) -> Vec<i64> {
    let accounts: Vec<Account> = shop.ledger.layout().unwrap().buckets.accounts(PRODUCT);
    let levels = shop.ledger.own_levels(&accounts).await.unwrap();
    accounts.iter().map(|of| levels[of].balance).collect()
}

async fn adjust(client: &Client, body: Value) -> Answer {
    let call = client.post("/api/products/1/stock").admin();
    call.json(&body).send().await
}

async fn switch(client: &Client, status: &str) {
    let call = client.patch("/api/products/1").admin();
    let answer = call.json(&json!({ "status": status })).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_divided_product_sells_to_its_last_unit() {
    // Method: 1,000 units in four shares, forty buyers on both paths who take one to four at a time until they are
    // refused. Stock only falls, so whoever is refused must find less than they wanted, and so must who comes last.
    let shop = Shop::open_in(4, 24, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    assert_eq!(into(&shop, 4).await, 750);
    assert_eq!(shares(&shop).await, [250; 4]);
    assert_eq!(shop.available(1).await, 1_000);
    let buyers: Vec<_> = (0..40)
        .map(|number: i64| {
            let client = client.clone();
            let user = 2 + number.unsigned_abs();
            let quantity = 1 + number % 4;
            let path = if number % 5 == 4 {
                "/api/orders"
            } else {
                "/api/redis/orders"
            };
            tokio::spawn(async move {
                let (mut sold, mut last) = (0, String::new());
                for attempt in 0.. {
                    let key = format!("buyer-{number}-{attempt}");
                    let call = || {
                        let call = client.order(path, user, &[(1, quantity)]);
                        match number % 2 {
                            0 => call.header("idempotency-key", &key),
                            _ => call,
                        }
                    };
                    let answer = call().send().await;
                    match (answer.status, answer.code()) {
                        (201, _) => {
                            sold += quantity;
                            last = answer.order_id();
                        }
                        (409, "INSUFFICIENT_STOCK") => {
                            let left = answer.body["available"].as_i64().unwrap();
                            assert!(left < quantity, "{}", answer.text);
                            if number % 2 == 0 {
                                let again = call().send().await;
                                assert_eq!(again.body["available"], json!(left), "the same answer");
                            }
                            break;
                        }
                        (503, "OVERLOADED") => {}
                        other => panic!("{other:?}: {}", answer.text),
                    }
                }
                (user, sold, last)
            })
        })
        .collect();
    let (mut sold, mut orders) = (0, Vec::new());
    for buyer in buyers {
        let (user, quantity, last) = buyer.await.unwrap();
        sold += quantity;
        orders.push((user, last));
    }
    assert_eq!(
        (sold, shop.available(1).await),
        (1_000, 0),
        "somebody wanted the last unit"
    );

    // What is given back is sold again.
    let (user, id) = orders.iter().find(|(_, id)| !id.is_empty()).unwrap();
    let cancel = client.patch(&format!("/api/redis/orders/{id}/cancel"));
    assert_eq!(cancel.user(*user).send().await.status, 200);
    let back = shop.available(1).await;
    assert!(back > 0);
    assert_eq!(order(client, 50, &[(1, back)]).await.status, 201);
    assert_eq!(
        order(client, 50, &[(1, 1)]).await.code(),
        "INSUFFICIENT_STOCK"
    );
    shop.drained().await;
    shop.prove().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_does_to_a_divided_product_is_done_to_all_of_it() {
    let shop = Shop::open_in(4, 24, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    // Divided while it is off sale it stays so, in every share.
    switch(client, "INACTIVE").await;
    let said = command(&shop, &["buckets", "--product", "1", "--count", "4"]).await;
    assert!(said.starts_with("product 1: 1000 units\n"), "{said}");
    assert_eq!(said.matches(": 250 in ").count(), 4, "{said}");
    until("this process has heard of it", || async {
        !shop.ledger.layout().unwrap().buckets.is_empty()
    })
    .await;
    for user in 2..12 {
        let refused = order(client, user, &[(1, 1)]).await;
        assert_eq!(refused.code(), "PRODUCT_NOT_ON_SALE", "{}", refused.text);
    }
    switch(client, "ACTIVE").await;
    for user in 2..12 {
        let two = order(client, user, &[(1, 1), (2, 1)]).await;
        assert_eq!(two.status, 201, "{}", two.text);
    }

    // More than any share holds is taken from several, and never below zero.
    let taken = adjust(client, json!({ "change": -700, "reason": "water" })).await;
    assert_eq!(
        taken.body,
        json!({ "newStockCount": 290 }),
        "{}",
        taken.text
    );
    let below = adjust(client, json!({ "change": -291 })).await;
    assert_eq!(
        (below.code(), &below.body["available"]),
        ("INSUFFICIENT_STOCK", &json!(290))
    );
    let stale = adjust(client, json!({ "change": 5, "expectedAvailable": 289 })).await;
    assert_eq!(
        (stale.code(), &stale.body["available"]),
        ("STOCK_CHANGED", &json!(290))
    );
    let more = adjust(client, json!({ "change": 5, "expectedAvailable": 290 })).await;
    assert_eq!(more.body, json!({ "newStockCount": 295 }));
    // What was answered under a key is answered again, whatever has changed.
    let keyed = async |key: &str, body: Value| {
        let call = client.post("/api/products/1/stock").admin().json(&body);
        call.header("idempotency-key", key).send().await
    };
    let compare = json!({ "change": 5, "expectedAvailable": 295 });
    for _ in 0..2 {
        assert_eq!(keyed("compared", compare.clone()).await.status, 200);
        let changed = keyed("changed", compare.clone()).await;
        assert_eq!(changed.code(), "STOCK_CHANGED", "{}", changed.text);
    }
    adjust(client, json!({ "change": -5 })).await;
    let changed = keyed("changed", compare).await;
    assert_eq!(changed.body["available"], json!(300), "as it was then");
    let short = async || {
        let call = client.order("/api/redis/orders", 4, &[(1, 1), (2, 5_000)]);
        call.header("idempotency-key", "short").send().await
    };
    let first = short().await;
    assert_eq!(
        (first.code(), &first.body["productId"]),
        ("INSUFFICIENT_STOCK", &json!(2))
    );
    let more = client.post("/api/products/2/stock").admin();
    let more = more.json(&json!({ "change": 9_000 })).send().await;
    assert_eq!(more.status, 200, "{}", more.text);
    let again = short().await;
    assert_eq!(again.body["available"], first.body["available"]);

    let file = "product_id,location_id,quantity,mode\n1,0,2000,set\n";
    let import = client.post("/api/stock/import").admin();
    let import = import
        .header("content-type", "text/csv")
        .raw(file.as_bytes());
    let import = import.send().await;
    assert!(import.status < 300, "{}", import.text);
    until(
        "the file is written, and moved into every share",
        || async {
            shop.available(1).await == 2_000 && shares(&shop).await.iter().all(|of| *of >= 250)
        },
    )
    .await;

    // Reservations and their expiry are the product's as before.
    let hold = client.post("/api/products/stock/reserve").user(2);
    let hold = hold
        .json(&json!({ "productId": 1, "quantity": 3 }))
        .send()
        .await;
    assert_eq!(hold.status, 201, "{}", hold.text);
    assert_eq!(shop.available(1).await, 1_997);
    shop.drained().await;
    let listed = client.get("/api/products/stock/available?productId=1");
    let listed = listed.admin().send().await;
    assert_eq!(
        listed.body["items"][0]["available"],
        json!(1_997),
        "{}",
        listed.text
    );
    let export = client.get("/api/stock/export").admin().send().await;
    for path in ["/api/products/1", "/api/redis/products/1"] {
        let shown = client.get(path).send().await;
        assert_eq!(
            (&shown.body["isSoldOut"], &shown.body["stockVersion"]),
            (&json!(false), &listed.body["items"][0]["stockVersion"]),
            "{path}: {}",
            shown.text
        );
    }
    assert!(export.text.contains(",1997,3,2000,"), "{}", export.text);
    let path = "/api/products/1/stock/movements?locationId=0&limit=100";
    let movements = client.get(path).admin().send().await;
    let items = movements.body["items"].as_array().unwrap();
    let sum: i64 = items
        .iter()
        .filter(|item| item["kind"] != json!("RESERVED"))
        .map(|item| item["delta"].as_i64().unwrap())
        .sum();
    assert_eq!(sum, 1_997, "every movement of every share");

    // Undivided again, all is where it was.
    assert!(into(&shop, 1).await > 0);
    until("the shares are emptied", || async {
        shares(&shop).await[1..].iter().all(|of| *of == 0)
    })
    .await;
    assert_eq!(shares(&shop).await[0], 1_997);
    assert_eq!(order(client, 3, &[(1, 1_997)]).await.status, 201);
    sqlx::query("UPDATE buckets SET closed_at = closed_at - INTERVAL 2 MINUTE")
        .execute(&shop.pool)
        .await
        .unwrap();
    until("the emptied buckets are forgotten", || async {
        shop.count("SELECT COUNT(*) FROM buckets").await == 0
    })
    .await;
    shop.drained().await;
    shop.prove().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_that_what_moves_is_gone() {
    let shop = Shop::open_in(3, 24, 400).await;
    let service = shop.serve().await;
    let client = &service.client;
    into(&shop, 3).await;
    let all = order(client, 2, &[(1, 400)]).await;
    assert_eq!(all.status, 201, "{}", all.text);
    // As whoever moves units says, before they leave.
    let layout = shop.ledger.layout().unwrap();
    let home = layout.owner(stock_domain::layout::account_slot(account(1)).unwrap());
    let shard = shop.ledger.shard(home).unwrap();
    let mut link = shard.link().unwrap();
    let key = shard.keys().moving(PRODUCT);
    let _: i64 = cmd("ZADD")
        .arg(&key)
        .arg(shard.redis_now_ms() + 60_000)
        .arg("somebody")
        .query_async(&mut link.decide)
        .await
        .unwrap();
    let waiting = order(client, 3, &[(1, 1)]).await;
    assert_eq!(
        (waiting.status, waiting.code()),
        (503, "OVERLOADED"),
        "{}",
        waiting.text
    );
    let _: i64 = cmd("ZREM")
        .arg(&key)
        .arg("somebody")
        .query_async(&mut link.decide)
        .await
        .unwrap();
    let gone = order(client, 3, &[(1, 1)]).await;
    assert_eq!(
        (gone.status, gone.code()),
        (409, "INSUFFICIENT_STOCK"),
        "{}",
        gone.text
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_orders_a_divided_product_once() {
    // Method: four units, one in some share or other; twins of one key while others buy and cancel: the share that is
    // asked first is short for one and not for the other.
    let shop = Shop::open_in(4, 24, 400).await;
    let service = shop.serve().await;
    let client = &service.client;
    into(&shop, 4).await;
    assert_eq!(order(client, 2, &[(1, 396)]).await.status, 201);
    for round in 0..8_u64 {
        let user = 10 + round;
        let key = format!("round-{round}");
        let twins: Vec<_> = (0..6)
            .map(|number| {
                let (client, key) = (client.clone(), key.clone());
                tokio::spawn(async move {
                    if number % 2 == 1 {
                        let other = order(&client, 60 + number, &[(1, 4)]).await;
                        if other.status == 201 {
                            let id = other.order_id();
                            let cancel = format!("/api/redis/orders/{id}/cancel");
                            let cancelled = client.patch(&cancel).user(60 + number).send().await;
                            assert_eq!(cancelled.status, 200, "{}", cancelled.text);
                        }
                        return None;
                    }
                    let call = client.order("/api/redis/orders", user, &[(1, 1)]);
                    Some(call.header("idempotency-key", &key).send().await)
                })
            })
            .collect();
        let mut ids = Vec::new();
        for twin in twins {
            if let Some(answer) = twin.await.unwrap()
                && answer.status == 201
            {
                ids.push(answer.order_id());
            }
        }
        ids.sort();
        ids.dedup();
        assert!(ids.len() <= 1, "{round}: {ids:?}");
        shop.drained().await;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM orders WHERE user_id = ?")
            .bind(user)
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(count, i64::try_from(ids.len()).unwrap(), "{round}");
        for id in ids {
            let cancel = format!("/api/redis/orders/{id}/cancel");
            let cancelled = client.patch(&cancel).user(user).send().await;
            assert_eq!(cancelled.status, 200, "{}", cancelled.text);
        }
        assert_eq!(shop.available(1).await, 4);
    }
    shop.drained().await;
    shop.prove().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_was_closed_too_late_is_opened_and_a_large_order_is_answered() {
    let shop = Shop::open_in(3, 24, 100_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    into(&shop, 3).await;
    let layout = shop.ledger.layout().unwrap();
    let bucket = layout.buckets.accounts(PRODUCT)[1];
    // As a confirmation does that arrives behind a later one.
    let mut late = product::switch(PRODUCT, true, &[], UserId(1)).unwrap();
    late.draft.closings = vec![Closing {
        account: bucket,
        closed: true,
        only_if_opened: false,
    }];
    let on = layout.owner(stock_domain::layout::account_slot(bucket).unwrap());
    let sealed = std::sync::Arc::new(late.seal().unwrap());
    let shard = shop.ledger.shard(on).unwrap();
    let verdict = shard.decide(sealed, layout.version(on)).await.unwrap();
    assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    until("it is as the product is", || async {
        let levels = shop.ledger.own_levels(&[bucket]).await.unwrap();
        !levels[&bucket].closed
    })
    .await;
    // Levels that fall all the time are no reason to wait.
    let load = Load::start_of(std::slice::from_ref(client), 6, &[(1, 1)]);
    load.accept(20).await;
    let large = order(client, 3, &[(1, 900_000)]).await;
    assert_eq!(large.code(), "INSUFFICIENT_STOCK", "{}", large.text);
    let history = load.stop().await;
    assert_eq!((history.refused, history.unknown), (0, 0));
    shop.drained().await;
    shop.prove().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_divided_product_moves_with_its_shards() {
    let shop = Shop::open_in(4, 24, 1_000_000).await;
    let service = shop.serve().await;
    let clients = [service.client.clone()];
    into(&shop, 4).await;
    let load = Load::start_of(&clients, 8, &[(1, 1)]);
    let several = Load::start_of(&clients, 4, &[(1, 2), (5, 1)]);
    for shards in [6, 3, 1] {
        let mut quiet = |_, _| {};
        reshard(&shop.config, &shop.pool, shards, &mut quiet)
            .await
            .unwrap();
        load.accept(50).await;
        several.accept(20).await;
        shop.prove().await;
    }
    let (one, two) = (load.stop().await, several.stop().await);
    for history in [&one, &two] {
        assert_eq!((history.refused, history.unknown), (0, 0));
    }
    shop.drained().await;
    let sold = one.accepted.len() + 2 * two.accepted.len();
    assert_eq!(
        shop.available(1).await,
        1_000_000 - i64::try_from(sold).unwrap()
    );
    shop.prove().await;
    service.stop().await;
}
