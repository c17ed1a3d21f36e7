//! Scans a large key of Redis, or all keys, a page at a time, so that nobody waits for all of it.
//! An element that stays there for the whole scan is seen at least once.

use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, RedisError, cmd};

use super::{ReadError, Shard};

/// The number of elements that are asked for at once.
const PAGE: u32 = 1_000;

/// A scan.
#[derive(Debug)]
pub struct Scan<'a> {
    command: &'static str,
    /// The key; without one, all keys.
    key: Option<&'a str>,
    /// The pattern that the names must match.
    pattern: Option<&'a str>,
    /// The cursor of the next page; none at the end.
    cursor: Option<u64>,
}

impl<'a> Scan<'a> {
    /// Over a hash: pages of fields and values.
    #[must_use]
    pub const fn hash(key: &'a str) -> Self {
        Self::new("HSCAN", Some(key), None)
    }

    /// Over a sorted set: pages of members and scores.
    #[must_use]
    pub const fn sorted_set(key: &'a str) -> Self {
        Self::new("ZSCAN", Some(key), None)
    }

    /// Over the names of all keys that match a pattern.
    #[must_use]
    pub const fn keys(pattern: &'a str) -> Self {
        Self::new("SCAN", None, Some(pattern))
    }

    const fn new(command: &'static str, key: Option<&'a str>, pattern: Option<&'a str>) -> Self {
        Self {
            command,
            key,
            pattern,
            cursor: Some(0),
        }
    }

    /// The next page, which may be empty; `None` after the last one.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn page<P: FromRedisValue>(
        &mut self,
        connection: &mut impl ConnectionLike,
    ) -> Result<Option<P>, RedisError> {
        let Some(cursor) = self.cursor else {
            return Ok(None);
        };
        let (next, page): (u64, P) = self.asking(cursor).query_async(connection).await?;
        self.cursor = Some(next).filter(|next| *next != 0);
        Ok(Some(page))
    }

    /// The same on a shard.
    ///
    /// # Errors
    /// [`ReadError`] when there is no verified Redis, or Redis does not answer.
    pub async fn page_on<P: FromRedisValue>(
        &mut self,
        shard: &Shard,
    ) -> Result<Option<P>, ReadError> {
        Ok(self.page(&mut shard.link()?.read).await?)
    }

    fn asking(&self, cursor: u64) -> Cmd {
        let mut command = cmd(self.command);
        command.arg(self.key).arg(cursor);
        if let Some(pattern) = self.pattern {
            command.arg("MATCH").arg(pattern);
        }
        command.arg("COUNT").arg(PAGE);
        command
    }
}
