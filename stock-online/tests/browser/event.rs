//! The coupon event, as a visitor and a user who draws see it.

use serde_json::json;

use crate::browser::{Browser, sign_up};
use crate::support::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_drawn_and_everybody_sees_that_one_fewer_is_left() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let browser = Browser::open(&service).await;
    browser.go("/event").await;
    assert!(browser.has("[data-event-state=none]").await);
    for (path, body) in [
        ("/api/works", json!({ "title": "First work" })),
        ("/api/works", json!({ "title": "Second work" })),
        (
            "/api/coupons",
            json!({ "name": "Opening", "discountRate": 10, "count": 2 }),
        ),
        (
            "/api/coupons",
            json!({ "name": "Later", "discountAmount": 500, "count": 9, "validFrom": "2099-01-01T00:00:00Z" }),
        ),
        (
            "/api/coupons",
            json!({ "name": "Gone", "discountAmount": 500, "count": 9, "validTo": "2020-01-01T00:00:00Z" }),
        ),
    ] {
        let made = client.post(path).admin().json(&body).send().await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    // A visitor without a login sees the coupons, and where to log in.
    let watcher = Browser::open(&service).await;
    watcher.go("/event").await;
    watcher.live().await;
    assert!(
        watcher
            .text("main")
            .await
            .contains("Log in to get a coupon.")
    );
    for (coupon, state) in [(1, "Running"), (2, "Coming"), (3, "Ended")] {
        let badge = watcher
            .text(&format!("[data-coupon='{coupon}'] [data-status]"))
            .await;
        assert_eq!(badge, state);
    }
    sign_up(client, "one@example.com").await;
    browser.log_in("one@example.com").await;
    browser.go("/event").await;
    for coupon in [2, 3] {
        let button = browser.find(&format!("[data-draw='{coupon}']")).await;
        assert!(!button.is_enabled().await.unwrap());
    }
    browser.click("[data-draw='1']").await;
    browser.until_says("Your coupon code:").await;
    let said = browser.text("[data-coupon='1'] .result").await;
    let code = said.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(code.len(), 8, "{said}");
    browser.keep("event-drawn").await;
    let one =
        "return document.querySelector(\"[data-coupon='1'] [data-available]\").innerText === '1'";
    watcher.until_true("one is left", one).await;
    // The code replaces the button; the button of the other work stays.
    let buttons = "return document.querySelectorAll('[data-draw=\"1\"]').length";
    assert_eq!(browser.run(buttons).await, 1);
    // The last coupon ends the event for everybody.
    let other = client
        .post("/api/coupons/1/issue")
        .user(3)
        .json(&json!({ "workId": 2 }));
    assert_eq!(other.send().await.status, 201);
    let ended =
        "return document.querySelector(\"[data-coupon='1'] [data-status]\").innerText === 'Ended'";
    watcher.until_true("the event has ended", ended).await;
    browser.until_true("and for who drew", ended).await;
    shop.drained().await;
    browser.go("/event").await;
    assert!(browser.text("[data-coupon='1']").await.contains(&code));
    browser.close().await;
    watcher.close().await;
    service.stop().await;
}
