//! Payments: reported by a provider that delays, repeats, reorders and lies.

use serde_json::{Value, json};
use stock_common::clock::Clock;
use stock_domain::webhook::Secret;

use super::{cancel, confirm, expired, opened, opened_for_ms, show, status};
use crate::reservations::levels;
use crate::support::{Answer, Client, Shop};

fn now() -> i64 {
    Clock::system().now_ms() / 1_000
}

/// A payment provider: signs its messages with a secret.
struct Provider<'a> {
    client: &'a Client,
    secret: Secret,
}

impl Provider<'_> {
    async fn report(&self, kind: &str, checkout: &str, payment: &str, amount: i64) -> Answer {
        let data = json!({ "checkoutId": checkout, "paymentId": payment, "amount": amount });
        let body = json!({ "type": format!("payment.{kind}"), "timestamp": "x", "data": data });
        let text = body.to_string();
        let signature = self.secret.sign("msg_1", now(), text.as_bytes());
        self.send(&text, now(), &signature).await
    }

    async fn send(&self, text: &str, at: i64, signature: &str) -> Answer {
        let call = self.client.post("/api/payments/events");
        let call = call
            .raw(text.as_bytes())
            .header("content-type", "application/json");
        let call = call
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", &at.to_string());
        call.header("webhook-signature", signature).send().await
    }

    async fn outcome(&self, kind: &str, checkout: &str, payment: &str, amount: i64) -> String {
        let answer = self.report(kind, checkout, payment, amount).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.member("outcome").to_owned()
    }
}

async fn shop_with(secret: &Secret) -> Shop {
    let mut shop = Shop::open(1, 10).await;
    shop.config.selling.payment_webhook_secret = secret.reveal();
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_message_confirms_once_and_an_unsigned_one_never() {
    let secret = Secret::random();
    let shop = shop_with(&secret).await;
    let service = shop.serve().await;
    let client = &service.client;
    let provider = Provider {
        client,
        secret: secret.clone(),
    };
    let id = opened(client, 2, &[(1, 2)]).await;
    let body = json!({ "type": "payment.succeeded",
        "data": { "checkoutId": id, "paymentId": "p", "amount": 2_000 } });
    let text = body.to_string();
    let right = secret.sign("msg_1", now(), text.as_bytes());
    let old = secret.sign("msg_1", now() - 301, text.as_bytes());
    let other = Secret::random().sign("msg_1", now(), text.as_bytes());
    for (at, signature) in [
        (now(), "v1,".to_owned()),
        (now(), String::new()),
        (now(), other.clone()),
        (now() + 1, right.clone()),
        (now() - 301, old),
    ] {
        let refused = provider.send(&text, at, &signature).await;
        assert_eq!(
            (refused.status, refused.code()),
            (401, "SIGNATURE_INVALID"),
            "{signature}"
        );
    }
    let bare = client.post("/api/payments/events").json(&body).send().await;
    assert_eq!(bare.status, 401);
    assert_eq!(status(client, &id).await, "OPEN");
    // A secret that is being changed: two signatures, one of them right.
    let both = format!("{other} {right}");
    let paid = provider.send(&text, now(), &both).await;
    assert_eq!(
        (paid.status, paid.member("outcome")),
        (200, "CONFIRMED"),
        "{}",
        paid.text
    );
    let order = paid.member("orderId").to_owned();
    for _ in 0..3 {
        assert_eq!(
            provider.outcome("succeeded", &id, "p", 2_000).await,
            "CONFIRMED"
        );
    }
    assert_eq!(
        provider.outcome("succeeded", &id, "q", 2_000).await,
        "CONFIRMED"
    );
    // Messages that come late or out of order change nothing any more.
    for kind in ["failed", "pending", "unknown", "refunded"] {
        assert_eq!(
            provider.outcome(kind, &id, "p", 2_000).await,
            "IGNORED",
            "{kind}"
        );
    }
    assert_eq!(show(client, &id).await.body["orderId"], order);
    for (data, status, code) in [
        (
            json!({ "checkoutId": "7", "paymentId": "p", "amount": 1 }),
            404,
            "CHECKOUT_NOT_FOUND",
        ),
        (
            json!({ "checkoutId": id, "paymentId": "", "amount": 1 }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "checkoutId": id, "paymentId": "p" }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "checkoutId": id, "amount": 1 }),
            422,
            "UNPROCESSABLE",
        ),
        (
            json!({ "checkoutId": id, "paymentId": "p", "amount": -1 }),
            422,
            "UNPROCESSABLE",
        ),
    ] {
        let body = json!({ "type": "payment.succeeded", "data": data }).to_string();
        let signature = secret.sign("msg_1", now(), body.as_bytes());
        let refused = provider.send(&body, now(), &signature).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{body} {}",
            refused.text
        );
    }
    shop.drained().await;
    assert_eq!(shop.count("SELECT COUNT(*) FROM payments").await, 2);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_outcome_extends_once_and_a_failed_one_leaves_the_hold() {
    let secret = Secret::random();
    let shop = shop_with(&secret).await;
    let service = shop.serve().await;
    let client = &service.client;
    let provider = Provider { client, secret };
    let id = opened_for_ms(&shop, 1, 20_000).await;
    let first = show(client, &id).await;
    assert_eq!(provider.outcome("failed", &id, "p", 1_000).await, "HELD");
    assert_eq!(show(client, &id).await.body, first.body);
    assert_eq!(
        provider.outcome("pending", &id, "p", 1_000).await,
        "EXTENDED"
    );
    let moved = show(client, &id).await;
    assert!(
        moved.member("expiresAt") > first.member("expiresAt"),
        "{}",
        moved.text
    );
    assert_eq!(moved.body["extensionsLeft"], 3, "no extension was spent");
    for kind in ["pending", "unknown"] {
        assert_eq!(
            provider.outcome(kind, &id, "p", 1_000).await,
            "HELD",
            "{kind}"
        );
    }
    assert_eq!(show(client, &id).await.body, moved.body);
    let short = provider.outcome("succeeded", &id, "p", 999).await;
    assert_eq!(short, "AMOUNT_MISMATCH");
    assert_eq!(
        status(client, &id).await,
        "OPEN",
        "another payment may come"
    );
    assert_eq!(
        provider.outcome("succeeded", &id, "p", 1_000).await,
        "CONFIRMED"
    );
    shop.drained().await;
    // The payment that was corrected is not to be refunded.
    let due = client
        .get("/api/payments?refundDue=true")
        .admin()
        .send()
        .await;
    assert_eq!(due.body["items"], json!([]));
    let all = client
        .get(&format!("/api/payments?checkoutId={id}"))
        .admin()
        .send()
        .await;
    assert_eq!(
        all.body["items"].as_array().unwrap().len(),
        2,
        "{}",
        all.text
    );
    let user = client.get("/api/payments").user(2).send().await;
    assert_eq!(user.status, 403);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_payment_takes_everything_again_or_is_to_be_refunded() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let in_stock = opened_for_ms(&shop, 2, 1).await;
    expired(client, &in_stock).await;
    let paid = confirm(client, &in_stock, "p-1", 2_000).await;
    assert_eq!(
        (paid.status, &paid.body["isLate"]),
        (200, &json!(true)),
        "{}",
        paid.text
    );
    let again = confirm(client, &in_stock, "p-1", 2_000).await;
    assert_eq!((again.status, &again.body), (200, &paid.body));
    assert_eq!(levels(client).await, (3, 0, 3));
    // Somebody else has bought what was held.
    let gone = opened_for_ms(&shop, 3, 1).await;
    expired(client, &gone).await;
    let order = client.order("/api/redis/orders", 3, &[(1, 2)]).send().await;
    assert_eq!(order.status, 201);
    for _ in 0..2 {
        let late = confirm(client, &gone, "p-2", 3_000).await;
        assert_eq!(
            (late.status, late.code()),
            (409, "REFUND_DUE"),
            "{}",
            late.text
        );
    }
    assert_eq!(status(client, &gone).await, "REFUND_DUE");
    assert_eq!(
        cancel(client, 2, &gone).await.body["checkoutStatus"],
        "REFUND_DUE"
    );
    let wrong = confirm(client, &gone, "p-3", 1).await;
    assert_eq!((wrong.status, wrong.code()), (409, "REFUND_DUE"));
    assert_eq!(levels(client).await, (1, 0, 1), "nothing is half taken");
    // A product that is off sale is sold to nobody who was late.
    let stopped = opened_for_ms(&shop, 1, 1).await;
    expired(client, &stopped).await;
    let off = json!({ "status": "INACTIVE" });
    let off = client
        .patch("/api/products/1")
        .admin()
        .json(&off)
        .send()
        .await;
    assert_eq!(off.status, 200, "{}", off.text);
    let late = confirm(client, &stopped, "p-4", 1_000).await;
    assert_eq!(
        (late.status, late.code()),
        (409, "REFUND_DUE"),
        "{}",
        late.text
    );
    shop.drained().await;
    let due = client
        .get("/api/payments?refundDue=true")
        .admin()
        .send()
        .await;
    let ids: Vec<Value> = due.body["items"].as_array().unwrap().clone();
    let ids: Vec<&str> = ids
        .iter()
        .map(|of| of["paymentId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["p-4", "p-3", "p-2"], "{}", due.text);
    shop.verify().await;
    shop.rebuild().await;
    assert_eq!(status(client, &gone).await, "REFUND_DUE");
    let still = confirm(client, &in_stock, "p-1", 2_000).await;
    assert_eq!((still.status, &still.body), (200, &paid.body));
    shop.verify().await;
    service.stop().await;
}
