//! Where a request is decided: on one shard or on several. A request is sent again when another
//! server has the keys.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::cmd;
use stock_common::id::UserId;
use stock_common::spent;
use stock_domain::branch::{self, Plan, Split};
use stock_domain::request::Request;
use stock_domain::selling::{self, Switched};
use stock_domain::verdict::{Back, Refusal, Verdict, Why};

use super::error::Undecided;
use super::{DecideError, Ledger, Shard, cross_shard};
use crate::encoded_request::EncodedRequest;

/// How long to wait before a request is sent again: for a fence to open, and for held units.
const OPENS_WITHIN: Duration = Duration::from_millis(20);
const A_MOMENT: Duration = Duration::from_millis(5);

impl Ledger {
    /// The shard on which a request becomes an entry.
    ///
    /// # Errors
    /// [`DecideError::Fenced`] while the shard map is not known.
    pub fn coordinator_of(&self, request: &Request) -> Result<Shard, DecideError> {
        let coordinator = match branch::plan(request, self.known_shard_map()?, 0) {
            Plan::One(shard) => shard,
            Plan::Several(split) => split.coordinator.shard,
        };
        Ok(self.shard(coordinator)?)
    }

    /// Decides one request, on whichever shards it lies.
    ///
    /// # Errors
    /// [`DecideError`] when there is no verdict. Only with `OutcomeUnknown` may something have been
    /// changed.
    pub async fn decide(&self, request: Request) -> Result<Verdict, DecideError> {
        let _waiting = spent::redis();
        if request.draft.selling.is_some() {
            // The first verdict stands for all shards, unless a shard did not accept. Then the
            // first such outcome is returned.
            let mut decided = self.ask_everywhere(&request).await?;
            let failed = decided
                .iter()
                .position(|(_, of)| !matches!(of, Ok(Verdict::Accepted(_))));
            return decided.swap_remove(failed.unwrap_or(0)).1;
        }
        let encoded = Arc::new(EncodedRequest::new(request)?);
        let decided = self.retry(|| self.attempt(&encoded)).await;
        match decided {
            Err(DecideError::Elsewhere(why)) => Err(DecideError::Fenced(why)),
            decided => decided,
        }
    }

    /// Repeats an attempt of which nothing was executed, for a limited time: until it is known
    /// which server has the keys, and until held units are sold or come back. So the last unit is
    /// not refused to everybody.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn retry<T, E, F>(&self, attempt: impl Fn() -> F) -> Result<T, E>
    where
        E: Undecided,
        F: Future<Output = Result<T, E>>,
    {
        let until = Instant::now() + self.patience();
        loop {
            let error = match attempt().await {
                Err(error) if Instant::now() < until => error,
                ended => return ended,
            };
            match error.undecided() {
                Some(DecideError::Elsewhere(_)) => self.moment().await,
                Some(DecideError::Held) => tokio::time::sleep(A_MOMENT).await,
                Some(_) | None => return Err(error),
            }
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.inner.config.decide.queue_wait_ms_max)
    }

    /// [`Ledger::decide`] as a boxed future. Ending a branch is a decision inside the decision of
    /// its entry, so the future's type would otherwise contain itself.
    pub(super) fn boxed(
        &self,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Result<Verdict, DecideError>> + Send + '_>> {
        Box::pin(self.decide(request))
    }

    /// Asks once, for a caller that holds locks meanwhile.
    ///
    /// # Errors
    /// [`DecideError`]. With `Elsewhere` and `Held` nothing was changed, and [`Ledger::decide`]
    /// would ask again.
    pub async fn ask_once(&self, request: Request) -> Result<Verdict, DecideError> {
        let _waiting = spent::redis();
        self.attempt(&Arc::new(EncodedRequest::new(request)?)).await
    }

    /// Waits a moment for the fences that are not open.
    pub async fn moment(&self) {
        for shard in self.shards() {
            if !shard.is_open() {
                shard.wait_open(OPENS_WITHIN).await;
            }
        }
    }

    /// Switches selling on this instance at once, to open or to stopped.
    #[must_use]
    pub fn begin_switch(&self, open: bool) -> Switched {
        let last_ms = self.last_switch().map_or(0, |last| last.at_ms);
        let switched = Switched {
            open,
            at_ms: self.redis_now_ms().max(last_ms + 1),
        };
        self.hear_switch(switched);
        switched
    }

    /// Switches selling on every shard, and tells the other instances by a channel. Returns for
    /// each shard whether selling is open there, as far as is known: a shard that cannot be reached
    /// did not follow.
    ///
    /// # Errors
    /// [`DecideError`] when the entry has no JSON form, or the shards are not known.
    pub async fn switch_everywhere(
        &self,
        switched: Switched,
        actor: UserId,
    ) -> Result<Vec<(u64, bool)>, DecideError> {
        let open = switched.open;
        let request = selling::switch(open, actor)?;
        let generation = self.inner.switch.generation();
        let (decided, ()) =
            tokio::join!(self.ask_everywhere(&request), self.publish_switch(switched));
        let mut shards = Vec::new();
        for (shard, decided) in decided? {
            let has_followed = matches!(decided, Ok(Verdict::Accepted(_)));
            if has_followed {
                self.shard(shard)?.note_switched(generation, open);
            } else {
                tracing::error!(shard, open, ?decided, "a shard did not follow the switch");
            }
            shards.push((shard, if has_followed { open } else { !open }));
        }
        Ok(shards)
    }

    /// Publishes on any one link: the servers of a cluster tell each other.
    async fn publish_switch(&self, switched: Switched) {
        for shard in self.shards() {
            let Ok(mut link) = shard.live_link().await else {
                continue;
            };
            let mut command = cmd("PUBLISH");
            command.arg(self.keys().selling()).arg(switched.text());
            if command.query_async::<i64>(&mut link.read).await.is_ok() {
                return;
            }
        }
    }

    /// Decides the same request on every shard at the same time. A shard that fails does not stop
    /// the others.
    async fn ask_everywhere(
        &self,
        request: &Request,
    ) -> Result<Vec<(u64, Result<Verdict, DecideError>)>, DecideError> {
        let until = Instant::now() + self.patience();
        let mut all = Vec::new();
        for shard in self.shards() {
            let mut own = request.clone();
            // The key is remembered on the first shard only.
            own.idempotency = own.idempotency.filter(|_| all.is_empty());
            let own = Arc::new(EncodedRequest::new(own)?);
            all.push(async move {
                let number = shard.keys().shard();
                (number, self.ask_on(&shard, &own, until).await)
            });
        }
        match all.is_empty() {
            true => Err(DecideError::Fenced("there is no shard".into())),
            false => Ok(join_all(all).await),
        }
    }

    async fn ask_on(
        &self,
        shard: &Shard,
        own: &Arc<EncodedRequest>,
        until: Instant,
    ) -> Result<Verdict, DecideError> {
        loop {
            match shard.decide(Arc::clone(own)).await {
                Err(DecideError::Elsewhere(_)) if Instant::now() < until => self.moment().await,
                decided => return decided,
            }
        }
    }

    async fn attempt(&self, encoded: &Arc<EncodedRequest>) -> Result<Verdict, DecideError> {
        let verdict = self.attempt_once(encoded).await?;
        if let Verdict::Refused(Refusal::Posting {
            why: Why::Insufficient {
                back: Back::Held, ..
            },
            ..
        }) = verdict
        {
            return Err(DecideError::Held);
        }
        Ok(verdict)
    }

    async fn attempt_once(&self, encoded: &Arc<EncodedRequest>) -> Result<Verdict, DecideError> {
        let map = self.known_shard_map()?;
        let request = &encoded.request;
        match branch::plan(request, map, self.inner.config.decide.branch_hold_ms) {
            Plan::One(shard) => {
                let send = || self.send(shard, encoded);
                match &request.idempotency {
                    Some(of) if map.shards() > 1 => self.under_key(map, of, shard, send).await,
                    Some(_) | None => send().await,
                }
            }
            Plan::Several(split) => {
                let split = Arc::new(*split);
                let send = || self.send_cross_shard(&split);
                match &request.idempotency {
                    Some(of) => self.under_key(map, of, split.coordinator.shard, send).await,
                    None => send().await,
                }
            }
        }
    }

    async fn send(
        &self,
        shard: u64,
        encoded: &Arc<EncodedRequest>,
    ) -> Result<Verdict, DecideError> {
        self.shard(shard)?.decide(Arc::clone(encoded)).await
    }

    /// Decides on several shards, in a task of its own, so that a client that leaves does not break
    /// the decision off halfway.
    async fn send_cross_shard(&self, split: &Arc<Split>) -> Result<Verdict, DecideError> {
        let (ledger, split) = (self.clone(), Arc::clone(split));
        let deciding = async move { cross_shard::run(&ledger, &split).await };
        let decided = tokio::spawn(deciding).await;
        decided.unwrap_or(Err(DecideError::OutcomeUnknown))
    }

    /// Decides a part of a request on its shard.
    pub(super) async fn send_part(
        &self,
        shard: u64,
        request: Request,
    ) -> Result<Verdict, DecideError> {
        self.send(shard, &Arc::new(EncodedRequest::new(request)?))
            .await
    }
}
