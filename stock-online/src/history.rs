//! The samples of the last two minutes, one per second, which the dashboard draws.
//!
//! The monitor adds the samples. Handlers count each order here where they count it for `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use stock_common::id::ProductId;
use stock_common::lock::lock;
use tokio::sync::watch;

/// Seconds that are remembered.
pub const SAMPLES: usize = 120;
/// Seconds over which a rate and a quantile are taken.
pub const WINDOW: usize = 10;
/// The longest duration that the histogram distinguishes, in µs.
const SLOWEST_US: u64 = 60_000_000;
/// Significant digits of a duration.
const DIGITS: u8 = 2;

type Durations = Histogram<u32>;

/// How far MySQL is behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lag {
    /// Entries accepted since the beginning, by all instances.
    pub accepted: u64,
    /// How many of them are settled.
    pub settled: u64,
    /// Age of the oldest unsettled entry, in seconds.
    pub seconds: f64,
}

/// Numbers from MySQL's tables.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Dead letters that wait for a compensation or a person.
    pub dead_letters: i64,
    /// Accounts that the last reconcile left differing; `None` before the first reconcile.
    pub drift_accounts: Option<u32>,
    /// Time at which the last verify ended, in Unix ms, and the number of differences.
    pub verified: Option<(i64, u32)>,
    /// Each job, and how many seconds ago it last succeeded.
    pub jobs: Vec<(String, Option<i64>)>,
}

/// A product's stock.
#[derive(Debug, Clone)]
pub struct Stock {
    /// The product.
    pub id: ProductId,
    /// The product's name.
    pub name: String,
    /// Units available online.
    pub available: i64,
}

/// The measurements of one second.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Time of the sample, in Unix ms.
    pub at_ms: i64,
    /// How far MySQL is behind.
    pub lag: Lag,
    /// Numbers from its tables.
    pub tables: Tables,
    /// The newest products' stock.
    pub stock: Vec<Stock>,
    /// Orders that this instance has answered since its start, by verdict; [`History::add`] fills
    /// it in.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Median duration of this instance's Redis-first orders of the last [`WINDOW`] seconds; `None`
    /// when there were none.
    pub p50_ms: Option<f64>,
    /// 99th percentile of the same durations.
    pub p99_ms: Option<f64>,
}

/// The samples of the last two minutes, and the counts for the next one.
pub struct History {
    samples: Mutex<VecDeque<Arc<Sample>>>,
    verdicts: Mutex<BTreeMap<&'static str, u64>>,
    /// Durations of each of the last [`WINDOW`] seconds, the current second last.
    durations: Mutex<VecDeque<Durations>>,
    changed: watch::Sender<()>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            samples: Mutex::default(),
            verdicts: Mutex::default(),
            durations: Mutex::new(VecDeque::from([empty()])),
            changed: watch::Sender::new(()),
        }
    }
}

impl History {
    /// Counts an order by its verdict.
    pub fn count(&self, verdict: &'static str) {
        let mut verdicts = lock(&self.verdicts);
        *verdicts.entry(verdict).or_default() += 1;
    }

    /// Records the duration of a Redis-first order.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(SLOWEST_US);
        let mut durations = lock(&self.durations);
        if let Some(running) = durations.back_mut() {
            running.saturating_record(us.max(1));
        }
    }

    /// The median and the 99th percentile of the last seconds, in milliseconds. Starts the next
    /// second.
    fn turn_second(&self) -> Option<(f64, f64)> {
        let mut durations = lock(&self.durations);
        let mut all = empty();
        for second in &*durations {
            all += second;
        }
        durations.push_back(empty());
        if durations.len() > WINDOW {
            durations.pop_front();
        }
        drop(durations);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a minute of microseconds is far below 2^53"
        )]
        let ms = |quantile| all.value_at_quantile(quantile) as f64 / 1_000.0;
        (!all.is_empty()).then(|| (ms(0.5), ms(0.99)))
    }

    /// Adds a sample, completed with the counts of this instance, and forgets the oldest.
    pub fn add(&self, mut sample: Sample) {
        sample.verdicts = lock(&self.verdicts).clone();
        (sample.p50_ms, sample.p99_ms) = self.turn_second().unzip();
        let mut samples = lock(&self.samples);
        samples.push_back(Arc::new(sample));
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
        drop(samples);
        self.changed.send_replace(());
    }

    /// The samples, the oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Arc<Sample>> {
        let samples = lock(&self.samples);
        samples.iter().cloned().collect()
    }

    /// Notified when a sample was added.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// A histogram for durations of orders, in microseconds; a longer one counts as the longest.
fn empty() -> Durations {
    #[expect(
        clippy::unwrap_used,
        reason = "the bounds are constants that a test has tried"
    )]
    Durations::new_with_bounds(1, SLOWEST_US, DIGITS).unwrap()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{History, Sample, WINDOW};

    #[test]
    fn a_second_holds_the_quantiles_of_the_last_ten() {
        let history = History::default();
        for us in [1_000, 1_000, 1_000, 9_000_000] {
            history.record(Duration::from_micros(us));
        }
        history.add(Sample::default());
        let quantiles = |at: usize| {
            let samples = history.samples();
            (samples[at].p50_ms.unwrap(), samples[at].p99_ms.unwrap())
        };
        let (p50, p99) = quantiles(0);
        assert!((0.99..1.02).contains(&p50) && (8_900.0..9_100.0).contains(&p99));
        for _ in 1..WINDOW {
            history.add(Sample::default());
        }
        assert_eq!(quantiles(WINDOW - 1), (p50, p99));
        history.add(Sample::default());
        assert!(history.samples()[WINDOW].p99_ms.is_none());
    }

    #[test]
    fn verdicts_are_counted_from_the_start() {
        let history = History::default();
        history.count("ACCEPTED");
        history.count("SOLD_OUT");
        history.count("ACCEPTED");
        history.add(Sample::default());
        history.add(Sample::default());
        let samples = history.samples();
        for sample in samples {
            let counts: Vec<_> = sample.verdicts.iter().collect();
            assert_eq!(counts, [(&"ACCEPTED", &2), (&"SOLD_OUT", &1)]);
        }
    }
}
