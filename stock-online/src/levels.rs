//! Levels as they change, for whoever watches: the latest of each account, by the position that moved it.
//!
//! Fed by Pub/Sub, which may lose messages; whenever it may have, the memory begins anew, and who watched is
//! given a snapshot again. A watcher asks for what changed behind a position, on any instance, so a stream
//! can be resumed anywhere.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use stock_common::id::Position;
use stock_common::lock::lock;
use stock_domain::account::{Account, Level};
use stock_redis::levels::LevelsMessage;
use tokio::sync::watch;

/// How far apart two instances may have heard the same message, in ms.
const APART_MS: u64 = 1_000;
/// Accounts remembered; those that moved longest ago are forgotten first.
const ACCOUNTS_MAX: usize = 100_000;

/// What was heard.
#[derive(Default)]
struct Heard {
    /// The memory is complete behind this position; `None` until something was heard.
    complete_from: Option<Position>,
    last: Position,
    latest: HashMap<Account, (Position, Level)>,
    by_position: BTreeSet<(Position, Account)>,
}

/// The latest levels.
pub struct Levels {
    heard: Mutex<Heard>,
    /// The highest that was seen of those that a page shows.
    peaks: Mutex<HashMap<Account, i64>>,
    changed: watch::Sender<Position>,
}

/// What changed behind a position.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// Up to where; the next question begins here.
    pub upto: Position,
    /// The latest levels of what moved, the longest ago first.
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

    /// Hears a message.
    pub fn hear(&self, message: &LevelsMessage) {
        let mut heard = self.heard();
        // In the order in which they are heard here: shards count for themselves.
        let at = message.position.max(heard.last.plus(1));
        // The first one tells only what follows it.
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

    /// Messages may have been lost: what was heard so far is not complete any more.
    pub fn interrupted(&self) {
        let mut heard = self.heard();
        *heard = Heard {
            last: heard.last,
            ..Heard::default()
        };
        drop(heard);
        self.changed.send_modify(|_| {});
    }

    /// Where a stream goes on that another instance may have begun, which hears several shards in another order.
    #[must_use]
    pub fn resumed(position: Position) -> Position {
        let ms = position.unix_ms().saturating_sub(APART_MS);
        Position::from_parts(ms, 0).unwrap_or_default()
    }

    /// The highest that was seen of an account here, and of its balance now: what a bar is full at.
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

    /// What changed behind a position, at most `limit` accounts; `None` when that is not known completely.
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
            // Cut between positions: those of one are given together.
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

    /// Tells when something was heard.
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
