//! The cart, a checkout and the page that plays a payment provider, in both languages.

use serde_json::json;
use stock_domain::webhook::Secret;

use crate::checkouts::{opened, status};
use crate::support::{Answer, Client, Shop};

async fn get(client: &Client, path: &str, lang: &str) -> Answer {
    let call = super::open(client, path, lang).user(2);
    call.send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_becomes_a_checkout_and_a_payment_an_order() {
    let mut shop = Shop::open(2, 100).await;
    shop.config.selling.payment_webhook_secret = Secret::random().reveal();
    shop.config.selling.fake_payments = true;
    let service = shop.serve().await;
    let client = &service.client;
    let cart_page = get(client, "/cart?items=1x2,2x1,99x1,y", "en").await;
    super::check_whole("/cart", "en", &cart_page);
    assert!(
        cart_page
            .text
            .contains(r#"name="orderProducts.1.quantity""#)
    );
    assert!(
        !cart_page.text.contains("orderProducts.2"),
        "unknown products are left out"
    );
    let empty = get(client, "/cart", "ko").await;
    super::check_whole("/cart", "ko", &empty);
    assert!(
        empty.text.contains("장바구니가 비어 있습니다"),
        "{}",
        empty.text
    );

    for (how, expected) in [
        ("decline", "OPEN"),
        ("silent", "OPEN"),
        ("lie", "OPEN"),
        ("repeat", "CONFIRMED"),
        ("twice", "CONFIRMED"),
    ] {
        let id = opened(client, 2, &[(1, 1)]).await;
        for lang in ["en", "ko"] {
            let page = get(client, &format!("/checkouts/{id}?opened=1"), lang).await;
            super::check_whole("/checkouts", lang, &page);
            assert!(page.text.contains(&format!("/pay/{id}")), "{}", page.text);
            let pay = get(client, &format!("/pay/{id}"), lang).await;
            super::check_whole("/pay", lang, &pay);
            assert!(pay.text.contains(r#"value="late""#), "{}", pay.text);
        }
        let press = client.post(&format!("/pay/{id}")).user(2);
        let pressed = press.form(&format!("how={how}")).send().await;
        assert_eq!(pressed.status, 303, "{}", pressed.text);
        assert_eq!(pressed.headers["location"], format!("/checkouts/{id}"));
        assert_eq!(status(client, &id).await, expected, "{how}");
    }
    let own = get(client, "/", "en").await;
    assert!(own.text.contains("My checkouts"), "{}", own.text);
    let others = client.get("/checkouts/1").send().await;
    assert_eq!(others.status, 303, "a page of one's own needs a login");
    let page = get(client, "/checkouts/1", "en").await;
    assert_eq!(page.status, 404);
    shop.drained().await;
    let due = client
        .get("/api/payments?refundDue=true")
        .admin()
        .send()
        .await;
    let outcomes: Vec<_> = due.body["items"].as_array().unwrap().iter().collect();
    let outcomes: Vec<_> = outcomes.iter().map(|of| &of["outcome"]).collect();
    assert_eq!(outcomes, [&json!("DUPLICATE"), &json!("AMOUNT_MISMATCH")]);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_tried_plays_no_payment_provider() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let id = opened(&service.client, 2, &[(1, 1)]).await;
    let page = get(&service.client, &format!("/pay/{id}"), "en").await;
    assert_eq!(page.status, 404);
    service.stop().await;
}
