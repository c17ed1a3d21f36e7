//! Levels for readers: each level is read once for all readers of this process that want it at the
//! same moment.
//!
//! A level that was read from Redis is shown again for a tenth of a second, as long as this process
//! has not heard that anything moved. So a reader never sees an older level than an order, a
//! message or an earlier read of this process has shown. At most two reads are under way. Readers
//! who want more meanwhile are served by the next read. When Redis is silent, readers get the last
//! levels that were seen, and the age of these.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use stock_common::lock::lock;
use stock_common::spent;
use stock_domain::account::{Account, Level};
use tokio::sync::Semaphore;

use super::{Ledger, ReadError};

/// A level that was read longer ago is read again.
const FRESH: Duration = Duration::from_millis(100);
/// How long readers wait for Redis before they get the levels that were seen last.
const PATIENCE: Duration = Duration::from_millis(50);
/// The most reads under way.
const READS_MAX: usize = 2;
/// Accounts in one of the two generations of the memory: about 10 MB for both.
const GENERATION: usize = 50_000;

/// The levels of some accounts, in the order in which they were asked for.
#[derive(Debug)]
pub struct RecentLevels {
    /// The levels.
    pub levels: Vec<RecentLevel>,
    /// The time since the oldest of them was read.
    pub age: Duration,
}

/// A level as it was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecentLevel {
    /// The last level that was seen; `None` when Redis never had one.
    pub level: Option<Level>,
    /// Whether Redis lacks the account now.
    pub is_lost: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    level: RecentLevel,
    /// The moment before the level was read.
    at: Instant,
}

/// Accounts that were seen lately, and accounts that were seen before those. Older ones are
/// forgotten.
#[derive(Debug, Default)]
struct Memory {
    young: HashMap<Account, Seen>,
    old: HashMap<Account, Seen>,
}

impl Memory {
    fn get(&self, account: Account) -> Option<Seen> {
        let seen = self.young.get(&account).or_else(|| self.old.get(&account));
        seen.copied()
    }

    fn note(&mut self, account: Account, level: Option<Level>, at: Instant) {
        let known = self.get(account);
        // An answer that was overtaken by the answer to a later question is dropped.
        if known.is_some_and(|known| known.at > at) {
            return;
        }
        let level = RecentLevel {
            level: level.or_else(|| known?.level.level),
            is_lost: level.is_none(),
        };
        self.young.insert(account, Seen { level, at });
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

/// The memory that the shards of a ledger share.
#[derive(Debug)]
pub(super) struct Recent {
    memory: Mutex<Memory>,
    /// Accounts that readers wait for and that no read has taken yet.
    wanted: Mutex<Vec<Account>>,
    reads: Semaphore,
    began: Instant,
    /// Microseconds after `began` at which this process last heard that something moved.
    moved_us: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            memory: Mutex::default(),
            wanted: Mutex::default(),
            reads: Semaphore::new(READS_MAX),
            began: Instant::now(),
            moved_us: AtomicU64::new(0),
        }
    }
}

impl Recent {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Notes that an account has moved. Levels that were read before are then read again.
    pub(super) fn moved(&self) {
        let us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.moved_us.fetch_max(us, Ordering::Release);
    }

    /// Those of the accounts that have to be read again.
    fn stale(&self, accounts: &[Account]) -> Vec<Account> {
        // One microsecond is added, because `moved_us` was rounded down.
        let moved = Duration::from_micros(self.moved_us.load(Ordering::Acquire) + 1);
        let memory = self.memory();
        let is_stale = |account: &&Account| {
            memory.get(**account).is_none_or(|seen| {
                seen.at.elapsed() > FRESH || seen.at.duration_since(self.began) < moved
            })
        };
        accounts.iter().filter(is_stale).copied().collect()
    }

    fn want(&self, accounts: &[Account]) {
        let mut wanted = lock(&self.wanted);
        wanted.extend(accounts);
    }

    /// All accounts that readers wait for, and these.
    fn take_wanted(&self, accounts: &[Account]) -> Vec<Account> {
        let mut wanted = lock(&self.wanted);
        let mut all = std::mem::take(&mut *wanted);
        drop(wanted);
        all.extend(accounts);
        all.sort_unstable();
        all.dedup();
        all
    }

    fn note(&self, at: Instant, accounts: &[Account], levels: &HashMap<Account, Level>) {
        let mut memory = self.memory();
        for account in accounts {
            memory.note(*account, levels.get(account).copied(), at);
        }
    }

    fn get(&self, accounts: &[Account]) -> Option<RecentLevels> {
        let memory = self.memory();
        let mut age = Duration::ZERO;
        let level = |account: &Account| {
            let seen = memory.get(*account)?;
            age = age.max(seen.at.elapsed());
            Some(seen.level)
        };
        let levels = accounts.iter().map(level).collect::<Option<_>>()?;
        Some(RecentLevels { levels, age })
    }
}

impl Ledger {
    /// The levels of accounts for a reader, at most a tenth of a second old while Redis answers.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer and one of the accounts was not seen lately.
    pub async fn recent_levels(&self, accounts: &[Account]) -> Result<RecentLevels, ReadError> {
        let _waiting = spent::redis();
        let recent = &self.inner.recent;
        let stale = recent.stale(accounts);
        let read = match stale.is_empty() {
            true => Ok(()),
            false => tokio::time::timeout(PATIENCE, self.read_recent(&stale))
                .await
                .unwrap_or_else(|_elapsed| Err(ReadError::Fenced("redis is silent".into()))),
        };
        match (recent.get(accounts), read) {
            (Some(levels), _) => Ok(levels),
            (None, Err(error)) => Err(error),
            // More accounts were asked for than are remembered.
            (None, Ok(())) => {
                let found = self.levels(accounts).await?;
                let level = |account: &Account| RecentLevel {
                    level: found.get(account).copied(),
                    is_lost: !found.contains_key(account),
                };
                Ok(RecentLevels {
                    levels: accounts.iter().map(level).collect(),
                    age: Duration::ZERO,
                })
            }
        }
    }

    async fn read_recent(&self, accounts: &[Account]) -> Result<(), ReadError> {
        let recent = &self.inner.recent;
        recent.want(accounts);
        let Ok(_turn) = recent.reads.acquire().await else {
            return Ok(());
        };
        // The read before this one may have included these accounts.
        let stale = recent.stale(accounts);
        if stale.is_empty() {
            return Ok(());
        }
        let all = recent.take_wanted(&stale);
        let at = Instant::now();
        let levels = self.levels(&all).await?;
        recent.note(at, &all, &levels);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, Instant};

    use stock_common::id::{LocationId, ProductId};

    use super::{FRESH, GENERATION, Recent};
    use stock_domain::account::{Account, Level};

    fn account(product: u64) -> Account {
        Account::available(ProductId(product), LocationId::ONLINE)
    }

    fn note(recent: &Recent, at: Instant, product: u64, seq: u64) {
        let level = Level {
            seq,
            ..Level::default()
        };
        let levels = HashMap::from([(account(product), level)]);
        recent.note(at, &[account(product)], &levels);
    }

    fn seq(recent: &Recent, product: u64) -> Option<u64> {
        let found = recent.get(&[account(product)])?;
        found.levels.first()?.level.map(|level| level.seq)
    }

    #[test]
    fn a_level_that_redis_has_lost_is_still_known() {
        let recent = Recent::default();
        note(&recent, Instant::now(), 1, 7);
        recent.note(Instant::now(), &[account(1), account(2)], &HashMap::new());
        let found = recent.get(&[account(1), account(2)]).unwrap().levels;
        let told: Vec<_> = found
            .iter()
            .map(|found| (found.level.map(|level| level.seq), found.is_lost))
            .collect();
        assert_eq!(told, [(Some(7), true), (None, true)]);
    }

    #[test]
    fn a_level_is_read_again_when_it_is_old_or_something_moved() {
        let recent = Recent::default();
        assert_eq!(recent.stale(&[account(1)]), [account(1)], "never seen");
        // Moments within the microsecond of the beginning cannot be told apart.
        let first = recent.began + Duration::from_micros(10);
        while Instant::now() < first {}
        note(&recent, first, 1, 7);
        assert_eq!(recent.stale(&[account(1)]), [], "just read");
        recent.moved();
        assert_eq!(recent.stale(&[account(1)]), [account(1)], "moved since");
        let Some(long_ago) = Instant::now().checked_sub(2 * FRESH) else {
            return;
        };
        note(&recent, long_ago, 2, 1);
        assert_eq!(recent.stale(&[account(2)]), [account(2)], "old");
        assert_eq!(seq(&recent, 2), Some(1), "still known");
    }

    #[test]
    fn an_answer_to_an_earlier_question_replaces_no_later_one() {
        let recent = Recent::default();
        let earlier = Instant::now();
        let later = earlier + Duration::from_micros(1);
        note(&recent, later, 1, 8);
        note(&recent, earlier, 1, 7);
        assert_eq!(seq(&recent, 1), Some(8));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_latest() {
        let recent = Recent::default();
        let most = u64::try_from(GENERATION).unwrap();
        for product in 0..3 * most {
            note(&recent, Instant::now(), product, 1);
        }
        let memory = recent.memory();
        assert!(memory.young.len() + memory.old.len() <= 2 * GENERATION);
        drop(memory);
        assert_eq!(seq(&recent, 3 * most - 1), Some(1));
        assert_eq!(seq(&recent, 0), None);
    }
}
