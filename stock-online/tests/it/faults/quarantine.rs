//! One account whose postings do not chain: all other accounts are settled, nothing is taken from
//! this one, and no unit is lost.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use stock_common::id::Position;
use stock_engine::reconcile::{Reconciled, reconcile};
use stock_engine::verify::verify;
use stock_mysql::{quarantine, shards};
use stock_redis::{Link, levels};

use super::super::ops::command;
use crate::support::{Answer, Service, Shop, account, until};

async fn order(service: &Service, product: u64, quantity: i64) -> Answer {
    let call = service
        .client
        .order("/api/redis/orders", 2, &[(product, quantity)]);
    call.send().await
}

async fn set_level(shop: &Shop, product: u64, value: &str) {
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let key = shop.ledger.keys().account(account(product));
    let _: () = redis::cmd("SET")
        .arg(key)
        .arg(value)
        .query_async(&mut redis)
        .await
        .unwrap();
}

async fn change(shop: &Shop, text: &str) {
    let done = sqlx::query(AssertSqlSafe(text.to_owned()))
        .execute(&shop.pool)
        .await
        .unwrap();
    assert!(done.rows_affected() > 0, "{text}");
}

/// Inserts an orphan where the account's next posting belongs.
async fn plant_stray(shop: &Shop, product: u64) {
    let text = "INSERT INTO postings (kind, owner_id, place_id, seq, journal_id, delta, balance_after) \
         SELECT kind, owner_id, place_id, seq + 1, 1, -7, balance - 7 FROM accounts \
         WHERE kind = 'AVAILABLE' AND place_id = 0 AND owner_id = ";
    change(shop, &format!("{text}{product}")).await;
}

async fn is_quarantined(shop: &Shop, product: u64) {
    until("the account is under quarantine", || async {
        let all = quarantine::list(&shop.pool).await.unwrap();
        all.iter().any(|of| of.broken.account == account(product))
    })
    .await;
}

/// Waits until everything is settled, whatever is under quarantine.
async fn settled(shop: &Shop) {
    until("mysql has settled every entry", || async {
        let report = verify(&shop.pool, &shop.ledger, false, &mut |_, _| {}).await;
        report.is_ok_and(|report| report.lag_entries == 0)
    })
    .await;
}

async fn corrected(shop: &Shop) -> Reconciled {
    reconcile(&shop.pool, &shop.ledger, true)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_posting_stops_its_account_only_and_reconcile_ends_that() {
    // Danger: MySQL answers 1062 for ever, and no order is settled any more.
    let shop = Shop::open_undivided(2, 100).await;
    let service = shop.serve().await;
    settled(&shop).await;
    plant_stray(&shop, 1).await;
    let mut ids = Vec::new();
    for product in [1, 2, 1, 2] {
        ids.push(order(&service, product, 1).await.order_id());
    }
    is_quarantined(&shop, 1).await;
    settled(&shop).await;
    assert_eq!(shop.stored_orders().await, ids);

    until("redis refuses what would take from it", || async {
        let answer = order(&service, 1, 1).await;
        answer.status == 503 && answer.code() == "ACCOUNT_BROKEN"
    })
    .await;
    assert_eq!(order(&service, 2, 1).await.status, 201);
    let cancel = service
        .client
        .patch(&format!("/api/redis/orders/{}/cancel", ids[0]));
    assert_eq!(cancel.user(2).send().await.status, 200);
    until("it is said", || async {
        let ready = service.client.get("/readyz").send().await;
        let said = ready.body["checks"]["apply"]
            .to_string()
            .contains("quarantine");
        let metrics = service.client.get("/metrics").send().await.text;
        said && metrics.contains("stock_quarantined_accounts 1") && ready.status == 200
    })
    .await;
    let (code, report, _) = command(&shop, &["verify", "--json"]);
    assert_eq!((code, report["ok"].clone()), (Some(1), json!(false)));
    let listed = service
        .client
        .get("/api/ops/quarantine")
        .admin()
        .send()
        .await;
    assert_eq!(listed.body["items"][0]["account"], "AVAILABLE:1:0");

    settled(&shop).await;
    let done = corrected(&shop).await;
    assert!(done.corrected >= 1, "{done:?}");
    settled(&shop).await;
    until("it is sold again", || async {
        order(&service, 1, 1).await.status == 201
    })
    .await;
    settled(&shop).await;
    let sold = shop.count(
        "SELECT CAST(COALESCE(SUM(quantity), 0) AS SIGNED) FROM order_products JOIN orders ON id = order_id \
         WHERE product_id = 1 AND status = 'SUCCESS'",
    );
    assert_eq!(shop.available(1).await, 100 - sold.await);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_was_raised_by_hand_and_sold_from_goes_back_to_what_the_orders_left() {
    // Danger: the accepted order is dropped, or the raised level is believed.
    let shop = Shop::open_undivided(2, 100).await;
    let service = shop.serve().await;
    settled(&shop).await;
    let stored = shop.ledger.levels(&[account(1)]).await.unwrap()[&account(1)];
    set_level(&shop, 1, &format!("500 {} 0", stored.seq)).await;
    let id = order(&service, 1, 5).await.order_id();
    is_quarantined(&shop, 1).await;
    settled(&shop).await;
    let (code, released, text) =
        command(&shop, &["quarantine", "release", "AVAILABLE:1:0", "--json"]);
    assert_eq!(
        (code, released["balance"].clone()),
        (Some(0), json!(95)),
        "{text}"
    );
    assert_eq!(shop.available(1).await, 95);
    assert_eq!(shop.stored_orders().await, [id]);
    assert_eq!(order(&service, 1, 1).await.status, 201);
    settled(&shop).await;
    shop.verify().await;
    let (code, listed, _) = command(&shop, &["quarantine", "list", "--json"]);
    assert_eq!((code, listed), (Some(0), json!([])));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_oversold_stays_under_quarantine_until_there_is_enough() {
    let shop = Shop::open_undivided(1, 10).await;
    let service = shop.serve().await;
    settled(&shop).await;
    let stored = shop.ledger.levels(&[account(1)]).await.unwrap()[&account(1)];
    set_level(&shop, 1, &format!("500 {} 0", stored.seq)).await;
    assert_eq!(order(&service, 1, 30).await.status, 201);
    is_quarantined(&shop, 1).await;
    settled(&shop).await;
    let done = corrected(&shop).await;
    assert_eq!(done.corrected, 0, "{done:?}");
    assert!(done.differences[0].detail.contains("20 units"), "{done:?}");
    let inbound = json!({ "productId": 1, "quantity": 20, "reason": "found" });
    let received = service
        .client
        .post("/api/products/stock/inbound")
        .admin()
        .json(&inbound);
    assert_eq!(received.send().await.status, 201);
    settled(&shop).await;
    let release = service
        .client
        .post("/api/ops/quarantine/AVAILABLE:1:0/release")
        .admin();
    let released = release.json(&json!({})).send().await;
    assert_eq!(
        (released.status, released.body["balance"].clone()),
        (200, json!(0)),
        "{}",
        released.text
    );
    assert_eq!(shop.available(1).await, 0);
    assert_eq!(order(&service, 1, 1).await.code(), "INSUFFICIENT_STOCK");
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_changed_by_hand_is_set_to_what_redis_and_the_postings_say() {
    let shop = Shop::open_undivided(1, 100).await;
    let service = shop.serve().await;
    assert_eq!(order(&service, 1, 1).await.status, 201);
    settled(&shop).await;
    change(
        &shop,
        "UPDATE accounts SET balance = 7 WHERE kind = 'AVAILABLE' AND owner_id = 1",
    )
    .await;
    assert_eq!(order(&service, 1, 2).await.status, 201);
    is_quarantined(&shop, 1).await;
    settled(&shop).await;
    let done = corrected(&shop).await;
    assert!(done.corrected >= 1, "{done:?}");
    assert_eq!(shop.available(1).await, 97);
    settled(&shop).await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_contradicts_itself_is_reported_and_not_acted_on() {
    // Danger: reconcile copies one wrong posting over two copies that agree, and stock is created.
    let shop = Shop::open_undivided(3, 100).await;
    let service = shop.serve().await;
    for product in 1..=3 {
        assert_eq!(order(&service, product, 10).await.status, 201);
    }
    settled(&shop).await;
    let last = "AND owner_id = ";
    let postings = "UPDATE postings SET delta = -3, balance_after = 97 WHERE kind = 'AVAILABLE' AND delta = -10 ";
    change(&shop, &format!("{postings}{last}1")).await;
    change(&shop, &format!("UPDATE postings SET balance_after = 150 WHERE kind = 'AVAILABLE' AND delta = -10 {last}2")).await;
    change(
        &shop,
        &format!("DELETE FROM postings WHERE kind = 'AVAILABLE' AND delta = -10 {last}3"),
    )
    .await;
    let balances = "SELECT CAST(SUM(balance) AS SIGNED) FROM accounts WHERE kind = 'AVAILABLE'";
    for _ in 0..2 {
        let done = corrected(&shop).await;
        assert_eq!(done.corrected, 0, "{done:?}");
        assert!(done.differences.len() >= 3, "{done:?}");
        assert_eq!(shop.count(balances).await, 270);
        for product in 1..=3 {
            assert_eq!(shop.available(product).await, 90);
        }
    }
    // All accounts go on, also those whose past is in doubt.
    for product in 1..=3 {
        assert_eq!(order(&service, product, 1).await.status, 201);
    }
    settled(&shop).await;
    assert_eq!(shop.count(balances).await, 267);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_hold_whose_row_is_missing_keeps_its_deadline() {
    // Danger: reconcile believes the projection, and the hold's stock is held for ever.
    let shop = Shop::open_undivided(1, 100).await;
    let service = shop.serve().await;
    let body = json!({ "productId": 1, "quantity": 4 });
    let reserve = async || -> Value {
        let call = service
            .client
            .post("/api/products/stock/reserve")
            .user(2)
            .json(&body);
        call.send().await.body
    };
    let (gone, changed) = (reserve().await, reserve().await);
    settled(&shop).await;
    let id = |of: &Value| of["reservationId"].as_str().unwrap().to_owned();
    change(
        &shop,
        &format!("DELETE FROM reservations WHERE id = {}", id(&gone)),
    )
    .await;
    let text = "UPDATE reservations SET status = 'CANCELLED', ended_at = NOW(3) WHERE id = ";
    change(&shop, &format!("{text}{}", id(&changed))).await;
    let done = corrected(&shop).await;
    assert_eq!(done.corrected, 0, "{done:?}");
    assert!(done.differences.len() >= 2, "{done:?}");
    let mut link = shop.ledger.shard(0).unwrap().link().unwrap();
    let live: i64 = redis::cmd("ZCARD")
        .arg(shop.ledger.keys().deadlines())
        .query_async(&mut link.read)
        .await
        .unwrap();
    // Both holds, and the sentinel.
    assert_eq!(live, 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_poison_orders_do_not_stop_the_good_ones() {
    // Danger: fourteen orders that a constraint refuses stop the shard for good.
    let shop = Shop::open_undivided(2, 10_000).await;
    change_schema(
        &shop,
        "ALTER TABLE orders ADD CONSTRAINT unlucky CHECK (total_amount <> 13000)",
    )
    .await;
    let service = shop.serve().await;
    let mut good = Vec::new();
    for round in 0..14 {
        assert_eq!(order(&service, 1, 13).await.status, 201);
        for _ in 0..if round < 7 { 10 } else { 0 } {
            good.push(order(&service, 2, 1).await.order_id());
        }
    }
    until(
        "the good ones are stored and the others taken back",
        || async {
            let failed = "SELECT COUNT(*) FROM dead_letters WHERE state = 'COMPENSATED'";
            shop.stored_orders().await == good && shop.count(failed).await == 14
        },
    )
    .await;
    let ready = service.client.get("/readyz").send().await;
    assert_eq!(ready.body["checks"]["apply"], "ok");
    settled(&shop).await;
    assert_eq!(shop.available(1).await, 10_000);
    assert_eq!(order(&service, 1, 1).await.status, 201);
    settled(&shop).await;
    shop.verify().await;
    service.stop().await;
}

async fn change_schema(shop: &Shop, text: &'static str) {
    sqlx::query(text).execute(&shop.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_refuses_every_order_stops_applying_and_says_so() {
    // Danger: a column that was changed by mistake turns a whole sale into dead letters.
    let mut shop = Shop::open_undivided(1, 10_000).await;
    shop.config.apply.dead_letters_per_minute_max = 5;
    let held = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    change_schema(
        &shop,
        "ALTER TABLE orders ADD CONSTRAINT nothing CHECK (total_amount < 0)",
    )
    .await;
    for _ in 0..20 {
        assert_eq!(order(&held, 1, 1).await.status, 201);
    }
    let service = shop.serve().await;
    until("it is said", || async {
        let ready = service.client.get("/readyz").send().await;
        ready.body["checks"]["apply"]
            .to_string()
            .contains("stopped")
    })
    .await;
    assert_eq!(shop.count("SELECT COUNT(*) FROM dead_letters").await, 0);
    change_schema(&shop, "ALTER TABLE orders DROP CONSTRAINT nothing").await;
    settled(&shop).await;
    assert_eq!(shop.stored_orders().await.len(), 20);
    until("it is said", || async {
        let ready = service.client.get("/readyz").send().await;
        ready.body["checks"]["apply"] == "ok"
    })
    .await;
    shop.verify().await;
    held.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posting_of_an_entry_that_cannot_be_read_is_not_taken_for_a_stray() {
    // Danger: the release removes a posting that its unreadable entry may contain after all.
    let shop = Shop::open_undivided(2, 100).await;
    let service = shop.serve().await;
    settled(&shop).await;
    plant_stray(&shop, 1).await;
    let unreadable = "INSERT INTO journal (id, shard, number, kind, version, actor_id, payload) \
         VALUES (1, 63, 1, 'order_placed', 1, 2, '{')";
    change(&shop, unreadable).await;
    assert_eq!(order(&service, 1, 1).await.status, 201);
    is_quarantined(&shop, 1).await;
    settled(&shop).await;
    for body in [json!({}), json!({ "force": false })] {
        let release = "/api/ops/quarantine/AVAILABLE:1:0/release";
        let call = service.client.post(release).admin().json(&body);
        let answer = call.send().await;
        assert_eq!(answer.code(), "QUARANTINE_STAYS", "{}", answer.text);
    }
    let stray = "SELECT COUNT(*) FROM postings WHERE journal_id = 1";
    let kept = "SELECT COUNT(*) FROM quarantined_postings";
    assert_eq!((shop.count(stray).await, shop.count(kept).await), (1, 1));
    assert_eq!(order(&service, 2, 1).await.status, 201);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posting_that_is_recorded_and_not_settled_yet_is_no_stray() {
    // Danger: a release removes a posting that a synchronous order has recorded above the
    // watermark. Method: the release is given a watermark before the entry, and then one at the
    // entry.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    assert_eq!(order(&service, 1, 2).await.status, 201);
    shop.drained().await;
    service.stop().await;
    let state = shards::load(&shop.pool, 0).await.unwrap().unwrap();
    let mut connection = shop.pool.acquire().await.unwrap();
    let left = async || {
        shop.count("SELECT COUNT(*) FROM postings WHERE kind = 'AVAILABLE' AND owner_id = 1")
            .await
    };
    for (watermark, expected) in [(Position::default(), 3), (state.watermark, 2)] {
        quarantine::remove_behind(&mut connection, account(1), 2, watermark)
            .await
            .unwrap();
        assert_eq!(left().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_does_not_answer_is_not_one_without_a_level() {
    let (shop, mut redis) = Shop::open_on_own_redis(2, 10).await;
    let mut link = shop.ledger.link().unwrap();
    let keys = shop.ledger.keys();
    let raw =
        async |product, link: &mut Link| levels::raw(&mut link.read, &keys, account(product)).await;
    assert_eq!(raw(1, &mut link).await.unwrap(), "10 2 0");
    for (product, command) in [(1, "DEL"), (2, "DEL"), (2, "RPUSH")] {
        let mut change = redis::cmd(command);
        change.arg(keys.account(account(product)));
        if command == "RPUSH" {
            change.arg("no level");
        }
        let _: i64 = change.query_async(&mut link.read).await.unwrap();
        assert_eq!(raw(product, &mut link).await.unwrap(), "");
    }
    redis.kill().await;
    assert!(raw(1, &mut link).await.is_err());
}
