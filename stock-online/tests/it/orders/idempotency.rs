//! The Idempotency-Key: the first answer again, never a second order.

use crate::support::{Shop, order_json};

#[tokio::test]
async fn the_same_key_gets_the_first_answer_and_takes_no_more_stock() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let path = "/api/redis/orders";
    let send = || {
        client
            .order(path, 2, &[(1, 2)])
            .header("idempotency-key", "k-1")
            .send()
    };
    let (first, again) = (send().await, send().await);
    assert_eq!((first.status, again.status), (201, 201), "{}", again.text);
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(shop.available(1).await, 8);
    // Spaces and the order of names make no difference; another body or path does.
    let spaced = "{ \"totalAmount\": 2000, \"deliveryType\": \"ONLINE\", \"orderProducts\": \
         [ { \"quantity\": 2, \"productId\": 1 } ] }";
    let call = client.post(path).user(2).raw(spaced.as_bytes());
    let call = call
        .header("content-type", "application/json")
        .header("idempotency-key", "k-1");
    assert_eq!(call.send().await.body, first.body);
    for (path, lines) in [(path, [(1, 1)]), ("/api/orders", [(1, 2)])] {
        let other = client
            .order(path, 2, &lines)
            .header("idempotency-key", "k-1")
            .send()
            .await;
        assert_eq!(
            (other.status, other.code()),
            (422, "IDEMPOTENCY_KEY_REUSED")
        );
    }
    // Another user's key of the same name is another key.
    let stranger = client
        .order(path, 3, &[(1, 2)])
        .header("idempotency-key", "k-1")
        .send()
        .await;
    assert_ne!(stranger.order_id(), first.order_id());
    // The synchronous path does the same, and its answer outlives Redis' record of the entry.
    let send = || {
        client
            .order("/api/orders", 2, &[(1, 1)])
            .header("idempotency-key", "k-2")
            .send()
    };
    let (first, again) = (send().await, send().await);
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(shop.available(1).await, 5);
    service.stop().await;
}

#[tokio::test]
async fn a_refusal_is_remembered_too_and_a_malformed_request_is_not() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let keyed = |lines: &[(u64, i64)], key: &str| {
        client
            .order("/api/redis/orders", 2, lines)
            .header("idempotency-key", key)
            .send()
    };
    let (first, again) = (
        keyed(&[(1, 11)], "big").await,
        keyed(&[(1, 11)], "big").await,
    );
    assert_eq!((first.status, again.status), (409, 409));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    for member in ["code", "detail", "available", "productId"] {
        assert_eq!(first.body[member], again.body[member]);
    }
    let missing = (
        keyed(&[(9, 1)], "gone").await,
        keyed(&[(9, 1)], "gone").await,
    );
    assert_eq!(
        (missing.0.code(), missing.1.code()),
        ("PRODUCT_NOT_FOUND", "PRODUCT_NOT_FOUND")
    );
    assert_eq!(missing.1.headers["idempotency-replayed"], "true");
    // A 422 that the request alone decides leaves the key free for the corrected request.
    assert_eq!(keyed(&[(1, 0)], "fixed").await.status, 422);
    assert_eq!(keyed(&[(1, 1)], "fixed").await.status, 201);
    service.stop().await;
}

#[tokio::test]
async fn a_hundred_twins_become_one_order() {
    // Danger: requests under one key in one batch, or in two batches, each take stock. Method: all
    // at once.
    let shop = Shop::open(1, 1_000).await;
    let service = shop.serve().await;
    let twins: Vec<_> = (0..100)
        .map(|_| {
            let client = service.client.clone();
            tokio::spawn(async move {
                let call = client
                    .post("/api/redis/orders")
                    .user(2)
                    .json(&order_json(&[(1, 5)]));
                call.header("idempotency-key", "twin").send().await
            })
        })
        .collect();
    let mut ids = Vec::new();
    for twin in twins {
        let answer = twin.await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text);
        ids.push(answer.order_id());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(shop.available(1).await, 995);
    service.stop().await;
}

#[tokio::test]
async fn a_keyed_cancel_is_answered_again_and_gives_back_once() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = client
        .order("/api/redis/orders", 2, &[(1, 4)])
        .send()
        .await
        .order_id();
    let path = format!("/api/redis/orders/{id}/cancel");
    let send = || {
        client
            .patch(&path)
            .user(2)
            .header("idempotency-key", "c-1")
            .send()
    };
    let (first, again) = (send().await, send().await);
    assert_eq!((first.status, again.status), (200, 200), "{}", again.text);
    assert_eq!(first.body, again.body);
    shop.drained().await;
    assert_eq!(
        send().await.body,
        first.body,
        "also when mysql has the cancel"
    );
    assert_eq!(shop.available(1).await, 10);
    service.stop().await;
}
