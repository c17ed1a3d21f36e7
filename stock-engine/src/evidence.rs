//! Evidence: the level of an account, according to its three copies.
//!
//! The copies are the level in Redis, the account's row in MySQL, and the chain of its postings. A
//! repair needs a chain that holds from its first posting to its last, and one other copy that
//! agrees with its end. Anything else is a [`Contradiction`], which is reported and never acted on.
//! [`crate::reconcile`] and [`crate::quarantine`] repair.

use redis::RedisError;
use sqlx::MySqlConnection;
use stock_common::id::Position;
use stock_domain::account::{Account, Level};
use stock_domain::journal::EntryError;
use stock_domain::posting::Posted;
use stock_domain::shard_state::ShardState;
use stock_mysql::{accounts, archives, journal, quarantine, settle};
use stock_redis::{ReadError, Shard, levels};

/// Entries read at once.
const TAIL: usize = 5_000;
/// Postings read at once.
const SLICE: u64 = 10_000;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<RedisError> for EvidenceError {
    fn from(error: RedisError) -> Self {
        Self::Read(error.into())
    }
}

/// The copies do not agree on what an account holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the evidence contradicts itself: {0}")]
pub struct Contradiction(pub String);

/// An account's postings, followed from the first that was not archived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The level at which they end.
    pub(crate) end: Level,
    /// How they break, if they do.
    pub(crate) broken: Option<String>,
}

impl Seen {
    /// Follows the settled postings of an account, up to the sequence number of its row.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn read(
        connection: &mut MySqlConnection,
        account: Account,
    ) -> Result<Self, sqlx::Error> {
        let stored = accounts::read(connection, &[account]).await?;
        let stored = stored.get(&account).copied().unwrap_or_default();
        let archived = archives::levels(connection, &[account]).await?;
        let end = archived.get(&account).map(|at| Level {
            balance: at.balance,
            seq: at.seq,
            ..Level::default()
        });
        let seen = Self {
            end: end.unwrap_or_default(),
            broken: None,
        };
        seen.follow(connection, account, stored, None).await
    }

    /// Follows the next postings. A posting beyond the row's sequence number counts only if an
    /// entry up to the watermark states it; without a watermark none counts.
    async fn follow(
        mut self,
        connection: &mut MySqlConnection,
        account: Account,
        stored: Level,
        watermark: Option<Position>,
    ) -> Result<Self, sqlx::Error> {
        let mut read = self.end.seq;
        while self.broken.is_none() {
            let slice = quarantine::postings_behind(connection, account, read, SLICE).await?;
            let is_last = (slice.len() as u64) < SLICE;
            for (position, posted) in slice {
                read = posted.seq;
                if posted.seq > stored.seq {
                    let is_settled = watermark.is_some_and(|watermark| position <= watermark);
                    match says(connection, position, &posted).await? {
                        Ok(true) if is_settled => {}
                        Ok(_) => continue,
                        // An unreadable entry may state it, so the posting is neither followed nor
                        // passed over.
                        Err(unreadable) => {
                            self.broken = Some(unreadable.to_string());
                            return Ok(self);
                        }
                    }
                }
                match settle::follow(self.end, &posted) {
                    Some(next) => self.end = next,
                    None => {
                        self.broken = Some(format!(
                            "posting {} moves it by {:+} to {}, the one before is {} with {}",
                            posted.seq,
                            posted.delta,
                            posted.balance_after,
                            self.end.seq,
                            self.end.balance
                        ));
                        return Ok(self);
                    }
                }
            }
            if is_last {
                break;
            }
        }
        Ok(self)
    }
}

/// Whether the entry at a position states this posting; an inner error when the entry cannot be
/// read.
async fn says(
    connection: &mut MySqlConnection,
    position: Position,
    posted: &Posted,
) -> Result<Result<bool, EntryError>, sqlx::Error> {
    let Some(found) = journal::find(connection, position).await? else {
        return Ok(Ok(false));
    };
    let asked = found.and_then(|entry| entry.asked());
    Ok(asked.map(|asked| {
        asked.iter().any(|of| {
            let is_opening = of.open == Some(posted.delta) && posted.seq == 1;
            of.account == posted.account && (of.delta == posted.delta || is_opening)
        })
    }))
}

/// The copies of an account's level, and the postings that are not settled yet.
#[derive(Debug)]
pub struct Evidence {
    pub(crate) account: Account,
    /// The row in MySQL.
    pub(crate) stored: Level,
    /// The value in Redis as it was read; "" for none.
    pub(crate) in_redis: String,
    /// The chain of postings.
    pub(crate) chain: Seen,
    /// The account's postings in the journal after the watermark.
    pub(crate) unsettled: Vec<Posted>,
}

impl Evidence {
    /// Gathers the evidence under the shard's lock, so that MySQL stands still. `seen` is the part
    /// of the chain that was followed before.
    ///
    /// # Errors
    /// [`EvidenceError`] when a server does not answer.
    pub async fn gather(
        connection: &mut MySqlConnection,
        shard: &Shard,
        state: &ShardState,
        account: Account,
        seen: &Seen,
    ) -> Result<Self, EvidenceError> {
        let stored = accounts::lock(connection, &[account]).await?;
        let stored = stored.get(&account).copied().unwrap_or_default();
        let watermark = Some(state.watermark);
        let chain = seen
            .clone()
            .follow(connection, account, stored, watermark)
            .await?;
        // Redis' level is read before the postings that led to it. If it has moved since, the
        // correction by compare-and-set fails.
        let mut link = shard.live_link().await?;
        let in_redis = levels::raw(&mut link.read, shard.keys(), account).await?;
        Ok(Self {
            account,
            stored,
            in_redis,
            chain,
            unsettled: unsettled(shard, state, account).await?,
        })
    }

    /// The level at the watermark on which the chain and one other copy agree. `pending` are the
    /// postings that Redis has made since.
    ///
    /// # Errors
    /// [`Contradiction`] when the chain breaks, or no other copy agrees with it.
    pub fn agreed<'a>(
        &self,
        pending: impl IntoIterator<Item = &'a Posted>,
    ) -> Result<Level, Contradiction> {
        if let Some(broken) = &self.chain.broken {
            return Err(Contradiction(broken.clone()));
        }
        let (end, stored) = (self.chain.end, self.stored);
        let end = Level {
            closed: stored.closed,
            ..end
        };
        let pending: i64 = pending.into_iter().map(|posted| posted.delta).sum();
        let in_redis = Level::parse(&self.in_redis).map(|level| level.balance - pending);
        if (end.balance, end.seq) == (stored.balance, stored.seq) || in_redis == Some(end.balance) {
            return Ok(end);
        }
        Err(Contradiction(format!(
            "{}: its row has {} at posting {}, its postings end with {} at {}, redis has '{}', {pending:+} of it not settled",
            self.account, stored.balance, stored.seq, end.balance, end.seq, self.in_redis
        )))
    }

    /// The level to believe if a person insists: the end of the chain if it holds, otherwise the
    /// row.
    #[must_use]
    pub const fn believed(&self) -> Level {
        match self.chain.broken {
            None => self.chain.end,
            Some(_) => self.stored,
        }
    }
}

/// Reads the postings of an account in the journal after the watermark.
async fn unsettled(
    shard: &Shard,
    state: &ShardState,
    account: Account,
) -> Result<Vec<Posted>, ReadError> {
    let (mut after, mut found) = (state.watermark, Vec::new());
    loop {
        let tail = shard.tail(after, TAIL).await?;
        if let Some(error) = tail.broken {
            return Err(error.into());
        }
        let postings = tail.entries.iter().flat_map(|entry| &entry.postings);
        found.extend(postings.filter(|posted| posted.account == account));
        match tail.entries.last() {
            Some(last) => after = last.position,
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, ProductId};

    use super::{Evidence, Seen};
    use stock_domain::account::{Account, Level};
    use stock_domain::posting::Posted;

    fn level(balance: i64, seq: u64) -> Level {
        Level {
            balance,
            seq,
            ..Level::default()
        }
    }

    fn account() -> Account {
        Account::available(ProductId(1), LocationId::ONLINE)
    }

    fn pending(deltas: &[i64]) -> Vec<Posted> {
        let posted = |delta: &i64| Posted {
            account: account(),
            seq: 70,
            delta: *delta,
            balance_after: 900,
        };
        deltas.iter().map(posted).collect()
    }

    #[test]
    fn one_other_copy_has_to_agree_with_the_chain() {
        let agreed = |stored, redis: Option<Level>, end, deltas: &[i64]| {
            let evidence = Evidence {
                account: account(),
                stored,
                in_redis: redis.map(|level| level.to_string()).unwrap_or_default(),
                chain: Seen { end, broken: None },
                unsettled: Vec::new(),
            };
            evidence.agreed(&pending(deltas)).ok()
        };
        let chain = level(10, 4);
        // In this order: all agree, Redis is wrong, Redis has none, the row is wrong, two are
        // wrong.
        assert_eq!(agreed(chain, Some(level(8, 5)), chain, &[-2]), Some(chain));
        assert_eq!(agreed(chain, Some(level(98, 5)), chain, &[-2]), Some(chain));
        assert_eq!(agreed(chain, None, chain, &[-2]), Some(chain));
        assert_eq!(
            agreed(level(3, 2), Some(level(8, 5)), chain, &[-2]),
            Some(chain)
        );
        assert_eq!(agreed(level(3, 2), Some(level(98, 5)), chain, &[-2]), None);
        let broken = Evidence {
            account: account(),
            stored: chain,
            in_redis: chain.to_string(),
            chain: Seen {
                end: chain,
                broken: Some("posting 3 is missing".to_owned()),
            },
            unsettled: Vec::new(),
        };
        assert!(broken.agreed(&[]).is_err());
    }
}
