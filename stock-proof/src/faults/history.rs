//! The requests of buyers, and every answer that they were given.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stock_client::{Answer, order_json};

use super::buyers::COUPON;
use crate::Failure;

/// The outcome of a request, as its buyer was told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// 201, with the order's id.
    Accepted(String),
    /// 4xx, or a 503 that promises that nothing was done; with its code.
    Refused(String),
    /// A broken connection, a timeout, a proxy's own answer or `OUTCOME_UNKNOWN`.
    Unknown,
}

/// One order that was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The buyer.
    pub user: u64,
    /// `/api/redis/orders`, `/api/orders` or a store's.
    pub path: &'static str,
    /// Its Idempotency-Key.
    pub key: Option<String>,
    /// Products and quantities, each product once.
    pub lines: Vec<(u64, i64)>,
    /// The code of a coupon and the points that it used.
    pub benefits: Option<(String, i64)>,
    /// The reservation that it took.
    pub reservation: Option<String>,
    /// The outcome that the buyer was told.
    pub told: Told,
    /// The outcome of its cancel, if one was asked for.
    pub cancelled: Option<Told>,
    /// When it was sent, for measurements after the load.
    pub sent: Instant,
    /// How long its answer took.
    pub took: Duration,
}

impl Asked {
    /// Whether it is an order under row locks, which needs MySQL.
    #[must_use]
    pub fn needs_mysql(&self) -> bool {
        self.path != "/api/redis/orders"
    }

    /// Whether this code was the answer.
    #[must_use]
    pub fn was_refused(&self, code: &str) -> bool {
        matches!(&self.told, Told::Refused(refused) if refused == code)
    }

    /// The amount that is paid: the lines less the coupon and the points.
    #[must_use]
    pub fn total(&self) -> i64 {
        let lines: i64 = self
            .lines
            .iter()
            .map(|(_, quantity)| quantity * 1_000)
            .sum();
        let used = self.benefits.as_ref();
        lines - used.map_or(0, |(_, points)| COUPON + points)
    }

    /// The body of the request.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = order_json(&self.lines);
        if let (Some((code, points)), Some(body)) = (&self.benefits, body.as_object_mut()) {
            body.insert("couponCode".to_owned(), json!(code));
            body.insert("usePoints".to_owned(), json!(points));
            body.insert("totalAmount".to_owned(), json!(self.total()));
        }
        if let (Some(id), Some(body)) = (&self.reservation, body.as_object_mut()) {
            body.insert("reservationId".to_owned(), json!(id));
        }
        if let (true, Some(body)) = (self.path.contains("stores"), body.as_object_mut()) {
            body.remove("deliveryType");
        }
        body
    }
}

/// One movement of points, or one coupon, that was asked for.
#[derive(Debug, Clone)]
pub struct AskedBenefit {
    /// The user.
    pub user: u64,
    /// The change of the points; 0 for a coupon.
    pub delta: i64,
    /// The outcome; the id from the answer if it was made.
    pub told: Told,
}

/// One reservation that was asked for.
#[derive(Debug, Clone)]
pub struct AskedHold {
    /// The outcome; the id of the reservation if it was made.
    pub told: Told,
    /// `confirm`, `cancel` or `order`, with the outcome, if it was asked to end.
    pub ended: Option<(&'static str, Told)>,
}

/// Everything that buyers were told.
#[derive(Debug, Default)]
pub struct History {
    /// Every order, in the order in which the answers came.
    pub orders: Vec<Asked>,
    /// Every reservation, likewise.
    pub holds: Vec<AskedHold>,
    /// Every movement of points and every coupon, likewise.
    pub benefits: Vec<AskedBenefit>,
    /// The outcome of each draw of a coupon; the id from the answer if it was drawn.
    pub drawn: Vec<Told>,
    /// Units that stores took in, by product and store.
    pub received: BTreeMap<(u64, u64), i64>,
    /// Observations that contradict a promise at once: an own order that is not found, a version
    /// that goes back.
    pub complaints: Vec<String>,
    /// How often each code was the answer to an order. An answer without a code counts under its
    /// status.
    pub codes: BTreeMap<String, u64>,
    /// The longest wait for a 503, with its path and code.
    pub slowest_503: (Duration, String),
}

impl History {
    /// Orders with a 201.
    #[must_use]
    pub fn accepted(&self) -> usize {
        let is_accepted = |asked: &&Asked| matches!(asked.told, Told::Accepted(_));
        self.orders.iter().filter(is_accepted).count()
    }

    /// Orders with an unknown outcome.
    #[must_use]
    pub fn unknown(&self) -> usize {
        let is_unknown = |asked: &&Asked| asked.told == Told::Unknown;
        self.orders.iter().filter(is_unknown).count()
    }

    /// The share of the orders since the `first` that were served: accepted, or refused for a
    /// reason of the shop. The victims of a fault do not count.
    #[must_use]
    pub fn served_since(&self, first: usize, is_victim: impl Fn(&Asked) -> bool) -> f64 {
        let (mut served, mut all) = (0_u32, 0_u32);
        let asked = self.orders.iter().skip(first);
        for asked in asked.filter(|asked| !is_victim(asked)) {
            all += 1;
            served += u32::from(match &asked.told {
                Told::Refused(code) => !UNSERVED.contains(&code.as_str()),
                Told::Accepted(_) => true,
                Told::Unknown => false,
            });
        }
        f64::from(served) / f64::from(all.max(1))
    }

    /// How long the answers to orders since the `first` took, shortest first.
    #[must_use]
    pub fn took_since(&self, first: usize) -> Vec<Duration> {
        let orders = self.orders.iter().skip(first);
        let mut took: Vec<Duration> = orders.map(|asked| asked.took).collect();
        took.sort_unstable();
        took
    }

    /// Adds another history.
    pub fn append(&mut self, mut other: Self) {
        self.orders.append(&mut other.orders);
        self.holds.append(&mut other.holds);
        self.benefits.append(&mut other.benefits);
        self.drawn.append(&mut other.drawn);
        for (at, units) in other.received {
            *self.received.entry(at).or_default() += units;
        }
        self.complaints.append(&mut other.complaints);
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        self.slowest_503 = std::mem::take(&mut self.slowest_503).max(other.slowest_503);
    }
}

/// Codes of a shop that cannot sell at the moment.
pub(super) const UNSERVED: [&str; 7] = [
    "FENCED",
    "OVERLOADED",
    "BACKLOG",
    "DATABASE_UNAVAILABLE",
    "SELLING_STOPPED",
    "UNSAFE_REDIS",
    "ACCOUNT_BROKEN",
];

/// Reads from an answer the outcome of an order, or of a cancel.
pub(super) fn told(answer: Result<Answer, Failure>) -> Told {
    match answer {
        Ok(answer) if answer.status < 300 => {
            let names = ["orderId", "reservationId", "id"];
            let mut ids = names.iter().map(|name| answer.member(name));
            let id = ids.find(|id| !id.is_empty());
            Told::Accepted(id.unwrap_or_default().to_owned())
        }
        // TIMEOUT comes from the outer time limit, which does not know how far the request came.
        Ok(answer) if ["OUTCOME_UNKNOWN", "TIMEOUT", "INTERNAL"].contains(&answer.code()) => {
            Told::Unknown
        }
        // Each refusal of the service has a code. This answer is a proxy's, which does not know how
        // far the request came.
        Ok(answer) if answer.status >= 500 && answer.code().is_empty() => Told::Unknown,
        Ok(answer) => Told::Refused(answer.code().to_owned()),
        Err(_) => Told::Unknown,
    }
}
