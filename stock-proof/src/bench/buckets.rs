//! One hot product on a Redis Cluster: in one share, two and three, and what the busiest master pays for an order.
//!
//! Masters, engine and load share this machine's cores, so the rate says little about several masters; how busy the
//! busiest one is per order says where it ends, for it is one thread.

use redis::cmd;
use stock_common::id::{LocationId, ProductId, UserId};
use stock_domain::account::Account;
use stock_domain::bucket::divide;
use stock_domain::database::{self, Role};
use stock_domain::layout::{Layout, Place};
use stock_online::servers::Server;
use stock_online::servers::cluster::{RedisCluster, Shape};

use super::Run;
use super::engine::{one_unit, through_ledger};
use crate::Failure;
use crate::shop::{Folder, Seed, Shop};

/// Shards, of which 0, 1 and 3 are on different masters of three.
const SHARDS: u64 = 4;
/// The shard of the product, from which the next two shares are on the two other masters.
const HOME: u64 = 3;
/// Shares that are compared.
const SHARES: [usize; 3] = [1, 2, 3];
/// Buyers, who say which share is asked first.
const BUYERS: u64 = 10_000;

/// Measures all of them, on a cluster of its own.
///
/// # Errors
/// When a server does not answer or an order is not accepted.
pub async fn run(run: &mut Run<'_>) -> Result<(), Failure> {
    let folder = Folder::new("buckets")?;
    let shape = Shape {
        replicas: 0,
        durability: run.durability,
        ..Shape::default()
    };
    let mut nodes = Vec::new();
    for spec in RedisCluster::specs(folder.path(), shape)? {
        nodes.push(spec.start().await?);
    }
    let cluster = RedisCluster::of(nodes, shape.replicas).await?;
    let mysql = &run.servers.mysql;
    mysql.create_database("buckets").await?;
    let shop = Shop::at(&cluster.url(), &mysql.spec.url("buckets"), "buckets");
    let shop = shop
        .with("STOCK_SHARDS", SHARDS)
        .with("STOCK_DURABILITY", run.durability.as_str());
    shop.command(&["migrate"]).await?;
    let product = product_on(&Layout::new(SHARDS), HOME);
    let seed = Seed {
        products: product.0,
        stock: 1_000_000_000,
    };
    shop.stock(seed).await?;
    let ledger = shop.ledger(run.durability).await?;
    let mut config = shop.config(run.durability);
    config.shards = SHARDS;
    let pool = database::pool(&config, Role::Tool)?;
    let base = one_unit(2, product.0)?;
    let mut undivided = None;
    for shares in SHARES {
        divide(&config, (&pool, &ledger), product, shares).await?;
        let before = busy(&cluster.nodes).await?;
        let request = base.clone();
        let rate = through_ledger(&ledger, run.options.seconds, move |count| {
            let mut request = request.clone();
            request.draft.actor = UserId(2 + count % BUYERS);
            request
        });
        let rate = rate.await?;
        let after = busy(&cluster.nodes).await?;
        let spent = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before);
        let busiest = spent.fold(0.0, f64::max);
        // A second before the measured ones makes orders too.
        let orders = rate * f64::from(run.options.seconds + 1);
        let one_core = orders / busiest;
        let first = *undivided.get_or_insert(one_core);
        let what = format!("one hot product in {shares} of 3 masters: together");
        run.note(&what, rate, None, "");
        let what = format!("one hot product in {shares} of 3 masters: with the busiest at 100 %");
        run.note(&what, one_core, Some(("one master", one_core / first)), "");
    }
    Ok(())
}

/// The first product that is on a shard.
fn product_on(layout: &Layout, shard: u64) -> ProductId {
    let is_there = |id: &u64| {
        let account = Account::available(ProductId(*id), LocationId::ONLINE);
        layout.of_account(account, None) == Some(Place::Shard(shard))
    };
    ProductId((1..).find(is_there).unwrap_or_default())
}

/// Seconds for which the one thread that decides was busy, of each server.
async fn busy(nodes: &[Server]) -> Result<Vec<f64>, Failure> {
    let mut all = Vec::with_capacity(nodes.len());
    for node in nodes {
        let client = redis::Client::open(node.spec.url("0"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let info: String = cmd("INFO").arg("cpu").query_async(&mut connection).await?;
        let seconds = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|text| text.trim().parse::<f64>().ok())
        };
        let user = seconds("used_cpu_user_main_thread:").or_else(|| seconds("used_cpu_user:"));
        let system = seconds("used_cpu_sys_main_thread:").or_else(|| seconds("used_cpu_sys:"));
        all.push(user.unwrap_or_default() + system.unwrap_or_default());
    }
    Ok(all)
}
