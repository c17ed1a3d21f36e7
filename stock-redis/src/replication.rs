//! Replication: an accepted order is answered when a replica has it, so that the loss of a master
//! loses no order.
//!
//! `WAIT` after each script call, in the same message, tells how many replicas have what the call
//! wrote. Where too few replicas are connected, nobody waits for them. A connected replica that is
//! silent is waited for once a second. So the shop goes on, and counts the orders that stand on the
//! master alone (`stock_unreplicated_total`). With `replica_policy = strict` such an order is
//! answered as unknown, and no order is taken while too few replicas are connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stock_common::config::{Config, ReplicaPolicy};

/// How long a replica that did not answer in time is not waited for.
const BEHIND: Duration = Duration::from_secs(1);

/// The number of replicas that must have an entry, and the number that is connected.
pub(super) struct Replication {
    /// With 0 nothing is waited for.
    min: u64,
    policy: ReplicaPolicy,
    wait_ms: u64,
    connected: AtomicU64,
    since: Instant,
    /// The ms after `since` until which no replica is waited for.
    behind_until_ms: AtomicU64,
    unreplicated: metrics::Counter,
}

impl Replication {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            min: config.replicas_min(),
            policy: config.redis.replica_policy,
            wait_ms: config.redis.replica_wait_ms,
            connected: AtomicU64::new(0),
            since: Instant::now(),
            behind_until_ms: AtomicU64::new(0),
            unreplicated: metrics::counter!("stock_unreplicated_total"),
        }
    }

    /// Whether replicas are waited for at all.
    pub(super) const fn is_wanted(&self) -> bool {
        self.min > 0
    }

    /// Notes how many replicas are connected.
    pub(super) fn note_connected(&self, replicas: u64) {
        self.connected.store(replicas, Ordering::Relaxed);
    }

    /// The reason why nothing may be sold: the policy is strict, and too few replicas are
    /// connected.
    pub(super) fn refusal(&self) -> Option<Arc<str>> {
        let connected = self.connected.load(Ordering::Relaxed);
        let is_refused = self.policy == ReplicaPolicy::Strict && connected < self.min;
        is_refused
            .then(|| format!("connected replicas {connected}, replicas_min {}", self.min).into())
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The number of replicas for which a call waits, and for how many ms; `None` where waiting is
    /// in vain.
    pub(super) fn wait(&self) -> Option<(u64, u64)> {
        let is_strict = self.policy == ReplicaPolicy::Strict;
        let is_there = self.connected.load(Ordering::Relaxed) >= self.min
            && self.age_ms() >= self.behind_until_ms.load(Ordering::Relaxed);
        (self.is_wanted() && (is_strict || is_there)).then_some((self.min, self.wait_ms))
    }

    /// Whether accepted entries may be answered when `have` replicas have them. `None` says that no
    /// replica was waited for.
    pub(super) fn judge(&self, have: Option<u64>, accepted: usize) -> bool {
        if !self.is_wanted() || accepted == 0 || have.is_some_and(|have| have >= self.min) {
            return true;
        }
        self.unreplicated.increment(accepted as u64);
        if have.is_some() {
            let until = self.age_ms() + u64::try_from(BEHIND.as_millis()).unwrap_or(u64::MAX);
            self.behind_until_ms.store(until, Ordering::Relaxed);
        }
        self.policy == ReplicaPolicy::Available
    }
}

#[cfg(test)]
mod tests {
    use stock_common::config::{Config, ReplicaPolicy};

    use super::Replication;

    fn of(policy: ReplicaPolicy, connected: u64) -> Replication {
        let config = Config::default().with(|config| {
            config.redis.replicas_min = Some(1);
            config.redis.replica_policy = policy;
        });
        let replication = Replication::new(&config);
        replication.note_connected(connected);
        replication
    }

    #[test]
    fn the_shop_goes_on_without_a_replica_that_is_absent_or_silent() {
        let absent = of(ReplicaPolicy::Available, 0);
        assert_eq!((absent.wait(), absent.refusal()), (None, None));
        assert!(absent.judge(None, 3));
        let silent = of(ReplicaPolicy::Available, 1);
        assert_eq!(silent.wait().map(|(replicas, _)| replicas), Some(1));
        assert!(silent.judge(Some(0), 3));
        assert_eq!(silent.wait(), None, "it is not waited for again at once");
    }

    #[test]
    fn a_strict_shop_calls_unknown_what_no_replica_has() {
        let silent = of(ReplicaPolicy::Strict, 1);
        assert!(silent.wait().is_some() && silent.refusal().is_none());
        assert!(!silent.judge(Some(0), 3));
        assert!(silent.wait().is_some(), "each call waits");
        assert!(silent.judge(Some(1), 3));
        assert!(silent.judge(Some(0), 0), "nothing was accepted");
        assert!(of(ReplicaPolicy::Strict, 0).refusal().is_some());
    }

    #[test]
    fn a_lone_redis_waits_for_nobody() {
        let lone = Replication::new(&Config::default());
        assert!(!lone.is_wanted() && lone.wait().is_none() && lone.refusal().is_none());
        assert!(lone.judge(None, 3));
    }
}
