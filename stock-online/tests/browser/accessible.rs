//! Accessibility of every page: axe's rules in light and dark, no sideways scrolling on a phone,
//! use by keyboard alone, and no request to another site.

use serde_json::{Value, json};

use crate::browser::{Browser, PHONE, Setting, make_admin, target};
use crate::support::Shop;

const PAGES: [(&str, &str); 23] = [
    ("shop", "/"),
    ("product", "/products/1"),
    ("cart", "/cart?items=1x2,2x1"),
    ("event", "/event"),
    ("login", "/login"),
    ("signup", "/signup"),
    ("problems", "/problems"),
    ("problem", "/problems/FENCED"),
    ("admin", "/admin"),
    ("admin-products", "/admin/products"),
    ("admin-product", "/admin/products/2"),
    ("admin-stock", "/admin/stock"),
    ("admin-orders", "/admin/orders"),
    ("admin-checkouts", "/admin/checkouts"),
    ("admin-payments", "/admin/payments"),
    ("admin-users", "/admin/users"),
    ("admin-works", "/admin/works"),
    ("admin-stores", "/admin/stores"),
    ("admin-coupons", "/admin/coupons"),
    ("admin-checks", "/admin/checks"),
    ("admin-webhooks", "/admin/webhooks"),
    ("admin-audit-log", "/admin/audit-log"),
    ("dashboard", "/dashboard"),
];

/// The violations that axe finds, one line each.
async fn violations(browser: &Browser, axe: &str) -> Vec<String> {
    browser.page.execute(axe, Vec::new()).await.unwrap();
    let script = "const done = arguments[0]; \
        axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }) \
        .then((found) => done(found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target + ' ' + n.failureSummary).join('; ')}`)))";
    let found = browser
        .page
        .execute_async(script, Vec::new())
        .await
        .unwrap();
    let found = found.as_array().unwrap().iter();
    found
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

async fn furnished() -> (Shop, crate::support::Service) {
    let shop = Shop::open(4, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    make_admin(&shop, client, "boss@example.com").await;
    for (path, body) in [
        ("/api/works", json!({ "title": "First work" })),
        (
            "/api/coupons",
            json!({ "name": "Opening", "discountRate": 10, "count": 20 }),
        ),
        (
            "/api/coupons",
            json!({ "name": "Later", "discountAmount": 500, "validFrom": "2099-01-01T00:00:00Z" }),
        ),
        ("/api/products/2/discounts", json!({ "percentage": 12.5 })),
        (
            "/api/products/3/sales",
            json!({ "startsAt": "2099-01-01T00:00:00Z", "endsAt": "2099-01-02T00:00:00Z", "limitPerUser": 2 }),
        ),
        (
            "/api/webhooks",
            json!({ "url": "https://shop.example.com/stock" }),
        ),
        ("/api/products/4/stock", json!({ "change": -50 })),
    ] {
        let made = client.post(path).admin().json(&body).send().await;
        assert!(made.status == 201 || made.status == 200, "{}", made.text);
    }
    let order = client.order("/api/redis/orders", 4, &[(1, 2)]).send().await;
    assert_eq!(order.status, 201, "{}", order.text);
    let hold = json!({ "productId": 1, "quantity": 2 });
    let held = client
        .post("/api/products/stock/reserve")
        .user(4)
        .json(&hold);
    assert_eq!(held.send().await.status, 201);
    shop.drained().await;
    (shop, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_for_everybody_in_light_and_dark_on_a_desk_and_on_a_phone() {
    let axe = target("browser").join("axe.min.js");
    let axe = std::fs::read_to_string(axe).expect("axe: `make browser` installs it");
    let (_shop, service) = furnished().await;
    let mut wrong = Vec::new();
    for (name, setting) in [
        ("light", Setting::default()),
        (
            "dark-phone",
            Setting {
                is_dark: true,
                size: PHONE,
                lang: "ko-KR,ko",
                ..Setting::default()
            },
        ),
    ] {
        let browser = Browser::open_as(&service, setting).await;
        for (page, path) in &PAGES[..5] {
            browser.go(path).await;
            let found = violations(&browser, &axe).await;
            wrong.extend(
                found
                    .into_iter()
                    .map(|found| format!("{page} {name}, nobody: {found}")),
            );
        }
        browser.log_in("boss@example.com").await;
        for (page, path) in PAGES {
            browser.go(path).await;
            let found = violations(&browser, &axe).await;
            wrong.extend(
                found
                    .into_iter()
                    .map(|found| format!("{page} {name}: {found}")),
            );
            let is_wide = "return document.documentElement.scrollWidth > window.innerWidth";
            if browser.run(is_wide).await == Value::Bool(true) {
                wrong.push(format!("{page} {name} scrolls sideways"));
            }
            let elsewhere = "return performance.getEntriesByType('resource').map((entry) => entry.name) \
                .filter((name) => !name.startsWith(location.origin + '/'))";
            let elsewhere = browser.run(elsewhere).await;
            if elsewhere != json!([]) {
                wrong.push(format!("{page} {name} asks elsewhere: {elsewhere}"));
            }
            browser.keep(&format!("{page}-{name}")).await;
        }
        browser.close().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_references_run_under_their_policies() {
    let (_shop, service) = furnished().await;
    let browser = Browser::open(&service).await;
    for (name, path, said) in [
        ("swagger", "/api/docs", "/api/redis/orders"),
        ("redoc", "/api/redoc", "Stock Flow"),
    ] {
        let address = format!("http://{}{path}", service.client.address);
        browser.page.goto(&address).await.unwrap();
        browser.until_says(said).await;
        browser.keep(name).await;
        let loaded = "return performance.getEntriesByType('resource') \
            .filter((entry) => !entry.name.startsWith(location.origin + '/') && !/^(blob|data):/.test(entry.name)) \
            .filter((entry) => entry.transferSize > 0 || entry.responseStatus > 0).map((entry) => entry.name)";
        assert_eq!(browser.run(loaded).await, json!([]), "{name}");
    }
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyboard_is_enough() {
    let (_shop, service) = furnished().await;
    let browser = Browser::open(&service).await;
    browser.go("/login").await;
    let tab = async || {
        let active = browser.page.active_element().await.unwrap();
        active.send_keys("\u{e004}").await.unwrap();
    };
    let focused = "const e = document.activeElement; return e.className || e.id || e.tagName";
    tab().await;
    assert_eq!(browser.run(focused).await, "skip");
    // Enter skips the header; then Tab leads into the form.
    let active = browser.page.active_element().await.unwrap();
    active.send_keys("\u{e007}").await.unwrap();
    for _ in 0..5 {
        if browser.run(focused).await == "email" {
            break;
        }
        tab().await;
    }
    for text in ["boss@example.com", crate::browser::PASSWORD] {
        let active = browser.page.active_element().await.unwrap();
        active.send_keys(text).await.unwrap();
        tab().await;
    }
    let active = browser.page.active_element().await.unwrap();
    active.send_keys("\u{e007}").await.unwrap();
    browser.until_says("boss@example.com").await;
    browser.close().await;
    service.stop().await;
}
