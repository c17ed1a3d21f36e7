//! The switch of selling as this instance knows it. While it says *stopped*, nobody sells here,
//! whatever a shard's Redis says, and although it may not answer.
//!
//! Each shard has the switch in its own Redis, where its script obeys it. A shard that cannot be
//! reached does not hear that it has to stop. So instances tell each other the last switch, by
//! Pub/Sub and by a row in MySQL. Each instance itself refuses requests to a shard that is not
//! known to follow the switch.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use stock_common::lock::lock;
use stock_domain::selling::Switched;

/// The last switch of which this instance has heard.
#[derive(Debug, Default)]
pub(super) struct Switch {
    last: Mutex<Option<Switched>>,
    is_stopped: AtomicBool,
    /// Rises with each switch that counts.
    generation: AtomicU64,
}

impl Switch {
    /// Hears a switch; returns whether it is newer than what was known.
    pub(super) fn hear(&self, heard: Switched) -> bool {
        let mut last = lock(&self.last);
        let is_newer = last.is_none_or(|known| heard.is_newer(known));
        if is_newer {
            *last = Some(heard);
            self.is_stopped.store(!heard.open, Ordering::Release);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        is_newer
    }

    pub(super) fn last(&self) -> Option<Switched> {
        *lock(&self.last)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// The switch that a shard's Redis was last seen to follow: its generation, and whether selling was
/// open.
#[derive(Debug, Default)]
pub(super) struct Follows(Mutex<Option<(u64, bool)>>);

impl Follows {
    /// Notes that selling was seen open, or stopped, after the switch of `generation` had been
    /// heard.
    pub(super) fn note(&self, generation: u64, open: bool) {
        let mut seen = lock(&self.0);
        *seen = Some((generation, open));
    }

    /// Whether its script is known to refuse what the switch has stopped.
    pub(super) fn has_stopped(&self, switch: &Switch) -> bool {
        let seen = *lock(&self.0);
        seen.is_some_and(|(generation, open)| !open && generation == switch.generation())
    }
}

#[cfg(test)]
mod tests {
    use stock_domain::selling::Switched;

    use super::{Follows, Switch};

    #[test]
    fn the_later_switch_counts_and_of_two_at_once_the_one_that_stops() {
        let at = |open, at_ms| Switched { open, at_ms };
        let switch = Switch::default();
        assert!(!switch.is_stopped());
        assert!(switch.hear(at(false, 5)));
        assert!(!switch.hear(at(true, 5)) && switch.is_stopped());
        assert!(!switch.hear(at(true, 4)) && switch.is_stopped());
        assert!(switch.hear(at(true, 6)) && !switch.is_stopped());
        assert!(switch.hear(at(false, 6)) && switch.is_stopped());
        assert_eq!(switch.last(), Some(at(false, 6)));
    }

    #[test]
    fn what_a_shard_did_before_a_switch_says_nothing_about_it() {
        let (switch, shard) = (Switch::default(), Follows::default());
        switch.hear(Switched {
            open: false,
            at_ms: 1,
        });
        assert!(!shard.has_stopped(&switch));
        shard.note(switch.generation(), false);
        assert!(shard.has_stopped(&switch));
        switch.hear(Switched {
            open: false,
            at_ms: 2,
        });
        assert!(!shard.has_stopped(&switch));
    }
}
