//! Figures of the dashboard: rates and quantiles of the remembered seconds, and curves as SVG
//! paths.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::history::{SAMPLES, Sample, Tables, WINDOW};

/// A curve's height, in the units of its view box; a second is one unit wide.
pub(super) const HEIGHT: f64 = 30.0;

/// A curve: its line, and the area under it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Curve {
    pub(super) line: String,
    pub(super) area: String,
}

/// A product's stock over the last minutes.
pub(super) struct ProductFigures {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) available: i64,
    pub(super) curve: Curve,
}

/// The figures of the dashboard.
#[derive(Default)]
pub(super) struct Figures {
    /// Orders requested on this instance, per second.
    pub(super) orders: f64,
    pub(super) orders_curve: Curve,
    /// Entries accepted by all instances, per second.
    pub(super) accepted: f64,
    pub(super) accepted_curve: Curve,
    /// Entries settled in MySQL, per second.
    pub(super) settled: f64,
    pub(super) settled_curve: Curve,
    pub(super) lag_entries: i64,
    pub(super) lag_seconds: f64,
    pub(super) lag_curve: Curve,
    /// Durations of this instance's orders, in milliseconds; `None` without an order.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) p99_curve: Curve,
    /// This instance's orders by verdict: per second, and since the start.
    pub(super) verdicts: Vec<(&'static str, f64, i64)>,
    pub(super) products: Vec<ProductFigures>,
    pub(super) tables: Tables,
}

impl Figures {
    pub(super) fn of(samples: &[Arc<Sample>]) -> Self {
        let Some(last) = samples.last() else {
            return Self::default();
        };
        let orders = |sample: &Sample| sample.verdicts.values().sum();
        let accepted = |sample: &Sample| sample.lag.accepted;
        let settled = |sample: &Sample| sample.lag.settled;
        let lag = |sample: &Sample| sample.lag.accepted.saturating_sub(sample.lag.settled);
        let lags: Vec<f64> = samples.iter().map(|sample| float(lag(sample))).collect();
        // A second without orders lies at the bottom of the curve.
        let p99: Vec<f64> = (samples.iter())
            .map(|sample| sample.p99_ms.unwrap_or(0.0))
            .collect();
        let verdicts = last.verdicts.iter().map(|(name, total)| {
            // A verdict that is missing in a sample had not been given yet.
            let one = |sample: &Sample| sample.verdicts.get(name).copied().unwrap_or(0);
            (*name, rate(samples, one), whole(*total))
        });
        Self {
            orders: rate(samples, orders),
            orders_curve: curve(&rates(samples, orders)),
            accepted: rate(samples, accepted),
            accepted_curve: curve(&rates(samples, accepted)),
            settled: rate(samples, settled),
            settled_curve: curve(&rates(samples, settled)),
            lag_entries: whole(lag(last)),
            lag_seconds: last.lag.seconds,
            lag_curve: curve(&lags),
            p50_ms: last.p50_ms,
            p99_ms: last.p99_ms,
            p99_curve: curve(&p99),
            verdicts: verdicts.collect(),
            products: products(samples, last),
            tables: last.tables.clone(),
        }
    }
}

fn products(samples: &[Arc<Sample>], last: &Sample) -> Vec<ProductFigures> {
    let mut seen: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for sample in samples {
        for stock in &sample.stock {
            let level = u64::try_from(stock.available).unwrap_or_default();
            seen.entry(stock.id.0).or_default().push(float(level));
        }
    }
    let figures = last.stock.iter().map(|stock| ProductFigures {
        id: stock.id.0,
        name: stock.name.clone(),
        available: stock.available,
        curve: curve(seen.get(&stock.id.0).map_or(&[], Vec::as_slice)),
    });
    figures.collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what is drawn is far below 2^53"
)]
const fn float(number: u64) -> f64 {
    number as f64
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Each sample with the one [`WINDOW`] samples before it, or with the first one.
fn windows(samples: &[Arc<Sample>]) -> impl Iterator<Item = (&Sample, &Sample)> {
    samples.iter().enumerate().map(move |(at, to)| {
        let from = samples.get(at.saturating_sub(WINDOW)).unwrap_or(to);
        (from.as_ref(), to.as_ref())
    })
}

/// The rise of a count between two samples, per second.
fn rise(from: &Sample, to: &Sample, count: impl Fn(&Sample) -> u64) -> f64 {
    let ms = u64::try_from(to.at_ms - from.at_ms).unwrap_or_default();
    if ms == 0 {
        return 0.0;
    }
    // A count that fell began anew: another epoch, another process.
    float(count(to).saturating_sub(count(from))) * 1_000.0 / float(ms)
}

/// The latest rate.
fn rate(samples: &[Arc<Sample>], count: impl Fn(&Sample) -> u64) -> f64 {
    windows(samples)
        .last()
        .map_or(0.0, |(from, to)| rise(from, to, count))
}

/// The rate of each second.
fn rates(samples: &[Arc<Sample>], count: impl Fn(&Sample) -> u64) -> Vec<f64> {
    let pairs = samples.iter().zip(samples.iter().skip(1));
    pairs.map(|(from, to)| rise(from, to, &count)).collect()
}

/// The curve of some values, the latest at the right.
fn curve(values: &[f64]) -> Curve {
    let most = values.iter().copied().fold(0.0, f64::max);
    let (Some(_), true) = (values.get(1), most > 0.0) else {
        return Curve::default();
    };
    let begin = SAMPLES.saturating_sub(values.len());
    let mut line = String::new();
    for (index, value) in values.iter().enumerate() {
        let letter = if index == 0 { 'M' } else { 'L' };
        let y = (1.0 - value / most) * (HEIGHT - 2.0) + 1.0;
        if write!(line, "{letter}{} {y:.1}", begin + index).is_err() {
            return Curve::default();
        }
    }
    let area = format!(
        "{line}L{} {HEIGHT}L{begin} {HEIGHT}Z",
        SAMPLES.saturating_sub(1)
    );
    Curve { line, area }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Figures, curve};
    use crate::history::{Lag, Sample};

    fn second(at: i64, orders: u64) -> Arc<Sample> {
        Arc::new(Sample {
            at_ms: at * 1_000,
            lag: Lag {
                accepted: orders,
                settled: orders / 2,
                seconds: 0.5,
            },
            verdicts: [("ACCEPTED", orders)].into(),
            ..Sample::default()
        })
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let samples: Vec<_> = (0..30)
            .map(|at| second(at, at.unsigned_abs() * 40))
            .collect();
        let figures = Figures::of(&samples);
        assert!((figures.orders - 40.0).abs() < 1e-9 && (figures.settled - 20.0).abs() < 1e-9);
        assert_eq!(figures.lag_entries, 29 * 20);
        assert_eq!(figures.verdicts.len(), 1);
        // After a restart the counts begin at zero, and the rate is not negative.
        let restarted = [second(0, 1_000), second(1, 5)];
        assert!(Figures::of(&restarted).orders.abs() < 1e-9);
        assert!(Figures::of(&[]).p99_ms.is_none());
    }

    #[test]
    fn a_curve_ends_at_the_right() {
        let drawn = curve(&[0.0, 10.0]);
        assert_eq!(drawn.line, "M118 29.0L119 1.0");
        assert_eq!(drawn.area, "M118 29.0L119 1.0L119 30L118 30Z");
        assert_eq!(curve(&[1.0]), super::Curve::default());
    }
}
