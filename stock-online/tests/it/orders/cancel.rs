//! PATCH `…/orders/{orderId}/cancel` on both paths.

use crate::support::{Shop, until};

#[tokio::test]
async fn either_path_cancels_either_order_once_and_gives_its_stock_back() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for place in ["/api/redis/orders", "/api/orders"] {
        for (cancel, status) in [("redis/orders", "CANCEL_REQUESTED"), ("orders", "CANCEL")] {
            let id = client.order(place, 2, &[(1, 3)]).send().await.order_id();
            assert_eq!(shop.available(1).await, 7);
            let path = format!("/api/{cancel}/{id}/cancel");
            let stranger = client.patch(&path).user(3).send().await;
            assert_eq!((stranger.status, stranger.code()), (404, "ORDER_NOT_FOUND"));
            let answer = client.patch(&path).user(2).send().await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert_eq!(answer.body["orderStatus"], status);
            assert_eq!(shop.available(1).await, 10, "stock is back when it answers");
            let again = client.patch(&path).user(2).send().await;
            assert_eq!((again.status, again.code()), (409, "INVALID_ORDER_STATUS"));
            until("mysql has the cancel", || async {
                let shown = client
                    .get(&format!("/api/orders/{id}"))
                    .user(2)
                    .send()
                    .await;
                shown.body["orderStatus"] == "CANCEL"
            })
            .await;
            let late = client.patch(&path).user(2).send().await;
            assert_eq!((late.status, late.code()), (409, "INVALID_ORDER_STATUS"));
        }
    }
    assert_eq!(shop.available(1).await, 10);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test]
async fn an_admin_cancels_any_order_and_an_unknown_one_is_not_found() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = client
        .order("/api/redis/orders", 2, &[(1, 3)])
        .send()
        .await
        .order_id();
    let path = format!("/api/redis/orders/{id}/cancel");
    assert_eq!(client.patch(&path).admin().send().await.status, 200);
    for id in [
        "1",
        "0",
        "x",
        "-1",
        "18446744073709551615",
        "99999999999999999999999",
    ] {
        let path = format!("/api/redis/orders/{id}/cancel");
        let answer = client.patch(&path).user(2).send().await;
        assert_eq!(
            (answer.status, answer.code()),
            (404, "ORDER_NOT_FOUND"),
            "{id}"
        );
    }
    service.stop().await;
}
