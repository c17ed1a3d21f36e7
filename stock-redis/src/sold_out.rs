//! Sold-out flags: a rush for a sold-out product does not reach Redis.
//!
//! A flag is only a hint with a short life. It is used only while requests are queueing. A newer
//! level or an own reversal clears it, and after the setting's time it is gone in any case.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stock_common::lock::{read, write};
use stock_domain::account::Account;
use stock_domain::posting::Posted;

#[derive(Debug, Clone, Copy)]
struct Flag {
    /// The account's seq when it was seen at zero. An older level does not clear the flag.
    seq: u64,
    /// The moment at which the flag is forgotten.
    until: Instant,
}

/// The accounts last seen at zero.
#[derive(Debug)]
pub(super) struct SoldOut {
    flags: RwLock<HashMap<Account, Flag>>,
    /// The number of flags. In the common case of none, no lock is taken.
    count: AtomicUsize,
    life: Duration,
}

impl SoldOut {
    pub(super) fn new(life_ms: u64) -> Self {
        let life = Duration::from_millis(life_ms);
        Self {
            flags: RwLock::default(),
            count: AtomicUsize::new(0),
            life,
        }
    }

    /// Whether the account was at zero a moment ago.
    pub(super) fn is_flagged(&self, account: Account) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let flags = read(&self.flags);
        flags
            .get(&account)
            .is_some_and(|flag| flag.until > Instant::now())
    }

    /// Hears a level. Zero sets the flag, and a newer level above zero clears it.
    pub(super) fn hear(&self, account: Account, balance: i64, seq: u64) {
        if balance > 0 && self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.change(|flags, life| {
            let known = flags.get(&account).map_or(0, |flag| flag.seq);
            if balance == 0 && seq >= known {
                flags.insert(
                    account,
                    Flag {
                        seq,
                        until: Instant::now() + life,
                    },
                );
            } else if balance > 0 && seq > known {
                flags.remove(&account);
            }
        });
    }

    /// Sets the flag after a refusal, which names no seq.
    pub(super) fn refused_at_zero(&self, account: Account) {
        self.change(|flags, life| {
            let seq = flags.get(&account).map_or(0, |flag| flag.seq);
            flags.insert(
                account,
                Flag {
                    seq,
                    until: Instant::now() + life,
                },
            );
        });
    }

    /// Hears the postings of an own request.
    pub(super) fn moved(&self, postings: &[Posted]) {
        for posted in postings {
            if posted.balance_after == 0 || posted.delta > 0 {
                self.hear(posted.account, posted.balance_after, posted.seq);
            }
        }
    }

    /// Forgets everything, as when the instance is fenced.
    pub(super) fn clear(&self) {
        self.change(|flags, _| flags.clear());
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Account, Flag>, Duration)) {
        let mut flags = write(&self.flags);
        change(&mut flags, self.life);
        let now = Instant::now();
        if flags.len() > 1_000 {
            flags.retain(|_, flag| flag.until > now);
        }
        self.count.store(flags.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, ProductId};

    use super::SoldOut;
    use stock_domain::account::Account;

    #[test]
    fn an_older_level_does_not_clear_a_flag_and_a_newer_one_does() {
        let sold_out = SoldOut::new(60_000);
        let account = Account::available(ProductId(1), LocationId::ONLINE);
        sold_out.hear(account, 0, 9);
        sold_out.hear(account, 1, 8);
        assert!(sold_out.is_flagged(account));
        sold_out.hear(account, 1, 10);
        assert!(!sold_out.is_flagged(account));
    }
}
