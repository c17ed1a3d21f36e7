//! A master is lost, and its replica lacks the last writes.

use std::collections::HashMap;

use redis::{RedisResult, cmd};
use rustix::process::Signal;
use stock_engine::verify::verify;
use stock_redis::FenceState;
use stock_servers::Server;
use stock_servers::cluster::{RedisCluster, Shape};

use super::{one_on_each, order};
use crate::support::{Load, OwnCluster, PATIENCE, ServiceProcess, Shop, folder, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_promoted_replica_lacks_is_listed_and_the_shard_sells_on() {
    // Danger: the lost end of a journal stops a shard for everybody, or is forgotten. Method: the
    // replication of a master is held up by SIGSTOP, two instances accept orders that only the
    // master knows, the master is killed, and the replica goes on and is promoted.
    let mut own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(3, 24, 10).await;
    let (one, two) = (shop.serve().await, shop.serve().await);
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let shard = shop.ledger.shard(0).unwrap();
    let key = shard.keys().epoch();
    let master = own.cluster.master_of(&key).await.unwrap();
    let replica = replica_of(&own, master).await;
    assert_eq!(order(&one.client, 2, &[(each[0], 1)]).await.status, 201);
    shop.drained().await;

    cut_off(&own, master, replica).await;
    // MySQL must not have more than the promoted replica, so nobody may settle meanwhile.
    let mut holding = shop.pool.begin().await.unwrap();
    let hold = "SELECT watermark FROM shards WHERE shard = 0 FOR UPDATE";
    sqlx::query(hold).execute(&mut *holding).await.unwrap();
    let mut lost = Vec::new();
    for number in 0..4 {
        let client = if number % 2 == 0 {
            &one.client
        } else {
            &two.client
        };
        let sold = order(client, 2, &[(each[0], 1)]).await;
        assert_eq!(sold.status, 201, "{}", sold.text);
        lost.push(sold.order_id());
    }
    own.cluster.nodes[master].kill().await;
    holding.rollback().await.unwrap();
    own.cluster.nodes[replica].signal(Signal::CONT);
    until("what was lost is listed", || async {
        shop.count("SELECT COUNT(*) FROM lost_entries").await == 4
    })
    .await;
    let listed: Vec<u64> = sqlx::query_scalar("SELECT journal_id FROM lost_entries ORDER BY 1")
        .fetch_all(&shop.pool)
        .await
        .unwrap();
    assert_eq!(listed.iter().map(u64::to_string).collect::<Vec<_>>(), lost);
    // Nine units are left: the replica has one order, and the lost orders took nothing there.
    for client in [&one.client, &two.client] {
        until("the shard sells again", || async {
            order(client, 3, &[(each[0], 4)]).await.status == 201
        })
        .await;
    }
    let epochs = "SELECT COUNT(*) FROM journal WHERE kind = 'epoch_begun' AND shard = 0";
    assert_eq!(shop.count(epochs).await, 1, "nothing was rebuilt");
    let more = order(&one.client, 3, &[(each[1], 1), (each[2], 1)]).await;
    assert_eq!(more.status, 201, "{}", more.text);
    shop.drained().await;
    let report = verify(&shop.pool, &shop.ledger, true, &mut |_, _| {}).await;
    let found = report.unwrap().differences;
    assert!(
        found.iter().all(|of| of.check == "lost_entries"),
        "{found:?}"
    );
    assert_eq!(found.len(), 4);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_shop_sells_nothing_that_no_replica_has() {
    // Method: the replica of a shard sleeps while it is connected, then its link is cut; the other
    // shards sell on.
    let own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(3, 24, 100).await;
    let variables = vec![("STOCK_REPLICA_POLICY", "strict".to_owned())];
    let service = ServiceProcess::start_with(&shop, variables).await;
    let client = &service.client;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    for product in &each {
        assert_eq!(order(client, 2, &[(*product, 1)]).await.status, 201);
    }
    let key = shop.ledger.shard(0).unwrap().keys().epoch();
    let master = own.cluster.master_of(&key).await.unwrap();
    let replica = replica_of(&own, master).await;
    own.cluster.nodes[replica].signal(Signal::STOP);
    let unknown = order(client, 2, &[(each[0], 1)]).await;
    assert_eq!((unknown.status, unknown.code()), (503, "OUTCOME_UNKNOWN"));
    cut_off(&own, master, replica).await;
    until("nothing more is sent to it", || async {
        order(client, 2, &[(each[0], 1)]).await.code() == "UNSAFE_REDIS"
    })
    .await;
    assert_eq!(order(client, 2, &[(each[1], 1)]).await.status, 201);
    own.cluster.nodes[replica].signal(Signal::CONT);
    until("it sells again", || async {
        order(client, 2, &[(each[0], 1)]).await.status == 201
    })
    .await;
    shop.drained().await;
    shop.verify().await;
    drop(service);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_slept_through_a_failover_lists_what_only_they_knew() {
    // Danger: others do not wait for a sleeping instance and use the numbers of its entries again;
    // MySQL settles those, and the sleeper takes them for its own. Method: the sleeper alone sells
    // orders that only the lost master knows.
    let mut own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(3, 24, 10).await;
    let sleeper = {
        let log = std::process::Stdio::inherit();
        ServiceProcess::spawn(&shop, Vec::new(), "http", log).await
    };
    let awake = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let key = shop.ledger.shard(0).unwrap().keys().epoch();
    let master = own.cluster.master_of(&key).await.unwrap();
    let replica = replica_of(&own, master).await;
    cut_off(&own, master, replica).await;
    let mut lost = Vec::new();
    for _ in 0..3 {
        let sold = order(&sleeper.client, 2, &[(each[0], 1)]).await;
        assert_eq!(sold.status, 201, "{}", sold.text);
        lost.push(sold.order_id());
    }
    sleeper.signal(Signal::STOP);
    own.cluster.nodes[master].kill().await;
    own.cluster.nodes[replica].signal(Signal::CONT);
    until("the shard sells again", || async {
        order(&awake.client, 3, &[(each[0], 7)]).await.status == 201
    })
    .await;
    let apply = shop.serve().await;
    for _ in 0..3 {
        let other = order(&awake.client, 3, &[(each[0], 1)]).await;
        assert_eq!(other.status, 201, "{}", other.text);
    }
    shop.drained().await;
    sleeper.signal(Signal::CONT);
    until("what it knew is listed", || async {
        shop.count("SELECT COUNT(*) FROM lost_entries").await == 3
    })
    .await;
    let listed: Vec<u64> = sqlx::query_scalar("SELECT journal_id FROM lost_entries ORDER BY 1")
        .fetch_all(&shop.pool)
        .await
        .unwrap();
    let listed: Vec<String> = listed.iter().map(u64::to_string).collect();
    assert_eq!(listed, lost);
    until("it sells again", || async {
        order(&sleeper.client, 2, &[(each[0], 1)]).await.code() == "INSUFFICIENT_STOCK"
    })
    .await;
    for service in [awake, apply] {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_killed_under_load_costs_no_order() {
    // Method: a load over all shards, one master killed, its replica promoted; the others sell on
    // meanwhile.
    let mut own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(3, 24, 1_000_000).await;
    let (one, two) = (shop.serve().await, shop.serve().await);
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let clients = [one.client.clone(), two.client.clone()];
    let loads: Vec<Load> = each
        .iter()
        .map(|product| Load::start_of(&clients, 4, &[(*product, 1)]))
        .collect();
    for load in &loads {
        load.accept(100).await;
    }
    let key = shop.ledger.shard(0).unwrap().keys().epoch();
    let master = own.cluster.master_of(&key).await.unwrap();
    own.cluster.nodes[master].kill().await;
    for load in &loads {
        load.accept(100).await;
    }
    let mut accepted = Vec::new();
    let mut unknown = 0;
    for load in loads {
        let history = load.stop().await;
        accepted.extend(history.accepted);
        unknown += history.unknown;
    }
    until("every fence is open again", || async {
        shop.ledger.wait_open(PATIENCE).await
            && shop
                .ledger
                .shards()
                .iter()
                .all(|shard| matches!(shard.fence_state(), FenceState::Open(_)))
    })
    .await;
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in &accepted {
        assert!(stored.contains(id), "{id} was accepted and is not stored");
    }
    assert!(stored.len() as u64 <= accepted.len() as u64 + unknown);
    shop.verify().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_another_cluster_was_given_leads_nobody_away() {
    // Danger: where pods come and go within seconds, another cluster gets a lost node's address,
    // and an instance that first asks there is led to that cluster. Method: another cluster is made
    // on the first node's port, with a shop of the same prefix.
    let mut own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(2, 24, 1_000).await;
    let one = shop.serve().await;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    // The node has no shard. Its replica will follow the new owner of the address, and nothing is
    // lost by that.
    for shard in shop.ledger.shards() {
        let master = own.cluster.master_of(&shard.keys().epoch()).await;
        assert_ne!(master, Some(0));
    }
    own.cluster.nodes[0].kill().await;
    let mut other = other_cluster(own.cluster.nodes[0].spec.port).await;
    own.mysql.create_database("others").await.unwrap();
    let others = Shop::begin(shop.config.clone().with(|config| {
        config.redis.redis_url = other.url();
        config.mysql.database_url = own.mysql.spec.url("others");
    }));
    let others = others.await;
    let before = heads(&others).await.unwrap();
    let two = shop.serve().await;
    // The nodes that the first node names now do not answer.
    for node in &mut other.nodes[1..] {
        node.kill().await;
    }
    let three = shop.serve().await;
    for client in [&one.client, &two.client, &three.client] {
        for product in &each {
            until("every shard sells", || async {
                order(client, 2, &[(*product, 1)]).await.status == 201
            })
            .await;
        }
    }
    shop.drained().await;
    shop.verify().await;
    for service in [one, two, three] {
        service.stop().await;
    }
    // A rebuild is not led away either: it would clear the data of the other shop.
    for node in &mut other.nodes[1..] {
        node.restart().await.unwrap();
    }
    shop.rebuild().await;
    until("the other shop is as it was", || async {
        heads(&others).await.is_ok_and(|now| now == before)
    })
    .await;
    assert!(others.ledger.wait_open(PATIENCE).await);
    shop.verify().await;
}

/// A cluster of three masters, the first on this port.
async fn other_cluster(port: u16) -> RedisCluster {
    let shape = Shape {
        replicas: 0,
        ..Shape::default()
    };
    let mut specs = RedisCluster::specs(&folder("other"), shape).unwrap();
    specs[0].port = port;
    specs[0] = specs[0].clone().with(&["--port", &port.to_string()]);
    let mut nodes = Vec::new();
    for spec in specs {
        nodes.push(start(&spec).await);
    }
    RedisCluster::of(nodes, shape.replicas).await.unwrap()
}

/// The head of each of a shop's shards whose link is open.
async fn heads(shop: &Shop) -> RedisResult<Vec<HashMap<String, String>>> {
    let mut heads = Vec::new();
    for shard in shop.ledger.shards() {
        let Ok(mut link) = shard.link() else {
            continue;
        };
        let head = cmd("HGETALL").arg(shard.keys().epoch()).to_owned();
        heads.push(head.query_async(&mut link.read).await?);
    }
    Ok(heads)
}

/// The index of the node that replicates another one.
async fn replica_of(own: &OwnCluster, master: usize) -> usize {
    let port = own.cluster.nodes[master].spec.port;
    for index in 0..own.cluster.nodes.len() {
        let info: String = cmd("INFO")
            .arg("replication")
            .query_async(&mut connect(&own.cluster.nodes[index]).await)
            .await
            .unwrap();
        if info.contains(&format!("master_port:{port}")) {
            return index;
        }
    }
    panic!("nobody follows it")
}

async fn connect(node: &Server) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(node.spec.url("0")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Stops a replica and closes its link. Data under way to it stays there, and from now on only the
/// master has new writes.
async fn cut_off(own: &OwnCluster, master: usize, replica: usize) {
    own.cluster.nodes[replica].signal(Signal::STOP);
    let closed: i64 = cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("replica")
        .query_async(&mut connect(&own.cluster.nodes[master]).await)
        .await
        .unwrap();
    assert_eq!(closed, 1);
}
