//! Links that answer: a link that was silent is used only after it was asked whether it still leads
//! to Redis.
//!
//! A server closes a link that was idle for long, and a firewall forgets one without a word. The
//! fence's task asks every second. A request asks first when its link has answered no request for a
//! moment. A broken link is replaced while requests wait. Nothing was sent on it, so no request
//! fails because of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{CHECK, Fence, FenceState, Link, MEND_MAX, head};

/// A link that has answered a request within this time leads to Redis. Answers to the fence's task
/// do not count: a link without requests is idle.
const FRESH: Duration = Duration::from_millis(10);
/// How long an answer may take before another link is tried, which tells whether the link or Redis
/// is at fault.
const PONG_MAX: Duration = Duration::from_millis(300);
/// How long another link may take to be made and to answer. Under load that takes long too.
const ANEW_MAX: Duration = Duration::from_secs(1);
/// The reason for giving up a link that its server has closed, or that was lost.
const ENDED: &str = "the link to redis broke: it was closed";
/// How often the identity and the settings of the server behind the link are read.
const LOOK: Duration = Duration::from_secs(2);
/// The reason for not deciding on a Redis with another epoch.
pub const OTHER_EPOCH: &str = "redis holds another epoch than mysql";
/// The reason for not deciding on a Redis without an epoch.
pub const NO_EPOCH: &str =
    "redis has no epoch: it is empty, or not the one that belongs to this database";

/// One of the three connections of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// For scripts.
    Decide,
    /// For scripts too, where `WAIT` blocks the first one.
    Beside,
    /// For reads.
    Read,
}

/// When the connections of a link last answered.
#[derive(Debug)]
pub(crate) struct Heard {
    since: Instant,
    decide_ms: AtomicU64,
    beside_ms: AtomicU64,
    read_ms: AtomicU64,
    /// Held by the caller that asks Redis for all callers.
    turn: Mutex<()>,
    /// Script calls under way.
    calls: AtomicUsize,
}

/// A script call that is under way on a link.
pub(crate) struct Calling(Arc<Heard>);

impl Calling {
    fn on(link: &Link) -> Self {
        link.heard.calls.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&link.heard))
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Heard {
    pub(super) fn now() -> Self {
        Self {
            since: Instant::now(),
            decide_ms: AtomicU64::new(0),
            beside_ms: AtomicU64::new(0),
            read_ms: AtomicU64::new(0),
            turn: Mutex::new(()),
            calls: AtomicUsize::new(0),
        }
    }

    const fn of(&self, line: Line) -> &AtomicU64 {
        match line {
            Line::Decide => &self.decide_ms,
            Line::Beside => &self.beside_ms,
            Line::Read => &self.read_ms,
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that a connection has answered now.
    pub(crate) fn note(&self, line: Line) {
        self.of(line).store(self.age_ms(), Ordering::Relaxed);
    }

    fn is_fresh(&self, line: Line) -> bool {
        let last_ms = self.of(line).load(Ordering::Relaxed);
        let silent_ms = self.age_ms().saturating_sub(last_ms);
        Duration::from_millis(silent_ms) < FRESH
    }
}

impl Link {
    /// Notes that a connection has answered now.
    pub(crate) fn heard(&self, line: Line) {
        self.heard.note(line);
    }

    pub(crate) fn line(&self, line: Line) -> &MultiplexedConnection {
        match line {
            Line::Decide => &self.decide,
            Line::Beside => &self.beside,
            Line::Read => &self.read,
        }
    }
}

impl Fence {
    /// The open link, once it is known to lead to Redis. A silent link is asked first, and a broken
    /// link is replaced.
    ///
    /// # Errors
    /// The reason why the shard is fenced.
    pub(crate) async fn live_link(&self, line: Line) -> Result<Link, Arc<str>> {
        loop {
            let link = self.link_when_mended().await?;
            if *link.ends.borrow() {
                self.fence_off(link.generation, ENDED);
            } else if link.heard.is_fresh(line) || self.still_leads(&link, line).await {
                return Ok(link);
            }
        }
    }

    /// The open link. While it is being replaced, this waits for the next one.
    pub(crate) async fn link_when_mended(&self) -> Result<Link, Arc<str>> {
        let mut changes = self.state.subscribe();
        let decided = changes.wait_for(|state| !matches!(state, FenceState::Mending(_)));
        drop(timeout(MEND_MAX, decided).await);
        match &*self.state.borrow() {
            FenceState::Open(link) => Ok(link.clone()),
            FenceState::Mending(reason) | FenceState::Fenced(reason) => Err(Arc::clone(reason)),
        }
    }

    /// The open link for a call, while another call is under way on it. The answer to that call
    /// will tell whether the link leads to Redis.
    ///
    /// # Errors
    /// The reason why the shard is fenced.
    pub(crate) async fn busy_link(&self) -> Result<Link, Arc<str>> {
        loop {
            let link = self.link_when_mended().await?;
            if !*link.ends.borrow() {
                return Ok(link);
            }
            self.fence_off(link.generation, ENDED);
        }
    }

    /// Begins a script call on a link, or on the link that has replaced it. Until the call ends,
    /// the link is not given up for silence, because an outcome that Redis is about to answer would
    /// become unknown.
    ///
    /// # Errors
    /// The reason why the shard is fenced.
    pub(crate) async fn begin_call(&self, mut link: Link) -> Result<(Link, Calling), Arc<str>> {
        loop {
            let calling = Calling::on(&link);
            let is_current = matches!(&*self.state.borrow(), FenceState::Open(now) if now.generation == link.generation);
            if is_current {
                return Ok((link, calling));
            }
            link = self.busy_link().await?;
        }
    }

    /// Asks a link whether it still leads to Redis, and gives it up if it does not.
    async fn still_leads(&self, link: &Link, line: Line) -> bool {
        let _turn = link.heard.turn.lock().await;
        if link.heard.is_fresh(line) {
            return true;
        }
        let pong = ping(link.line(line));
        tokio::pin!(pong);
        let answered = match timeout(PONG_MAX, &mut pong).await {
            Ok(answered) => answered,
            // Either the link is broken, or Redis is slow or busy with a large answer. The link
            // that answers first tells. If neither answers, Redis is at fault.
            Err(_) => tokio::select! {
                answered = &mut pong => answered,
                another = timeout(ANEW_MAX, self.ping_anew()) => {
                    let is_lost = matches!(another, Ok(Ok(()))) && self.give_up_idle(link);
                    if is_lost {
                        return false;
                    }
                    Ok(())
                }
            },
        };
        if let Err(error) = answered {
            self.fence_off(link.generation, &describe(&error));
            return false;
        }
        link.heard.note(line);
        true
    }

    /// Gives up a silent link, unless a call is under way on it: the call's answer or its timeout
    /// will tell.
    fn give_up_idle(&self, silent: &Link) -> bool {
        const SILENT: &str = "the link to redis is silent: another one is not";
        self.state.send_if_modified(|state| match state {
            FenceState::Open(link)
                if link.generation == silent.generation
                    && link.heard.calls.load(Ordering::SeqCst) == 0 =>
            {
                tracing::warn!(
                    shard = self.keys.shard(),
                    reason = SILENT,
                    "the link is given up"
                );
                *state = FenceState::Mending(SILENT.into());
                true
            }
            FenceState::Open(_) | FenceState::Mending(_) | FenceState::Fenced(_) => false,
        })
    }

    async fn ping_anew(&self) -> Result<(), RedisError> {
        let key = self.keys.epoch();
        let met = self.servers.connect(&key, self.response_timeout()).await?;
        ping(&met.connection).await
    }

    /// Watches an open link until it is given up or `meanwhile` ends. `meanwhile` runs beside the
    /// watch and does not delay it.
    pub async fn watch(&self, link: &Link, meanwhile: impl Future<Output = ()>) {
        let mut changes = self.state.subscribe();
        let given_up = changes.wait_for(|state| !matches!(state, FenceState::Open(_)));
        let check = async {
            loop {
                tokio::time::sleep(CHECK).await;
                self.check(link).await;
            }
        };
        let look = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = self.look(link).await {
                    tracing::debug!(%error, "redis is looked at later");
                }
            }
        };
        let mut ends = link.ends.clone();
        tokio::select! {
            _ = given_up => {}
            // The link is given up before the next request comes.
            _ = ends.wait_for(|has_ended| *has_ended) => self.fence_off(link.generation, ENDED),
            () = check => {}
            () = look => {}
            () = meanwhile => {}
        }
    }

    /// Compares the epoch of an open link again, and pings its other connections. Gives the link up
    /// when it is broken, or when the epoch is another one.
    pub async fn check(&self, link: &Link) {
        let mut connection = link.read.clone();
        let switch = self.switch.generation();
        let mut command = cmd("HMGET");
        command
            .arg(self.keys.epoch())
            .arg("epoch")
            .arg(&head::NEEDED);
        let read = command.query_async::<Vec<Option<String>>>(&mut connection);
        let (read, pong, beside) = tokio::join!(read, ping(&link.decide), ping(&link.beside));
        let read = pong.and(beside).and(read);
        let reason = match read {
            Err(error) => describe(&error),
            Ok(values) => match values.split_first() {
                Some((Some(epoch), needed)) if **epoch == *link.epoch => {
                    if head::is_whole(needed) {
                        return self.follows.note(switch, !head::is_stopped(needed));
                    }
                    head::LOST.to_owned()
                }
                Some((Some(_), _)) => OTHER_EPOCH.to_owned(),
                Some((None, _)) | None => NO_EPOCH.to_owned(),
            },
        };
        self.fence_off(link.generation, &reason);
    }

    /// Reads the identity and the settings of the server behind an open link.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn look(&self, link: &Link) -> Result<(), RedisError> {
        let mut connection = link.read.clone();
        self.see(&mut connection).await?;
        self.read_settings(&mut connection).await
    }
}

fn describe(error: &RedisError) -> String {
    format!("redis does not answer: {error}")
}

async fn ping(connection: &MultiplexedConnection) -> Result<(), RedisError> {
    cmd("PING").query_async(&mut connection.clone()).await
}
