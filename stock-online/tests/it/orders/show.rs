//! GET `/api/orders/{orderId}` and GET `/api/orders`.

use stock_online::ServiceRole;

use crate::support::Shop;

#[tokio::test]
async fn an_order_is_shown_the_moment_it_is_accepted_persisted_or_not() {
    let shop = Shop::open(1, 10).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    let client = &held.client;
    let placed = client.order("/api/redis/orders", 2, &[(1, 2)]).send().await;
    let path = format!("/api/orders/{}", placed.order_id());
    let shown = client.get(&path).user(2).send().await;
    assert_eq!(shown.body, placed.body, "nobody has stored it");
    assert_eq!(client.get(&path).admin().send().await.status, 200);
    assert_eq!(
        client.get(&path).user(3).send().await.code(),
        "ORDER_NOT_FOUND"
    );
    assert_eq!(
        client.get("/api/orders").user(2).send().await.body["items"],
        serde_json::json!([])
    );
    let cancel = format!("/api/redis/orders/{}/cancel", placed.order_id());
    assert_eq!(client.patch(&cancel).user(2).send().await.status, 200);
    assert_eq!(
        client.get(&path).user(2).send().await.body["orderStatus"],
        "CANCEL_REQUESTED"
    );

    let applying = shop
        .serve_roles(&[ServiceRole::Http, ServiceRole::Subscriber])
        .await;
    shop.drained().await;
    assert_eq!(
        client.get(&path).user(2).send().await.body["orderStatus"],
        "CANCEL"
    );
    applying.stop().await;
    held.stop().await;
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_show_only_ones_own() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let mut placed = Vec::new();
    for user in [2, 2, 3, 2] {
        placed.push(
            client
                .order("/api/redis/orders", user, &[(1, 1)])
                .send()
                .await
                .order_id(),
        );
    }
    shop.drained().await;
    let ids = |body: &serde_json::Value| -> Vec<String> {
        let items = body["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["orderId"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = client.get("/api/orders?limit=2").user(2).send().await.body;
    assert_eq!(ids(&first), [placed[3].clone(), placed[1].clone()]);
    let cursor = first["nextCursor"].as_str().unwrap();
    let next = client
        .get(&format!("/api/orders?limit=2&cursor={cursor}"))
        .user(2)
        .send()
        .await;
    assert_eq!(ids(&next.body), [placed[0].clone()]);
    assert_eq!(next.body["nextCursor"], serde_json::Value::Null);
    let all = client
        .get("/api/orders?status=SUCCESS")
        .admin()
        .send()
        .await;
    assert_eq!(ids(&all.body).len(), 4);
    let one = client.get("/api/orders?userId=3").admin().send().await;
    assert_eq!(ids(&one.body), [placed[2].clone()]);
    assert_eq!(
        client
            .get("/api/orders?userId=3")
            .user(2)
            .send()
            .await
            .code(),
        "FORBIDDEN"
    );
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "cursor=x",
        "sort=id",
        "status=X",
    ] {
        let answer = client
            .get(&format!("/api/orders?{query}"))
            .user(2)
            .send()
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (422, "UNPROCESSABLE"),
            "{query}"
        );
    }
    service.stop().await;
}
