//! I23 and I24: a fault harms its victims only, and `/readyz`, a metric and an alert name a fault
//! that lasts.
//!
//! The alerts are those of `observability/alerts.yml`, evaluated over the present metrics of the
//! service. Prometheus would wait before it fires (`for`); here nothing waits.

use std::time::{Duration, Instant};

use serde_json::Value;
use stock_client::Answer;

use super::buyers::Buyers;
use super::history::Asked;
use super::world::World;
use crate::Failure;

const RULES: &str = include_str!("../../../observability/alerts.yml");
/// A fault must be named within this time.
pub const NAMED_WITHIN: Duration = Duration::from_secs(10);
/// The share of the others' orders that must be served during a fault.
const SERVED_MIN: f64 = 0.8;

/// A statement that `/readyz` must make.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    /// A check has a value.
    Check(&'static str, &'static str),
    /// A server's setting is listed as wrong; with this status, unless it is empty.
    Setting(&'static str, &'static str),
    /// A check is not `ok`, whatever its value.
    NotOk(&'static str),
}

impl Says {
    fn is_said(self, ready: &Answer) -> bool {
        let check = |name| ready.body.pointer(&format!("/checks/{name}"));
        match self {
            Self::Check(name, value) => check(name) == Some(&value.into()),
            Self::NotOk(name) => check(name).is_some_and(|said| said != "ok"),
            Self::Setting(name, status) => {
                let listed = ready.body.get("settings").and_then(Value::as_array);
                let mut listed = listed.into_iter().flatten();
                listed.any(|one| one.get("setting") == Some(&name.into()))
                    && (status.is_empty() || ready.member("status") == status)
            }
        }
    }
}

/// The signals that must name a fault.
#[derive(Debug, Clone, Copy)]
pub struct Sign {
    /// The statement of `/readyz`, for faults that it shows.
    pub readyz: Option<Says>,
    /// The alert, by its name.
    pub alert: &'static str,
}

/// MySQL does not answer.
pub const MYSQL_DOWN: Sign = Sign {
    readyz: Some(Says::Check("mysql", "down")),
    alert: "StockFlowMysqlDown",
};
/// Nothing is decided: Redis is another one than before, or has lost something.
pub const FENCED: Sign = Sign {
    readyz: Some(Says::Check("epoch", "fenced")),
    alert: "StockFlowFenced",
};
/// Redis does not answer.
pub const REDIS_DOWN: Sign = Sign {
    readyz: Some(Says::Check("redis", "down")),
    alert: "StockFlowRedisDown",
};
/// Entries that their own tables refuse.
pub const DEAD_LETTERS: Sign = Sign {
    readyz: None,
    alert: "StockFlowNewDeadLetters",
};
/// An account whose postings do not chain.
pub const QUARANTINED: Sign = Sign {
    readyz: Some(Says::NotOk("apply")),
    alert: "StockFlowQuarantine",
};

impl World {
    /// I24: waits until the first service names the fault that began at `since`.
    ///
    /// # Errors
    /// When the service does not name it within 10 s.
    pub async fn named(&self, sign: Sign, since: Instant) -> Result<Duration, Failure> {
        let client = self.client()?;
        loop {
            let ready = client.get("/readyz").try_send().await?;
            let metrics = client.get("/metrics").try_send().await?;
            let is_said = sign.readyz.is_none_or(|says| says.is_said(&ready));
            let is_firing = is_firing(RULES, sign.alert, &metrics.text);
            let is_firing =
                is_firing.ok_or_else(|| format!("alert {} cannot be judged", sign.alert))?;
            if is_said && is_firing {
                return Ok(since.elapsed());
            }
            if since.elapsed() > NAMED_WITHIN {
                let text = format!(
                    "I24: not named within {NAMED_WITHIN:?} by {sign:?}: alert {is_firing}, {}",
                    ready.text
                );
                return Err(text.into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// I23: the share of the orders since the `first` that were served. Orders of victims do not count.
///
/// # Errors
/// When the share is too small.
pub fn others_are_served(
    buyers: &Buyers,
    first: usize,
    is_victim: impl Fn(&Asked) -> bool,
) -> Result<f64, Failure> {
    let served = buyers.served_since(first, is_victim);
    match served >= SERVED_MIN {
        true => Ok(served),
        false => Err(format!("I23: {served:.2} of the others' orders were served").into()),
    }
}

/// Whether an alert's expression holds for these metrics; `None` when the rule is not there or has
/// another form than `max|min [by (…)] (metric[{labels}]) op number`.
fn is_firing(rules: &str, alert: &str, metrics: &str) -> Option<bool> {
    let mut lines = rules.lines().map(str::trim);
    lines.find(|line| line.strip_prefix("- alert: ") == Some(alert))?;
    let expression = lines.next()?.strip_prefix("expr: ")?;
    let (series, comparison) = (
        expression.split_once('(')?,
        expression.rsplit_once(')')?.1.trim(),
    );
    if comparison.contains("on ") || !(series.0.starts_with("min") || series.0.starts_with("max")) {
        return None;
    }
    let is_least = series.0.starts_with("min");
    let series = expression.get(..expression.rfind(')')?)?;
    let series = series.get(series.rfind('(')? + 1..)?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    let (operator, bound) = comparison.split_once(' ')?;
    let bound: f64 = bound.parse().ok()?;
    let values = metrics.lines().filter_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        let (found, of) = key.split_once('{').unwrap_or((key, ""));
        let fits = found == name && labels.iter().all(|label| of.contains(label));
        fits.then(|| value.parse::<f64>().ok())?
    });
    let holds = |value: f64| match operator {
        ">" => Some(value > bound),
        "==" => Some((value - bound).abs() < f64::EPSILON),
        _ => None,
    };
    let held: Vec<bool> = values.map(holds).collect::<Option<_>>()?;
    // A `min` exceeds a bound when all values do; a `max` when one does. Equality is met when one
    // value is equal.
    Some(match is_least && operator == ">" {
        true => !held.is_empty() && held.iter().all(|held| *held),
        false => held.iter().any(|held| *held),
    })
}

#[cfg(test)]
mod tests {
    use super::{RULES, is_firing};

    #[test]
    fn alerts_are_judged_by_what_the_metrics_say() {
        let check = |alert: &str, metrics: &str, expected| {
            assert_eq!(is_firing(RULES, alert, metrics), expected);
        };
        let down = "stock_dependency_up{name=\"mysql\"} 0\nstock_dependency_up{name=\"redis\"} 1\n";
        check("StockFlowMysqlDown", down, Some(true));
        check(
            "StockFlowMysqlDown",
            "stock_dependency_up{name=\"redis\"} 0",
            Some(false),
        );
        let setting = "stock_server_setting{server=\"redis\",setting=\"appendonly\"} ";
        check("StockFlowUnsafeSetting", &format!("{setting}2"), Some(true));
        check(
            "StockFlowUnsafeSetting",
            &format!("{setting}1"),
            Some(false),
        );
        check("StockFlowWeakSetting", &format!("{setting}1"), Some(true));
        check("StockFlowFenced", "stock_fenced{shard=\"0\"} 1", Some(true));
        check("StockFlowDeadLetters", "stock_dead_letters 0", Some(false));
        check("StockFlowLag", "stock_journal_lag_seconds 10.5", Some(true));
        check("StockFlowPointsReportLate", "", None);
        check("StockFlowPubsubDown", "stock_pubsub_up 0", None);
        check("NoSuchAlert", "", None);
    }
}
