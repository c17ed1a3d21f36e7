//! The ledger of one shard: its fence, its batcher, its journal.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use redis::cmd;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::Position;
use stock_common::supervise::supervise;
use stock_domain::account::{Account, Book, Level};
use stock_domain::journal::Entry;
use stock_domain::request::Request;
use stock_domain::server_settings::Setting;
use stock_domain::shard_state::ShardState;
use stock_domain::verdict::{Back, Refusal, Verdict, Why};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::AbortHandle;

use super::{DecideError, ReadError};
use crate::batcher::{self, Waiting};
use crate::common::Common;
use crate::encoded_request::EncodedRequest;
use crate::fence::{Fence, FenceState, Line, Link};
use crate::journal_stream::{self, Portion, Tail};
use crate::keys::{Keys, SENTINEL};
use crate::levels::{self, LevelsMessage};
use crate::lost::Lost;
use crate::mend::Mend;
use crate::pacer::Pacer;
use crate::redis_memory::RedisMemory;
use crate::scripts::SCRIPTS;
use crate::shared::{LedgerMetrics, Shared};
use crate::sold_out::SoldOut;

/// The handle of the task that verifies a shard's Redis. The task ends with the shard.
#[derive(Default)]
struct FenceTask(OnceLock<AbortHandle>);

impl FenceTask {
    fn end(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

impl Drop for FenceTask {
    fn drop(&mut self) {
        self.end();
    }
}

/// The ledger of one shard; cloning shares it.
#[derive(Clone)]
pub struct Shard {
    shared: Arc<Shared>,
    fence_task: Arc<FenceTask>,
    queue: mpsc::Sender<Waiting>,
}

impl Shard {
    /// Begins a shard with its batcher. Nothing is decided on it until somebody has verified its
    /// Redis.
    pub(super) fn begin(shard: u64, common: Common, config: &Config, clock: Clock) -> Self {
        let fence = Fence::new(shard, &common, config, clock.clone());
        let name = fence.keys.epoch();
        let shared = Arc::new(Shared {
            config: config.clone(),
            fence: Arc::new(fence),
            clock,
            offset_ms: AtomicI64::new(0),
            frame_entries: AtomicUsize::new(1),
            sold_out: SoldOut::new(config.decide.sold_out_flag_ms),
            recent: common.recent,
            lost: Arc::default(),
            pacer: Mutex::new(Pacer::new(config.decide.lag_soft_entries, Instant::now())),
            is_retired: AtomicBool::new(false),
            metrics: LedgerMetrics::new(),
        });
        let (queue, requests) = mpsc::channel(config.decide.queue_requests_max);
        let (batching, requests) = (Arc::clone(&shared), Arc::new(AsyncMutex::new(requests)));
        common.requests.spawn(supervise("batcher", name, move || {
            batcher::run(Arc::clone(&batching), Arc::clone(&requests))
        }));
        Self {
            shared,
            fence_task: Arc::default(),
            queue,
        }
    }

    /// Tells the shard which task verifies its Redis. The task ends with the shard.
    pub fn kept_by(&self, task: AbortHandle) {
        if let Err(second) = self.fence_task.0.set(task) {
            second.abort();
        }
    }

    /// The fence, which keeps this instance from deciding on a Redis that nobody has verified.
    #[must_use]
    pub fn fence(&self) -> &Arc<Fence> {
        &self.shared.fence
    }

    /// The things that were found lost in Redis and have to be brought back.
    #[must_use]
    pub fn lost(&self) -> &Arc<Lost> {
        &self.shared.lost
    }

    /// Decides one request that lies on this shard alone.
    ///
    /// # Errors
    /// [`DecideError`] when there is no verdict. Only with `OutcomeUnknown` may something have been
    /// changed.
    pub async fn decide(&self, request: Arc<EncodedRequest>) -> Result<Verdict, DecideError> {
        if self.is_stopped_by_hand(&request.request) {
            return Ok(Verdict::Refused(Refusal::SellingStopped));
        }
        if let Some(reason) = self.shared.fence.reason() {
            return Err(DecideError::Fenced(reason));
        }
        // A switch of selling promises nothing to anybody, so an unsafe Redis may decide it.
        if request.request.draft.selling.is_none()
            && let Some(setting) = self.shared.fence.unsafe_setting()
        {
            return Err(DecideError::Unsafe(setting));
        }
        if let Some(refusal) = self.refuse_sold_out(&request.request) {
            return Ok(Verdict::Refused(refusal));
        }
        let verdict = self.ask(Arc::clone(&request)).await;
        let is_fenced = matches!(
            verdict,
            Ok(Verdict::Refused(Refusal::Fenced)) | Err(DecideError::Fenced(_))
        );
        // Nothing was executed. If only the epoch or the scripts behind the link were gone, the
        // next link is asked once more.
        if is_fenced && self.shared.fence.link_when_mended().await.is_ok() {
            return self.ask(request).await;
        }
        verdict
    }

    async fn ask(&self, request: Arc<EncodedRequest>) -> Result<Verdict, DecideError> {
        let (waiting, verdict) = Waiting::new(request);
        self.queue
            .try_send(waiting)
            .or(Err(DecideError::Overloaded))?;
        verdict.await.unwrap_or(Err(DecideError::OutcomeUnknown))
    }

    /// Whether selling is stopped and this shard's script is not known to follow. A script that
    /// follows refuses by itself, and answers again what it had answered under a key.
    fn is_stopped_by_hand(&self, request: &Request) -> bool {
        let fence = &self.shared.fence;
        request.takes_stock
            && fence.switch.is_stopped()
            && !(self.is_open() && fence.follows.has_stopped(&fence.switch))
    }

    /// Notes that this shard's script has followed the switch of a generation.
    pub(super) fn note_switched(&self, generation: u64, open: bool) {
        self.shared.fence.follows.note(generation, open);
    }

    /// The settings of the shard's Redis as they were found last.
    #[must_use]
    pub fn settings(&self) -> Arc<[Setting]> {
        self.shared.fence.settings()
    }

    /// Hears how far MySQL is. This instance relies on that while MySQL is away.
    pub fn hear_state(&self, state: &ShardState) {
        self.shared.fence.hear_state(state);
    }

    /// The open link, once it answers. While a broken link is being replaced, this waits for the
    /// next one.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] when there is no verified Redis.
    pub async fn live_link(&self) -> Result<Link, ReadError> {
        let link = self.shared.fence.live_link(Line::Read).await;
        link.map_err(ReadError::Fenced)
    }

    /// Refuses an order whose first product is known to be sold out, while requests are queueing. A
    /// request with a key goes through the script, which remembers the answer.
    fn refuse_sold_out(&self, request: &Request) -> Option<Refusal> {
        let first = request.draft.postings.first()?;
        // With several shards, units may be missing only because they are held for an order that
        // may fail. Only the script can tell.
        let is_alone = self.shared.fence.map.shards() == 1;
        let is_candidate =
            is_alone && request.takes_stock && request.idempotency.is_none() && self.is_busy();
        (is_candidate && self.shared.sold_out.is_flagged(first.account)).then_some(
            Refusal::Posting {
                posting: 0,
                account: first.account,
                why: Why::Insufficient {
                    balance: 0,
                    back: Back::Nothing,
                },
            },
        )
    }

    /// Whether requests are queueing.
    pub(super) fn is_busy(&self) -> bool {
        self.queue.capacity() < self.queue.max_capacity()
    }

    /// Hears new levels.
    pub fn hear(&self, message: &LevelsMessage) {
        for (account, level) in &message.levels {
            self.shared
                .sold_out
                .hear(*account, level.balance, level.seq);
        }
    }

    /// Ends the fence's task: a link that breaks is not replaced any more.
    pub(super) fn close(&self) {
        self.fence_task.end();
    }

    /// Ends the shard, which belongs to an earlier map. Nothing is decided on it any more.
    pub(super) fn retire(&self) {
        self.close();
        self.shared.is_retired.store(true, Ordering::Relaxed);
        let why = "the number of shards was changed";
        self.shared.fence.tell(FenceState::Fenced(why.into()));
    }

    /// Whether both are the same shard of the same map.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether there is a verified Redis.
    #[must_use]
    pub fn fence_state(&self) -> FenceState {
        self.shared.fence.state()
    }

    /// Whether there is a verified Redis.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.fence_state(), FenceState::Open(_))
    }

    /// Compares the epoch with Redis now, so that a readiness answer is not a second old.
    pub async fn check_fence(&self) -> FenceState {
        if let FenceState::Open(link) = self.fence_state() {
            self.shared.fence.check(&link).await;
        }
        self.fence_state()
    }

    /// Waits until the fence is open; `false` when `limit` passes first, or the shard belongs to an
    /// earlier map.
    pub async fn wait_open(&self, limit: Duration) -> bool {
        let mut changes = self.shared.fence.watch_state();
        let is_over = |state: &FenceState| {
            matches!(state, FenceState::Open(_)) || self.shared.is_retired.load(Ordering::Relaxed)
        };
        let over = changes.wait_for(is_over);
        drop(tokio::time::timeout(limit, over).await);
        self.is_open()
    }

    /// The names of this shard's keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.shared.fence.keys
    }

    /// The settings that the ledger was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Redis' time in Unix ms, from this machine's clock and the offset last seen.
    #[must_use]
    pub fn redis_now_ms(&self) -> u64 {
        self.shared.redis_now_ms()
    }

    /// The open link, for a caller that comes again when it is broken. A request takes
    /// [`Shard::live_link`].
    ///
    /// # Errors
    /// [`ReadError::Fenced`] when there is no verified Redis.
    pub fn link(&self) -> Result<Link, ReadError> {
        match self.fence_state() {
            FenceState::Open(link) => Ok(link),
            FenceState::Mending(reason) | FenceState::Fenced(reason) => {
                Err(ReadError::Fenced(reason))
            }
        }
    }

    /// Finds an entry in the journal; `None` when it is not there (any more).
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer or the entry cannot be read.
    pub async fn find(&self, position: Position) -> Result<Option<Entry>, ReadError> {
        let mut link = self.live_link().await?;
        let found = journal_stream::find(&mut link.read, self.keys(), position).await?;
        Ok(found.map(|(_, entry)| entry).transpose()?)
    }

    /// Reads what follows a position in the journal.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn tail(&self, after: Position, entries_max: usize) -> Result<Tail, ReadError> {
        let mut link = self.live_link().await?;
        let frame_entries = self.shared.frame_entries.load(Ordering::Relaxed);
        let portion = Portion {
            entries_max,
            frame_entries,
        };
        let tail = journal_stream::tail(&mut link.read, self.keys(), after, portion).await?;
        self.shared
            .frame_entries
            .store(tail.frame_entries, Ordering::Relaxed);
        Ok(tail)
    }

    /// The state under an id.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn state(&self, id: &str) -> Result<Option<String>, ReadError> {
        let mut link = self.live_link().await?;
        let value: Option<String> = cmd("HGET")
            .arg(self.keys().states())
            .arg(id)
            .query_async(&mut link.read)
            .await?;
        Ok(value.map(|value| value.split('@').next().unwrap_or_default().to_owned()))
    }

    /// The levels of accounts, as Redis has them now; accounts that it lacks are absent.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn levels(&self, accounts: &[Account]) -> Result<HashMap<Account, Level>, ReadError> {
        let mut link = self.live_link().await?;
        levels::read(&mut link.read, self.keys(), accounts)
            .await
            .map_err(ReadError::from)
    }

    /// Sets an account's level, if its value in Redis is still the one that was found ("" for
    /// none).
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn correct(
        &self,
        account: Account,
        found: &str,
        level: Level,
    ) -> Result<bool, ReadError> {
        let mut link = self.live_link().await?;
        let (keys, value) = (self.keys(), level.value_of(account));
        Ok(levels::correct(&mut link.read, keys, &link.epoch, account, found, &value).await?)
    }

    /// Whether Redis has a book, and the book is whole.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn has_book(&self, book: Book) -> Result<bool, ReadError> {
        let mut link = self.live_link().await?;
        let sentinel: Option<String> = cmd("HGET")
            .arg(self.keys().book(book))
            .arg(SENTINEL)
            .query_async(&mut link.read)
            .await?;
        Ok(sentinel.as_deref() == Some(&*link.epoch))
    }

    /// Begins a book that this shard does not have yet, such as that of a new sale.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer. The first request that needs the book then has to
    /// wait for it.
    pub async fn begin_book(&self, book: Book) -> Result<(), ReadError> {
        let mut link = self.link()?;
        let mend = Mend::of_book(self.keys(), book, &link.epoch);
        if mend.begin(&mut link.read).await? {
            mend.end(&mut link.read).await?;
        }
        Ok(())
    }

    /// Notes what a refusal says was lost, so that `stock-engine` (`heal`) brings it back.
    pub(super) fn note_lost(&self, refusal: &Refusal) {
        self.shared.lost.note(refusal);
    }

    /// How far MySQL was when this process last heard of it. While MySQL is away, that does not
    /// change.
    #[must_use]
    pub fn known_state(&self) -> Option<ShardState> {
        self.shared.fence.known_state()
    }

    /// How much memory Redis uses, and may use.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn memory(&self) -> Result<RedisMemory, ReadError> {
        let mut link = self.live_link().await?;
        Ok(RedisMemory::read(&mut link.read).await?)
    }

    /// Notes in Redis how far MySQL has followed, and drops frames before `keep_from`.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer. Nothing depends on the success.
    pub async fn settled(
        &self,
        state: &ShardState,
        keep_from: Option<Position>,
    ) -> Result<(), ReadError> {
        self.shared.fence.settled(state);
        let mut link = self.live_link().await?;
        let _dropped: i64 = cmd("EVALSHA")
            .arg(&SCRIPTS.settled.sha)
            .arg(2)
            .arg(self.keys().epoch())
            .arg(self.keys().journal())
            .arg(&state.epoch)
            .arg(state.number)
            .arg(keep_from.map(Position::stream_id).unwrap_or_default())
            .query_async(&mut link.read)
            .await?;
        Ok(())
    }
}
