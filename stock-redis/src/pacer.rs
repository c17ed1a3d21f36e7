//! Pacing: above a soft limit of lag, no more is accepted than MySQL settles.
//!
//! Requests then wait longer, and the backlog does not grow. What ends or takes back something of
//! before is not paced: there can be no more of it than there was before. While MySQL settles
//! nothing at all, because it is down, there is no pace to keep: selling goes on at full speed, up
//! to the hard limit.

use std::time::{Duration, Instant};

/// How long MySQL may settle nothing before it counts as down.
const STALL: Duration = Duration::from_secs(2);
/// The longest pause before one batch, so that a wrong estimate cannot stop selling.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// The weight of a new measurement against the old rate.
const WEIGHT: f64 = 0.3;

#[derive(Debug)]
pub(super) struct Pacer {
    soft_entries: u64,
    lag_entries: u64,
    /// Entries per second that MySQL settles, smoothed.
    rate: f64,
    settled: u64,
    measured: Instant,
    next: Instant,
}

impl Pacer {
    pub(super) fn new(soft_entries: u64, now: Instant) -> Self {
        Self {
            soft_entries,
            lag_entries: 0,
            rate: 0.0,
            settled: 0,
            measured: now,
            next: now,
        }
    }

    /// Hears how far MySQL is: the last entry's number, and how many entries are unsettled.
    pub(super) fn hear(&mut self, number: u64, lag_entries: u64, now: Instant) {
        self.lag_entries = lag_entries;
        let settled = number.saturating_sub(lag_entries);
        let passed = now - self.measured;
        if settled > self.settled && passed > Duration::from_millis(50) {
            let gained = settled - self.settled;
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no last digit")]
            let rate = gained as f64 / passed.as_secs_f64();
            let idle = self.rate == 0.0 || passed > STALL;
            self.rate = if idle {
                rate
            } else {
                self.rate + WEIGHT * (rate - self.rate)
            };
            (self.settled, self.measured) = (settled, now);
        }
    }

    /// How long to wait before a batch with so many paced requests is sent.
    pub(super) fn pause(&mut self, requests: usize, now: Instant) -> Duration {
        if requests == 0 {
            return Duration::ZERO;
        }
        let stalled = now - self.measured > STALL;
        if self.lag_entries <= self.soft_entries || self.rate <= 0.0 || stalled {
            self.next = now;
            return Duration::ZERO;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a batch has at most 256 requests"
        )]
        let share = Duration::from_secs_f64((requests as f64 / self.rate).min(1.0));
        let wait = self.next.saturating_duration_since(now).min(PAUSE_MAX);
        self.next = now + wait + share;
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Pacer;

    #[test]
    fn above_the_soft_limit_batches_are_spaced_to_what_mysql_settles() {
        let start = Instant::now();
        let mut pacer = Pacer::new(1_000, start);
        let later = start + Duration::from_millis(100);
        pacer.hear(1_100, 100, later);
        assert_eq!(
            pacer.pause(100, later),
            Duration::ZERO,
            "below the limit nothing waits"
        );
        pacer.hear(3_100, 2_100, later);
        pacer.pause(100, later);
        let wait = pacer.pause(100, later);
        assert!(
            wait >= Duration::from_millis(9) && wait <= Duration::from_millis(11),
            "{wait:?}"
        );
        assert_eq!(
            pacer.pause(0, later),
            Duration::ZERO,
            "what only ends something waits for nobody"
        );
        let stalled = later + Duration::from_secs(3);
        assert_eq!(
            pacer.pause(100, stalled),
            Duration::ZERO,
            "with MySQL down selling goes on"
        );
    }
}
