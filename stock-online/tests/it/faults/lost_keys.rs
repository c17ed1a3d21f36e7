//! One lost key of Redis: its owners are refused until it is back, nobody else notices, and no
//! limit is exceeded.

use redis::cmd;
use serde_json::json;
use stock_common::clock::rfc3339;
use stock_common::config::Durability;
use stock_common::id::{LocationId, ProductId, SaleId, UserId};
use stock_domain::account::{Account, Book};
use stock_domain::order::{self, Terms};
use stock_domain::posting::Posting;
use stock_domain::stock::{self, StockChanged};
use stock_domain::verdict::{LostKey, Refusal, Verdict, Why};
use stock_engine::forget_sales::forget_sales;
use stock_redis::keys::{Records, SENTINEL};

use crate::ledger::verdicts;
use crate::support::{Answer, Client, OwnServers, PATIENCE, Shop, account, until};

const HOUR: i64 = 3_600_000;

async fn lose(shop: &Shop, key: &str) {
    let mut redis = shop.ledger.link().unwrap().read;
    let gone: i64 = cmd("UNLINK")
        .arg(key)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(gone, 1, "{key}");
}

/// Replaces a key by one of another type, which is worse than a missing key.
async fn spoil(shop: &Shop, key: &str) {
    let mut redis = shop.ledger.link().unwrap().read;
    let _: () = cmd("SET")
        .arg(key)
        .arg("x")
        .query_async(&mut redis)
        .await
        .unwrap();
}

async fn buy(client: &Client, user: u64, product: u64, quantity: i64) -> Answer {
    let call = client.order("/api/redis/orders", user, &[(product, quantity)]);
    call.send().await
}

/// Repeats a request until it is not refused for a lost key any more; each refusal must say so.
async fn once_back(what: &str, mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    let started = std::time::Instant::now();
    loop {
        let answer = ask().await;
        if answer.status != 503 {
            return answer;
        }
        assert_eq!(answer.code(), "ACCOUNT_BROKEN", "{what}: {}", answer.text);
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}

/// Starts a sale of product 1 with a limit of 2 units a buyer.
async fn with_sale(shop: &Shop, client: &Client) -> SaleId {
    let now = i64::try_from(shop.ledger.redis_now_ms()).unwrap();
    let body = json!({
        "startsAt": rfc3339(now - HOUR), "endsAt": rfc3339(now + HOUR), "limitPerUser": 2,
    });
    let made = client.post("/api/products/1/sales").admin().json(&body);
    let made = made.send().await;
    assert_eq!(made.status, 201, "{}", made.text);
    SaleId(made.body["saleId"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_field_of_the_head_is_written_again_and_no_order_fails_for_it() {
    // Danger: the script refuses everything for ever, while all signs say that the shop is well; or
    // stopped selling goes on. Method: each field is deleted, and then set to a text that is no
    // number.
    let shop = Shop::open(1, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    assert_eq!(buy(client, 2, 1, 1).await.status, 201);
    let head = shop.ledger.keys().epoch();
    let redis = shop.ledger.link().unwrap().read;
    let read = async |field: &str| -> Option<String> {
        let ask = cmd("HGET").arg(&head).arg(field).to_owned();
        ask.query_async(&mut redis.clone()).await.unwrap()
    };
    let switch = async |open: bool| {
        let call = client.call("PUT", "/api/ops/selling").admin();
        let done = call.json(&json!({ "open": open })).send().await;
        assert_eq!(done.status, 200, "{}", done.text);
    };
    for field in ["ms", "low", "number", "settled", "selling"] {
        for is_spoilt in [false, true] {
            let mut harm = cmd(if is_spoilt { "HSET" } else { "HDEL" });
            harm.arg(&head).arg(field);
            if is_spoilt {
                harm.arg("x");
            }
            let _: i64 = harm.query_async(&mut redis.clone()).await.unwrap();
            let bought = buy(client, 2, 1, 1).await;
            assert_eq!(bought.status, 201, "{field}: {}", bought.text);
            let now = read(field).await.and_then(|now| now.parse::<u64>().ok());
            assert!(now.is_some(), "{field}");
        }
    }
    shop.drained().await;
    shop.verify().await;
    switch(false).await;
    let _: i64 = cmd("HDEL")
        .arg(&head)
        .arg("selling")
        .query_async(&mut redis.clone())
        .await
        .unwrap();
    until("it is written again", || async {
        assert_eq!(buy(client, 2, 1, 1).await.code(), "SELLING_STOPPED");
        read("selling").await.as_deref() == Some("0")
    })
    .await;
    switch(true).await;
    assert_eq!(buy(client, 2, 1, 1).await.status, 201);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_limit_of_a_sale_is_not_begun_anew_and_nobody_else_waits() {
    // Danger: a missing allowance of a buyer is opened again at the full limit. MySQL then refuses
    // the entry for ever, and no order is settled any more. Method: the book is deleted, then
    // spoiled, while its owner and others order.
    let shop = Shop::open_undivided(2, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let sale = with_sale(&shop, client).await;
    let book = shop.ledger.keys().book(Book::Allowances(sale));
    assert_eq!(buy(client, 2, 1, 2).await.status, 201);
    assert_eq!(buy(client, 2, 1, 1).await.code(), "PURCHASE_LIMIT_REACHED");
    for spoils in [false, true] {
        if spoils {
            spoil(&shop, &book).await;
        } else {
            lose(&shop, &book).await;
        }
        let others = buy(client, 3, 2, 1).await;
        assert_eq!(others.status, 201, "{}", others.text);
        let owner = once_back("a limit", async || buy(client, 2, 1, 1).await).await;
        assert_eq!(owner.code(), "PURCHASE_LIMIT_REACHED", "{}", owner.text);
        assert_eq!(buy(client, 3, 1, 1).await.status, 201);
    }
    shop.drained().await;
    shop.verify().await;
    assert_eq!(shop.available(1).await, 1_000 - 4);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_points_levels_and_stores_are_brought_back_from_mysql() {
    let shop = Shop::open_undivided(2, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let keys = shop.ledger.keys();
    let move_points = async |user: u64, path: &str, amount: u64| {
        let body = json!({ "userId": 2, "amount": amount, "description": "x" });
        let call = client.post(&format!("/api/v2/points/{path}")).json(&body);
        call.user(user).send().await
    };
    let body = json!({ "userId": 2, "amount": 100, "description": "x" });
    let earned = client.post("/api/v2/points/earn").admin().json(&body);
    assert_eq!(earned.send().await.status, 201);
    assert_eq!(move_points(2, "use", 40).await.status, 201);
    lose(&shop, &keys.book(Book::Points)).await;
    let used = once_back("points", async || move_points(2, "use", 61).await).await;
    assert_eq!(used.code(), "INSUFFICIENT_POINTS", "{}", used.text);

    let level = keys.account(account(1));
    for spoils in [false, true] {
        if spoils {
            // In one transaction: between two commands a reader could miss the level and have it
            // restored.
            let mut spoil = redis::pipe();
            spoil.atomic().del(&level).hset(&level, "a", "b");
            let () = spoil
                .query_async(&mut shop.ledger.link().unwrap().read)
                .await
                .unwrap();
        } else {
            lose(&shop, &level).await;
        }
        assert_eq!(buy(client, 3, 2, 1).await.status, 201);
        let bought = once_back("a level", async || buy(client, 2, 1, 1).await).await;
        assert_eq!(bought.status, 201, "{}", bought.text);
    }
    assert_eq!(shop.available(1).await, 998);

    let receive = |quantity| {
        let change = StockChanged {
            product_id: ProductId(1),
            location_id: LocationId(2),
            quantity,
            reason: "test".to_owned(),
        };
        stock::receive(&change, &stock::Terms::default(), UserId(1), None).unwrap()
    };
    assert!(matches!(
        shop.ledger.decide(receive(7)).await.unwrap(),
        Verdict::Accepted(_)
    ));
    lose(&shop, &keys.book(Book::StoreAvailable)).await;
    until("the store's stock is back", || async {
        match shop.ledger.decide(receive(1)).await.unwrap() {
            Verdict::Accepted(_) => true,
            Verdict::Refused(Refusal::Posting {
                why: Why::Broken, ..
            }) => false,
            other => panic!("{other:?}"),
        }
    })
    .await;
    let at_store = Account::available(ProductId(1), LocationId(2));
    let levels = shop.ledger.levels(&[at_store]).await.unwrap();
    assert_eq!(levels[&at_store].balance, 8);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_redis_does_not_tell_is_never_shown_as_none() {
    // Danger: a product whose level is lost, or whose Redis is busy, is shown as sold out, at
    // version 0. Method: the level is deleted, then Redis is kept busy, and both lists and single
    // products are read meanwhile.
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &own.mysql.spec, 1, 1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    assert_eq!(buy(client, 2, 1, 1).await.status, 201);
    shop.drained().await;
    let read = async |path: &str| client.get(path).user(2).send().await;
    let (one, list) = ("/api/redis/products/1", "/api/redis/products");
    let before = read(one).await.body["stockVersion"].clone();

    let level = Account::available(ProductId(1), LocationId::ONLINE);
    lose(&shop, &shop.ledger.keys().account(level)).await;
    // A level that was read a moment ago is shown once more.
    until("the loss is noticed", || async {
        let shown = read(one).await;
        (shown.status, shown.code()) == (503, "ACCOUNT_BROKEN")
    })
    .await;
    let shown = read(list).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    assert_eq!(shown.body["items"][0]["isSoldOut"], false);
    assert_eq!(shown.body["items"][0]["stockVersion"], before);
    let back = once_back("the level", async || buy(client, 2, 1, 1).await).await;
    assert_eq!(back.status, 201, "{}", back.text);

    let script =
        "local t = redis.call('TIME')[1] + 2 while redis.call('TIME')[1] + 0 < t do end return 1";
    let redis = redis::Client::open(own.redis.spec.url("0")).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let _: () = cmd("CONFIG")
        .arg("SET")
        .arg("busy-reply-threshold")
        .arg(100)
        .query_async(&mut redis)
        .await
        .unwrap();
    redis.set_response_timeout(PATIENCE);
    let busy = tokio::spawn(async move {
        let mut eval = cmd("EVAL");
        let _: i64 = eval
            .arg(script)
            .arg(0)
            .query_async(&mut redis)
            .await
            .unwrap();
    });
    while !busy.is_finished() {
        for path in [one, list] {
            let shown = read(path).await;
            if shown.status == 200 {
                let item = shown.body.pointer("/items/0").unwrap_or(&shown.body);
                assert_eq!(item["isSoldOut"], false, "{}", shown.text);
            } else {
                assert_eq!(shown.status, 503, "{}", shown.text);
            }
        }
    }
    busy.await.unwrap();
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_record_was_lost_is_never_decided_twice() {
    let shop = Shop::open_undivided(1, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let keyed = async || {
        let call = client.order("/api/redis/orders", 2, &[(1, 1)]);
        call.header("idempotency-key", "k").send().await
    };
    let first = keyed().await;
    assert_eq!(first.status, 201, "{}", first.text);
    for generation in [0, 1] {
        for records in Records::ALL {
            lose(&shop, &shop.ledger.keys().records(records, generation)).await;
            let keyless = buy(client, 3, 1, 1).await;
            assert_eq!(keyless.status, 201, "{}", keyless.text);
            let again = once_back("a key", keyed).await;
            assert_eq!(again.order_id(), first.order_id());
        }
    }
    shop.drained().await;
    shop.verify().await;
    assert_eq!(shop.available(1).await, 1_000 - 5);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_states_and_deadlines_let_nothing_end_twice_and_come_back() {
    let shop = Shop::open_undivided(1, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let ledger = &shop.ledger;
    let keys = ledger.keys();
    let bought = verdicts::order(1, 3);
    let placed = order::place(&bought, Terms::default(), None).unwrap();
    let Verdict::Accepted(placed) = ledger.decide(placed).await.unwrap() else {
        panic!("not placed");
    };
    let cancel = || {
        let of = verdicts::reversed(placed.position, &bought);
        order::cancel(of, UserId(2), None).unwrap()
    };
    let cancelled = ledger.decide(cancel()).await.unwrap();
    assert!(matches!(cancelled, Verdict::Accepted(_)), "{cancelled:?}");
    let body = json!({ "productId": 1, "quantity": 4, "ttlSeconds": 60 });
    let reserve = client.post("/api/products/stock/reserve").user(2);
    let reserved = reserve.json(&body).send().await;
    assert_eq!(reserved.status, 201, "{}", reserved.text);
    let confirm = format!(
        "/api/reservations/{}/confirm",
        reserved.member("reservationId")
    );

    lose(&shop, &keys.states()).await;
    lose(&shop, &keys.deadlines()).await;
    // This order needs neither key.
    assert_eq!(buy(client, 3, 1, 1).await.status, 201);
    until("the states are back", || async {
        match ledger.decide(cancel()).await.unwrap() {
            Verdict::Refused(Refusal::Lost(LostKey::States)) => false,
            Verdict::Refused(Refusal::StaleState { .. }) => true,
            other => panic!("{other:?}"),
        }
    })
    .await;
    let confirmed = once_back("a hold", async || {
        client.post(&confirm).admin().json(&json!({})).send().await
    })
    .await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text);
    let again = client.post(&confirm).admin().json(&json!({})).send().await;
    assert_eq!(again.code(), "RESERVATION_ALREADY_CONFIRMED");
    shop.drained().await;
    shop.verify().await;
    assert_eq!(shop.available(1).await, 1_000 - 4 - 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_program_left_in_redis_is_taken_over_while_it_sells() {
    // An earlier program had no books, so their sentinels are missing. Method: all sentinels are
    // removed.
    let shop = Shop::open_undivided(2, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    with_sale(&shop, client).await;
    let keyed = async || {
        let call = client.order("/api/redis/orders", 2, &[(1, 2)]);
        call.header("idempotency-key", "k").send().await
    };
    let first = keyed().await;
    assert_eq!(first.status, 201, "{}", first.text);
    shop.drained().await;
    let keys = shop.ledger.keys();
    let mut redis = shop.ledger.link().unwrap().read;
    let all: Vec<String> = cmd("KEYS")
        .arg(keys.everything())
        .query_async(&mut redis)
        .await
        .unwrap();
    for key in all
        .iter()
        .filter(|key| key.contains(":b:") || key.contains(":k:"))
    {
        lose(&shop, key).await;
    }
    let mut old = redis::pipe();
    old.cmd("HDEL").arg(keys.states()).arg(SENTINEL);
    old.cmd("ZREM").arg(keys.deadlines()).arg(SENTINEL);
    for records in Records::ALL {
        let fields = [records.as_str(), records.began()];
        old.cmd("HDEL").arg(keys.epoch()).arg(&fields);
    }
    let _: () = old.ignore().query_async(&mut redis).await.unwrap();
    // An order that has neither a key nor a limit is still accepted.
    assert_eq!(buy(client, 3, 2, 1).await.status, 201);
    let again = once_back("a key", keyed).await;
    assert_eq!(again.order_id(), first.order_id());
    let limited = once_back("a limit", async || buy(client, 2, 1, 1).await).await;
    assert_eq!(limited.code(), "PURCHASE_LIMIT_REACHED");
    let body = json!({ "productId": 2, "quantity": 1 });
    let reserved = once_back("a hold", async || {
        let call = client.post("/api/products/stock/reserve").user(3);
        call.json(&body).send().await
    })
    .await;
    assert_eq!(reserved.status, 201, "{}", reserved.text);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_kept_as_long_as_promised_and_two_generations_at_most() {
    // Danger: a generation that is dropped too early lets a retry buy again; one that is never
    // dropped fills Redis. Method: short times, and a key that is asked for until it is forgotten.
    let mut shop = Shop::open_undivided(1, 100_000).await;
    (
        shop.config.decide.idempotency_accepted_ms,
        shop.config.decide.idempotency_refused_ms,
    ) = (600, 300);
    let shop = Shop::at(shop.config.clone());
    assert!(shop.ledger.wait_open(PATIENCE).await);
    let ledger = &shop.ledger;
    let keyed = |name: u8| {
        let mut request = order::place(&verdicts::order(1, 1), Terms::default(), None).unwrap();
        request.idempotency = verdicts::key(name, 1);
        request
    };
    let other = async |name: u8| {
        let mut other = keyed(name);
        other.draft.postings = vec![Posting::new(account(1), -200_000)];
        ledger.decide(other).await.unwrap()
    };
    let Verdict::Accepted(first) = ledger.decide(keyed(1)).await.unwrap() else {
        panic!("not accepted");
    };
    let mut forgotten_ms = 0;
    for name in 2..=250 {
        let before_ms = ledger.redis_now_ms();
        match ledger.decide(keyed(1)).await.unwrap() {
            Verdict::Replayed(_) => {}
            Verdict::Accepted(again) => {
                let since = again.position.unix_ms() - first.position.unix_ms();
                assert!(since > 600, "forgotten after {since} ms");
                forgotten_ms = before_ms;
                break;
            }
            Verdict::Refused(refusal) => panic!("{refusal:?}"),
        }
        // Each call adds a record of an accepted or a refused key.
        assert!(matches!(other(name).await, Verdict::Refused(_)));
        assert!(matches!(
            ledger.decide(keyed(name)).await.unwrap(),
            Verdict::Replayed(_)
        ));
        tokio::time::sleep(std::time::Duration::from_millis(4)).await;
    }
    assert!(forgotten_ms > 0, "a key was kept for ever");
    until("the old generations are dropped", || async {
        let _rotated = ledger.decide(keyed(251)).await.unwrap();
        let _refused = other(252).await;
        let mut sizes = Vec::new();
        for records in Records::ALL {
            for generation in [0, 1] {
                let size: i64 = cmd("HLEN")
                    .arg(ledger.keys().records(records, generation))
                    .query_async(&mut ledger.link().unwrap().read)
                    .await
                    .unwrap();
                sizes.push(size);
            }
        }
        sizes.iter().all(|size| *size <= 4)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_sale_that_is_long_over_are_forgotten_and_its_orders_can_be_cancelled() {
    // Danger: each buyer of each sale is kept for ever, or an order of a forgotten sale cannot be
    // cancelled.
    let shop = Shop::open_undivided(1, 1_000).await;
    let service = shop.serve().await;
    let client = &service.client;
    let sale = with_sale(&shop, client).await;
    let (first, second) = (buy(client, 2, 1, 2).await, buy(client, 3, 1, 1).await);
    assert_eq!((first.status, second.status), (201, 201));
    shop.drained().await;
    assert_eq!(forget_sales(&shop.pool, &shop.ledger, 0).await.unwrap(), 0);
    sqlx::query("UPDATE sales SET starts_at = starts_at - INTERVAL 9 DAY, ends_at = ends_at - INTERVAL 9 DAY")
        .execute(&shop.pool)
        .await
        .unwrap();
    assert_eq!(forget_sales(&shop.pool, &shop.ledger, 7).await.unwrap(), 1);
    assert_eq!(forget_sales(&shop.pool, &shop.ledger, 7).await.unwrap(), 0);
    let book = Book::Allowances(sale);
    assert!(!shop.ledger.has_book(book, ProductId(1)).await.unwrap());
    let left = "SELECT COUNT(*) FROM accounts WHERE kind = 'ALLOWANCE'";
    assert_eq!(shop.count(left).await, 0);
    let kept =
        "SELECT COUNT(*) FROM archived_allowances WHERE seq = 2 AND balance IN (999998, 999999)";
    assert_eq!(shop.count(kept).await, 2);
    for order in [first, second] {
        let user = if order.body["totalAmount"] == json!(2_000) {
            2
        } else {
            3
        };
        let path = format!("/api/redis/orders/{}/cancel", order.order_id());
        let cancelled = client.patch(&path).user(user).send().await;
        assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    }
    shop.drained().await;
    shop.verify().await;
    assert_eq!(shop.available(1).await, 1_000);
    service.stop().await;
}
