//! A master of a Redis Cluster is lost while its replica is connected, behind or absent (F35).

use std::time::{Duration, Instant};

use redis::{Client as Redis, cmd};
use rustix::process::Signal;
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::id::ProductId;
use stock_engine::ledger;
use stock_engine::verify::verify;
use stock_mysql::Role;
use stock_redis::Ledger;
use stock_servers::cluster::{RedisCluster, Shape};
use stock_servers::{Server, Spec};

use super::buyers::{Buyers, Habits, settle};
use super::checker::{Allowed, check_told};
use super::history::{History, Told};
use super::world::{ROLES, STOCK};
use super::{Outcome, Plan};
use crate::Failure;
use crate::shop::{Folder, Seed, Service, Shop, until};

/// Enough products that each shard has some.
const PRODUCTS: u64 = 24;
const SHARDS: u64 = 6;
/// A shard must sell again within this time after the promotion.
const SELLS_WITHIN: Duration = Duration::from_secs(5);

/// How long a master is away that no replica replaces.
const AWAY: Duration = Duration::from_secs(2);

/// The state of the lost master's replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replica {
    /// It has what the master has.
    Connected,
    /// It sleeps, its link is cut, and it is promoted without the last entries.
    Behind,
    /// It is dead, so nobody is promoted: the shard waits for its master.
    Absent,
}

/// A shop on a cluster. Servers end in the order of the fields.
struct World {
    service: Service,
    pool: MySqlPool,
    ledger: Ledger,
    cluster: RedisCluster,
    _mysql: Server,
    _folder: Folder,
}

impl World {
    async fn open() -> Result<Self, Failure> {
        let folder = Folder::new("failover")?;
        let shape = Shape::default();
        let mut nodes = Vec::new();
        for spec in RedisCluster::specs(folder.path(), shape)? {
            nodes.push(spec.start().await?);
        }
        let mysql = Spec::mysql(&folder.path().join("mysql")).await?;
        let (cluster, mysql) = tokio::join!(RedisCluster::of(nodes, shape.replicas), mysql.start());
        let (cluster, mysql) = (cluster?, mysql?);
        mysql.create_database("failover").await?;
        let shop = Shop::at(&cluster.url(), &mysql.spec.url("failover"), "failover")
            .with("STOCK_SHARDS", SHARDS)
            .with("STOCK_DURABILITY", shape.durability.as_str())
            .logging_to(&folder.path().join("service.log"));
        shop.command(&["migrate"]).await?;
        let seed = Seed {
            products: PRODUCTS,
            stock: STOCK,
        };
        shop.stock(seed).await?;
        let service = shop.serve(ROLES).await?;
        let config = shop.config(shape.durability);
        let pool = stock_mysql::pool(&config, Role::Tool)?;
        let ledger = ledger::start(&config, pool.clone(), Clock::system())?;
        Ok(Self {
            service,
            pool,
            ledger,
            cluster,
            _mysql: mysql,
            _folder: folder,
        })
    }

    fn node(&mut self, number: usize) -> Result<&mut Server, Failure> {
        let node = self.cluster.nodes.get_mut(number);
        node.ok_or_else(|| "no such node".into())
    }

    /// The node that replicates another.
    async fn replica_of(&self, master: usize) -> Result<usize, Failure> {
        let port = self.cluster.nodes.get(master).map(|node| node.spec.port);
        let wanted = format!("master_port:{}", port.unwrap_or_default());
        for (number, node) in self.cluster.nodes.iter().enumerate() {
            let mut link = Redis::open(node.spec.url("0"))?
                .get_multiplexed_async_connection()
                .await?;
            let mut info = cmd("INFO");
            let text: String = info.arg("replication").query_async(&mut link).await?;
            if text.contains(&wanted) {
                return Ok(number);
            }
        }
        Err("nobody follows the master".into())
    }

    /// Brings the replica of a master into a state.
    async fn weaken(
        &mut self,
        replica: Replica,
        master: usize,
        follower: usize,
    ) -> Result<(), Failure> {
        match replica {
            Replica::Connected => {}
            Replica::Behind => {
                self.node(follower)?.signal(Signal::STOP);
                let url = self.node(master)?.spec.url("0");
                let mut link = Redis::open(url)?.get_multiplexed_async_connection().await?;
                let mut kill = cmd("CLIENT");
                kill.arg("KILL").arg("TYPE").arg("replica");
                let _closed: i64 = kill.query_async(&mut link).await?;
            }
            Replica::Absent => self.node(follower)?.kill().await,
        }
        Ok(())
    }

    /// Waits until the shard of a key has a master again: the replica, or the old master after a
    /// restart.
    async fn replace(
        &mut self,
        replica: Replica,
        key: &str,
        master: usize,
        follower: usize,
    ) -> Result<(), Failure> {
        if replica == Replica::Absent {
            tokio::time::sleep(AWAY).await;
            self.node(master)?.restart().await?;
            self.node(follower)?.restart().await?;
            return Ok(());
        }
        self.node(follower)?.signal(Signal::CONT);
        until("another master", || async {
            let now = self.cluster.master_of(key).await;
            now.is_some_and(|now| now != master)
        })
        .await
    }

    /// Waits until everything is settled, and returns the complaints.
    async fn check(&self, history: &mut History, allowed: Allowed) -> Result<Vec<String>, Failure> {
        let client = &self.service.client;
        for asked in &mut history.orders {
            if let (Told::Unknown, Some(key)) = (&asked.told, &asked.key) {
                asked.told = settle(client, asked, key).await?;
            }
        }
        until("everything is settled", || async {
            let mut quiet = |_, _| {};
            let found = verify(&self.pool, &self.ledger, true, &mut quiet)
                .await
                .ok();
            found.is_some_and(|found| found.lag_entries == 0)
        })
        .await?;
        let mut quiet = |_, _| {};
        let report = verify(&self.pool, &self.ledger, true, &mut quiet).await?;
        let mut complaints = check_told(&self.pool, history, allowed).await?;
        // If a cross-shard order lost one of its branches, `verify` names the others; those are no
        // complaints.
        let lost: Vec<u64> = sqlx::query_scalar("SELECT journal_id FROM lost_entries")
            .fetch_all(&self.pool)
            .await?;
        let lost: Vec<String> = lost.iter().map(u64::to_string).collect();
        let is_of_lost = |text: &str| lost.iter().any(|id| text.contains(id.as_str()));
        let mut differences = report.differences;
        differences.retain(|found| {
            !allowed.lost || !is_of_lost(&found.subject) && !is_of_lost(&found.detail)
        });
        complaints.extend(differences.iter().map(|found| {
            format!(
                "verify: {} {}: {}",
                found.check, found.subject, found.detail
            )
        }));
        Ok(complaints)
    }
}

/// F35: a master is lost while its replica is connected, behind and absent.
///
/// Connected or absent, no accepted order is lost. Behind, each lost order is listed. The shard
/// sells within 5 s of a promotion.
pub async fn f35_a_lost_master_loses_no_replicated_order(plan: &Plan) -> Result<Outcome, Failure> {
    let mut notes = Vec::new();
    for replica in [Replica::Connected, Replica::Behind, Replica::Absent] {
        let note = lose_master(plan, replica).await;
        notes.push(note.map_err(|error| format!("{replica:?}: {error}"))?);
    }
    Ok(Outcome::PassedWith(notes.join("; ")))
}

async fn lose_master(plan: &Plan, replica: Replica) -> Result<String, Failure> {
    let mut world = World::open().await?;
    until("redis is verified", || async {
        world.ledger.wait_open(SELLS_WITHIN).await
    })
    .await?;
    let map = world.ledger.shard_map().ok_or("no shard map")?;
    let key = world.ledger.shard(0)?.keys().epoch();
    let victims = (1..=PRODUCTS).filter(|id| map.of_product(ProductId(*id)) == 0);
    let victims: Vec<u64> = victims.collect();
    let client = std::slice::from_ref(&world.service.client);
    let habits = Habits {
        row_locked: 0.0,
        ..Habits::ALL
    };
    let buyers = Buyers::start(client, 8, victims.iter().copied(), habits, plan.seed);
    let sells = async |many: usize| {
        let before = buyers.accepted();
        let what = format!("{many} orders of the shard");
        until(&what, || async { buyers.accepted() >= before + many }).await
    };
    sells(100).await?;
    let master = world.cluster.master_of(&key).await.ok_or("no master")?;
    let follower = world.replica_of(master).await?;
    world.weaken(replica, master, follower).await?;
    if replica != Replica::Connected {
        sells(20).await?;
    }
    world.node(master)?.kill().await;
    let began = Instant::now();
    world.replace(replica, &key, master, follower).await?;
    let promoted = began.elapsed();
    sells(20).await?;
    let away = began.elapsed().saturating_sub(promoted);
    if replica != Replica::Absent {
        world.node(master)?.restart().await?;
    }
    let mut history = buyers.stop().await?;
    let allowed = Allowed {
        lost: replica == Replica::Behind,
        ..Allowed::default()
    };
    let complaints = world.check(&mut history, allowed).await?;
    let lost: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM lost_entries")
        .fetch_one(&world.pool)
        .await?;
    let report = format!(
        "{replica:?}: another master after {} ms, 20 orders {} ms later, {lost} entries lost and listed, {} orders",
        promoted.as_millis(),
        away.as_millis(),
        history.accepted(),
    );
    let is_listed = (lost > 0) == (replica == Replica::Behind);
    if away > SELLS_WITHIN || !is_listed || !complaints.is_empty() {
        return Err(format!("{report} {complaints:?}").into());
    }
    world.service.stop().await?;
    Ok(report)
}
