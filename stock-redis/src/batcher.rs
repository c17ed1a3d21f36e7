//! The batcher: collects requests that arrive together and sends them as one script call.
//!
//! One task owns the queue. At most a few calls are under way, and a call is sent as soon as a slot
//! is free. So a lone request does not wait, and a rush fills the batches. A call is never sent
//! twice: when the link breaks after a call was sent, its requests are answered
//! [`DecideError::OutcomeUnknown`]. A request that is dropped, as by a task that breaks, answers
//! itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, pipe};
use stock_common::config::Durability;
use stock_domain::verdict::{Back, Refusal, Verdict, Why};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::DecideError;
use crate::codec::{self, BatchHead, BatchReply};
use crate::encoded_request::EncodedRequest;
use crate::fence::{Fence, Line, Link};
use crate::shared::Shared;

/// The limit of requests in a call is never below this, however few requests there are.
const BATCH_REQUESTS_MIN: usize = 16;

/// A request in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Arc<EncodedRequest>,
    pub(super) since: Instant,
    /// `None` once it was answered.
    answer: Option<oneshot::Sender<Result<Verdict, DecideError>>>,
    /// Whether it was sent, and so may have been decided.
    is_sent: bool,
}

impl Waiting {
    /// A request that begins to wait, and the receiver of its answer.
    pub(super) fn new(
        request: Arc<EncodedRequest>,
    ) -> (Self, oneshot::Receiver<Result<Verdict, DecideError>>) {
        let (answer, verdict) = oneshot::channel();
        let waiting = Self {
            request,
            since: Instant::now(),
            answer: Some(answer),
            is_sent: false,
        };
        (waiting, verdict)
    }

    fn has_left(&self) -> bool {
        self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn reply(mut self, answer: Result<Verdict, DecideError>) {
        self.answer_once(answer);
    }

    fn answer_once(&mut self, answer: Result<Verdict, DecideError>) {
        if let Some(caller) = self.answer.take() {
            // A caller that has left meanwhile needs no answer.
            drop(caller.send(answer));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.answer_once(Err(match self.is_sent {
            true => DecideError::OutcomeUnknown,
            false => DecideError::Overloaded,
        }));
    }
}

/// Runs until the queue is closed and empty, then waits for the calls under way. The queue outlives
/// a run that panics.
pub(super) async fn run(shared: Arc<Shared>, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut queue = queue.lock().await;
    let in_flight = shared.config.decide.batches_in_flight_max;
    let slots = Arc::new(Semaphore::new(in_flight));
    let lines = Arc::new(Lines::default());
    let mut buffer = Vec::with_capacity(shared.config.decide.batch_requests_max);
    let mut carried = VecDeque::new();
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        if carried.is_empty()
            && queue
                .recv_many(&mut buffer, shared.config.decide.batch_requests_max)
                .await
                == 0
        {
            break;
        }
        carried.extend(buffer.drain(..));
        let is_paced = |of: &&Waiting| !of.request.request.allow_backlog;
        let paced = carried.iter().filter(is_paced).count();
        let pause = shared.pacer().pause(paced, Instant::now());
        if pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
        let line = lines.choose(&shared);
        let link = find_link(&shared, &lines, line).await;
        let most = gather(&shared, &lines, &mut queue, &mut carried).await;
        let batch = take_batch(&shared, most, &mut carried);
        match link {
            Ok(link) if !batch.is_empty() => {
                let call = UnderWay::new(slot, &lines, line, batch.len());
                send(&shared, link, batch, call);
            }
            Ok(_) => {}
            Err(reason) => answer_all(batch, &DecideError::Fenced(reason)),
        }
    }
    drop(
        slots
            .acquire_many(u32::try_from(in_flight).unwrap_or(u32::MAX))
            .await,
    );
}

/// The link for the next call. A link that carries a call is not asked whether it leads to Redis:
/// the call's answer will tell.
async fn find_link(shared: &Shared, lines: &Lines, line: Line) -> Result<Link, Arc<str>> {
    match lines.on(line).load(Ordering::Relaxed) {
        0 => shared.fence.live_link(line).await,
        _ => shared.fence.busy_link().await,
    }
}

/// The number of requests that are under way on each of the two connections for scripts.
#[derive(Default)]
struct Lines {
    decide: AtomicUsize,
    beside: AtomicUsize,
}

impl Lines {
    /// The connection for the next call. The second connection is used where calls wait for
    /// replicas, while only the first one carries a call.
    fn choose(&self, shared: &Shared) -> Line {
        let is_free = |line| self.on(line).load(Ordering::Relaxed) == 0;
        match shared.fence.replication.is_wanted()
            && !is_free(Line::Decide)
            && is_free(Line::Beside)
        {
            true => Line::Beside,
            false => Line::Decide,
        }
    }

    const fn on(&self, line: Line) -> &AtomicUsize {
        match line {
            Line::Beside => &self.beside,
            Line::Decide | Line::Read => &self.decide,
        }
    }

    fn all(&self) -> usize {
        self.decide.load(Ordering::Relaxed) + self.beside.load(Ordering::Relaxed)
    }
}

/// One of the few calls under way. Dropping it frees its slot.
struct UnderWay {
    _slot: OwnedSemaphorePermit,
    lines: Arc<Lines>,
    line: Line,
    requests: usize,
}

impl UnderWay {
    fn new(slot: OwnedSemaphorePermit, lines: &Arc<Lines>, line: Line, requests: usize) -> Self {
        lines.on(line).fetch_add(requests, Ordering::Relaxed);
        Self {
            _slot: slot,
            lines: Arc::clone(lines),
            line,
            requests,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let on = self.lines.on(self.line);
        on.fetch_sub(self.requests, Ordering::Relaxed);
    }
}

/// Adds requests that have arrived, as long as more arrive, and returns how many the call may take.
///
/// Each round gives way to the tasks that are ready to run, because their requests would otherwise
/// make small batches of their own. A lone request waits for one round. A call takes only a part of
/// all requests, under way and waiting. If one call took all of them, Redis would rest while they
/// are answered and new ones come, and the callers would rest while Redis works
/// (docs/performance.md).
async fn gather(
    shared: &Shared,
    lines: &Lines,
    queue: &mut mpsc::Receiver<Waiting>,
    carried: &mut VecDeque<Waiting>,
) -> usize {
    let parts = match shared.config.redis.durability {
        Durability::Everysec => 3,
        // Each call waits for the disk, so there are fewer and larger calls.
        Durability::Always => 2,
    };
    loop {
        tokio::task::yield_now().await;
        let all = lines.all() + carried.len() + queue.len();
        let most = all
            .div_ceil(parts)
            .max(BATCH_REQUESTS_MIN)
            .min(shared.config.decide.batch_requests_max);
        let before = carried.len();
        while carried.len() < most
            && let Ok(next) = queue.try_recv()
        {
            carried.push_back(next);
        }
        if carried.len() == before || carried.len() >= most {
            return most;
        }
    }
}

/// Takes as many requests as fit one call. Requests whose callers have left, or that waited too
/// long, are dropped.
fn take_batch(shared: &Shared, most: usize, carried: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let wait_max = Duration::from_millis(shared.config.decide.queue_wait_ms_max);
    let mut batch = Vec::with_capacity(carried.len());
    let mut postings = 0;
    while let Some(next) = carried.pop_front() {
        if next.has_left() {
            continue;
        }
        if next.since.elapsed() > wait_max {
            next.reply(Err(DecideError::Overloaded));
            continue;
        }
        let draft = &next.request.request.draft;
        let more = draft.postings.len() + draft.closings.len();
        let is_full =
            batch.len() >= most || postings + more > shared.config.decide.batch_postings_max;
        if is_full && !batch.is_empty() {
            carried.push_front(next);
            break;
        }
        postings += more;
        batch.push(next);
    }
    batch
}

fn send(shared: &Arc<Shared>, link: Link, batch: Vec<Waiting>, under_way: UnderWay) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        call(&shared, link, under_way.line, batch).await;
        drop(under_way);
    });
}

async fn call(shared: &Shared, link: Link, line: Line, mut batch: Vec<Waiting>) {
    let (link, _calling) = match shared.fence.begin_call(link).await {
        Ok(begun) => begun,
        Err(reason) => return answer_all(batch, &DecideError::Fenced(reason)),
    };
    let config = &shared.config;
    let deadline_ms = shared.redis_now_ms() + config.redis.redis_response_timeout_ms;
    let head = BatchHead {
        epoch: &link.epoch,
        lag_entries_max: (
            config.decide.lag_hard_entries,
            config.decide.lag_reserve_entries,
        ),
        remember_ms: (
            config.decide.idempotency_accepted_ms,
            config.decide.idempotency_refused_ms,
        ),
        deadline_ms,
    };
    let cmd = codec::encode(&shared.fence.keys, &head, batch.iter().map(|w| &*w.request));
    for waiting in &mut batch {
        waiting.is_sent = true;
    }
    let started = Instant::now();
    let mut connection = link.line(line).clone();
    let wait = shared.fence.replication.wait();
    let reply: Result<(Value, Option<u64>), RedisError> = match wait {
        None => cmd
            .query_async(&mut connection)
            .await
            .map(|value| (value, None)),
        Some((replicas, wait_ms)) => {
            let mut both = pipe();
            both.add_command(cmd).cmd("WAIT").arg(replicas).arg(wait_ms);
            both.query_async(&mut connection).await
        }
    };
    shared.metrics.batch(batch.len(), started.elapsed());
    if reply.is_ok() {
        link.heard(line);
    }
    match reply {
        Ok((value, have)) => match codec::decode(&value, batch.iter().map(|w| &*w.request)) {
            Some(reply) => answer(shared, &link, batch, reply, have),
            None => {
                tracing::error!("the script returned something that is not a reply");
                shared
                    .fence
                    .fence_off(link.generation, "the script's reply cannot be read");
                answer_all(batch, &DecideError::OutcomeUnknown);
            }
        },
        Err(error) => answer_failure(shared, &link, batch, &error),
    }
}

fn answer(shared: &Shared, link: &Link, batch: Vec<Waiting>, reply: BatchReply, have: Option<u64>) {
    shared.set_redis_time(reply.time_ms);
    let accepted: Vec<_> = reply
        .verdicts
        .iter()
        .filter_map(|verdict| match verdict {
            Verdict::Accepted(accepted) => {
                shared.sold_out.moved(&accepted.postings);
                Some(Fence::remember(accepted))
            }
            Verdict::Replayed(_) | Verdict::Refused(_) => None,
        })
        .collect();
    let is_replicated = shared.fence.replication.judge(have, accepted.len());
    if let Some(last) = accepted.last() {
        shared.recent.moved();
        let number = last.number;
        let settled = number.saturating_sub(reply.lag_entries);
        if !shared.fence.note(link, accepted, settled) {
            return answer_all(batch, &DecideError::OutcomeUnknown);
        }
        shared
            .pacer()
            .hear(number, reply.lag_entries, Instant::now());
    }
    if reply.verdicts.first() == Some(&Verdict::Refused(Refusal::Fenced)) {
        shared
            .fence
            .fence_off(link.generation, "redis holds another epoch, or none");
        shared.sold_out.clear();
    }
    for (waiting, verdict) in batch.into_iter().zip(reply.verdicts) {
        note_refusal(shared, &verdict);
        let is_unknown = !is_replicated && matches!(verdict, Verdict::Accepted(_));
        waiting.reply(match is_unknown {
            true => Err(DecideError::OutcomeUnknown),
            false => Ok(verdict),
        });
    }
}

/// Notes what a refusal says about other requests: that an account is empty, or that something was
/// lost.
fn note_refusal(shared: &Shared, verdict: &Verdict) {
    let Verdict::Refused(refusal) = verdict else {
        return;
    };
    if let Refusal::Posting {
        account,
        why: Why::Insufficient {
            balance: 0,
            back: Back::Nothing,
        },
        ..
    } = refusal
    {
        shared.sold_out.refused_at_zero(*account);
    }
    shared.lost.note(refusal);
}

/// Answers the requests of a call that failed. An error from the server executed nothing. After any
/// other error the call may have been executed.
fn answer_failure(shared: &Shared, link: &Link, batch: Vec<Waiting>, error: &RedisError) {
    use ServerErrorKind::{
        Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoPerm, NoScript, ReadOnly, TryAgain,
    };
    const ANOTHER: [ServerErrorKind; 3] = [NoScript, BusyLoading, NoPerm];
    // The keys are on another master, or will be in a moment. That one may be asked.
    const ELSEWHERE: [ServerErrorKind; 6] =
        [Moved, Ask, TryAgain, ClusterDown, MasterDown, ReadOnly];
    let (kind, why) = (error.kind(), error.to_string());
    let is_another = ANOTHER.iter().any(|one| kind == ErrorKind::Server(*one));
    let is_elsewhere = ELSEWHERE.iter().any(|one| kind == ErrorKind::Server(*one));
    let is_refusal = matches!(kind, ErrorKind::Server(_) | ErrorKind::Extension);
    if is_elsewhere {
        shared.fence.fence_off(
            link.generation,
            &format!("another master has the keys: {why}"),
        );
        answer_all(batch, &DecideError::Elsewhere(why.into()));
    } else if is_another {
        // This Redis has no scripts, is loading, or denies a command: perhaps it is not the one
        // that was verified.
        shared
            .fence
            .fence_off(link.generation, &format!("perhaps another redis: {why}"));
        answer_all(batch, &DecideError::Fenced(why.into()));
    } else if is_refusal {
        tracing::error!(error = why, "redis refused a batch");
        answer_all(batch, &DecideError::Unable(why.into()));
    } else {
        shared
            .fence
            .fence_off(link.generation, &format!("the link to redis broke: {why}"));
        answer_all(batch, &DecideError::OutcomeUnknown);
    }
}

fn answer_all(batch: Vec<Waiting>, error: &DecideError) {
    for waiting in batch {
        waiting.reply(Err(error.clone()));
    }
}
