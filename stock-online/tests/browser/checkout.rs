//! A cart that becomes a checkout, is paid, and is an order.

use stock_domain::webhook::Secret;

use crate::browser::{Browser, Setting, sign_up};
use crate::support::Shop;

const EMAIL: &str = "buyer@example.com";

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_is_held_paid_and_ordered_on_a_phone_and_a_desk() {
    let mut shop = Shop::open(3, 50).await;
    shop.config.selling.payment_webhook_secret = Secret::random().reveal();
    shop.config.selling.fake_payments = true;
    let service = shop.serve().await;
    sign_up(&service.client, EMAIL).await;
    for (name, lang, size, paid) in [
        ("phone", "ko", (360, 780), "결제 완료"),
        ("desk", "en", (1_280, 900), "Paid"),
    ] {
        let setting = Setting {
            lang,
            size,
            ..Setting::default()
        };
        let browser = Browser::open_as(&service, setting).await;
        browser.log_in(EMAIL).await;
        for product in [1, 2] {
            browser.go(&format!("/products/{product}")).await;
            browser.fill("[name='orderProducts.0.quantity']", "2").await;
            browser.click("[data-cart-add]").await;
        }
        browser.keep(&format!("cart-added-{name}")).await;
        browser.go("/cart").await;
        let total = "return document.querySelector('[data-total]')?.value === '4000'";
        browser.until_true("the cart has its total", total).await;
        // A changed quantity is kept, and counts.
        browser.fill("[data-cart-line='2']", "3").await;
        browser.run("document.activeElement.blur()").await;
        let total = "return document.querySelector('[data-total]').value === '5000'";
        browser.until_true("the total follows", total).await;
        browser.keep(&format!("cart-{name}")).await;
        let wide = "return document.documentElement.scrollWidth <= innerWidth";
        browser
            .until_true("nothing is wider than the page", wide)
            .await;
        browser
            .click("form[data-call='POST /api/checkouts'] button:not([type])")
            .await;
        browser
            .until_true(
                "it is held",
                "return Boolean(document.querySelector('[role=timer]'))",
            )
            .await;
        browser.keep(&format!("checkout-{name}")).await;
        browser
            .until_true("nothing is wider than the page", wide)
            .await;
        browser.click("a[href^='/pay/']").await;
        browser
            .until_true(
                "the provider asks",
                "return Boolean(document.querySelector('[value=repeat]'))",
            )
            .await;
        browser.keep(&format!("pay-{name}")).await;
        browser
            .until_true("nothing is wider than the page", wide)
            .await;
        browser.click("[value=repeat]").await;
        browser.until_says(paid).await;
        browser.keep(&format!("checkout-paid-{name}")).await;
        // The cart is empty again.
        browser.go("/cart").await;
        let empty = "return localStorage.getItem('cart') === '[]'";
        browser.until_true("the cart is empty", empty).await;
        browser.close().await;
    }
    shop.drained().await;
    assert_eq!(shop.stored_orders().await.len(), 2);
    shop.verify().await;
    service.stop().await;
}
