//! Signing up, logging in and out, and the language.

use fantoccini::Locator;

use crate::browser::{Browser, PASSWORD, Setting};
use crate::support::{Shop, until};

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_up_logs_in_and_out() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let browser = Browser::open(&service).await;
    // A buyer who is sent to the login returns to the page that they came from.
    browser.go("/products/1").await;
    browser.click("main a.button").await;
    browser.until_at("/login").await;
    browser.click("main a[href^='/signup']").await;
    browser.until_at("/signup").await;
    browser.fill("#email", "one@example.com").await;
    browser.fill("#password", PASSWORD).await;
    browser.fill("#confirm_password", "something else").await;
    browser.click("main button.primary").await;
    browser.until_says("The two passwords differ.").await;
    assert_eq!(
        browser
            .find("#confirm_password")
            .await
            .attr("aria-invalid")
            .await
            .unwrap()
            .as_deref(),
        Some("true")
    );
    assert_eq!(
        browser
            .find("#email")
            .await
            .prop("value")
            .await
            .unwrap()
            .as_deref(),
        Some("one@example.com")
    );
    browser.keep("signup-wrong").await;
    browser.fill("#password", PASSWORD).await;
    browser.fill("#confirm_password", PASSWORD).await;
    browser.click("main button.primary").await;
    browser.until_says("Your account is there.").await;
    browser.fill("#email", "one@example.com").await;
    browser.fill("#password", "wrong").await;
    browser.click("main button.primary").await;
    browser.until_says("Email or password is wrong.").await;
    browser.fill("#password", PASSWORD).await;
    browser.click("main button.primary").await;
    browser.until_at("/products/1").await;
    assert_eq!(browser.text(".email").await, "one@example.com");
    browser.click(".reader form button").await;
    browser.until_at("/").await;
    // Every path begins with `/`, so this waits for the page itself.
    until("nobody is logged in", || async {
        !browser.has(".email").await
    })
    .await;
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_language_is_the_browsers_until_another_is_chosen() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let setting = Setting {
        lang: "ko-KR,ko",
        ..Setting::default()
    };
    let browser = Browser::open_as(&service, setting).await;
    browser.go("/").await;
    assert_eq!(browser.text("h1").await, "상점");
    browser.click("footer a[lang=en]").await;
    browser.until_says("Shop").await;
    browser.go("/event").await;
    assert_eq!(browser.text("h1").await, "Coupons, first come first served");
    assert_eq!(
        browser.run("return document.documentElement.lang").await,
        "en"
    );
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_can_be_read_without_scripts() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let setting = Setting {
        has_scripts: false,
        ..Setting::default()
    };
    let browser = Browser::open_as(&service, setting).await;
    let address = format!("http://{}/", service.client.address);
    browser.page.goto(&address).await.unwrap();
    let text = browser.text("main").await;
    for part in ["product 2", "₩1,000", "10 left", "Without scripts"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // The forms of accounts need no scripts.
    browser
        .page
        .goto(&format!("{address}signup"))
        .await
        .unwrap();
    browser.fill("#email", "two@example.com").await;
    browser.fill("#password", PASSWORD).await;
    browser.fill("#confirm_password", PASSWORD).await;
    browser.click("main button.primary").await;
    until("the account is there", || async {
        let note = browser
            .page
            .find(Locator::Css("main .note[role=status]"))
            .await;
        match note {
            Ok(note) => note
                .text()
                .await
                .is_ok_and(|text| text.contains("Your account is there.")),
            Err(_) => false,
        }
    })
    .await;
    browser.close().await;
    service.stop().await;
}
