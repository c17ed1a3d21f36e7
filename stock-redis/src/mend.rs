//! Begins a book, or fills a lost book anew, by `lua/mend.lua`.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, cmd};
use stock_domain::account::Book;

use super::keys::Keys;
use super::scripts::SCRIPTS;

/// Fields that one call writes.
const PART: usize = 1_000;

/// A book that is being filled.
pub struct Mend {
    epoch_key: String,
    key: String,
    epoch: String,
    sentinel: String,
    /// Tells this filling from others. The one that begins last wins.
    token: String,
}

impl Mend {
    /// The book under a key, which is whole when it has this sentinel.
    pub fn new(keys: &Keys, key: String, epoch: &str, sentinel: String) -> Self {
        Self {
            epoch_key: keys.epoch(),
            key,
            epoch: epoch.to_owned(),
            sentinel,
            token: format!("{:016x}", rand::random::<u64>()),
        }
    }

    /// A book of accounts.
    pub fn of_book(keys: &Keys, book: Book, epoch: &str) -> Self {
        Self::new(keys, keys.book(book), epoch, epoch.to_owned())
    }

    /// Empties the book, unless it is whole. Returns whether the book has to be filled.
    ///
    /// # Errors
    /// When Redis does not answer, or holds another epoch.
    pub async fn begin(&self, redis: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        self.step(redis, "begin", &[]).await
    }

    /// Writes fields and their values.
    ///
    /// # Errors
    /// When Redis does not answer, holds another epoch, or somebody else fills the book.
    pub async fn fill(
        &self,
        redis: &mut MultiplexedConnection,
        fields: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), RedisError> {
        for part in fields.chunks(PART) {
            self.must(redis, "fill", part).await?;
        }
        Ok(())
    }

    /// Writes the sentinel. From here on requests are decided by the book.
    ///
    /// # Errors
    /// As [`Mend::fill`].
    pub async fn end(&self, redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
        self.must(redis, "end", &[]).await
    }

    async fn must(
        &self,
        redis: &mut MultiplexedConnection,
        step: &str,
        fields: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), RedisError> {
        if self.step(redis, step, fields).await? {
            return Ok(());
        }
        Err((ErrorKind::Client, "another caller fills the book").into())
    }

    async fn step(
        &self,
        redis: &mut MultiplexedConnection,
        step: &str,
        fields: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<bool, RedisError> {
        let mut call = cmd("EVALSHA");
        call.arg(&SCRIPTS.mend.sha)
            .arg(2)
            .arg(&self.epoch_key)
            .arg(&self.key)
            .arg(&self.epoch)
            .arg(&self.sentinel)
            .arg(&self.token)
            .arg(step);
        for (field, value) in fields {
            call.arg(field).arg(value);
        }
        match call.query_async::<i64>(redis).await? {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err((ErrorKind::Client, "redis holds another epoch").into()),
        }
    }
}
