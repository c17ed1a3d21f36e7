//! Buying: the last unit, the live bar, the order's status, its cancel, a reservation, a sale that
//! begins.

use serde_json::json;

use crate::browser::{Browser, sign_up};
use crate::support::{Shop, until};

const LEFT: &str = "[data-product='1'] [data-available]";

#[tokio::test(flavor = "multi_thread")]
async fn the_last_unit_goes_to_one_of_two_browsers() {
    // Danger: both buyers are shown an order, or neither is. Method: two browsers press at the same
    // moment.
    let shop = Shop::open(1, 1).await;
    let service = shop.serve().await;
    let mut browsers = Vec::new();
    for email in ["one@example.com", "two@example.com"] {
        sign_up(&service.client, email).await;
        let browser = Browser::open(&service).await;
        browser.log_in(email).await;
        browser.live().await;
        assert_eq!(browser.text("[data-buy='1']").await, "Buy: last units");
        browsers.push(browser);
    }
    let press = "setTimeout(() => document.querySelector('[data-buy=\"1\"]').click(), 50)";
    tokio::join!(browsers[0].run(press), browsers[1].run(press));
    let bought = async |browser: &Browser| {
        let path = browser.run("return location.pathname").await;
        path.as_str().unwrap().starts_with("/orders/")
    };
    until("one has bought, the other is told", || async {
        let mut done = 0;
        for browser in &browsers {
            let refused =
                "return document.body.innerText.includes('Sold out, or not that many are left.')";
            done += usize::from(bought(browser).await || browser.run(refused).await == true);
        }
        done == 2
    })
    .await;
    let buyers = [bought(&browsers[0]).await, bought(&browsers[1]).await];
    assert_eq!(
        buyers.iter().filter(|bought| **bought).count(),
        1,
        "{buyers:?}"
    );
    let (winner, loser) = if buyers[0] {
        (&browsers[0], &browsers[1])
    } else {
        (&browsers[1], &browsers[0])
    };
    winner.until_says("Completed").await;
    winner.keep("order-stored").await;
    // The other buyer's page follows by itself.
    let sold_out = "return document.querySelector('[data-buy=\"1\"]').innerText === 'Sold out'";
    loser.until_true("the button says so", sold_out).await;
    assert!(
        !loser
            .find("[data-buy='1']")
            .await
            .is_enabled()
            .await
            .unwrap()
    );
    loser.keep("sold-out").await;
    shop.drained().await;
    shop.verify().await;
    for browser in browsers {
        browser.close().await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bar_moves_while_others_buy_and_comes_back_with_a_cancel() {
    let shop = Shop::open(2, 20).await;
    let service = shop.serve().await;
    let client = &service.client;
    // Watching needs no login.
    let watcher = Browser::open(&service).await;
    watcher.go("/").await;
    watcher.live().await;
    assert_eq!(watcher.text(LEFT).await, "20");
    let buyer = Browser::open(&service).await;
    sign_up(client, "one@example.com").await;
    buyer.log_in("one@example.com").await;
    buyer.go("/products/1").await;
    buyer
        .fill("form[data-order] input[type=number]", "17")
        .await;
    assert_eq!(buyer.text("[data-total]").await, "₩17,000");
    buyer.keep("product").await;
    buyer.click("[data-buy='1']").await;
    buyer.until_at("/orders/").await;
    let three =
        "return document.querySelector(\"[data-product='1'] [data-available]\").innerText === '3'";
    watcher.until_true("three are left", three).await;
    let meter = watcher
        .run("return document.querySelector(\"[data-product='1'] meter\").value")
        .await;
    assert_eq!(meter, 3);
    // With few units left, a product that can still be bought is marked as last units.
    assert_eq!(
        watcher
            .run("return document.querySelector(\"[data-product='1']\").dataset.state")
            .await,
        "last-units"
    );
    buyer.until_says("Completed").await;
    buyer.click("form[data-call*='/cancel'] button").await;
    buyer.agree().await;
    buyer.until_says("Cancelled").await;
    watcher
        .until_true("all are there again", &three.replace("'3'", "'20'"))
        .await;
    // The buyer's list shows the same.
    buyer.go("/").await;
    buyer.until_says("Cancelled").await;
    buyer.close().await;
    watcher.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_points_and_a_reservation_are_used() {
    let shop = Shop::open(1, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    let user = sign_up(client, "one@example.com").await;
    let make = async |path: &str, body| {
        let made = client.post(path).admin().json(&body).send().await;
        assert_eq!(made.status, 201, "{}", made.text);
    };
    make(
        "/api/coupons",
        json!({ "name": "Ten off", "discountRate": 10, "userId": user }),
    )
    .await;
    make(
        "/api/v2/points/earn",
        json!({ "userId": user, "amount": 300, "description": "Welcome" }),
    )
    .await;
    shop.drained().await;
    let browser = Browser::open(&service).await;
    browser.log_in("one@example.com").await;
    browser.go("/products/1").await;
    browser
        .fill(
            "form[data-order] input[name='orderProducts.0.quantity']",
            "2",
        )
        .await;
    let coupon = browser.find("select[name=couponCode]").await;
    coupon.select_by_index(1).await.unwrap();
    browser.fill("input[name=usePoints]", "250").await;
    assert_eq!(browser.text("[data-total]").await, "₩1,550");
    browser.click("[data-buy='1']").await;
    browser.until_at("/orders/").await;
    let text = browser.text("main").await;
    assert!(
        text.contains("₩1,550") && text.contains("−₩200") && text.contains("−250"),
        "{text}"
    );
    // A reservation is made, and then bought.
    browser.go("/products/1").await;
    browser.click("form[data-call*='/reserve'] button").await;
    browser.until_says("Set aside.").await;
    shop.drained().await;
    browser.go("/").await;
    browser.until_says("Held").await;
    assert!(
        browser.text(".countdown").await.starts_with("00:29:")
            || browser.text(".countdown").await == "00:30:00"
    );
    browser.keep("own").await;
    let buy = browser
        .find("#reservations + ul form[data-order] button")
        .await;
    buy.click().await.unwrap();
    browser.until_at("/orders/").await;
    shop.drained().await;
    browser.go("/").await;
    browser.until_says("Confirmed").await;
    assert_eq!(shop.available(1).await, 47);
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_begins_before_the_eyes_of_who_waits() {
    let shop = Shop::open(1, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    let browser = Browser::open(&service).await;
    browser.log_in("one@example.com").await;
    let now = chrono::Utc::now();
    let at = |seconds: i64| (now + chrono::Duration::seconds(seconds)).to_rfc3339();
    let sale = json!({ "startsAt": at(12), "endsAt": at(3_600), "price": 700, "limitPerUser": 1 });
    let made = client
        .post("/api/products/1/sales")
        .admin()
        .json(&sale)
        .send()
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    browser.go("/").await;
    assert_eq!(browser.text("[data-buy='1']").await, "Soon");
    assert!(browser.text(".countdown").await.starts_with("00:00:"));
    browser.keep("sale-soon").await;
    let open = "const button = document.querySelector('[data-buy=\"1\"]'); return button.innerText === 'Buy' && !button.disabled";
    browser.run("window.isTheSamePage = true").await;
    browser.until_true("the sale has begun", open).await;
    // The page changes in place, so that a waiting crowd does not load it again.
    assert_eq!(browser.run("return window.isTheSamePage").await, true);
    assert!(browser.text("main").await.contains("₩700"));
    browser.click("[data-buy='1']").await;
    browser.until_at("/orders/").await;
    browser.go("/").await;
    assert_eq!(browser.text("[data-buy='1']").await, "Limit reached");
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pressing_twice_buys_once_however_slow_the_next_page_is() {
    // Danger: the order is placed, its page takes a while, and the button can be pressed again.
    // Method: the button is pressed as fast as the browser allows while the next page is on its
    // way; then an answer is lost, and the button is pressed again.
    let shop = Shop::open(1, 50).await;
    let service = shop.serve().await;
    sign_up(&service.client, "one@example.com").await;
    let browser = Browser::open(&service).await;
    browser.log_in("one@example.com").await;
    browser
        .run(
            "const button = document.querySelector('[data-buy=\"1\"]'); \
             const press = setInterval(() => button.click(), 5); \
             setTimeout(() => clearInterval(press), 3000); \
             button.click();",
        )
        .await;
    browser.until_at("/orders/").await;
    assert_eq!(shop.available(1).await, 49);
    // The first answer is lost, and the second one, a 429, says nothing about the order. The third
    // request is still for the same order.
    browser.go("/").await;
    browser
        .run(
            "const real = window.fetch; let calls = 0; window.keys = []; \
             window.fetch = async (path, request) => { \
               if (request?.method !== 'POST') return real(path, request); \
               window.keys.push(request.headers['Idempotency-Key']); calls += 1; \
               if (calls === 1) { await real(path, request); throw new TypeError('lost'); } \
               if (calls === 2) return new Response('{\"code\":\"TOO_MANY_REQUESTS\"}', { status: 429, headers: { 'content-type': 'application/problem+json' } }); \
               return real(path, request); };",
        )
        .await;
    for said in ["cannot be reached", "too often"] {
        browser.click("[data-buy='1']").await;
        browser.until_says(said).await;
    }
    let keys = browser.run("return window.keys").await;
    assert_eq!(keys[0], keys[1]);
    // The key also survives a reload of the page.
    browser.go("/").await;
    browser.click("[data-buy='1']").await;
    browser.until_at("/orders/").await;
    assert_eq!(shop.available(1).await, 48);
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_has_can_be_picked_up_when_nothing_is_left_online() {
    let shop = Shop::open(1, 0).await;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    for (path, body) in [
        (
            "/api/stores",
            json!({ "storeId": 7, "name": "Corner", "latitude": 37.5, "longitude": 127.0 }),
        ),
        (
            "/api/products/stock/inbound",
            json!({ "productId": 1, "locationId": 7, "quantity": 3, "reason": "first" }),
        ),
    ] {
        let made = client.post(path).admin().json(&body).send().await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let browser = Browser::open(&service).await;
    browser.log_in("one@example.com").await;
    browser.go("/products/1").await;
    assert_eq!(browser.text("[data-buy='1']").await, "Sold out");
    let delivery = browser.find("select[name=deliveryType]").await;
    delivery.select_by_value("PICKUP").await.unwrap();
    browser
        .until_true(
            "a store can be chosen",
            "return !document.querySelector('[data-for-store]').hidden",
        )
        .await;
    let corner = browser.find("select[name=storeId] option[value='7']").await;
    corner.click().await.unwrap();
    assert_eq!(browser.text("[data-buy='1']").await, "Buy");
    browser.click("[data-buy='1']").await;
    browser.until_at("/orders/").await;
    assert!(browser.text("main").await.contains("Pick up in a store"));
    browser.close().await;
    service.stop().await;
}
