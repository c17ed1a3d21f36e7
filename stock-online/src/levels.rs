//! Levels as they change, for event streams: the latest level of each account, by the position that
//! changed it.
//!
//! The levels come from Pub/Sub, which may lose messages. Whenever it may have lost one, this
//! memory begins anew, and every watcher gets a new snapshot. A watcher asks for the changes after
//! a position. Any instance can answer, so a stream can be resumed on another instance.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use stock_common::id::Position;
use stock_common::lock::lock;
use stock_domain::account::{Account, Level};
use stock_redis::levels::LevelsMessage;
use tokio::sync::watch;

/// How far apart in time two instances may hear the same message, in ms.
const APART_MS: u64 = 1_000;
/// Accounts remembered; those that changed longest ago are forgotten first.
const ACCOUNTS_MAX: usize = 100_000;

/// The levels heard so far.
#[derive(Default)]
struct Heard {
    /// The memory holds every change after this position; `None` until a message was heard.
    complete_from: Option<Position>,
    last: Position,
    latest: HashMap<Account, (Position, Level)>,
    by_position: BTreeSet<(Position, Account)>,
}

/// The latest levels.
pub struct Levels {
    heard: Mutex<Heard>,
    /// The highest balance seen of each account that a page shows.
    peaks: Mutex<HashMap<Account, i64>>,
    changed: watch::Sender<Position>,
}

/// The changes after a position.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// Position up to which these changes are complete; the next question starts here.
    pub upto: Position,
    /// The latest levels of the changed accounts, the oldest change first.
    pub levels: Vec<(Account, Level)>,
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            heard: Mutex::default(),
            peaks: Mutex::default(),
            changed: watch::Sender::new(Position::ZERO),
        }
    }
}

impl Levels {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    /// Takes over the levels of a message.
    pub fn hear(&self, message: &LevelsMessage) {
        let mut heard = self.heard();
        // Messages of several shards arrive in any order; this keeps the positions rising.
        let at = message.position.max(heard.last.plus(1));
        // Only changes after the first message are known.
        heard.complete_from.get_or_insert(at);
        heard.last = at;
        for &(account, level) in &message.levels {
            if let Some((before, _)) = heard.latest.insert(account, (at, level)) {
                heard.by_position.remove(&(before, account));
            }
            heard.by_position.insert((at, account));
        }
        while heard.latest.len() > ACCOUNTS_MAX
            && let Some((oldest, account)) = heard.by_position.pop_first()
        {
            heard.latest.remove(&account);
            heard.complete_from = heard.complete_from.max(Some(oldest));
        }
        let last = heard.last;
        drop(heard);
        self.changed.send_replace(last);
    }

    /// Forgets all levels, because messages may have been lost.
    pub fn interrupted(&self) {
        let mut heard = self.heard();
        *heard = Heard {
            last: heard.last,
            ..Heard::default()
        };
        drop(heard);
        self.changed.send_modify(|_| {});
    }

    /// Position at which a stream is resumed that another instance may have begun. It lies a second
    /// earlier, because that instance may have heard the shards in another order.
    #[must_use]
    pub fn resumed(position: Position) -> Position {
        let ms = position.unix_ms().saturating_sub(APART_MS);
        Position::from_parts(ms, 0).unwrap_or_default()
    }

    /// The highest balance of an account seen here, including `balance`: the full length of its
    /// bar.
    #[must_use]
    pub fn peak(&self, account: Account, balance: i64) -> i64 {
        let mut peaks = lock(&self.peaks);
        if peaks.len() >= ACCOUNTS_MAX && !peaks.contains_key(&account) {
            peaks.clear();
        }
        let peak = peaks.entry(account).or_insert(balance);
        *peak = balance.max(*peak);
        *peak
    }

    /// The last position heard of.
    #[must_use]
    pub fn last(&self) -> Position {
        self.heard().last
    }

    /// The changes after a position, of about `limit` accounts; `None` when they are not completely
    /// known.
    #[must_use]
    pub fn since(&self, after: Position, limit: usize) -> Option<Changes> {
        let heard = self.heard();
        if heard.complete_from.is_none_or(|from| after < from) {
            return None;
        }
        let first = (Position::new(after.get().saturating_add(1)), Account::FIRST);
        let mut levels = Vec::new();
        let mut upto = heard.last;
        for &(position, account) in heard.by_position.range(first..) {
            // The cut lies between positions: the levels of one position stay together.
            if levels.len() >= limit && position > upto {
                break;
            }
            upto = position;
            levels.extend(
                heard
                    .latest
                    .get(&account)
                    .map(|(_, level)| (account, *level)),
            );
        }
        if levels.len() < limit {
            upto = heard.last;
        }
        Some(Changes { upto, levels })
    }

    /// Notified when a message was heard or may have been lost.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, Position, ProductId};
    use stock_domain::account::{Account, Level};
    use stock_redis::levels::LevelsMessage;

    use super::Levels;

    fn message(position: u64, levels: &[(u64, i64, u64)]) -> LevelsMessage {
        let level = |&(product, balance, seq): &(u64, i64, u64)| {
            let level = Level {
                balance,
                seq,
                ..Level::default()
            };
            (
                Account::available(ProductId(product), LocationId::ONLINE),
                level,
            )
        };
        LevelsMessage {
            epoch: "e".into(),
            position: Position::new(position),
            levels: levels.iter().map(level).collect(),
        }
    }

    fn check(levels: &Levels, after: u64, limit: usize, expected: Option<(u64, &[(u64, u64)])>) {
        let found = levels.since(Position::new(after), limit).map(|changes| {
            let levels = changes
                .levels
                .iter()
                .map(|(account, level)| (account.owner, level.seq));
            (changes.upto.get(), levels.collect::<Vec<_>>())
        });
        let expected = expected.map(|(upto, levels)| (upto, levels.to_vec()));
        assert_eq!(found, expected, "behind {after}, at most {limit}");
    }

    #[test]
    fn what_changed_behind_a_position_is_known_or_said_not_to_be() {
        let levels = Levels::default();
        check(&levels, 0, 9, None);
        levels.hear(&message(10, &[(1, 5, 1)]));
        check(&levels, 9, 9, None);
        check(&levels, 10, 9, Some((10, &[])));
        levels.hear(&message(20, &[(1, 4, 2), (2, 7, 1)]));
        levels.hear(&message(30, &[(1, 3, 3)]));
        check(&levels, 10, 9, Some((30, &[(2, 1), (1, 3)])));
        check(&levels, 10, 1, Some((20, &[(2, 1)])));
        check(&levels, 20, 1, Some((30, &[(1, 3)])));
        levels.interrupted();
        check(&levels, 30, 9, None);
        levels.hear(&message(40, &[(2, 6, 2)]));
        check(&levels, 30, 9, None);
        check(&levels, 40, 9, Some((40, &[])));
    }
}
