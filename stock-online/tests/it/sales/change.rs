//! A sale changes while it is planned or runs, and keeps what each buyer has taken.

use serde_json::{Value, json};
use stock_common::clock::rfc3339;

use super::{HOUR, buy, delete_sale, sale};
use crate::support::{Answer, Client, Shop, until};

async fn edit(client: &Client, sale: &Answer, change: Value) -> Answer {
    let path = format!("/api/products/1/sales/{}", sale.body["saleId"]);
    client.patch(&path).admin().json(&change).send().await
}

/// The time `ms` from now, by Redis' clock.
fn at(shop: &Shop, ms: i64) -> String {
    rfc3339(i64::try_from(shop.ledger.redis_now_ms()).unwrap() + ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_sale_changes_altogether_and_a_running_one_not_its_beginning() {
    let shop = Shop::open(2, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let planned = sale(&shop, client, HOUR, 2 * HOUR, json!({ "price": 700 })).await;
    assert_eq!(planned.body["availability"], "SALE_ONLY");
    let starts = at(&shop, -HOUR);
    let change =
        json!({ "startsAt": starts, "endsAt": at(&shop, HOUR), "price": null, "limitPerUser": 3 });
    let running = edit(client, &planned, change).await;
    assert_eq!(running.status, 200, "{}", running.text);
    assert_eq!(
        (
            &running.body["state"],
            &running.body["price"],
            &running.body["limitPerUser"]
        ),
        (&json!("RUNNING"), &Value::Null, &json!(3))
    );
    let shown = client.get("/api/products/1").send().await;
    assert_eq!(shown.body["sale"], running.body);
    assert_eq!(buy(client, 2, 1, 1_000).await.status, 201, "at once, here");

    for (change, status, code) in [
        (
            json!({ "startsAt": at(&shop, -2 * HOUR) }),
            409,
            "SALE_HAS_BEGUN",
        ),
        (json!({ "startsAt": starts }), 200, ""),
        (json!({}), 200, ""),
        (
            json!({ "endsAt": at(&shop, -2 * HOUR) }),
            422,
            "UNPROCESSABLE",
        ),
        (json!({ "limitPerUser": 0 }), 422, "UNPROCESSABLE"),
        (json!({ "limitPerUser": 1_000_001 }), 422, "UNPROCESSABLE"),
        (json!({ "price": -1 }), 422, "UNPROCESSABLE"),
        (json!({ "availability": "ALWAYS" }), 422, "UNPROCESSABLE"),
        (json!({ "price": 650 }), 200, ""),
        (json!({ "endsAt": at(&shop, 2 * HOUR) }), 200, ""),
    ] {
        let answer = edit(client, &running, change.clone()).await;
        let code_of = if answer.status == 200 {
            ""
        } else {
            answer.code()
        };
        assert_eq!((answer.status, code_of), (status, code), "{change}");
    }
    assert_eq!(
        buy(client, 2, 1, 1_000).await.code(),
        "TOTAL_AMOUNT_MISMATCH"
    );
    assert_eq!(buy(client, 2, 1, 650).await.status, 201);
    let ended = edit(client, &running, json!({ "endsAt": at(&shop, -HOUR / 60) })).await;
    assert_eq!(ended.body["state"], "OVER");
    assert_eq!(buy(client, 2, 1, 650).await.code(), "SALE_CLOSED");
    let over = edit(client, &running, json!({ "price": 1 })).await;
    assert_eq!((over.status, over.code()), (409, "SALE_CLOSED"));
    delete_sale(client, &running).await;
    let gone = edit(client, &running, json!({ "price": 1 })).await;
    assert_eq!((gone.status, gone.code()), (404, "SALE_NOT_FOUND"));
    for path in ["/api/products/1/sales/x", "/api/products/99/sales/1"] {
        let missing = client.patch(path).admin().json(&json!({})).send().await;
        assert_eq!((missing.status, missing.code()), (404, "SALE_NOT_FOUND"));
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_raised_and_lowered_and_what_was_taken_stays_taken() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let running = sale(&shop, client, -HOUR, HOUR, json!({ "limitPerUser": 2 })).await;
    let limit = async |limit: Value| edit(client, &running, json!({ "limitPerUser": limit })).await;
    let remaining = async |user: u64, asked: i64, left: i64| {
        let refused = buy(client, user, asked, 1_000).await;
        assert_eq!(
            (refused.code(), &refused.body["remaining"]),
            ("PURCHASE_LIMIT_REACHED", &json!(left))
        );
    };
    let first = buy(client, 2, 2, 1_000).await;
    assert_eq!(first.status, 201, "{}", first.text);
    remaining(2, 1, 0).await;
    assert_eq!(limit(json!(5)).await.status, 200);
    remaining(2, 4, 3).await;
    remaining(3, 6, 5).await;
    assert_eq!(buy(client, 2, 3, 1_000).await.status, 201);
    assert_eq!(buy(client, 3, 1, 1_000).await.status, 201);

    let below = limit(json!(4)).await;
    assert_eq!(
        (below.status, below.code(), &below.body["taken"]),
        (409, "SALE_LIMIT_BELOW_TAKEN", &json!(5))
    );
    remaining(2, 1, 0).await;
    // Units that are given back make room, for the buyer and for a lower limit.
    let cancel = format!("/api/orders/{}/cancel", first.order_id());
    assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    assert_eq!(limit(json!(3)).await.status, 200);
    remaining(2, 1, 0).await;
    remaining(3, 3, 2).await;
    assert_eq!(buy(client, 3, 2, 1_000).await.status, 201);

    // Without a limit nothing is counted, so no limit can be set again.
    assert_eq!(limit(Value::Null).await.status, 200);
    assert_eq!(buy(client, 2, 50, 1_000).await.status, 201);
    let late = limit(json!(100)).await;
    assert_eq!((late.status, late.code()), (409, "SALE_HAS_BEGUN"));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_on_two_instances_that_learn_of_it_at_different_times() {
    // Danger: one instance opens a buyer's account at the old limit and the other counts by the new
    // one, so that a buyer gets both. Method: two instances, of which one learns of nothing by
    // itself; the limit changes up and down while forty buyers take one unit at a time on both; the
    // end sums tell.
    let shop = Shop::open(1, 10_000).await;
    let service = shop.serve().await;
    let mut late = shop.clone();
    late.config.selling.catalog_refresh_ms = 4_000;
    let other = late.serve().await;
    let running = sale(
        &shop,
        &service.client,
        -HOUR,
        HOUR,
        json!({ "price": 900, "limitPerUser": 4 }),
    )
    .await;
    // An order shows that the catalog knows the sale; a list would come from MySQL.
    until("the other instance knows the sale", || async {
        buy(&other.client, 3, 1, 900).await.status == 201
    })
    .await;
    let buyers: Vec<_> = (1..=40_u64)
        .map(|number| {
            let client = if number % 2 == 0 {
                &service.client
            } else {
                &other.client
            };
            let client = client.clone();
            // Two tasks are one buyer, who asks both instances.
            let user = 100 + number / 2;
            tokio::spawn(async move {
                let mut had = 0;
                for _ in 0..12 {
                    let answer = buy(&client, user, 1, 900).await;
                    let is_refused = answer.code() == "PURCHASE_LIMIT_REACHED";
                    assert!(answer.status == 201 || is_refused, "{}", answer.text);
                    had += u64::from(answer.status == 201);
                }
                (user, had)
            })
        })
        .collect();
    let mut highest = 4;
    for limit in [6, 5, 8] {
        let mut changed = edit(&service.client, &running, json!({ "limitPerUser": limit })).await;
        while changed.code() == "BACKLOG" {
            // MySQL is too far behind to know the units taken.
            changed = edit(&service.client, &running, json!({ "limitPerUser": limit })).await;
        }
        let is_below = changed.status == 409 && changed.code() == "SALE_LIMIT_BELOW_TAKEN";
        assert!(changed.status == 200 || is_below, "{}", changed.text);
        if changed.status == 200 {
            highest = highest.max(limit);
        }
    }
    let mut had = std::collections::HashMap::from([(3, 1)]);
    for buyer in buyers {
        let (user, units) = buyer.await.unwrap();
        *had.entry(user).or_insert(0) += units;
    }
    for (user, units) in had.iter().filter(|(user, _)| **user != 3) {
        assert!(
            (4..=highest).contains(units),
            "{user}: {units} of {highest}"
        );
    }
    shop.drained().await;
    let counted: Vec<(u64, i64)> =
        sqlx::query_as("SELECT place_id, 1000000 - balance FROM accounts WHERE kind = 'ALLOWANCE'")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
    let counted: std::collections::HashMap<u64, u64> = counted
        .into_iter()
        .map(|(user, taken)| (user, u64::try_from(taken).unwrap()))
        .collect();
    assert_eq!(counted, had);
    shop.verify().await;
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_of_before_counts_from_its_own_limit() {
    // A row of an earlier program, which opened accounts at the limit, and a buyer who has had one
    // unit of two.
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let running = sale(&shop, client, -HOUR, HOUR, json!({ "limitPerUser": 2 })).await;
    let id = running.body["saleId"].as_u64().unwrap();
    for text in [
        "UPDATE sales SET counted_from = limit_per_user",
        "UPDATE products SET revision = revision + 1",
    ] {
        sqlx::query(text).execute(&shop.pool).await.unwrap();
    }
    edit(client, &running, json!({ "limitPerUser": 2 })).await;
    assert_eq!(buy(client, 2, 1, 1_000).await.status, 201);
    let raised = edit(client, &running, json!({ "limitPerUser": 3 })).await;
    assert_eq!((raised.status, raised.code()), (409, "SALE_HAS_BEGUN"));
    assert_eq!(
        edit(client, &running, json!({ "limitPerUser": 1 }))
            .await
            .status,
        200
    );
    let refused = buy(client, 2, 1, 1_000).await;
    assert_eq!(
        (refused.code(), &refused.body["remaining"]),
        ("PURCHASE_LIMIT_REACHED", &json!(0))
    );
    shop.drained().await;
    let balance: i64 = sqlx::query_scalar(
        "SELECT balance FROM accounts WHERE kind = 'ALLOWANCE' AND owner_id = ?",
    )
    .bind(id)
    .fetch_one(&shop.pool)
    .await
    .unwrap();
    assert_eq!(balance, 1);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_sales_made_at_once_one_is() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let body = json!({ "startsAt": at(&shop, -HOUR), "endsAt": at(&shop, HOUR) });
    let running: Vec<_> = (0..20)
        .map(|_| {
            let (client, body) = (client.clone(), body.clone());
            tokio::spawn(async move {
                let call = client.post("/api/products/1/sales").admin().json(&body);
                call.send().await
            })
        })
        .collect();
    let mut made = 0;
    for answer in running {
        let answer = answer.await.unwrap();
        if answer.status == 201 {
            made += 1;
        } else {
            assert_eq!(
                (answer.status, answer.code()),
                (409, "SALE_EXISTS"),
                "{}",
                answer.text
            );
        }
    }
    assert_eq!(made, 1);
    assert_eq!(shop.count("SELECT COUNT(*) FROM sales").await, 1);
    service.stop().await;
}
