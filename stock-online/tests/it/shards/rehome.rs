//! Rehome: another number of shards, while nothing is sold.

use std::time::Duration;

use redis::cmd;
use serde_json::json;
use stock_common::id::UserId;
use stock_domain::account::Account;
use stock_domain::shard_map::ShardMap;
use stock_engine::recover::{self, Allowed};
use stock_engine::rehome::{RehomeError, Rehomed, rehome};
use stock_engine::verify::verify_before_rebuild;
use stock_mysql::{shard_map, shards};
use stock_redis::keys::Keys;
use stock_servers::cluster::Shape;
use tokio_util::sync::CancellationToken;

use super::{one_on_each, order};
use crate::support::{Client, Load, OwnCluster, ServiceProcess, Shop, shared, until};

async fn to(shop: &Shop, shards: u64) -> Result<Rehomed, RehomeError> {
    rehome(
        &shop.config,
        &shop.config,
        &shop.pool,
        shards,
        &mut |_, _| {},
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_grows_and_shrinks_and_loses_nothing() {
    // Danger: an account is begun anew on a shard that does not have it yet. Method: two instances
    // under a constant load of orders of one and of several products, and of points; 2 shards
    // become 5, then 3. Meanwhile orders are refused, and no outcome is unknown; afterwards every
    // order is there, and the load sells again by itself.
    let own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(2, 24, 1_000_000).await;
    let (one, two) = (shop.serve().await, shop.serve().await);
    let clients = [one.client.clone(), two.client.clone()];
    let load = Load::start_of(&clients, 6, &[(1, 1), (7, 1), (12, 1)]);
    let single = Load::start_of(&clients, 6, &[(3, 1)]);
    load.accept(50).await;
    let stop = CancellationToken::new();
    let earning: Vec<_> = [2, 3]
        .into_iter()
        .map(|user: u64| {
            let (client, stop) = (clients[0].clone(), stop.clone());
            tokio::spawn(async move {
                let gift = json!({ "userId": user, "amount": 10, "description": "a gift" });
                let mut earned = 0;
                while !stop.is_cancelled() {
                    let call = client.post("/api/v2/points/earn").admin().json(&gift);
                    earned += i64::from(call.send().await.status == 201);
                }
                earned
            })
        })
        .collect();
    // One order of every product under a key, made on the current number of shards, and repeated on
    // fewer shards.
    let keyed = async |product: u64| {
        let call = clients[1].order("/api/redis/orders", product + 3, &[(product, 1)]);
        let key = format!("of-product-{product}");
        call.header("idempotency-key", &key).send().await
    };
    let mut before = Vec::new();
    for shards in [5, 3] {
        let done = to(&shop, shards).await.unwrap();
        assert_eq!(done.shards, shards);
        assert!(done.accounts >= 48 && done.pause_ms > 0, "{done:?}");
        load.accept(50).await;
        single.accept(50).await;
        let mut ids = Vec::new();
        for product in 1..=24 {
            let answer = keyed(product).await;
            assert_eq!(answer.status, 201, "{}", answer.text);
            ids.push(answer.order_id());
        }
        assert!(before.is_empty() || before == ids, "it is the same order");
        before = ids;
        shop.verify().await;
        assert_eq!(shop.ledger.shards().len() as u64, shards);
    }
    stop.cancel();
    for (user, earned) in [2, 3].into_iter().zip(earning) {
        let points = Account::points(UserId(user));
        let (earned, levels) = (earned.await.unwrap(), shop.ledger.levels(&[points]).await);
        let balance = levels.unwrap()[&points].balance;
        assert!(earned > 0 && balance >= 10 * earned, "{user}: {balance}");
    }
    let quarantined = shop
        .count("SELECT COUNT(*) FROM quarantined_accounts")
        .await;
    assert_eq!(quarantined, 0);
    let again = to(&shop, 3).await.unwrap();
    assert_eq!((again.shards, again.pause_ms), (3, 0), "it is so already");
    let mut sold = Vec::new();
    for load in [load, single] {
        let history = load.stop().await;
        assert_eq!(history.unknown, 0);
        sold.extend(history.accepted);
    }
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in sold {
        assert!(stored.contains(&id), "{id} was accepted and is not stored");
    }
    // An order of the first shards is cancelled on the shards that have its products now.
    let first = stored.first().unwrap();
    let owner: u64 = sqlx::query_scalar("SELECT user_id FROM orders WHERE id = ?")
        .bind(first)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    let cancel = format!("/api/redis/orders/{first}/cancel");
    for status in [200, 409] {
        let cancelled = one.client.patch(&cancel).user(owner).send().await;
        assert_eq!(cancelled.status, status, "{}", cancelled.text);
    }
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    assert_eq!(each.len(), 3);
    shop.drained().await;
    shop.verify().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_on_one_redis_moves_to_a_cluster() {
    // Method: orders under a key on the one Redis; then the same keys, and new orders, on the
    // cluster. The first Redis keeps nothing.
    let own = OwnCluster::start(Shape::default()).await;
    let one_redis = shared().redis.url("0");
    let shop = Shop::open_divided(one_redis, &own.mysql.spec, 1, 24, 100).await;
    let service = shop.serve().await;
    let keyed = async |client: &Client| {
        let call = client.order("/api/redis/orders", 2, &[(1, 1)]);
        call.header("idempotency-key", "moved").send().await
    };
    let before = keyed(&service.client).await;
    assert_eq!(before.status, 201, "{}", before.text);
    service.stop().await;
    let settling = shop
        .serve_roles(&[stock_online::ServiceRole::Subscriber])
        .await;
    let there = shop.config.clone().with(|config| {
        config.redis.redis_url = own.cluster.url();
    });
    let mut quiet = |_, _| {};
    let done = rehome(&shop.config, &there, &shop.pool, 16, &mut quiet).await;
    assert_eq!(done.unwrap().shards, 16);
    settling.stop().await;
    let keys = cmd("KEYS").arg(shop.ledger.keys().everything()).to_owned();
    let mut redis = redis::Client::open(shop.config.redis.redis_url.as_str())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let left: Vec<String> = keys.query_async(&mut redis).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let shop = Shop::at(there);
    let service = shop.serve().await;
    until("every shard decides", || async {
        let lines: Vec<(u64, i64)> = (1..=24).map(|product| (product, 1)).collect();
        order(&service.client, 3, &lines).await.status == 201
    })
    .await;
    assert_eq!(keyed(&service.client).await.order_id(), before.order_id());
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehome_that_was_cut_off_is_finished_by_the_next() {
    // Danger: accounts stay on shards that nobody asks, or the shop stays closed. Method: a rehome
    // is cut off as soon as each step shows in MySQL, and run again to the same or another number
    // of shards.
    let shop = Shop::open_in(2, 24, 100).await;
    let service = shop.serve().await;
    let steps = [
        ("SELECT COUNT(*) FROM shards WHERE selling = 0", 4, 4),
        (
            "SELECT COUNT(*) FROM shard_map_changes WHERE is_verified",
            5,
            4,
        ),
        ("SELECT COUNT(*) FROM shard_map WHERE shards = 7", 7, 3),
        ("SELECT COUNT(*) - 7 FROM shards", 9, 9),
    ];
    for (seen, aim, target) in steps {
        let (config, pool) = (shop.config.clone(), shop.pool.clone());
        let cut = tokio::spawn(async move {
            let mut quiet = |_, _| {};
            rehome(&config, &config, &pool, aim, &mut quiet)
                .await
                .map(drop)
        });
        until("the step is taken", || async { shop.count(seen).await > 0 }).await;
        cut.abort();
        drop(cut.await);
        until("the cut run has let go", || async {
            !matches!(
                to(&shop, target).await,
                Err(RehomeError::Busy | RehomeError::Recover(_))
            )
        })
        .await;
        let again = to(&shop, target).await.unwrap();
        assert_eq!((again.shards, again.pause_ms), (target, 0));
        until("the shop sells", || async {
            let lines = [(1, 1), (2, 1), (3, 1)];
            order(&service.client, 2, &lines).await.status == 201
        })
        .await;
        shop.drained().await;
        shop.verify().await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_cannot_be_verified_stays_as_it_is_and_sells() {
    // Method: a level in MySQL is changed by hand.
    let shop = Shop::open_in(1, 3, 100).await;
    let service = shop.serve().await;
    assert_eq!(order(&service.client, 2, &[(1, 1)]).await.status, 201);
    shop.drained().await;
    let change =
        "UPDATE accounts SET balance = balance + 1 WHERE kind = 'AVAILABLE' AND owner_id = 2";
    sqlx::query(change).execute(&shop.pool).await.unwrap();
    let refused = to(&shop, 4).await;
    assert!(shard_map::underway(&shop.pool).await.unwrap().is_none());
    assert!(
        matches!(refused, Err(RehomeError::Differences(..))),
        "{refused:?}"
    );
    assert_eq!(shop.ledger.shard_map(), Some(ShardMap::new(1)));
    until("it sells again", || async {
        order(&service.client, 2, &[(1, 1)]).await.status == 201
    })
    .await;
    assert!(matches!(to(&shop, 65).await, Err(RehomeError::Number)));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rebuild_relies_on_is_compared_behind_the_stop() {
    // Danger: a difference that comes between the verification and the stop is built into the new
    // shards. Method: after a verification an order is sold, and its rows and its account are
    // changed by hand, one at a time.
    let shop = Shop::open_in(1, 3, 100).await;
    let service = shop.serve().await;
    shop.drained().await;
    shop.verify().await;
    assert_eq!(order(&service.client, 2, &[(2, 1)]).await.status, 201);
    shop.drained().await;
    service.stop().await;
    for wrong in [
        "UPDATE accounts SET balance = balance + 1 WHERE kind = 'AVAILABLE' AND owner_id = 2",
        "UPDATE orders SET total_amount = total_amount + 1",
        "UPDATE postings SET delta = delta - 1 WHERE owner_id = 2 AND delta = -1",
    ] {
        let changed = sqlx::query(wrong).execute(&shop.pool).await.unwrap();
        assert_eq!(changed.rows_affected(), 1, "{wrong}");
    }
    let mut quiet = |_, _| {};
    let found = verify_before_rebuild(&shop.pool, &shop.ledger, &mut quiet).await;
    let found = found.unwrap();
    let checks: Vec<&str> = found.iter().map(|of| of.check).collect();
    for check in ["journal", "orders", "accounts", "redis"] {
        assert!(checks.contains(&check), "{check} is missing: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_of_the_first_release_on_several_shards_is_moved() {
    // Method: a shop is given the names and the tables that the first release had, with an entry
    // that MySQL has not settled.
    let shop = Shop::open_in(3, 24, 100).await;
    let parts = [stock_online::ServiceRole::Http];
    let service = shop.serve_roles(&parts).await;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let lines: Vec<(u64, i64)> = each.iter().map(|product| (*product, 1)).collect();
    let sold = order(&service.client, 2, &lines[..1]).await;
    assert_eq!(sold.status, 201, "{}", sold.text);
    service.stop().await;
    let mut redis = shop.ledger.shard(0).unwrap().link().unwrap().read;
    for shard in 0..3 {
        let now = Keys::new(&shop.config, shard);
        let then = Keys::of_first_release(&shop.config, shard);
        let keys = cmd("KEYS").arg(now.everything()).to_owned();
        let keys: Vec<String> = keys.query_async(&mut redis).await.unwrap();
        assert!(keys.len() > 5);
        for key in keys {
            let rest = key
                .strip_prefix(now.epoch().strip_suffix("epoch").unwrap())
                .unwrap();
            let named = format!("{}{rest}", then.epoch().strip_suffix("epoch").unwrap());
            if named != key {
                let rename = cmd("RENAME").arg(&key).arg(named).to_owned();
                let _: () = rename.query_async(&mut redis).await.unwrap();
            }
        }
    }
    for text in [
        "DELETE FROM shard_map",
        "INSERT INTO layouts (id, shards) VALUES (1, 3)",
        "INSERT INTO instances (id, seen_at) VALUES ('old', NOW(3))",
    ] {
        sqlx::query(text).execute(&shop.pool).await.unwrap();
    }
    let later = Shop::at(shop.config.clone());
    assert!(!later.ledger.wait_open(Duration::from_secs(1)).await);
    let running = to(&shop, 3).await;
    assert!(
        matches!(running, Err(RehomeError::FirstRelease)),
        "{running:?}"
    );
    sqlx::query("DELETE FROM instances")
        .execute(&shop.pool)
        .await
        .unwrap();
    let plan = recover::recover(&shop.config, &shop.pool, Allowed::FORCED, &mut |_, _| {}).await;
    assert!(plan.unwrap_err().to_string().contains("rehome"));
    assert_eq!(to(&shop, 3).await.unwrap().shards, 3);
    let service = later.serve().await;
    until("every shard sells", || async {
        order(&service.client, 2, &lines).await.status == 201
    })
    .await;
    assert!(later.stored_orders().await.contains(&sold.order_id()));
    let left = cmd("EXISTS")
        .arg(Keys::of_first_release(&shop.config, 1).journal())
        .to_owned();
    assert_eq!(left.query_async::<i64>(&mut redis).await.unwrap(), 0);
    later.drained().await;
    later.verify().await;
    assert_eq!(shards::all(&shop.pool).await.unwrap().len(), 3);
    assert!(shard_map::underway(&shop.pool).await.unwrap().is_none());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_the_cluster_moves_to_another_master_sells_on() {
    // Danger: an order that may have been decided is called a failure, or a moved shard is fenced
    // for ever. Method: the slot of a shard moves between masters, there and back, under load.
    let own = OwnCluster::start(Shape {
        replicas: 0,
        ..Shape::default()
    })
    .await;
    let shop = own.shop(3, 24, 1_000_000).await;
    let service = shop.serve().await;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let load = Load::start_of(std::slice::from_ref(&service.client), 6, &[(each[0], 1)]);
    load.accept(50).await;
    let key = shop.ledger.shard(0).unwrap().keys().epoch();
    let from = own.cluster.master_of(&key).await.unwrap();
    let other = (from + 1) % own.cluster.nodes.len();
    for target in [other, from] {
        own.cluster.move_slot_of(&key, target).await.unwrap();
        assert_eq!(own.cluster.master_of(&key).await, Some(target));
        load.accept(50).await;
    }
    let history = load.stop().await;
    assert_eq!(history.unknown, 0);
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in history.accepted {
        assert!(stored.contains(&id), "{id} was accepted and is not stored");
    }
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_replaced_one_by_one_under_load() {
    // A rolling upgrade: a request that fails meanwhile is settled by asking again, here by the
    // load's next order.
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
        let ended = tokio::time::timeout(Duration::from_secs(10), old.child.wait());
        assert_eq!(ended.await.unwrap().unwrap().code(), Some(0));
        let history = load.stop().await;
        accepted.extend(history.accepted);
    }
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in accepted {
        assert!(stored.contains(&id), "{id} was accepted and is not stored");
    }
    shop.verify().await;
}
