//! The world of every fault: its own servers behind proxies, services, buyers; and the way back to
//! health, which ends with every check.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use stock_client::Client;
use stock_common::config::Durability;
use stock_servers::proxy::{Mode, Proxy};

use super::buyers::{Buyers, Habits, settle};
use super::checker::{Allowed, check, differences};
use super::history::{History, Told};
use crate::Failure;
use crate::bench::watch::Look;
use crate::shop::{SECRET, Seed, Servers, Service, Shop, until};

/// All roles of a service in one process.
pub const ROLES: &str = "http,subscriber,scheduler";
/// First stock of each product: a load of a few seconds does not empty it.
pub const STOCK: i64 = 1_000_000;
/// Products that buyers choose from: few, so that buyers compete.
pub const PRODUCTS: u64 = 5;
/// How long after the last fault everything must be well again, at most (I20).
const WELL_WITHIN: Duration = Duration::from_secs(60);

/// A shop to be broken.
pub struct World {
    /// Its servers.
    pub servers: Servers,
    /// The shop, with direct links to the servers.
    pub shop: Shop,
    /// The same shop as services reach it: through the proxies, with a log.
    pub via: Shop,
    /// The proxy in front of Redis.
    pub redis: Proxy,
    /// The proxy in front of MySQL.
    pub mysql: Proxy,
    /// Services that run.
    pub services: Vec<Service>,
    /// The seed on which the buyers' actions depend.
    pub seed: u64,
    /// First stock of each product.
    pub stock: i64,
    log: PathBuf,
}

impl World {
    /// Opens a shop with one service.
    ///
    /// # Errors
    /// When a server or the service does not start.
    pub async fn open(durability: Durability, seed: u64) -> Result<Self, Failure> {
        let mut world = Self::closed(durability, seed).await?;
        world.serve().await?;
        Ok(world)
    }

    /// Opens a shop that nobody serves yet.
    ///
    /// # Errors
    /// When a server does not start.
    pub async fn closed(durability: Durability, seed: u64) -> Result<Self, Failure> {
        Self::stocked(durability, seed, STOCK).await
    }

    /// Like [`World::closed`], with another first stock of each product.
    ///
    /// # Errors
    /// When a server does not start.
    pub async fn stocked(durability: Durability, seed: u64, stock: i64) -> Result<Self, Failure> {
        let servers = Servers::start(durability).await?;
        let how_much = Seed {
            products: PRODUCTS,
            stock,
        };
        let shop = Shop::open(&servers, "faults", how_much).await?;
        let (redis, mysql) = (
            Proxy::start(servers.redis.spec.port).await?,
            Proxy::start(servers.mysql.spec.port).await?,
        );
        let log = servers.folder.path().join("service.log");
        let via = shop
            .with("STOCK_REDIS_URL", format!("redis://{}/0", redis.address))
            .with(
                "STOCK_DATABASE_URL",
                format!("mysql://root@{}/faults", mysql.address),
            )
            .logging_to(&log);
        Ok(Self {
            servers,
            shop,
            via,
            redis,
            mysql,
            services: Vec::new(),
            seed,
            stock,
            log,
        })
    }

    /// Starts another service.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn serve(&mut self) -> Result<(), Failure> {
        self.services.push(self.via.serve(ROLES).await?);
        Ok(())
    }

    /// The client of the first service.
    ///
    /// # Errors
    /// When there is none.
    pub fn client(&self) -> Result<Client, Failure> {
        let first = self.services.first().ok_or("no service runs")?;
        Ok(first.client.clone())
    }

    /// The first service.
    ///
    /// # Errors
    /// When there is none.
    pub fn first(&mut self) -> Result<&mut Service, Failure> {
        self.services
            .first_mut()
            .ok_or_else(|| "no service runs".into())
    }

    /// Starts buyers at all services.
    #[must_use]
    pub fn buyers(&self, workers: usize) -> Buyers {
        self.buyers_with(workers, Habits::ALL)
    }

    /// Starts buyers with some habits at all services.
    #[must_use]
    pub fn buyers_with(&self, workers: usize, habits: Habits) -> Buyers {
        let clients: Vec<Client> = self.services.iter().map(|s| s.client.clone()).collect();
        Buyers::start(&clients, workers, 1..=PRODUCTS, habits, self.seed)
    }

    /// Waits until so many more orders are accepted.
    ///
    /// # Errors
    /// When they are not.
    pub async fn accept(&self, buyers: &Buyers, more: usize) -> Result<(), Failure> {
        let goal = buyers.accepted() + more;
        until("orders are accepted", || async {
            buyers.accepted() >= goal
        })
        .await
    }

    /// A connection to Redis that does not pass the proxy.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn redis_connection(&self) -> Result<redis::aio::MultiplexedConnection, Failure> {
        let client = redis::Client::open(self.shop.redis_url.as_str())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// Returns the state of one check, as `/readyz` reports it.
    ///
    /// # Errors
    /// When the service does not answer.
    pub async fn readiness(&self, name: &str) -> Result<String, Failure> {
        let answer = self.client()?.get("/readyz").try_send().await?;
        let value = answer
            .body
            .get("checks")
            .and_then(|checks| checks.get(name));
        Ok(value
            .and_then(|value| value.as_str())
            .unwrap_or("")
            .to_owned())
    }

    /// Waits until a check of `/readyz` has a value.
    ///
    /// # Errors
    /// When it does not get that value.
    pub async fn until_ready_says(&self, name: &str, value: &str) -> Result<(), Failure> {
        let what = format!("{name} is {value}");
        let said = until(&what, || async {
            self.readiness(name).await.is_ok_and(|now| now == value)
        });
        match said.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let ready = self.client()?.get("/readyz").try_send().await?;
                Err(format!("{error}, but: {}", ready.text).into())
            }
        }
    }

    /// Removes the proxies' faults, stops the buyers, waits until all is well, and checks
    /// everything.
    ///
    /// # Errors
    /// When it does not become well, or something does not hold.
    pub async fn check(&mut self, buyers: Buyers, allowed: Allowed) -> Result<History, Failure> {
        self.redis.set(Mode::Pass);
        self.mysql.set(Mode::Pass);
        let history = buyers.stop().await?;
        self.check_history(history, allowed).await
    }

    /// Like [`World::check`], for a load that has ended.
    ///
    /// # Errors
    /// As [`World::check`].
    pub async fn check_history(
        &mut self,
        mut history: History,
        allowed: Allowed,
    ) -> Result<History, Failure> {
        if self.services.is_empty() {
            self.serve().await?;
        }
        self.well().await?;
        // I6: asking again under the same key gives an unknown order one result.
        let client = self.client()?;
        for asked in &mut history.orders {
            if let (Told::Unknown, Some(key)) = (&asked.told, &asked.key) {
                asked.told = settle(&client, asked, key).await?;
            }
        }
        self.replay(&client, &history, allowed).await?;
        self.well().await?;
        let mut complaints = check(&self.shop, &history, self.stock, allowed).await?;
        complaints.extend(self.secrets()?);
        // Checks do not change a healthy system (I14).
        for command in [&["verify", "--full"][..], &["reconcile"], &["verify"]] {
            let found = differences(&self.shop, command).await;
            let found = found.unwrap_or_else(|error| vec![error.to_string().into()]);
            // Entries that were lost with Redis stay listed.
            let is_lost = |found: &Value| found.get("check") == Some(&"lost_entries".into());
            let wrong = found
                .iter()
                .filter(|found| !allowed.lost || !is_lost(found));
            complaints.extend(wrong.map(|found| format!("{}: {found}", command.join(" "))));
        }
        for service in &mut self.services {
            if !service.stop().await? {
                complaints.push("I21: a service did not exit with 0".to_owned());
            }
        }
        if complaints.is_empty() {
            return Ok(history);
        }
        complaints.truncate(10);
        Err(complaints.join("\n  ").into())
    }

    /// I7 and I8: a sample of keys gets the first answer again, and another body under such a key
    /// is refused.
    async fn replay(
        &self,
        client: &Client,
        history: &History,
        allowed: Allowed,
    ) -> Result<(), Failure> {
        let keyed = history.orders.iter().filter_map(|asked| match &asked.told {
            Told::Accepted(id) => Some((asked, asked.key.as_ref()?, id)),
            Told::Refused(_) | Told::Unknown => None,
        });
        for (asked, key, id) in keyed.step_by(37) {
            if allowed.lost || allowed.dead_letters {
                break;
            }
            let again = settle(client, asked, key).await?;
            if again != Told::Accepted(id.clone()) {
                return Err(format!("I7: key {key} of order {id} now answers {again:?}").into());
            }
            let other = client.order(asked.path, asked.user, &[(1, 999)]);
            let answer = other.header("idempotency-key", key).try_send().await?;
            if answer.code() != "IDEMPOTENCY_KEY_REUSED" {
                return Err(format!("I8: another body under {key}: {}", answer.text).into());
            }
        }
        Ok(())
    }

    /// I20: waits until the service is ready and MySQL has everything.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn well(&self) -> Result<(), Failure> {
        let (client, pool) = (self.client()?, self.shop.pool().await?);
        let began = Instant::now();
        let mut last = String::new();
        while began.elapsed() < WELL_WITHIN {
            let ready = client.get("/readyz").try_send().await;
            let is_ready =
                ready.is_ok_and(|answer| answer.body.get("status") == Some(&"ready".into()));
            match self.look(&pool, began).await {
                Ok(look) if is_ready && look.accepted == look.settled => {
                    pool.close().await;
                    return Ok(());
                }
                Ok(look) => last = format!("ready {is_ready}, {look:?}"),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        Err(format!("I20: not well again: {last}\n  {}", tail.join("\n  ")).into())
    }

    /// Entries that Redis has accepted, and those that MySQL has settled.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn accepted_and_settled(&self) -> Result<(u64, u64), Failure> {
        let pool = self.shop.pool().await?;
        let look = self.look(&pool, Instant::now()).await?;
        pool.close().await;
        Ok((look.accepted, look.settled))
    }

    async fn look(&self, pool: &sqlx::MySqlPool, began: Instant) -> Result<Look, Failure> {
        let mut redis = self.redis_connection().await?;
        Look::take(&mut redis, pool, &self.shop.prefix, began).await
    }

    /// I22: the logs hold no secret.
    fn secrets(&self) -> Result<Option<String>, Failure> {
        let text = std::fs::read_to_string(&self.log)?;
        let leaked = [SECRET, "Bearer ", "eyJ"]
            .into_iter()
            .find(|s| text.contains(s));
        Ok(leaked.map(|secret| format!("I22: the log holds {secret}")))
    }

    /// Kills the first service as a crash would.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill_service(&mut self) -> Result<(), Failure> {
        self.first()?.child.kill().await?;
        self.services.remove(0);
        Ok(())
    }

    /// Starts the first service again at the address that its buyers use, without waiting for it.
    ///
    /// # Errors
    /// When there is none.
    pub fn restart_service(&mut self) -> Result<(), Failure> {
        let address = self.client()?.address;
        let again = self.via.spawn_at(&address, ROLES)?;
        *self.first()? = again;
        Ok(())
    }

    /// Sends a signal to the first service.
    ///
    /// # Errors
    /// When there is none.
    pub fn signal_service(&mut self, signal: Signal) -> Result<(), Failure> {
        self.first()?.signal(signal)
    }

    /// Rebuilds Redis from MySQL, as an operator would after data loss.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn recover(&self) -> Result<String, Failure> {
        let discarded = self.servers.folder.path().join("discarded.jsonl");
        let file = discarded.display().to_string();
        match self.shop.command(&["recover", "--discard", &file]).await {
            // Redis was only restarting; nothing was lost.
            Err(error) if error.to_string().contains("nothing is to be rebuilt") => {
                Ok(error.to_string())
            }
            done => done,
        }
    }
}
