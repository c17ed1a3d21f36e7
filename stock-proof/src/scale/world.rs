//! The world of the scale run: a Redis Cluster, a database, instances behind nginx; the way back to
//! rest, and every check.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::MySqlPool;
use stock_client::Client;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::ProductId;
use stock_engine::ledger;
use stock_engine::verify::verify;
use stock_mysql::Role;
use stock_redis::{FenceState, Ledger};
use stock_servers::cluster::{RedisCluster, Shape};
use stock_servers::{Server, Spec};

use super::lag::look;
use super::nginx::Nginx;
use crate::Failure;
use crate::faults::buyers::settle;
use crate::faults::checker::{Allowed, check_told};
use crate::faults::history::{History, Told};
use crate::faults::world::{ROLES, STOCK};
use crate::shop::{Folder, Seed, Service, Shop, free_address};

/// Instances behind nginx.
const INSTANCES: usize = 3;
/// Enough products that each shard has some.
const PRODUCTS: u64 = 60;
/// How long after a load everything must be settled and whole.
const REST_WITHIN: Duration = Duration::from_secs(60);

/// A shop of several instances and shards. Servers end in the order of the fields.
pub struct World {
    /// The nginx in front of the instances.
    nginx: Nginx,
    /// The instances, each at an address that nginx knows.
    pub services: Vec<Service>,
    /// A client that calls them through nginx.
    pub client: Client,
    /// The products of each shard.
    pub shards: Vec<Vec<u64>>,
    /// The settings of this program, for the actions of an operator.
    pub config: Config,
    /// MySQL, for looks and for `rehome`.
    pub pool: MySqlPool,
    /// Redis, for looks; this ledger decides nothing.
    pub ledger: Ledger,
    /// The Redis Cluster.
    pub cluster: RedisCluster,
    shop: Shop,
    mysql: Server,
    folder: Folder,
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// When a part is not installed or does not become ready.
    pub async fn open(shards: u64, log: Option<&Path>) -> Result<Self, Failure> {
        let folder = Folder::new("scale")?;
        let shape = Shape::default();
        let mut nodes = Vec::new();
        for spec in RedisCluster::specs(folder.path(), shape)? {
            nodes.push(spec.start().await?);
        }
        let mysql = Spec::mysql(&folder.path().join("mysql")).await?;
        let (cluster, mysql) = tokio::join!(RedisCluster::of(nodes, shape.replicas), mysql.start());
        let (cluster, mysql) = (cluster?, mysql?);
        let own_log = folder.path().join("service.log");
        mysql.create_database("scale").await?;
        let shop = Shop::at(&cluster.url(), &mysql.spec.url("scale"), "scale")
            .with("STOCK_SHARDS", shards)
            .with("STOCK_DURABILITY", shape.durability.as_str())
            .with("STOCK_TRUSTED_PROXIES", "127.0.0.1")
            .logging_to(log.unwrap_or(&own_log));
        shop.command(&["migrate"]).await?;
        let seed = Seed {
            products: PRODUCTS,
            stock: STOCK,
        };
        shop.stock(seed).await?;
        let addresses = (0..INSTANCES)
            .map(|_| free_address())
            .collect::<Result<Vec<_>, _>>()?;
        let nginx = Nginx::start(&folder.path().join("nginx"), &addresses).await?;
        let mut services = Vec::new();
        for address in &addresses {
            services.push(shop.serve_at(address, ROLES).await?);
        }
        let config = shop.config(shape.durability).with(|config| {
            config.redis.shards = shards;
        });
        let pool = stock_mysql::pool(&config, Role::Tool)?;
        let ledger = ledger::start(&config, pool.clone(), Clock::system())?;
        if !ledger.wait_open(REST_WITHIN).await {
            return Err("redis cannot be proved".into());
        }
        let map = ledger.shard_map().ok_or("the shard map is not known")?;
        let mut products = vec![Vec::new(); usize::try_from(shards)?];
        for product in 1..=PRODUCTS {
            let shard = map.of_product(ProductId(product));
            let on = products.get_mut(usize::try_from(shard)?);
            on.ok_or("a product is on no shard")?.push(product);
        }
        products.retain(|products| !products.is_empty());
        let first = services.first().ok_or("no instance runs")?;
        Ok(Self {
            client: first.client.at(&nginx.address),
            nginx,
            services,
            shards: products,
            config,
            pool,
            ledger,
            cluster,
            shop,
            mysql,
            folder,
        })
    }

    /// The first instance.
    ///
    /// # Errors
    /// When there is none.
    pub fn first(&mut self) -> Result<&mut Service, Failure> {
        self.services
            .first_mut()
            .ok_or_else(|| "no instance runs".into())
    }

    /// Starts an instance that has ended, at its address, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_again(&mut self, number: usize) -> Result<(), Failure> {
        let service = self.services.get_mut(number).ok_or("no such instance")?;
        let address = service.client.address.clone();
        *service = self.shop.serve_at(&address, ROLES).await?;
        Ok(())
    }

    /// Waits until everything is settled and whole; returns how long that took.
    ///
    /// # Errors
    /// When it takes too long, with the reason.
    pub async fn rest(&self) -> Result<Duration, Failure> {
        let began = Instant::now();
        while let Some(restless) = self.restless().await? {
            if began.elapsed() > REST_WITHIN {
                return Err(format!("not at rest after {REST_WITHIN:?}: {restless}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(began.elapsed())
    }

    async fn restless(&self) -> Result<Option<String>, Failure> {
        for service in &self.services {
            let ready = service.client.get("/readyz").try_send().await?;
            // Status 200 includes `degraded` by a weak setting, as here without
            // `min-replicas-to-write`.
            if ready.status != 200 {
                return Ok(Some(ready.text));
            }
        }
        for shard in self.ledger.shards() {
            let gate = shard.fence_state();
            if !matches!(gate, FenceState::Open(_)) {
                return Ok(Some(format!("shard {}: {gate:?}", shard.keys().shard())));
            }
        }
        let lags = look(&self.pool, &self.ledger).await?;
        if let Some(lag) = lags
            .into_iter()
            .find(|lag| lag.accepted != Some(lag.settled))
        {
            return Ok(Some(format!("{lag:?}")));
        }
        let open: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM branches WHERE state = 'HELD'")
            .fetch_one(&self.pool)
            .await?;
        if open > 0 {
            return Ok(Some(format!("{open} branches have not ended")));
        }
        let is_whole = self.cluster.is_whole(Shape::default().replicas).await;
        Ok((!is_whole).then(|| "the cluster is not whole".to_owned()))
    }

    /// Settles unknown orders by their keys, and checks all answers so far. Returns the complaints.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn check(&self, history: &mut History) -> Result<Vec<String>, Failure> {
        for asked in &mut history.orders {
            if let (Told::Unknown, Some(key)) = (&asked.told, &asked.key) {
                asked.told = settle(&self.client, asked, key).await?;
            }
        }
        self.rest().await?;
        let mut complaints = check_told(&self.pool, history, Allowed::default()).await?;
        // Versions never go back for one client of one instance. Here each read may come from
        // another instance.
        complaints.retain(|complaint| !complaint.starts_with("I17: product"));
        let mut quiet = |_, _| {};
        let report = verify(&self.pool, &self.ledger, true, &mut quiet).await?;
        let wrong = report.differences.iter();
        complaints.extend(wrong.map(|found| {
            format!(
                "verify: {} {}: {}",
                found.check, found.subject, found.detail
            )
        }));
        for (what, count) in [
            ("dead letters", report.dead_letters),
            ("lost entries", report.lost_entries),
        ] {
            if count > 0 {
                complaints.push(format!("{count} {what}"));
            }
        }
        Ok(complaints)
    }

    /// Ends everything in order.
    ///
    /// # Errors
    /// When an instance does not end with 0.
    pub async fn close(self) -> Result<(), Failure> {
        for mut service in self.services {
            if !service.stop().await? {
                return Err("an instance did not end with 0".into());
            }
        }
        drop(self.nginx);
        self.pool.close().await;
        self.mysql.stop().await;
        drop((self.cluster, self.folder));
        Ok(())
    }
}
