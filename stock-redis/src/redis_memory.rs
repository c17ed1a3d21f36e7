//! The memory of Redis: beyond its limit every order is refused.

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError};

use super::info::Info;
use super::{Ledger, ReadError, Shard};

/// The part of the limit from which somebody should act. This alarm comes before orders are
/// refused.
const NEARLY_FULL: f64 = 0.8;
/// The part of the limit from which only what must be remembered is stored.
const SCARCE: f64 = 0.9;

/// The memory of a Redis, as `INFO memory` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisMemory {
    /// Bytes in use (`used_memory`).
    pub used_bytes: u64,
    /// Bytes that may be used (`maxmemory`); 0 is no limit.
    pub limit_bytes: u64,
}

impl RedisMemory {
    /// Reads the memory of a Redis.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn read(connection: &mut impl ConnectionLike) -> Result<Self, RedisError> {
        Self::of(&Info::read(connection, &["memory"]).await?)
    }

    /// Takes the numbers from `INFO memory`.
    ///
    /// # Errors
    /// When a number is missing.
    pub(super) fn of(info: &Info) -> Result<Self, RedisError> {
        let field = |name| info.number(name).ok_or_else(|| untold(name));
        Ok(Self {
            used_bytes: field("used_memory")?,
            limit_bytes: field("maxmemory")?,
        })
    }

    /// Whether so little memory is left that only what must be remembered should be stored.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a part of 1 needs no last byte")]
    pub fn is_scarce(&self) -> bool {
        self.limit_bytes > 0 && self.used_bytes as f64 >= SCARCE * self.limit_bytes as f64
    }

    /// Whether a larger part of its limit is in use. No limit is the least full.
    fn is_fuller_than(&self, other: &Self) -> bool {
        // Compared crosswise, because neither part is a whole number. Without a limit the part is
        // 0.
        let part = |of: &Self| match of.limit_bytes {
            0 => (0, 1),
            limit => (u128::from(of.used_bytes), u128::from(limit)),
        };
        let ((own, own_limit), (others, others_limit)) = (part(self), part(other));
        (own * others_limit, self.used_bytes) > (others * own_limit, other.used_bytes)
    }

    /// Whether four fifths of the limit are in use.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a part of 1 needs no last byte")]
    pub fn is_nearly_full(&self) -> bool {
        self.limit_bytes > 0 && self.used_bytes as f64 >= NEARLY_FULL * self.limit_bytes as f64
    }
}

fn untold(name: &'static str) -> RedisError {
    (
        ErrorKind::UnexpectedReturnType,
        "INFO does not tell",
        name.to_owned(),
    )
        .into()
}

impl Ledger {
    /// The memory of the Redis that has the least part of its limit left; of those without a limit
    /// the one that has the most bytes in use.
    ///
    /// # Errors
    /// [`ReadError`] when a Redis does not answer, or no fence is open.
    pub async fn memory(&self) -> Result<RedisMemory, ReadError> {
        let mut fullest = None::<RedisMemory>;
        for shard in self.shards().into_iter().filter(Shard::is_open) {
            let memory = shard.memory().await?;
            if fullest.is_none_or(|known| memory.is_fuller_than(&known)) {
                fullest = Some(memory);
            }
        }
        fullest.ok_or_else(|| ReadError::Fenced("starting".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::RedisMemory;

    #[test]
    fn four_fifths_of_a_limit_are_nearly_full_and_no_limit_is_never() {
        let memory = |used_bytes, limit_bytes| RedisMemory {
            used_bytes,
            limit_bytes,
        };
        assert!(!memory(79, 100).is_nearly_full());
        assert!(memory(80, 100).is_nearly_full());
        assert!(!memory(1_000, 0).is_nearly_full());
    }

    #[test]
    fn a_small_redis_that_is_full_comes_before_a_large_one_that_is_not() {
        let memory = |used_bytes, limit_bytes| RedisMemory {
            used_bytes,
            limit_bytes,
        };
        assert!(memory(95, 100).is_fuller_than(&memory(500, 1_000)));
        assert!(!memory(500, 1_000).is_fuller_than(&memory(95, 100)));
        assert!(memory(1, 100).is_fuller_than(&memory(5_000, 0)));
        assert!(memory(6, 0).is_fuller_than(&memory(5, 0)));
    }
}
