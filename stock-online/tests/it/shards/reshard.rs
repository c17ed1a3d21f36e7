//! Another number of shards while the shop is open.

use stock_domain::reshard::reshard;
use stock_online::servers::cluster::Shape;

use super::one_on_each;
use crate::support::{Load, OwnCluster, ServiceProcess, Shop};

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_grows_and_shrinks_under_load() {
    // Method: two instances, a load of orders of one and of several products on both paths; 2 shards become 5, then 3,
    // then 5 again. No order is lost or refused for it, and everything agrees before and after.
    let own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(2, 24, 1_000_000).await;
    let (one, two) = (shop.serve().await, shop.serve().await);
    let clients = [one.client.clone(), two.client.clone()];
    let load = Load::start_of(&clients, 6, &[(1, 1), (7, 1), (12, 1)]);
    let single = Load::start_of(&clients, 6, &[(3, 1)]);
    load.accept(50).await;
    let mut sold = Vec::new();
    for shards in [5, 3, 5] {
        let mut quiet = |_, _| {};
        let done = reshard(&shop.config, &shop.pool, shards, &mut quiet)
            .await
            .unwrap();
        assert_eq!(done.shards, shards);
        assert!(done.slots > 300, "{done:?}");
        load.accept(50).await;
        single.accept(50).await;
        shop.prove().await;
    }
    for load in [load, single] {
        let history = load.stop().await;
        assert_eq!(
            (history.refused, history.unknown),
            (0, 0),
            "nothing fails for it"
        );
        sold.extend(history.accepted);
    }
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in sold {
        assert!(stored.contains(&id), "{id} was accepted and is not stored");
    }
    // An order of the very first shards is taken back on those that have its products now.
    let each = one_on_each(&shop.ledger.layout().unwrap(), 24);
    let first = stored.first().unwrap();
    let owner: u64 = sqlx::query_scalar("SELECT user_id FROM orders WHERE id = ?")
        .bind(first)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    let cancel = format!("/api/redis/orders/{first}/cancel");
    assert_eq!(
        one.client.patch(&cancel).user(owner).send().await.status,
        200
    );
    assert_eq!(
        one.client.patch(&cancel).user(owner).send().await.status,
        409
    );
    assert_eq!(each.len(), 5);
    shop.drained().await;
    shop.prove().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reshard_that_was_cut_off_goes_on_or_back() {
    let shop = Shop::open_in(2, 24, 100).await;
    let running = shop.serve().await;
    let (shop, service) = (&shop, &running);
    let moved = async || {
        shop.count("SELECT COUNT(*) FROM slots WHERE previous <> 0")
            .await
    };
    // Cut off on the way to one number, then sent on to it, or to another.
    for (aim, target) in [(4, 4), (7, 4), (6, 6)] {
        let before = moved().await;
        let (config, pool) = (shop.config.clone(), shop.pool.clone());
        let cut = tokio::spawn(async move {
            let mut quiet = |_, _| {};
            reshard(&config, &pool, aim, &mut quiet).await.map(drop)
        });
        crate::support::until("some slots have moved", || async { moved().await > before }).await;
        cut.abort();
        drop(cut.await);
        let mut quiet = |_, _| {};
        crate::support::until("the cut run has let go", || async {
            let mut quiet = |_, _| {};
            reshard(&shop.config, &shop.pool, target, &mut quiet)
                .await
                .is_ok()
        })
        .await;
        let again = reshard(&shop.config, &shop.pool, target, &mut quiet)
            .await
            .unwrap();
        let moving = "SELECT COUNT(*) FROM slots WHERE moving_to IS NOT NULL";
        assert_eq!((again.slots, shop.count(moving).await), (0, 0));
        let order = service
            .client
            .order("/api/redis/orders", 2, &[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(order.send().await.status, 201);
        shop.drained().await;
        shop.prove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_that_was_cut_off_left_in_one_server_is_mended_by_the_next() {
    // Cut off between MySQL's new version and Redis', and on the way to giving a shard up.
    let shop = Shop::open_in(2, 24, 100).await;
    let service = shop.serve().await;
    let mut quiet = |_, _| {};
    let sql = "UPDATE shards SET layout = layout + 1 WHERE shard = 0";
    sqlx::query(sql).execute(&shop.pool).await.unwrap();
    reshard(&shop.config, &shop.pool, 2, &mut quiet)
        .await
        .unwrap();
    shop.prove().await;
    let shard = shop.ledger.shard(1).unwrap();
    let mut redis = shard.link().unwrap().read.clone();
    let mut given_up = redis::cmd("HSET");
    given_up
        .arg(shard.keys().epoch())
        .arg("layout")
        .arg(1_u64 << 52);
    let _: u64 = given_up.query_async(&mut redis).await.unwrap();
    let order = || {
        let each = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)];
        service.client.order("/api/redis/orders", 2, &each).send()
    };
    assert_eq!(order().await.status, 503);
    reshard(&shop.config, &shop.pool, 2, &mut quiet)
        .await
        .unwrap();
    crate::support::until("both shards sell", || async { order().await.status == 201 }).await;
    shop.drained().await;
    shop.prove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_replaced_one_by_one_under_load() {
    // A rolling upgrade: what fails meanwhile is settled by asking again, here the load's next order.
    let shop = Shop::open_in(3, 24, 1_000_000).await;
    let mut instances = vec![
        ServiceProcess::start(&shop).await,
        ServiceProcess::start(&shop).await,
    ];
    let mut accepted = Vec::new();
    for _ in 0..2 {
        let clients: Vec<_> = instances.iter().map(|one| one.client.clone()).collect();
        let load = Load::start_of(&clients, 8, &[(1, 1), (2, 1)]);
        load.accept(50).await;
        let mut old = instances.remove(0);
        instances.push(ServiceProcess::start(&shop).await);
        old.signal(rustix::process::Signal::TERM);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), old.child.wait());
        assert_eq!(ended.await.unwrap().unwrap().code(), Some(0));
        let history = load.stop().await;
        accepted.extend(history.accepted);
    }
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in accepted {
        assert!(stored.contains(&id), "{id} was accepted and is not stored");
    }
    shop.prove().await;
}
