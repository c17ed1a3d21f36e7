//! Service keys in memory: what a request's key may do.
//!
//! Every key is in memory, so a request asks no server. A secret that is not known may be that of a
//! key that another instance made just now, so MySQL is asked for it once. A key that was taken
//! back elsewhere is forgotten within [`crate::tasks`]' few seconds.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use sha2::{Digest, Sha256};
use sqlx::MySqlPool;
use stock_common::clock::{Clock, unix_ms};
use stock_common::id::UserId;
use stock_common::lock::{read, write};
use stock_domain::service_key::{Scope, Scopes};
use stock_mysql::people::service_keys::{self as table, SecretHash, ServiceKey};

/// How every secret begins, so that a leaked one is recognised.
pub const PREFIX: &str = "sfk_";

/// A key that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The actor of what it does.
    pub actor: UserId,
    scopes: Scopes,
    expires_ms: Option<i64>,
}

impl Key {
    /// Whether it may do what one of the scopes allows.
    #[must_use]
    pub fn may(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.scopes.has(*scope))
    }

    /// The Unix second in which it ends.
    #[must_use]
    pub fn ends_at(&self) -> i64 {
        self.expires_ms.map_or(i64::MAX, |ms| ms / 1_000)
    }
}

impl From<&ServiceKey> for Key {
    fn from(of: &ServiceKey) -> Self {
        Self {
            actor: UserId::of_service_key(of.id),
            scopes: Scopes::parse(&of.scopes),
            expires_ms: of.expires_at.map(unix_ms),
        }
    }
}

/// A new secret.
#[must_use]
pub fn new_secret() -> String {
    format!(
        "{PREFIX}{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    )
}

/// The hash of a secret, which alone is stored. A secret is random, so it needs no salt.
#[must_use]
pub fn hash_of(secret: &str) -> SecretHash {
    Sha256::digest(secret).into()
}

#[derive(Default)]
struct Known {
    keys: HashMap<SecretHash, Arc<Key>>,
    /// MySQL's word on its keys when they were read; `None` if a key has come since.
    version: Option<(i64, u64)>,
}

/// All keys.
pub struct ServiceKeys {
    known: RwLock<Known>,
    clock: Clock,
}

impl ServiceKeys {
    /// Knows no key yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            known: RwLock::default(),
            clock,
        }
    }

    /// The key of a secret; `None` if there is none or it has ended.
    ///
    /// # Errors
    /// The secret is not known, and MySQL does not answer.
    pub async fn check(
        &self,
        pool: &MySqlPool,
        secret: &str,
    ) -> Result<Option<Arc<Key>>, sqlx::Error> {
        let hash = hash_of(secret);
        let known = read(&self.known).keys.get(&hash).cloned();
        let key = match known {
            Some(key) => Some(key),
            None => self.ask(pool, &hash).await?,
        };
        let now_ms = self.clock.now_ms();
        Ok(key.filter(|key| key.expires_ms.is_none_or(|ends| now_ms < ends)))
    }

    async fn ask(
        &self,
        pool: &MySqlPool,
        hash: &SecretHash,
    ) -> Result<Option<Arc<Key>>, sqlx::Error> {
        let found = table::find(pool, hash).await?;
        Ok(found.map(|found| {
            let key = Arc::new(Key::from(&found));
            let mut known = write(&self.known);
            known.keys.insert(*hash, Arc::clone(&key));
            // The key may be taken back before the next look, which would then see no difference.
            known.version = None;
            key
        }))
    }

    /// Forgets a key at once, in this process.
    pub fn forget(&self, hash: &SecretHash) {
        write(&self.known).keys.remove(hash);
    }

    /// Reads all keys anew if one was made or taken back.
    ///
    /// # Errors
    /// When MySQL does not answer; the keys that are known go on.
    pub async fn refresh(&self, pool: &MySqlPool) -> Result<(), sqlx::Error> {
        let version = Some(table::version(pool).await?);
        if read(&self.known).version == version {
            return Ok(());
        }
        let all = table::list(pool, None, u32::MAX).await?;
        let keys = all.iter().filter_map(|of| {
            let hash = of.hash.as_slice().try_into().ok()?;
            Some((hash, Arc::new(Key::from(of))))
        });
        let keys = keys.collect();
        *write(&self.known) = Known { keys, version };
        Ok(())
    }
}
