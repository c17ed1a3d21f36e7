//! The last minutes, a sample a second: what the dashboard draws.
//!
//! The monitor adds a sample of what it measures anyway. Counts of this instance are read from its own metrics, so
//! that the dashboard and `/metrics` never disagree.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use stock_common::id::ProductId;
use tokio::sync::watch;

/// Seconds that are remembered.
pub const SAMPLES: usize = 120;

/// How far MySQL is behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lag {
    /// Entries accepted since the beginning, by all instances.
    pub accepted: u64,
    /// How many of them are settled.
    pub settled: u64,
    /// How long the oldest unsettled one has waited.
    pub seconds: f64,
}

/// What MySQL's tables say.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Dead letters that wait for a compensation or a person.
    pub dead_letters: i64,
    /// Accounts that the last reconcile left differing; none before the first.
    pub drift_accounts: Option<u32>,
    /// When the last verify ended, in Unix ms, and how much differed.
    pub verified: Option<(i64, u32)>,
    /// Each job, and how many seconds ago it last succeeded.
    pub jobs: Vec<(String, Option<i64>)>,
}

/// A product's stock.
#[derive(Debug, Clone)]
pub struct Stock {
    /// The product.
    pub id: ProductId,
    /// What it is called.
    pub name: String,
    /// What is available online.
    pub available: i64,
}

/// What this instance has counted since it began.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Orders, by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Redis-first orders' durations: how many took at most so many microseconds, by that bound.
    pub durations: BTreeMap<u64, u64>,
}

/// One second.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// When, in Unix ms.
    pub at_ms: i64,
    /// How far MySQL is behind.
    pub lag: Lag,
    /// What its tables say.
    pub tables: Tables,
    /// The newest products' stock.
    pub stock: Vec<Stock>,
    /// What was counted here.
    pub counts: Counts,
}

/// The last minutes.
pub struct History {
    samples: Mutex<VecDeque<Arc<Sample>>>,
    changed: watch::Sender<()>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            samples: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl History {
    /// Adds a second, and forgets the oldest.
    pub fn add(&self, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(Arc::new(sample));
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
        drop(samples);
        self.changed.send_replace(());
    }

    /// The remembered seconds, the oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Arc<Sample>> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().cloned().collect()
    }

    /// Tells when a second was added.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Counts {
    /// Reads them from Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Some(value) = value.parse::<u64>().ok() else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let label = |wanted: &str| {
                let labels = labels.trim_end_matches('}').split(',');
                let mut pairs = labels.filter_map(|pair| pair.split_once('='));
                let found = pairs.find(|(name, _)| *name == wanted);
                found.map(|(_, value)| value.trim_matches('"'))
            };
            match name {
                "stock_orders_total" => {
                    let verdict = label("verdict").unwrap_or_default();
                    *counts.verdicts.entry(verdict.to_owned()).or_default() += value;
                }
                "http_request_duration_seconds_bucket" if label("route").is_some_and(is_order) => {
                    let bound = label("le").map_or(u64::MAX, bound_us);
                    *counts.durations.entry(bound).or_default() += value;
                }
                _ => {}
            }
        }
        counts
    }
}

fn is_order(route: &str) -> bool {
    // The other path's URL also lists orders, and a duration does not say which of the two it was.
    route == "/api/redis/orders"
}

/// A bucket's bound in microseconds; that of the last is beyond all.
fn bound_us(seconds: &str) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are a few seconds"
    )]
    let us = |seconds: f64| (seconds * 1e6).round() as u64;
    let seconds = seconds
        .parse::<f64>()
        .ok()
        .filter(|bound| bound.is_finite());
    seconds.map_or(u64::MAX, us)
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn counts_are_read_from_the_text_format() {
        let text = "# TYPE stock_orders_total counter\n\
            stock_orders_total{path=\"redis\",verdict=\"accepted\"} 7\n\
            stock_orders_total{path=\"lock\",verdict=\"accepted\"} 2\n\
            stock_orders_total{path=\"redis\",verdict=\"INSUFFICIENT\"} 3\n\
            http_request_duration_seconds_bucket{route=\"/api/redis/orders\",status=\"201\",le=\"0.0025\"} 5\n\
            http_request_duration_seconds_bucket{route=\"/api/redis/orders\",status=\"409\",le=\"0.0025\"} 1\n\
            http_request_duration_seconds_bucket{route=\"/api/redis/orders\",status=\"201\",le=\"+Inf\"} 7\n\
            http_request_duration_seconds_bucket{route=\"/api/products\",status=\"200\",le=\"+Inf\"} 9\n\
            stock_journal_lag_seconds 0.5\n";
        let counts = Counts::read(text);
        let verdicts: Vec<_> = counts.verdicts.into_iter().collect();
        assert_eq!(
            verdicts,
            [("INSUFFICIENT".to_owned(), 3), ("accepted".to_owned(), 9)]
        );
        let durations: Vec<_> = counts.durations.into_iter().collect();
        assert_eq!(durations, [(2_500, 6), (u64::MAX, 7)]);
    }
}
