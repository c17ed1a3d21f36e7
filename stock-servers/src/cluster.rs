//! A private Redis Cluster: masters and replicas on 127.0.0.1, made by `redis-cli --cluster`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::{Client, ErrorKind, RedisError, cmd};
use stock_common::config::Durability;
use tokio::process::Command;

use super::{PAUSE, START_TIMEOUT, Server, ServerError, Spec, at, find, free_port};

/// Silence of a node after which the others promote its replica.
const NODE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The shape of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Number of masters, at least 3.
    pub masters: usize,
    /// Number of replicas of each master.
    pub replicas: usize,
    /// The `appendfsync` of each node.
    pub durability: Durability,
    /// `min-replicas-to-write`; with 0 a master that has lost its replicas still writes.
    pub replicas_to_write: u8,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            masters: 3,
            replicas: 1,
            durability: Durability::Everysec,
            replicas_to_write: 0,
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct RedisCluster {
    /// The nodes, in no order of their roles: after a failover a replica is a master.
    pub nodes: Vec<Server>,
}

impl RedisCluster {
    /// The specs of the nodes. Each node keeps its data in a folder of its own.
    ///
    /// # Errors
    /// [`ServerError`] when Redis is not installed.
    pub fn specs(folder: &Path, shape: Shape) -> Result<Vec<Spec>, ServerError> {
        let count = shape.masters * (1 + shape.replicas);
        let spec = |number: usize| {
            let bus = free_port().map_err(at(folder))?.to_string();
            let timeout = NODE_TIMEOUT.as_millis().to_string();
            let spec = Spec::redis(&folder.join(format!("node-{number}")), shape.durability)?;
            Ok(spec.with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                &timeout,
                "--cluster-require-full-coverage",
                "no",
                "--repl-diskless-sync-delay",
                "0",
                "--min-replicas-to-write",
                &shape.replicas_to_write.to_string(),
                "--min-replicas-max-lag",
                "2",
            ]))
        };
        (0..count).map(spec).collect()
    }

    /// Makes one cluster of nodes that were started and are empty.
    ///
    /// # Errors
    /// [`ServerError`] when the cluster is not whole in time.
    pub async fn of(nodes: Vec<Server>, replicas: usize) -> Result<Self, ServerError> {
        let program = find(&["redis-cli", "valkey-cli"])
            .ok_or(ServerError::Missing("redis-cli, valkey-cli", "redis-tools"))?;
        let addresses = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.spec.port));
        let made = Command::new(&program)
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(at(&program))?;
        let cluster = Self { nodes };
        if !made.status.success() {
            tracing::error!(out = %String::from_utf8_lossy(&made.stdout), "no cluster was made");
            return Err(cluster.not_ready());
        }
        let started = Instant::now();
        while !cluster.is_whole(replicas).await {
            if started.elapsed() > START_TIMEOUT {
                return Err(cluster.not_ready());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(cluster)
    }

    fn not_ready(&self) -> ServerError {
        let log = self.nodes.first().map(|node| node.spec.log());
        ServerError::NotReady {
            name: "redis cluster",
            log: log.unwrap_or_default(),
        }
    }

    /// Whether every node knows who serves every slot, and every replica has the last writes of its
    /// master.
    pub async fn is_whole(&self, replicas: usize) -> bool {
        for node in &self.nodes {
            let Ok((info, replication)) = node_info(node).await else {
                return false;
            };
            let is_master = replication.contains("role:master");
            let follows = replication.contains("master_link_status:up");
            let is_followed = replication.contains(&format!("connected_slaves:{replicas}"));
            if !info.contains("cluster_state:ok") || !(follows || is_master && is_followed) {
                return false;
            }
            if is_master && !reaches(node, replicas).await.unwrap_or(false) {
                return false;
            }
        }
        true
    }

    /// The URL of the cluster.
    #[must_use]
    pub fn url(&self) -> String {
        let mut addresses = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.spec.port));
        let first = addresses.next().unwrap_or_default();
        let others: Vec<String> = addresses.map(|other| format!("node={other}")).collect();
        format!("redis-cluster://{first}?{}", others.join("&"))
    }

    /// The index of the node that is the master of a key now; `None` while there is none.
    pub async fn master_of(&self, key: &str) -> Option<usize> {
        for (index, node) in self.nodes.iter().enumerate() {
            let Ok(client) = Client::open(node.spec.url("0")) else {
                continue;
            };
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                continue;
            };
            // A replica, and the master of another slot, answer MOVED.
            let found: Result<i64, RedisError> =
                cmd("EXISTS").arg(key).query_async(&mut connection).await;
            if found.is_ok() {
                return Some(index);
            }
        }
        None
    }
}

impl RedisCluster {
    /// Moves the slot of a key with all its keys to another master, as `redis-cli --cluster
    /// reshard` does.
    ///
    /// # Errors
    /// When a node does not answer, or refuses.
    pub async fn move_slot_of(&self, key: &str, target: usize) -> Result<(), RedisError> {
        const MOVED_MAX_MS: u64 = 10_000;
        let mut links = Vec::new();
        for node in &self.nodes {
            let client = Client::open(node.spec.url("0"))?;
            links.push(client.get_multiplexed_async_connection().await?);
        }
        let source = self.master_of(key).await.unwrap_or(target);
        let node = |number: usize| {
            let pair = links.get(number).cloned().zip(self.nodes.get(number));
            pair.ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "no such node")))
        };
        let ((mut from, _), (mut to, to_node)) = (node(source)?, node(target)?);
        let cluster = |name: &str| cmd("CLUSTER").arg(name).to_owned();
        let slot: u64 = cluster("KEYSLOT").arg(key).query_async(&mut from).await?;
        let from_id: String = cluster("MYID").query_async(&mut from).await?;
        let to_id: String = cluster("MYID").query_async(&mut to).await?;
        let set = |what: &str, id: &str| cluster("SETSLOT").arg(slot).arg(what).arg(id).to_owned();
        let _: () = set("IMPORTING", &from_id).query_async(&mut to).await?;
        let _: () = set("MIGRATING", &to_id).query_async(&mut from).await?;
        loop {
            let mut ask = cluster("GETKEYSINSLOT");
            let keys: Vec<String> = ask.arg(slot).arg(100).query_async(&mut from).await?;
            if keys.is_empty() {
                break;
            }
            let mut migrate = cmd("MIGRATE");
            migrate
                .arg("127.0.0.1")
                .arg(to_node.spec.port)
                .arg("")
                .arg(0);
            migrate.arg(MOVED_MAX_MS).arg("KEYS").arg(keys);
            let _: String = migrate.query_async(&mut from).await?;
        }
        // The new master is told first, so that no other node can claim the slot.
        let others = links.iter().enumerate();
        let others = others.filter(|(number, _)| *number != target);
        let links = [to].into_iter().chain(others.map(|(_, link)| link.clone()));
        for mut link in links {
            // A replica may refuse: it learns the owner of the slot from its master.
            let told: Result<(), RedisError> = set("NODE", &to_id).query_async(&mut link).await;
            drop(told);
        }
        Ok(())
    }
}

/// Whether the writes of a master reach its replicas now. After the first copy a master may send
/// nothing for a second, though both say that the link is up. A replica that was promoted then
/// would be empty.
async fn reaches(master: &Server, replicas: usize) -> Result<bool, RedisError> {
    const WAIT: Duration = Duration::from_millis(300);
    let client = Client::open(master.spec.url("0"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    // The first key that the master accepts is used: each of three masters has a third of all keys.
    for number in 0..1_000 {
        let key = format!("reaches:{number}");
        let set = cmd("SET").arg(&key).arg("").to_owned();
        let told: Result<(), RedisError> = set.query_async(&mut connection).await;
        if told.is_err() {
            continue;
        }
        let wait = u64::try_from(WAIT.as_millis()).unwrap_or_default();
        let reached: usize = cmd("WAIT")
            .arg(replicas)
            .arg(wait)
            .query_async(&mut connection)
            .await?;
        let _removed: i64 = cmd("DEL").arg(&key).query_async(&mut connection).await?;
        return Ok(reached >= replicas);
    }
    Ok(false)
}

async fn node_info(node: &Server) -> Result<(String, String), RedisError> {
    let client = Client::open(node.spec.url("0"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let info = cmd("CLUSTER")
        .arg("INFO")
        .query_async(&mut connection)
        .await?;
    let replication = cmd("INFO")
        .arg("replication")
        .query_async(&mut connection)
        .await?;
    Ok((info, replication))
}
