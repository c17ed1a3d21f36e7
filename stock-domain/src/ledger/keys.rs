//! Every key in Redis. No other file spells a key.
//!
//! All keys of a shard share the hash tag `{shard}`, so that one script may touch them on a cluster.
//! `v1` in the prefix is the version of the formats below; a change of one of them changes it.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `…:epoch` | hash | epoch, ms, low (last position), number, settled, selling |
//! | `…:journal` | stream | frames of up to 100 entries |
//! | `…:states` | hash | mark id → `state@ms` |
//! | `…:opened` | hash | account key → how often it was opened |
//! | `…:deadlines` | zset | `ms-low what is held` of each live hold, by the ms at which it expires |
//! | `…:a:<kind>:<owner>:<place>` | string | `balance seq closed` |
//! | `…:idem:<user>:<key hash>` | string | `fingerprint A ms-low` or `fingerprint R code …` |
//! | `…:moving:<product>` | zset | what moves between a divided product's buckets → ms after which it is over in any case |
//! | `<prefix>:limit:{0}:<subject>:<window>` | string | requests counted in a window; of no shard |
//! | `<prefix>:wrote:{0}:<user>` | string | a user has written just now; of no shard |
//! | `…:levels` | channel | new levels, and that there is something to apply |
//! | `…:catalog` | channel | that products have changed |

use std::fmt::Display;
use std::sync::Arc;

use stock_common::id::{ProductId, UserId};

use crate::account::Account;

/// The keys of one shard.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Arc<str>,
    base: Arc<str>,
    shard: u64,
}

impl Keys {
    /// The keys of `shard` below `prefix`, such as `sf:v1`.
    #[must_use]
    pub fn new(prefix: &str, shard: u64) -> Self {
        Self {
            prefix: prefix.into(),
            base: format!("{prefix}:{{{shard}}}").into(),
            shard,
        }
    }

    /// The shard, 0..=63.
    #[must_use]
    pub const fn shard(&self) -> u64 {
        self.shard
    }

    /// The hash with the epoch, the last position and the selling switch.
    #[must_use]
    pub fn epoch(&self) -> String {
        format!("{}:epoch", self.base)
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> String {
        format!("{}:journal", self.base)
    }

    /// The hash of marks.
    #[must_use]
    pub fn states(&self) -> String {
        format!("{}:states", self.base)
    }

    /// The hash that counts openings.
    #[must_use]
    pub fn opened(&self) -> String {
        format!("{}:opened", self.base)
    }

    /// The live holds by the time at which they expire.
    #[must_use]
    pub fn deadlines(&self) -> String {
        format!("{}:deadlines", self.base)
    }

    /// What moves between a product's buckets right now.
    #[must_use]
    pub fn moving(&self, product: ProductId) -> String {
        format!("{}:moving:{product}", self.base)
    }

    /// An account's level.
    #[must_use]
    pub fn account(&self, account: Account) -> String {
        format!("{}:a:{account}", self.base)
    }

    /// What is remembered under an Idempotency-Key.
    #[must_use]
    pub fn idempotency(&self, user: UserId, key_hash: &str) -> String {
        format!("{}:idem:{user}:{key_hash}", self.base)
    }

    /// How often somebody has asked in a window. No script touches it; it lies with the first shard, so that one
    /// connection reaches all of them.
    #[must_use]
    pub fn limit(&self, subject: &impl Display, window: u64) -> String {
        format!("{}:limit:{{0}}:{subject}:{window}", self.prefix)
    }

    /// That somebody has written just now. No script touches it; it lies with the first shard.
    #[must_use]
    pub fn wrote(&self, user: UserId) -> String {
        format!("{}:wrote:{{0}}:{user}", self.prefix)
    }

    /// The channel of new levels.
    #[must_use]
    pub fn levels(&self) -> String {
        format!("{}:levels", self.base)
    }

    /// The channel that says that products have changed.
    #[must_use]
    pub fn catalog(&self) -> String {
        format!("{}:catalog", self.base)
    }

    /// The channel that says whether selling is open.
    #[must_use]
    pub fn selling(&self) -> String {
        format!("{}:selling", self.base)
    }

    /// The channel on which instances hear that their subscriptions are alive.
    #[must_use]
    pub fn beats(&self) -> String {
        format!("{}:beats", self.base)
    }

    /// A `SCAN` pattern for every key of the shard, for `recover`.
    #[must_use]
    pub fn everything(&self) -> String {
        let escaped: String = self
            .base
            .chars()
            .flat_map(|c| "*?[]\\".contains(c).then_some('\\').into_iter().chain([c]))
            .collect();
        format!("{escaped}:*")
    }
}
