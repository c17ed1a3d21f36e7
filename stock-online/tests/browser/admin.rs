//! The admin's pages: stock, files, dead letters, the switch, the dashboard.

use serde_json::json;
use stock_mysql::dead_letters;

use crate::browser::{Browser, PHONE, Setting, make_admin};
use crate::support::{Shop, folder, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_takes_stock_in_corrects_it_and_reads_what_moved() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    make_admin(&shop, &service.client, "boss@example.com").await;
    let browser = Browser::open(&service).await;
    browser.log_in("boss@example.com").await;
    browser.go("/admin/products/1").await;
    browser
        .fill("[data-form=inbound] [name=quantity]", "0")
        .await;
    browser
        .fill("[data-form=inbound] [name=reason]", "delivery 17")
        .await;
    browser.click("[data-form=inbound] button").await;
    // A value that does not fit is reported beside its field, and nothing is done.
    browser.until_true("the field is marked", "return document.querySelector('[data-form=inbound] [name=quantity]').ariaInvalid === 'true'").await;
    browser.keep("admin-wrong").await;
    browser
        .fill("[data-form=inbound] [name=quantity]", "15")
        .await;
    browser.click("[data-form=inbound] button").await;
    browser.until_says("Take stock in: done").await;
    assert_eq!(shop.available(1).await, 25);
    browser.fill("[data-form=adjust] [name=change]", "-5").await;
    browser
        .fill("[data-form=adjust] [name=expectedAvailable]", "24")
        .await;
    browser.click("[data-form=adjust] button").await;
    browser
        .until_true(
            "it has changed meanwhile",
            "return document.querySelector('[data-form=adjust] .result').innerText.includes('25')",
        )
        .await;
    assert_eq!(shop.available(1).await, 25);
    shop.drained().await;
    browser.go("/admin/movements?of=1").await;
    let text = browser.text("main").await;
    assert!(
        text.contains("delivery 17") && text.contains("25"),
        "{text}"
    );
    // A new product is made by the form, and then shown in the shop.
    browser.go("/admin/products").await;
    for (name, value) in [("name", "Lamp <b>"), ("price", "20000"), ("stock", "7")] {
        browser
            .fill(&format!("[data-form=product-new] [name={name}]"), value)
            .await;
    }
    browser.click("[data-form=product-new] button").await;
    browser.until_says("New product: done").await;
    browser.until_says("Lamp <b>").await;
    browser.keep("admin-products").await;
    browser.go("/").await;
    let text = browser.text("main").await;
    assert!(
        text.contains("Lamp <b>") && text.contains("₩20,000"),
        "{text}"
    );
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_stock_is_tried_before_it_is_taken() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    make_admin(&shop, &service.client, "boss@example.com").await;
    let browser = Browser::open(&service).await;
    browser.log_in("boss@example.com").await;
    let folder = folder("csv");
    let write = |name: &str, rows: &str| {
        let file = folder.join(name);
        std::fs::write(
            &file,
            format!("product_id,location_id,quantity,mode\n{rows}"),
        )
        .unwrap();
        file.display().to_string()
    };
    let send = async |file: &str, dry_run: &str| {
        browser.go("/admin/stock").await;
        browser
            .find("[data-form=import] [type=file]")
            .await
            .send_keys(file)
            .await
            .unwrap();
        let choice = browser.find("[data-form=import] select").await;
        choice.select_by_label(dry_run).await.unwrap();
        browser.click("[data-form=import] button").await;
    };
    send(&write("wrong.csv", "1,0,5,delta\n999,0,5,delta\n"), "true").await;
    browser.until_says("999").await;
    let good = write("good.csv", "1,0,5,delta\n2,0,100,set\n");
    send(&good, "true").await;
    browser.until_says("DRY_RUN").await;
    assert_eq!(shop.available(1).await, 10);
    send(&good, "false").await;
    browser.until_says("Import CSV: done").await;
    until("the file is written", || async {
        (shop.available(1).await, shop.available(2).await) == (15, 100)
    })
    .await;
    browser.keep("admin-import").await;
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sends_a_dead_letter_again_and_stops_selling() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    make_admin(&shop, client, "boss@example.com").await;
    sqlx::raw_sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW \
         IF NEW.user_id = 3 THEN SIGNAL SQLSTATE '22003' SET MYSQL_ERRNO = 1264, MESSAGE_TEXT = 'refused'; END IF",
    )
    .execute(&shop.pool)
    .await
    .unwrap();
    let order = client
        .order("/api/redis/orders", 3, &[(1, 2)])
        .send()
        .await
        .order_id();
    let position = order.parse().unwrap();
    let state = async || dead_letters::state(&shop.pool, position).await.unwrap();
    until("it is a dead letter", || async {
        state().await.as_deref() == Some("COMPENSATED")
    })
    .await;
    let browser = Browser::open(&service).await;
    browser.log_in("boss@example.com").await;
    browser.go("/admin/dead-letters").await;
    assert!(browser.text("main table").await.contains("refused"));
    browser.click("[data-form=dead-letter-retry] button").await;
    browser
        .until_says("The entry's tables refuse it still")
        .await;
    browser.keep("dead-letter").await;
    sqlx::raw_sql("DROP TRIGGER refuse")
        .execute(&shop.pool)
        .await
        .unwrap();
    browser.click("[data-form=dead-letter-retry] button").await;
    browser.until_says("RESOLVED").await;
    assert_eq!(state().await.as_deref(), Some("RESOLVED"));
    // The selling switch asks for a confirmation; then nobody can buy.
    browser.go("/admin").await;
    browser.click("[data-form=selling-stop] button").await;
    browser.agree().await;
    browser
        .until_true(
            "it can be resumed",
            "return document.querySelector('[data-form=selling-resume]') !== null",
        )
        .await;
    let stopped = client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
    assert_eq!(stopped.code(), "SELLING_STOPPED");
    browser.ready().await;
    browser.click("[data-form=verify] button").await;
    browser.until_says("Verify the ledger: started").await;
    browser.keep("admin-overview").await;
    browser.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reads_what_is_under_quarantine_and_ends_it() {
    // A posting without an entry stands where the next posting belongs.
    let mut shop = Shop::open(2, 10).await;
    // The scheduled reconcile would end the quarantine.
    shop.config.schedule.reconcile_apply = false;
    let service = shop.serve().await;
    make_admin(&shop, &service.client, "boss@example.com").await;
    sqlx::raw_sql(
        "INSERT INTO postings (kind, owner_id, place_id, seq, journal_id, delta, balance_after) \
         SELECT kind, owner_id, place_id, seq + 1, 1, -7, balance - 7 FROM accounts \
         WHERE kind = 'AVAILABLE' AND place_id = 0 AND owner_id = 1",
    )
    .execute(&shop.pool)
    .await
    .unwrap();
    let order = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    assert_eq!(order.send().await.status, 201);
    until("the account is under quarantine", || async {
        shop.count("SELECT COUNT(*) FROM quarantined_accounts")
            .await
            == 1
    })
    .await;
    let phone = Setting {
        lang: "ko-KR,ko",
        size: PHONE,
        ..Setting::default()
    };
    for (setting, name) in [(phone, "ko-phone"), (Setting::default(), "en-desk")] {
        let browser = Browser::open_as(&service, setting).await;
        browser.log_in("boss@example.com").await;
        browser.go("/admin/sales").await;
        browser.keep(&format!("sales-{name}")).await;
        browser.go("/admin/quarantine").await;
        browser.keep(&format!("quarantine-{name}")).await;
        assert!(browser.text("main table").await.contains("AVAILABLE:1:0"));
        if setting.size != PHONE {
            browser.click(".row-forms summary").await;
            browser.keep("quarantine-release").await;
            browser.click("[data-form=quarantine-release] button").await;
            browser.agree().await;
            browser.until_says("Release: done").await;
            browser.until_says("Nothing here.").await;
        }
        browser.close().await;
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_moves_by_itself() {
    let shop = Shop::open(2, 500).await;
    let service = shop.serve().await;
    let client = &service.client;
    make_admin(&shop, client, "boss@example.com").await;
    let browser = Browser::open(&service).await;
    browser.log_in("boss@example.com").await;
    browser.go("/dashboard").await;
    browser.live().await;
    for _ in 0..20 {
        let order = client.order("/api/redis/orders", 2, &[(1, 1)]);
        assert_eq!(order.send().await.status, 201);
    }
    let refused = client.post("/api/redis/orders").user(2).json(&json!({
        "orderProducts": [{ "productId": 2, "quantity": 501 }], "totalAmount": 501_000, "deliveryType": "ONLINE",
    }));
    assert_eq!(refused.send().await.status, 409);
    for part in ["480", "ACCEPTED", "INSUFFICIENT"] {
        browser.until_says(part).await;
    }
    let curves = "return document.querySelectorAll('svg.spark path[d^=M]').length >= 4";
    browser.until_true("there are curves", curves).await;
    browser.keep("dashboard").await;
    browser.close().await;
    service.stop().await;
}
