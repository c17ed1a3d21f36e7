//! The clock: the only place that reads the machine's time of day.
//!
//! The script checks windows and deadlines by Redis' clock. This clock serves tokens, logs and the
//! offset to Redis' clock. Tests shift it. Durations are measured with `std::time::Instant`, which
//! no operator can set back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{
    DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, TimeZone as _, Utc,
};
use chrono_tz::Tz;

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

    /// Shifts this clock and all its copies by `ms` milliseconds against the machine's clock.
    pub fn shift(&self, ms: i64) {
        self.shift_ms.store(ms, Ordering::Relaxed);
    }
}

/// Unix milliseconds as RFC 3339 in UTC, `2026-01-31T09:00:00.123Z`.
#[must_use]
pub fn rfc3339(unix_ms: impl TryInto<i64>) -> String {
    let unix_ms = unix_ms.try_into().ok();
    let at = unix_ms.and_then(DateTime::from_timestamp_millis);
    // Only a time beyond the calendar's end has none.
    at.unwrap_or(DateTime::<Utc>::MAX_UTC)
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

/// The calendar day in a time zone.
#[must_use]
pub fn day_of(unix_ms: u64, zone: Tz) -> NaiveDate {
    zone.from_utc_datetime(&datetime(unix_ms)).date_naive()
}

/// The first moment of a day in a time zone, in Unix ms: midnight, or the first moment after it
/// where clocks are put forward over midnight. `None` before 1970 and after the calendar's end.
#[must_use]
pub fn day_begins_ms(day: NaiveDate, zone: Tz) -> Option<u64> {
    let midnight = day.and_time(NaiveTime::MIN);
    let moments = (0..=96)
        .filter_map(|quarter| midnight.checked_add_signed(TimeDelta::minutes(15 * quarter)));
    let mut real = moments.filter_map(|local| zone.from_local_datetime(&local).earliest());
    u64::try_from(real.next()?.timestamp_millis()).ok()
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use chrono_tz::Tz;

    use super::{datetime, day_begins_ms, day_of, rfc3339, unix_ms};

    #[test]
    fn a_time_survives_the_way_through_mysql() {
        assert_eq!(rfc3339(1_738_314_000_123_i64), "2025-01-31T09:00:00.123Z");
        assert_eq!(unix_ms(datetime(1_738_314_000_123)), 1_738_314_000_123);
    }

    #[test]
    fn a_day_begins_at_its_first_moment_wherever_that_is() {
        let begins = |zone: Tz, (year, month, day)| {
            let day = NaiveDate::from_ymd_opt(year, month, day).unwrap();
            let begins = day_begins_ms(day, zone).unwrap();
            assert!(day_of(begins, zone) >= day && day_of(begins - 1, zone) < day);
            rfc3339(begins)
        };
        assert_eq!(
            begins(Tz::Asia__Seoul, (2026, 11, 21)),
            "2026-11-20T15:00:00.000Z"
        );
        // Clocks are put forward at midnight: the day begins at one o'clock.
        assert_eq!(
            begins(Tz::America__Sao_Paulo, (2018, 11, 4)),
            "2018-11-04T03:00:00.000Z"
        );
        // Clocks are put back over midnight: the first of two midnights counts.
        assert_eq!(
            begins(Tz::America__Havana, (2026, 11, 1)),
            "2026-11-01T04:00:00.000Z"
        );
        // Samoa skipped this day.
        assert_eq!(
            begins(Tz::Pacific__Apia, (2011, 12, 30)),
            "2011-12-30T10:00:00.000Z"
        );
    }
}
