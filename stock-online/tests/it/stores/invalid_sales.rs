//! Sales of a till that cannot be read: kept as they were sent, listed, and resolved by a person.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{available, offline, send, statuses, stock, till};
use crate::support::{Answer, Call, Client, Shop, until};

const BATCH: &str = "/api/stores/1/orders/batch";
const LIST: &str = "/api/stores/1/invalid-sales";
/// Maximum number of sales of one store that may wait for a person.
const OPEN_MAX: usize = 10_000;

fn line() -> Value {
    json!([{ "productId": 1, "quantity": 1, "unitPrice": 900 }])
}

/// A batch whose text is sent as it stands.
fn raw<'a>(client: &'a Client, token: &str, body: &str) -> Call<'a> {
    let call = client.post(BATCH).bearer(token).raw(body.as_bytes());
    call.header("content-type", "application/json")
}

async fn items(client: &Client, token: &str, query: &str) -> Vec<Value> {
    let call = client.get(&format!("{LIST}{query}")).bearer(token);
    let listed = call.send().await;
    assert_eq!(listed.status, 200, "{}", listed.text);
    listed.body["items"].as_array().unwrap().clone()
}

async fn resolve(client: &Client, token: &str, item: &Value) -> Answer {
    let path = format!("{LIST}/{}/resolve", item["id"]);
    let note = json!({ "note": "booked by hand" });
    client.post(&path).bearer(token).json(&note).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_cannot_be_read_is_kept_once_and_shown_until_it_is_resolved() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 1, 1, 5).await;
    let token = till(&shop, 1);
    let ahead = offline(&shop, "ahead", -60, &line());
    // Spaces, the order of members and an unreadable number: the text stays as it was sent.
    let broken = r#"{ "soldAt":1e999,"key" : "half 매장"  }"#;
    let good = offline(&shop, "good", 5, &line());
    let body = format!(r#"{{"sales":[{ahead}, {broken} ,7,{good}]}}"#);
    let sold = || raw(client, &token, &body);
    for round in 0..2 {
        let answer = sold().send().await;
        let last = ["ACCEPTED", "REPLAYED"][round];
        assert_eq!(
            statuses(&answer),
            ["INVALID", "INVALID", "INVALID", last],
            "{}",
            answer.text
        );
        // The result of a sale that was not sold has these members and no others.
        let result = answer.body["results"][0].as_object().unwrap();
        let members: Vec<&str> = result.keys().map(String::as_str).collect();
        assert_eq!(members, ["key", "problem", "status"]);
        shop.drained().await;
    }
    // Ten requests at the same time.
    let twins: Vec<_> = (0..10)
        .map(|_| {
            let (client, token, body) = (client.clone(), token.clone(), body.clone());
            tokio::spawn(async move { raw(&client, &token, &body).send().await })
        })
        .collect();
    for twin in twins {
        let answer = twin.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(shop.count("SELECT COUNT(*) FROM invalid_sales").await, 3);

    let listed = items(client, &token, "").await;
    let texts: Vec<&str> = listed
        .iter()
        .map(|item| item["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["7", broken, &ahead.to_string()], "newest first");
    let (first, second) = (&listed[2], &listed[1]);
    assert_eq!(
        (
            &first["key"],
            &first["code"],
            &first["detail"],
            &first["state"]
        ),
        (
            &json!("ahead"),
            &json!("UNPROCESSABLE"),
            &json!("soldAt lies in the future"),
            &json!("INVALID")
        )
    );
    assert_eq!(
        (&first["deviceId"], &first["note"], &second["key"]),
        (&json!(null), &json!(null), &json!(null))
    );
    assert!(first["receivedAt"].as_str().unwrap().ends_with('Z'));
    // The list comes page by page.
    let page = client
        .get(&format!("{LIST}?limit=2"))
        .bearer(&token)
        .send()
        .await;
    let cursor = page.body["nextCursor"].as_str().unwrap();
    let rest = items(client, &token, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!(rest, listed[2..]);
    // Another store's person sees and resolves none of them.
    let other = till(&shop, 2);
    assert_eq!(
        client.get(LIST).bearer(&other).send().await.code(),
        "FORBIDDEN"
    );
    let elsewhere = format!("/api/stores/2/invalid-sales/{}/resolve", first["id"]);
    let note = json!({ "note": "mine" });
    let call = client.post(&elsewhere).bearer(&other).json(&note);
    assert_eq!(call.send().await.code(), "NOT_FOUND");

    let resolved = resolve(client, &token, first).await;
    assert_eq!(
        (resolved.status, &resolved.body["state"]),
        (200, &json!("RESOLVED")),
        "{}",
        resolved.text
    );
    assert_eq!(resolve(client, &token, first).await.status, 404);
    assert_eq!(items(client, &token, "").await.len(), 2);
    let done = items(client, &token, "?resolved=true").await;
    assert_eq!(
        (&done[0]["note"], &done[0]["resolvedBy"]),
        (&json!("booked by hand"), &json!(3))
    );
    // The same text stays resolved, and is answered INVALID again.
    assert_eq!(statuses(&sold().send().await)[0], "INVALID");
    assert_eq!(items(client, &token, "").await.len(), 2);
    assert_eq!(available(client, 1, 1).await, 4);
    let audited = "SELECT COUNT(*) FROM audit_log WHERE action = 'invalid_sale_resolved' \
                   AND subject LIKE 'store:1 invalid sale:%'";
    until("it is in the audit log", || async {
        shop.count(audited).await == 1
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_used_again_is_kept_before_and_after_mysql_knows_its_sale() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 1, 1, 5).await;
    let token = till(&shop, 1);
    let first = offline(&shop, "17", 30, &line());
    let twice = offline(&shop, "17", 20, &line());
    // In one batch, only the state in Redis knows of the first sale.
    let answer = send(
        client.post(BATCH).bearer(&token),
        &[first.clone(), twice.clone()],
    )
    .await;
    assert_eq!(
        statuses(&answer),
        ["ACCEPTED", "INVALID"],
        "{}",
        answer.text
    );
    let problem = &answer.body["results"][1]["problem"];
    assert_eq!(problem["code"], "IDEMPOTENCY_KEY_REUSED");
    shop.drained().await;
    let third = offline(&shop, "17", 10, &line());
    let answer = send(client.post(BATCH).bearer(&token), &[first, twice, third]).await;
    assert_eq!(
        statuses(&answer),
        ["REPLAYED", "INVALID", "INVALID"],
        "{}",
        answer.text
    );
    let kept = items(client, &token, "").await;
    assert_eq!(kept.len(), 2);
    for item in &kept {
        assert_eq!(
            (&item["key"], &item["code"]),
            (&json!("17"), &json!("IDEMPOTENCY_KEY_REUSED"))
        );
    }
    assert_eq!(available(client, 1, 1).await, 4);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_can_be_read_later_is_sold_unless_a_person_has_resolved_it() {
    // Danger: stock is taken for a sale that a person has booked by hand, or a sold sale is listed
    // for ever. Method: two sales of a missing product are kept, one is resolved, and then the
    // product is made.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let token = till(&shop, 1);
    let lines = json!([{ "productId": 2, "quantity": 1, "unitPrice": 900 }]);
    let batch = [
        offline(&shop, "by hand", 20, &lines),
        offline(&shop, "later", 10, &lines),
    ];
    let answer = send(client.post(BATCH).bearer(&token), &batch).await;
    assert_eq!(statuses(&answer), ["INVALID", "INVALID"], "{}", answer.text);
    let kept = items(client, &token, "").await;
    assert_eq!(kept[1]["key"], "by hand");
    assert_eq!(resolve(client, &token, &kept[1]).await.status, 200);
    let product = json!({ "name": "late", "price": 1_000, "stock": 3 });
    let made = client
        .post("/api/products")
        .admin()
        .json(&product)
        .send()
        .await;
    assert_eq!(
        (made.status, &made.body["id"]),
        (201, &json!(2)),
        "{}",
        made.text
    );
    stock(client, 1, 2, 3).await;
    for last in ["ACCEPTED", "REPLAYED"] {
        let answer = send(client.post(BATCH).bearer(&token), &batch).await;
        assert_eq!(statuses(&answer), ["INVALID", last], "{}", answer.text);
        assert_eq!(
            answer.body["results"][0]["problem"]["code"],
            "PRODUCT_NOT_FOUND"
        );
        shop.drained().await;
    }
    assert_eq!(available(client, 1, 2).await, 2);
    assert_eq!(items(client, &token, "").await, Vec::<Value>::new());
    let done = items(client, &token, "?resolved=true").await;
    let note = done[0]["note"].as_str().unwrap();
    assert!(note.contains("ACCEPTED"), "{note}");
    assert_eq!(done[0]["resolvedBy"], json!(null));
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_invalid_only_when_the_sale_is_kept() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 1, 1, 5).await;
    let batch = [
        offline(&shop, "good", 20, &line()),
        offline(&shop, "ahead", -60, &line()),
    ];
    let rename = async |text: &'static str| {
        sqlx::query(text).execute(&shop.pool).await.unwrap();
    };
    rename("RENAME TABLE invalid_sales TO away").await;
    let failed = send(client.post(BATCH).admin(), &batch).await;
    assert!(failed.status >= 500, "{}", failed.text);
    rename("RENAME TABLE away TO invalid_sales").await;
    let answer = send(client.post(BATCH).admin(), &batch).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(statuses(&answer)[1], "INVALID");
    assert_eq!(shop.count("SELECT COUNT(*) FROM invalid_sales").await, 1);
    // A sale that is too long: the whole batch is refused before anything is decided.
    let long = json!({ "key": "x".repeat(32 * 1024), "soldAt": 1 });
    let long = [offline(&shop, "other", 20, &line()), long];
    let refused = send(client.post(BATCH).admin(), &long).await;
    assert_eq!((refused.status, refused.code()), (422, "UNPROCESSABLE"));
    assert_eq!(refused.body["errors"][0]["pointer"], "/sales/1");
    assert_eq!(available(client, 1, 1).await, 4);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_list_is_full_is_told_so_and_goes_on_when_a_sale_is_resolved() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    stock(client, 1, 1, 5).await;
    let token = till(&shop, 1);
    let numbers: Vec<usize> = (1..OPEN_MAX).collect();
    for part in numbers.chunks(1_000) {
        let rows: Vec<String> = part
            .iter()
            .map(|n| format!("(1, '{n}', UNHEX(SHA2('{n}', 256)), 'UNPROCESSABLE', 'test')"))
            .collect();
        let text = format!(
            "INSERT INTO invalid_sales (store_id, text, text_hash, code, detail) VALUES {}",
            rows.join(", ")
        );
        let insert = sqlx::query(AssertSqlSafe(text));
        insert.execute(&shop.pool).await.unwrap();
    }
    let batch = [
        offline(&shop, "good", 20, &line()),
        offline(&shop, "one", -60, &line()),
        offline(&shop, "two", -60, &line()),
    ];
    let full = send(client.post(BATCH).bearer(&token), &batch).await;
    assert_eq!((full.status, full.code()), (429, "TOO_MANY_REQUESTS"));
    let count = "SELECT COUNT(*) FROM invalid_sales";
    assert_eq!(shop.count(count).await, 9_999, "all of a batch or none");
    // One more sale has room. A sale that is kept already needs no room, and a sold sale stays
    // sold.
    for round in 0..2 {
        let answer = send(client.post(BATCH).bearer(&token), &batch[..2]).await;
        assert_eq!(
            statuses(&answer),
            ["REPLAYED", "INVALID"],
            "{round}: {}",
            answer.text
        );
    }
    assert_eq!(
        send(client.post(BATCH).bearer(&token), &batch).await.status,
        429
    );
    // Another store has a list of its own.
    let elsewhere = client.post("/api/stores/2/orders/batch").admin();
    assert_eq!(
        statuses(&send(elsewhere, &batch[1..]).await),
        ["INVALID"; 2]
    );
    let newest = items(client, &token, "?limit=1").await;
    assert_eq!(resolve(client, &token, &newest[0]).await.status, 200);
    let answer = send(client.post(BATCH).bearer(&token), &batch).await;
    assert_eq!(
        statuses(&answer),
        ["REPLAYED", "INVALID", "INVALID"],
        "{}",
        answer.text
    );
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
