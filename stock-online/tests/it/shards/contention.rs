//! The last units of a product, wanted by cross-shard orders at the same time.

use std::sync::Arc;

use stock_common::id::Position;
use stock_domain::branch::{self, Branch, Plan};
use stock_domain::request::Request;
use stock_domain::verdict::Verdict;
use stock_redis::DecideError;
use stock_redis::encoded_request::EncodedRequest;

use super::steps::request;
use super::{one_on_each, order};
use crate::support::{Shop, until};

async fn decide(shop: &Shop, shard: u64, request: Request) -> Position {
    let sealed = Arc::new(EncodedRequest::new(request).unwrap());
    let shard = shop.ledger.shard(shard).unwrap();
    match shard.decide(sealed).await.unwrap() {
        Verdict::Accepted(accepted) => accepted.position,
        other => panic!("{other:?}"),
    }
}

/// Holds units as the first step of a cross-shard order does, and stops there.
async fn hold(shop: &Shop, takes: &[(u64, i64)]) -> (Branch, Position) {
    let asked = request(takes, None);
    let map = shop.ledger.shard_map().unwrap();
    let Plan::Several(split) = branch::plan(&asked, map, shop.config.decide.branch_hold_ms) else {
        panic!("it lies on one shard");
    };
    let part = split.branches.first().unwrap();
    let at = decide(shop, part.shard, part.request().unwrap()).await;
    (part.branch.clone().unwrap(), at)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_units_that_are_held_for_another_order_waits_for_what_becomes_of_it() {
    // Danger: an order that fails makes others believe that the last unit is gone, and under a key
    // for as long as that answer is remembered. Method: the unit is held by hand, ordered under a
    // key, and given back.
    let shop = Shop::open_in(3, 24, 1).await;
    let service = shop.serve().await;
    let client = &service.client;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let (branch, at) = hold(&shop, &[(each[0], 1), (each[1], 1)]).await;
    let wants = |key: &'static str| {
        let call = client.order("/api/redis/orders", 3, &[(each[0], 1)]);
        call.header("idempotency-key", key).send()
    };
    let refused = wants("one").await;
    assert_eq!((refused.status, refused.code()), (503, "OVERLOADED"));
    let waiting = wants("two");
    let giving_back = async {
        until("the unit is held", || async {
            let asked = shop.ledger.ask_once(request(&[(each[0], 1)], None)).await;
            matches!(asked, Err(DecideError::Held))
        })
        .await;
        decide(&shop, 0, branch.release(at).unwrap()).await
    };
    let (bought, _) = tokio::join!(waiting, giving_back);
    assert_eq!(bought.status, 201, "{}", bought.text);
    let sold_out = wants("one").await;
    assert_eq!(sold_out.code(), "INSUFFICIENT_STOCK", "{}", sold_out.text);
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_unit_is_sold_though_orders_over_shards_fail_for_it() {
    // Danger: orders that hold the last unit and fail for want of another product keep it from a
    // buyer who could have it. Method: both kinds of orders at once, again and again; each unit
    // ends with a buyer.
    let shop = Shop::open_in(3, 24, 3).await;
    let service = shop.serve().await;
    let client = &service.client;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let gone = order(client, 2, &[(each[2], 3)]).await;
    assert_eq!(gone.status, 201, "{}", gone.text);
    for left in (0..3).rev() {
        let (too_much, one) = ([(each[0], left + 1), (each[2], 1)], [(each[0], 1)]);
        let fail = (0..6).map(|_| order(client, 2, &too_much));
        let buy = order(client, 3, &one);
        let (failed, bought) = tokio::join!(futures_util::future::join_all(fail), buy);
        assert_eq!(bought.status, 201, "{}", bought.text);
        for failed in failed {
            assert!(failed.status != 201, "{}", failed.text);
        }
        until("what was held came back", || async {
            shop.available(each[0]).await == left
        })
        .await;
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}
