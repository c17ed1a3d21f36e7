//! Several shards on a Redis Cluster: cross-shard orders, keys, kills, failover, and another number
//! of shards.

mod contention;
mod failover;
mod keys;
mod recover;
mod rehome;
mod steps;
mod stop;

use serde_json::json;
use stock_client::{Answer, Client};
use stock_domain::shard_map::ShardMap;
use stock_servers::cluster::Shape;

use crate::support::{OwnCluster, Shop, account};

/// One of the products 1..=`products` on each shard that has any.
pub(crate) fn one_on_each(map: ShardMap, products: u64) -> Vec<u64> {
    (0..map.shards())
        .filter_map(|shard| {
            let lies = |product: &u64| map.of_account(account(*product), None) == Some(shard);
            (1..=products).find(lies)
        })
        .collect()
}

async fn order(client: &Client, user: u64, lines: &[(u64, i64)]) -> Answer {
    client.order("/api/redis/orders", user, lines).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_sells_as_one_redis_does() {
    // Method: lines on every shard, both paths, a cancel, and many buyers who want the last units
    // of two shards and name them in both orders. As many orders as units are accepted, and no
    // refused order takes anything.
    let own = OwnCluster::start(Shape::default()).await;
    let shop = own.shop(4, 24, 20).await;
    let service = shop.serve().await;
    let client = &service.client;
    let each = one_on_each(shop.ledger.shard_map().unwrap(), 24);
    let lines: Vec<(u64, i64)> = each.iter().map(|product| (*product, 2)).collect();
    let first = order(client, 2, &lines).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let second = client.order("/api/orders", 3, &lines).send().await;
    assert_eq!(
        (second.status, &second.body["orderStatus"]),
        (201, &json!("SUCCESS"))
    );
    for product in &each {
        assert_eq!(shop.available(*product).await, 16, "product {product}");
    }
    let cancel = format!("/api/redis/orders/{}/cancel", first.order_id());
    assert_eq!(client.patch(&cancel).user(2).send().await.status, 200);
    assert_eq!(client.patch(&cancel).user(2).send().await.status, 409);
    for product in &each {
        assert_eq!(shop.available(*product).await, 18, "product {product}");
    }
    let too_much = order(client, 2, &[(each[0], 1), (each[3], 19)]).await;
    assert_eq!(
        (
            too_much.status,
            too_much.code(),
            &too_much.body["productId"]
        ),
        (409, "INSUFFICIENT_STOCK", &json!(each[3]))
    );

    let wanted: Vec<_> = (0..40)
        .map(|number: u64| {
            let client = client.clone();
            let mut lines = vec![(each[1], 1), (each[2], 1)];
            if number % 2 == 1 {
                lines.reverse();
            }
            tokio::spawn(async move { order(&client, 2 + number % 2, &lines).await })
        })
        .collect();
    let mut accepted = 0;
    for answer in wanted {
        let answer = answer.await.unwrap();
        assert!(
            answer.status == 201 || answer.code() == "INSUFFICIENT_STOCK",
            "{}",
            answer.text
        );
        accepted += i64::from(answer.status == 201);
    }
    assert_eq!(accepted, 18, "as many as there were");
    for product in [each[1], each[2]] {
        assert_eq!(shop.available(product).await, 0);
    }
    shop.drained().await;
    let report = shop.verify().await;
    assert_eq!(report.lag_entries, 0);
    let shards = shop
        .count("SELECT COUNT(DISTINCT shard) FROM journal")
        .await;
    assert_eq!(shards, 4, "each shard has a journal of its own");

    // The commands that an operator runs.
    let doctor = command(&shop, &["doctor"]).await;
    assert!(
        doctor.contains("FAIL redis min-replicas-to-write: 0"),
        "{doctor}"
    );
    assert!(
        doctor.contains("ok   shards: 4 in the database, 4 in the settings"),
        "{doctor}"
    );
    let moved = command(&shop, &["rehome", "--shards", "5"]).await;
    assert!(moved.starts_with("5 shards: "), "{moved}");
    let rebuilt = command(&shop, &["recover", "--shard", "2", "--force"]).await;
    assert!(
        rebuilt.contains("shard 2: its redis serves") && rebuilt.contains("recovered: "),
        "{rebuilt}"
    );
    let proved = command(&shop, &["verify", "--full"]).await;
    assert!(proved.starts_with("nothing is missing"), "{proved}");
    service.stop().await;
}

/// The output of a command on a shop.
async fn command(shop: &Shop, arguments: &[&str]) -> String {
    let out = tokio::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .args(arguments)
        .envs(shop.variables())
        .output()
        .await
        .unwrap();
    let (said, complaint) = (out.stdout, out.stderr);
    String::from_utf8(said).unwrap() + &String::from_utf8(complaint).unwrap()
}
