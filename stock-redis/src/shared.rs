//! The state that the tasks of one shard share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::lock::lock;

use crate::fence::Fence;
use crate::lost::Lost;
use crate::pacer::Pacer;
use crate::recent::Recent;
use crate::sold_out::SoldOut;

/// Metrics of the hot path, resolved once.
pub(super) struct LedgerMetrics {
    batch_size: metrics::Histogram,
    decide_seconds: metrics::Histogram,
}

impl LedgerMetrics {
    pub(super) fn new() -> Self {
        Self {
            batch_size: metrics::histogram!("stock_decide_batch_size"),
            decide_seconds: metrics::histogram!("stock_decide_duration_seconds"),
        }
    }

    pub(super) fn batch(&self, size: usize, took: Duration) {
        self.batch_size
            .record(u32::try_from(size).unwrap_or(u32::MAX));
        self.decide_seconds.record(took.as_secs_f64());
    }
}

/// The state that a shard's tasks share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) fence: Arc<Fence>,
    pub(super) clock: Clock,
    /// Redis' time minus this machine's, in ms.
    pub(super) offset_ms: AtomicI64,
    /// Entries in an average frame, as last read.
    pub(super) frame_entries: AtomicUsize,
    pub(super) sold_out: SoldOut,
    pub(super) recent: Arc<Recent>,
    /// The things that were found lost in Redis and have to be brought back.
    pub(super) lost: Arc<Lost>,
    pub(super) pacer: Mutex<Pacer>,
    /// Whether the shard belongs to an earlier map.
    pub(super) is_retired: AtomicBool,
    pub(super) metrics: LedgerMetrics,
}

impl Shared {
    pub(super) fn pacer(&self) -> MutexGuard<'_, Pacer> {
        lock(&self.pacer)
    }

    pub(super) fn redis_now_ms(&self) -> u64 {
        let now = self.clock.now_ms() + self.offset_ms.load(Ordering::Relaxed);
        u64::try_from(now).unwrap_or_default()
    }

    pub(super) fn set_redis_time(&self, time_ms: u64) {
        let offset = i64::try_from(time_ms).unwrap_or_default() - self.clock.now_ms();
        self.offset_ms.store(offset, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.lost.close();
    }
}
