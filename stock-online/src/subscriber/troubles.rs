//! Troubles: the errors that keep this process from applying a shard's journal, and since when.
//!
//! `/readyz` reports a trouble that stops applying at once. A trouble that passes by itself, such
//! as a lock or an unreachable MySQL, is reported when it has lasted ten seconds. Two gauges show
//! every trouble at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use stock_common::lock::lock;
use stock_engine::apply::ApplyError;

/// How long a trouble that may pass is not reported.
const PATIENCE: Duration = Duration::from_secs(10);

struct Trouble {
    since: Instant,
    is_passing: bool,
    reason: String,
}

impl Trouble {
    fn is_said(&self) -> bool {
        !self.is_passing || self.since.elapsed() >= PATIENCE
    }
}

/// The troubles of all shards.
#[derive(Default)]
pub struct Troubles {
    shards: Mutex<BTreeMap<u64, Trouble>>,
    /// Accounts under quarantine, of all shards.
    quarantined: AtomicI64,
}

impl Troubles {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Trouble>> {
        lock(&self.shards)
    }

    /// Notes how many accounts are under quarantine.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn note_quarantined(&self, accounts: i64) {
        self.quarantined.store(accounts, Ordering::Relaxed);
        metrics::gauge!("stock_quarantined_accounts").set(accounts as f64);
    }

    /// Notes that a step has failed.
    pub(super) fn note(&self, shard: u64, error: &ApplyError) {
        let mut all = self.all();
        let trouble = all.entry(shard).or_insert_with(|| Trouble {
            since: Instant::now(),
            is_passing: true,
            reason: String::new(),
        });
        trouble.is_passing = error.is_passing();
        trouble.reason = error.to_string();
        tell(shard, Some(trouble));
    }

    /// Notes that a step has succeeded.
    pub(super) fn end(&self, shard: u64) {
        self.all().remove(&shard);
        tell(shard, None);
    }

    /// The trouble to report: of the first shard that is not applied, or else of the accounts under
    /// quarantine.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let all = self.all();
        let Some((shard, trouble)) = all.iter().find(|(_, trouble)| trouble.is_said()) else {
            let accounts = self.quarantined.load(Ordering::Relaxed);
            return (accounts > 0).then(|| format!("accounts under quarantine: {accounts}"));
        };
        let state = if trouble.is_passing {
            "is not applied for now"
        } else {
            "has stopped being applied"
        };
        Some(format!("shard {shard} {state}: {}", trouble.reason))
    }
}

fn tell(shard: u64, trouble: Option<&Trouble>) {
    let shard = shard.to_string();
    let is_stopped = trouble.is_some_and(|trouble| !trouble.is_passing);
    let seconds = trouble.map_or(0.0, |trouble| trouble.since.elapsed().as_secs_f64());
    metrics::gauge!("stock_apply_stopped", "shard" => shard.clone())
        .set(f64::from(u8::from(is_stopped)));
    metrics::gauge!("stock_apply_failing_seconds", "shard" => shard).set(seconds);
}

#[cfg(test)]
mod tests {
    use stock_common::id::Position;
    use stock_engine::apply::ApplyError;
    use stock_mysql::settle::Gap;

    use super::{PATIENCE, Troubles};

    #[test]
    fn what_stops_is_said_at_once_and_what_passes_when_it_lasts() {
        let troubles = Troubles::default();
        troubles.note(3, &ApplyError::Stalled);
        assert_eq!(troubles.reason(), None);
        troubles.all().get_mut(&3).unwrap().since -= PATIENCE;
        assert!(
            troubles
                .reason()
                .unwrap()
                .contains("shard 3 is not applied for now")
        );
        troubles.end(3);
        assert_eq!(troubles.reason(), None);
        let gap = Gap {
            position: Position::new(7),
            number: 9,
            expected: 8,
        };
        troubles.note(4, &gap.into());
        assert!(troubles.reason().unwrap().contains("shard 4 has stopped"));
    }
}
