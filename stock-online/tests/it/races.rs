//! Races: many requests at once for the same few things, and the sums afterwards.

use crate::support::{Load, Shop, sorted};

#[tokio::test(flavor = "multi_thread")]
async fn the_last_hundred_units_go_to_exactly_a_hundred_of_a_thousand_buyers() {
    // Danger: both paths sell the same units. Method: 1,000 orders at once, mixed over both paths.
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let buyers: Vec<_> = (0..1_000)
        .map(|number| {
            let client = service.client.clone();
            let path = if number % 2 == 0 {
                "/api/redis/orders"
            } else {
                "/api/orders"
            };
            tokio::spawn(async move { client.order(path, 2, &[(1, 1)]).send().await })
        })
        .collect();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for buyer in buyers {
        let answer = buyer.await.unwrap();
        match (answer.status, answer.code()) {
            (201, _) => accepted.push(answer.order_id()),
            (409, "INSUFFICIENT_STOCK") => refused += 1,
            _ => panic!("{}", answer.text),
        }
    }
    assert_eq!((accepted.len(), refused), (100, 900));
    shop.drained().await;
    assert_eq!(shop.available(1).await, 0);
    assert_eq!(shop.stored_orders().await, sorted(accepted));
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_cancels_of_one_order_give_the_stock_back_once() {
    // Danger: two cancels both find the order uncancelled. Method: 50 at once, mixed over both
    // paths.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let id = service
        .client
        .order("/api/redis/orders", 2, &[(1, 4)])
        .send()
        .await
        .order_id();
    let cancels: Vec<_> = (0..50)
        .map(|number| {
            let client = service.client.clone();
            let way = if number % 2 == 0 {
                "redis/orders"
            } else {
                "orders"
            };
            let path = format!("/api/{way}/{id}/cancel");
            tokio::spawn(async move { client.patch(&path).user(2).send().await })
        })
        .collect();
    let mut statuses = Vec::new();
    for cancel in cancels {
        let answer = cancel.await.unwrap();
        assert!(
            answer.status == 200 || answer.code() == "INVALID_ORDER_STATUS",
            "{}",
            answer.text
        );
        statuses.push(answer.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(shop.available(1).await, 10);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_apply_nothing_twice() {
    // Danger: both subscribers write the same entry. Method: two whole services under load.
    let shop = Shop::open(1, 1_000_000).await;
    let (first, second) = (shop.serve().await, shop.serve().await);
    let load = Load::start(&[first.client.clone(), second.client.clone()], 16);
    load.accept(2_000).await;
    let history = load.stop().await;
    assert_eq!((history.refused, history.unknown), (0, 0));
    shop.drained().await;
    let sold = i64::try_from(history.accepted.len()).unwrap();
    assert_eq!(shop.available(1).await, 1_000_000 - sold);
    assert_eq!(shop.stored_orders().await, sorted(history.accepted));
    shop.verify().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_the_same_products_in_opposite_order_do_not_deadlock() {
    // Danger: row locks are taken in the order of the request. Method: lines in both orders at once
    // on the synchronous path.
    let shop = Shop::open(2, 1_000).await;
    let service = shop.serve().await;
    let orders: Vec<_> = (0..100)
        .map(|number| {
            let client = service.client.clone();
            let lines = if number % 2 == 0 {
                [(1, 1), (2, 1)]
            } else {
                [(2, 1), (1, 1)]
            };
            tokio::spawn(async move { client.order("/api/orders", 2, &lines).send().await })
        })
        .collect();
    for order in orders {
        assert_eq!(order.await.unwrap().body["orderStatus"], "SUCCESS");
    }
    assert_eq!(
        (shop.available(1).await, shop.available(2).await),
        (900, 900)
    );
    service.stop().await;
}
