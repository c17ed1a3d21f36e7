//! Errors on the way to the script, and on the way from Redis.

use std::sync::Arc;

use redis::RedisError;
use stock_domain::journal::{DraftError, EntryError};

/// Why there is no verdict.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecideError {
    /// There is no verified Redis; nothing was sent.
    #[error("no verified redis: {0}")]
    Fenced(Arc<str>),
    /// A setting of Redis breaks what is promised; nothing was sent.
    #[error("redis does not keep what is promised: {0}")]
    Unsafe(Arc<str>),
    /// The queue is full, or the request waited too long in it; nothing was sent.
    #[error("the queue is full, or the request waited too long in it")]
    Overloaded,
    /// Redis refused the whole batch, as when it is out of memory or disk; nothing was changed.
    #[error("redis refused the batch: {0}")]
    Unable(Arc<str>),
    /// The keys are on another master, or will be in a moment; nothing was changed.
    #[error("the keys are on another master: {0}")]
    Elsewhere(Arc<str>),
    /// Units that the request wants are held for a cross-shard order that is not decided yet;
    /// nothing was changed.
    #[error("units that it wants are held for an order that is not decided yet")]
    Held,
    /// The link broke after the request was sent, so it may have been decided. Sending it again
    /// under the same key tells.
    #[error("the link to redis broke after the request was sent")]
    OutcomeUnknown,
    /// The request has no payload.
    #[error("{0}")]
    Draft(Arc<DraftError>),
}

impl From<DraftError> for DecideError {
    fn from(error: DraftError) -> Self {
        Self::Draft(Arc::new(error))
    }
}

impl From<ReadError> for DecideError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fenced(reason) => Self::Fenced(reason),
            other @ (ReadError::Redis(_) | ReadError::Entry(_)) => {
                Self::Fenced(other.to_string().into())
            }
        }
    }
}

/// Why something cannot be read from Redis.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no verified Redis.
    #[error("no verified redis: {0}")]
    Fenced(Arc<str>),
    /// Redis did not answer.
    #[error("redis did not answer: {0}")]
    Redis(#[from] RedisError),
    /// The journal holds something that is no entry of this program.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// An error that may say that nothing was executed.
pub trait Undecided {
    /// The reason why there is no verdict, if the error is one.
    fn undecided(&self) -> Option<&DecideError>;
}

impl Undecided for DecideError {
    fn undecided(&self) -> Option<&DecideError> {
        Some(self)
    }
}
