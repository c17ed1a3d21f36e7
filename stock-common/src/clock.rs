//! The clock: the only place that reads the machine's time of day.
//!
//! The engine judges windows and deadlines by Redis' clock, inside the script; this clock serves
//! tokens, logs and the offset to Redis. Tests shift it. Durations are measured with
//! `std::time::Instant`, which no operator can set back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, SecondsFormat};

/// Time of day in Unix milliseconds, with a shift that tests may set.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    shift_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Unix milliseconds now.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the clock"
        )]
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX) + self.shift_ms.load(Ordering::Relaxed)
    }

    /// Sets the clock `ms` milliseconds off the machine's, for every copy of it.
    pub fn shift(&self, ms: i64) {
        self.shift_ms.store(ms, Ordering::Relaxed);
    }
}

/// Unix milliseconds as RFC 3339 in UTC, `2026-01-31T09:00:00.123Z`.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    DateTime::from_timestamp_millis(unix_ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Unix milliseconds as MySQL's `DATETIME(3)` in UTC.
#[must_use]
pub fn datetime(unix_ms: u64) -> NaiveDateTime {
    let ms = i64::try_from(unix_ms).unwrap_or_default();
    DateTime::from_timestamp_millis(ms)
        .unwrap_or_default()
        .naive_utc()
}

/// MySQL's `DATETIME(3)` in UTC as Unix milliseconds.
#[must_use]
pub fn unix_ms(datetime: NaiveDateTime) -> i64 {
    datetime.and_utc().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::{datetime, rfc3339, unix_ms};

    #[test]
    fn a_time_survives_the_way_through_mysql() {
        assert_eq!(rfc3339(1_738_314_000_123), "2025-01-31T09:00:00.123Z");
        assert_eq!(unix_ms(datetime(1_738_314_000_123)), 1_738_314_000_123);
    }
}
