//! The report of a Redis about itself, `INFO`.

use redis::aio::ConnectionLike;
use redis::{RedisError, cmd};

/// Some sections of the report.
#[derive(Debug, Clone)]
pub struct Info(String);

impl Info {
    /// Reads sections from a Redis.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn read(
        connection: &mut impl ConnectionLike,
        sections: &[&str],
    ) -> Result<Self, RedisError> {
        let mut command = cmd("INFO");
        for section in sections {
            command.arg(*section);
        }
        Ok(Self(command.query_async(connection).await?))
    }

    /// The text of a field; `None` where this Redis does not tell it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }

    /// The number of a field; `None` where this Redis does not tell one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}
