//! A silent server makes no product and no page unavailable: reads come from memory.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use stock_common::config::Durability;
use stock_common::id::{LocationId, ProductId};
use stock_domain::account::Account;

use crate::support::{OwnServers, Service, Shop, until};

/// Every path that shows products.
const LOOKS: [&str; 8] = [
    "/api/products",
    "/api/products?limit=2&status=ACTIVE",
    "/api/products/1",
    "/api/redis/products",
    "/api/redis/products/1",
    "/",
    "/event",
    "/products/1",
];
/// Time within which each path must answer; once, each waited five seconds for the server.
const SOON: Duration = Duration::from_secs(2);

async fn signed_up(service: &Service) -> String {
    let body = json!({
        "email": "reader@example.com",
        "password": "correct horse battery",
        "confirmPassword": "correct horse battery",
    });
    let made = service.client.post("/api/auth/signup").json(&body);
    assert_eq!(made.send().await.status, 201);
    let form = "email=reader%40example.com&password=correct+horse+battery";
    let login = service
        .client
        .post("/account/login")
        .form(form)
        .send()
        .await;
    assert_eq!(login.status, 303, "{}", login.text);
    let cookie = login.headers["set-cookie"].split(';').next();
    cookie.unwrap().to_owned()
}

/// Reads every path once: without a login, with a token, and with a session.
async fn look(service: &Service, cookie: &str, age: impl Fn(Option<&String>)) {
    for path in LOOKS {
        let get = || service.client.get(path);
        for (who, call) in [
            ("nobody", get()),
            ("a token", get().user(2)),
            ("a session", get().header("cookie", cookie)),
        ] {
            let began = Instant::now();
            let answer = call.send().await;
            let took = began.elapsed();
            assert_eq!(answer.status, 200, "{path} as {who}: {}", answer.text);
            assert!(took < SOON, "{path} as {who} took {took:?}");
            if path.starts_with("/api/") {
                age(answer.headers.get("age"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_mysql_takes_no_product_and_no_page_away() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 3, 1_000).await;
    let service = shop.serve().await;
    let cookie = signed_up(&service).await;
    let is_fresh = |age: Option<&String>| assert_eq!(age, None);
    look(&service, &cookie, is_fresh).await;
    own.mysql.signal(Signal::STOP);
    for _ in 0..3 {
        look(&service, &cookie, is_fresh).await;
        let order = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
        assert_eq!(order.send().await.status, 201);
    }
    own.mysql.signal(Signal::CONT);
    shop.drained().await;
    until("the session's own things are shown again", || async {
        let page = service.client.get("/").header("cookie", &cookie);
        !page.send().await.text.contains("cannot be shown")
    })
    .await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis_takes_no_product_and_no_page_away() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 3, 1_000).await;
    let service = shop.serve().await;
    let cookie = signed_up(&service).await;
    look(&service, &cookie, |age| assert_eq!(age, None)).await;
    own.redis.signal(Signal::STOP);
    until("answers say how old their levels are", || async {
        let answer = service.client.get("/api/products/1").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let age = answer.headers.get("age");
        age.is_some_and(|age| age.parse::<u64>().unwrap() >= 1)
    })
    .await;
    look(&service, &cookie, |age| assert!(age.is_some())).await;
    own.redis.signal(Signal::CONT);
    until("levels are fresh again", || async {
        let answer = service.client.get("/api/products/1").send().await;
        answer.status == 200 && !answer.headers.contains_key("age")
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_nobody_knows_is_not_shown_as_sold_out() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 3, 1_000).await;
    let service = shop.serve().await;
    own.mysql.signal(Signal::STOP);
    let level = shop
        .ledger
        .keys()
        .account(Account::available(ProductId(1), LocationId::ONLINE));
    let mut link = shop.ledger.link().unwrap();
    let _: i64 = redis::cmd("DEL")
        .arg(level)
        .query_async(&mut link.read)
        .await
        .unwrap();
    let one = service.client.get("/api/products/1").send().await;
    assert_eq!(one.code(), "ACCOUNT_BROKEN", "{}", one.text);
    let list = service.client.get("/api/products").send().await;
    assert_eq!(list.status, 200, "{}", list.text);
    let items = list.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert!(
        items.iter().all(|item| item["isSoldOut"] == false),
        "{}",
        list.text
    );
    own.mysql.signal(Signal::CONT);
    service.stop().await;
}
