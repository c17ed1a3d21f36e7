//! Whether the Redis behind the fence keeps what is promised. Nothing is sold on one that does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use stock_common::lock::lock;
use stock_domain::server_settings::{Setting, Standing};

use super::Fence;
use crate::redis_settings;

impl Fence {
    /// Reads the settings of the server, and logs those whose meaning has changed.
    pub(super) async fn read_settings(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let found = redis_settings::read(connection).await?;
        if let Some(replicas) = found.replicas {
            self.replication.note_connected(replicas);
            let shard = self.keys.shard().to_string();
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            metrics::gauge!("stock_redis_replicas", "shard" => shard).set(replicas as f64);
        }
        let mut known = lock(&self.settings);
        let was_off = known
            .iter()
            .any(|setting| setting.name == "appendonly" && setting.is_wrong());
        let (durability, is_cluster) = (self.config.redis.durability, self.servers.is_cluster());
        let now: Arc<[Setting]> = found.judge(durability, is_cluster, was_off).into();
        let shard = self.keys.shard();
        for setting in now.iter().filter(|setting| !known.contains(setting)) {
            let Setting {
                name,
                found,
                advice,
                standing,
            } = setting;
            match standing {
                Standing::Unsafe => tracing::error!(shard, name, found, advice, "redis is unsafe"),
                Standing::Weak => tracing::warn!(shard, name, found, advice, "redis is weak"),
                Standing::Unknown => tracing::info!(shard, name, found, "redis does not tell"),
                Standing::Good => {}
            }
        }
        let is_unsafe = now
            .iter()
            .any(|setting| setting.standing == Standing::Unsafe);
        self.is_unsafe.store(is_unsafe, Ordering::Release);
        *known = now;
        Ok(())
    }

    /// The settings as they were found last.
    pub fn settings(&self) -> Arc<[Setting]> {
        let known = lock(&self.settings);
        Arc::clone(&known)
    }

    /// The setting for which nothing is sold here. `allow_unsafe_redis` allows all of them but
    /// missing replicas.
    pub fn unsafe_setting(&self) -> Option<Arc<str>> {
        if let Some(refusal) = self.replication.refusal() {
            return Some(refusal);
        }
        if !self.is_unsafe.load(Ordering::Acquire) || self.config.redis.allow_unsafe_redis {
            return None;
        }
        let settings = self.settings();
        let wrong = settings
            .iter()
            .find(|setting| setting.standing == Standing::Unsafe)?;
        Some(format!("{} {}", wrong.name, wrong.found).into())
    }
}
