//! Login attempts, counted in Redis by account, device and address before they are checked.
//!
//! Failures beyond the limit lock nobody out. The next attempt is checked after a delay of one
//! second, the one after that after two, and so on up to a minute. An attempt that is refused
//! during a delay does not count.

use redis::pipe;
use stock_redis::Ledger;

use super::{Exceeded, Limits, Rule, Subject, lock};

/// The longest delay between two attempts.
const DELAY_MS_MAX: u64 = 60_000;

/// An attempt that may be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Earlier attempts that still count as failures.
    pub failures: u64,
    /// Whether the next attempt has to wait.
    pub begins_delay: bool,
}

/// The delay after the `n`-th attempt, in ms: a second after the `limit`-th, doubled by each
/// further one.
fn delay_ms(n: u64, limit: u64) -> u64 {
    let doublings = u32::try_from(n.saturating_sub(limit)).unwrap_or(u32::MAX);
    1_000_u64
        .checked_shl(doublings.min(16))
        .unwrap_or(DELAY_MS_MAX)
        .min(DELAY_MS_MAX)
}

/// Redis' answer about an attempt.
enum Counted {
    Judged(Attempt),
    Early { left_ms: u64 },
}

impl Limits {
    /// Counts an attempt before it is checked.
    ///
    /// # Errors
    /// [`Exceeded`] when the subject has failed so often that it has to wait; then the attempt is
    /// not counted.
    pub async fn attempt(&self, ledger: &Ledger, subject: Subject) -> Result<Attempt, Exceeded> {
        let rule = self.rule(subject);
        let free = Attempt {
            failures: 0,
            begins_delay: false,
        };
        if rule.limit == 0 {
            return Ok(free);
        }
        match count(ledger, subject, rule).await {
            Some(Counted::Judged(attempt)) => Ok(attempt),
            Some(Counted::Early { left_ms }) => Err(Exceeded {
                limit: rule.limit,
                window_seconds: rule.window_ms / 1_000,
                retry_after_seconds: left_ms.div_ceil(1_000).max(1),
            }),
            None => self.admit(subject).map(|()| free),
        }
    }

    /// Forgets the attempts of a subject that has logged in.
    pub async fn forgive(&self, ledger: &Ledger, subject: Subject) {
        lock(self.map(subject)).remove(&subject);
        change(ledger, "DEL", subject, self.rule(subject)).await;
    }

    /// Takes back an attempt that was right, or that a fault of ours kept from being checked.
    pub async fn take_back(&self, ledger: &Ledger, subject: Subject) {
        if let Some(count) = lock(self.map(subject)).get_mut(&subject) {
            count.own = count.own.saturating_sub(1);
        }
        change(ledger, "DECR", subject, self.rule(subject)).await;
    }
}

/// The keys of a subject: the counter of its attempts, and the key that exists while the next
/// attempt has to wait.
fn keys(ledger: &Ledger, subject: Subject) -> [String; 2] {
    [0, 1].map(|window| ledger.keys().limit(&subject, window))
}

/// Counts an attempt in Redis; `None` when Redis does not answer.
async fn count(ledger: &Ledger, subject: Subject, rule: Rule) -> Option<Counted> {
    let mut link = ledger.live_link().await.ok()?;
    let ([key, delay], limit) = (keys(ledger, subject), u64::from(rule.limit));
    let mut counting = pipe();
    counting.cmd("INCR").arg(&key);
    // The first attempt begins the window; later ones do not prolong it.
    counting
        .cmd("PEXPIRE")
        .arg(&key)
        .arg(rule.window_ms)
        .arg("NX")
        .ignore();
    counting.cmd("PTTL").arg(&delay);
    let counted = counting.query_async::<(i64, i64)>(&mut link.read).await;
    let (attempts, mut left_ms) = counted
        .inspect_err(|error| tracing::debug!(%error, "attempts are counted here only"))
        .ok()?;
    let n = u64::try_from(attempts).unwrap_or(0);
    let attempt = Attempt {
        failures: n.saturating_sub(1),
        begins_delay: n >= limit,
    };
    if left_ms <= 0 && n < limit {
        return Some(Counted::Judged(attempt));
    }
    if left_ms <= 0 {
        // Of many attempts at the same time, only one is checked.
        let mut begin = redis::cmd("SET");
        begin.arg(&delay).arg(1).arg("NX").arg("PX");
        begin.arg(delay_ms(n, limit));
        match begin.query_async::<Option<String>>(&mut link.read).await {
            Ok(Some(_)) => return Some(Counted::Judged(attempt)),
            Ok(None) => left_ms = 1,
            Err(error) => {
                tracing::debug!(%error, "attempts are counted here only");
                return None;
            }
        }
    }
    change(ledger, "DECR", subject, rule).await;
    Some(Counted::Early {
        left_ms: u64::try_from(left_ms).unwrap_or(0),
    })
}

/// Changes a subject's attempts in Redis, if they are counted. DECR creates a counter again that
/// has just expired, so this sets its expiry too.
async fn change(ledger: &Ledger, command: &str, subject: Subject, rule: Rule) {
    let (Ok(mut link), 1..) = (ledger.live_link().await, rule.limit) else {
        return;
    };
    let [key, delay] = keys(ledger, subject);
    let mut changing = pipe();
    changing.cmd(command).arg(&key).ignore();
    if command == "DEL" {
        changing.cmd("DEL").arg(&delay).ignore();
    }
    changing
        .cmd("PEXPIRE")
        .arg(&key)
        .arg(rule.window_ms)
        .arg("NX")
        .ignore();
    let done: Result<(), redis::RedisError> = changing.query_async(&mut link.read).await;
    if let Err(error) = done {
        tracing::debug!(%error, "attempts stay as they were counted");
    }
}

#[cfg(test)]
mod tests {
    use super::delay_ms;

    #[test]
    fn the_delay_grows_from_a_second_to_a_minute() {
        let seconds = |n| delay_ms(n, 10) / 1_000;
        assert_eq!([10, 11, 12, 15, 16, 99].map(seconds), [1, 2, 4, 32, 60, 60]);
        assert_eq!(delay_ms(u64::MAX, 10), 60_000);
    }
}
