//! A frozen total stays frozen, whatever changes while a checkout is open.

use serde_json::json;
use stock_domain::checkout::{self, Checkout, OpenTerms};
use stock_domain::verdict::Verdict;
use stock_engine::forget_sales::forget_sales;

use super::{cancel, cart, confirm, expired, open, opened};
use crate::benefits::{campaign, code};
use crate::reservations::levels;
use crate::sales::{HOUR, delete_sale, sale};
use crate::support::{Shop, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_open_checkout_keeps_its_total_when_prices_sales_and_coupons_change() {
    let shop = Shop::open(1, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    let running = sale(
        &shop,
        client,
        -HOUR,
        HOUR,
        json!({ "price": 700, "limitPerUser": 2 }),
    )
    .await;
    assert_eq!(running.status, 201, "{}", running.text);
    let coupon = campaign(client, &json!({ "discountRate": 10, "count": 5 })).await;
    let own = code(client, 2, coupon).await;
    let mut body = cart(&[(1, 2)]);
    body["couponCode"] = json!(own);
    body["totalAmount"] = json!(1_260);
    let made = open(client, 2, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.member("checkoutId").to_owned();
    // The limit is taken: nobody buys twice what a sale allows.
    let mut more = cart(&[(1, 1)]);
    more["totalAmount"] = json!(700);
    assert_eq!(
        open(client, 2, &more).await.code(),
        "PURCHASE_LIMIT_REACHED"
    );
    delete_sale(client, &running).await;
    let dearer = json!({ "price": 5_000 });
    let changed = client
        .patch("/api/products/1")
        .admin()
        .json(&dearer)
        .send()
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    shop.drained().await;
    let stopped = json!({ "status": "INACTIVE" });
    let changed = client
        .patch("/api/products/1")
        .admin()
        .json(&stopped)
        .send()
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    // Opening does not sell any more, what is held does.
    let mut closed = cart(&[(1, 1)]);
    closed["totalAmount"] = json!(5_000);
    assert_eq!(open(client, 3, &closed).await.code(), "PRODUCT_NOT_ON_SALE");
    let selling = json!({ "open": false });
    let switched = client
        .call("PUT", "/api/ops/selling")
        .admin()
        .json(&selling)
        .send()
        .await;
    assert_eq!(switched.status, 200, "{}", switched.text);
    let paid = confirm(client, &id, "p", 1_260).await;
    assert_eq!(paid.status, 200, "{}", paid.text);
    shop.drained().await;
    assert_eq!(shop.available(1).await, 48);
    let order = client.get(&format!("/api/orders/{}", paid.member("orderId")));
    let order = order.user(2).send().await;
    for (name, value) in [("totalAmount", 1_260), ("couponDiscountAmount", 140)] {
        assert_eq!(order.body[name], value, "{}", order.text);
    }
    assert_eq!(order.body["orderProductInfos"][0]["unitPrice"], 700);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_needs_a_checkout_sells_through_nothing_else() {
    let mut shop = Shop::open(2, 50).await;
    shop.config.selling.sale_needs_checkout = true;
    let service = shop.serve().await;
    let client = &service.client;
    let running = sale(&shop, client, -HOUR, HOUR, json!({})).await;
    assert_eq!(running.status, 201, "{}", running.text);
    for path in ["/api/redis/orders", "/api/orders"] {
        let refused = client.order(path, 2, &[(2, 1), (1, 1)]).send().await;
        assert_eq!(
            (refused.status, refused.code()),
            (409, "CHECKOUT_REQUIRED"),
            "{path}"
        );
        assert_eq!(refused.body["productId"], 1);
        let other = client.order(path, 2, &[(2, 1)]).send().await;
        assert_eq!(other.status, 201, "{}", other.text);
    }
    let id = opened(client, 2, &[(2, 1), (1, 1)]).await;
    assert_eq!(confirm(client, &id, "p", 2_000).await.status, 200);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_payment_sells_when_the_limit_of_its_sale_is_forgotten() {
    // Danger: the limit's account is gone, so a payment that comes days later is neither sold nor
    // to be refunded, however often it is reported.
    let shop = Shop::open_undivided(1, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    let limit = json!({ "price": 700, "limitPerUser": 2 });
    let running = sale(&shop, client, -HOUR, HOUR, limit).await;
    assert_eq!(running.status, 201, "{}", running.text);
    let mut body = cart(&[(1, 2)]);
    body["totalAmount"] = json!(1_400);
    let made = open(client, 2, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.member("checkoutId").to_owned();
    let entry = shop.ledger.find(id.parse().unwrap()).await.unwrap();
    let of: Checkout = entry.unwrap().body().unwrap();
    assert!(of.order.lines[0].allowance.is_some());
    assert_eq!(cancel(client, 2, &id).await.status, 200);
    // The same one, for a time that no client may ask for.
    let of = Checkout { ttl_ms: 1, ..of };
    let terms = OpenTerms {
        window_ms: None,
        retried_anew: false,
        units_max: 0,
    };
    let request = checkout::open(&of, terms, None).unwrap();
    let Verdict::Accepted(accepted) = shop.ledger.decide(request).await.unwrap() else {
        panic!("it is opened");
    };
    let id = accepted.position.to_string();
    expired(client, &id).await;
    until("it is given back", || async {
        levels(client).await == (50, 0, 50)
    })
    .await;
    let over = "UPDATE sales SET starts_at = starts_at - INTERVAL 9 DAY, \
                ends_at = ends_at - INTERVAL 9 DAY";
    sqlx::query(over).execute(&shop.pool).await.unwrap();
    shop.drained().await;
    assert_eq!(forget_sales(&shop.pool, &shop.ledger, 7).await.unwrap(), 1);
    let paid = confirm(client, &id, "p-late", 1_400).await;
    assert_eq!(paid.status, 200, "{}", paid.text);
    assert_eq!(paid.body["isLate"], true);
    let path = format!("/api/redis/orders/{}/cancel", paid.member("orderId"));
    let cancelled = client.patch(&path).user(2).json(&json!({})).send().await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
