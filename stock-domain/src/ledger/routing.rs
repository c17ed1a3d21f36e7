//! Where a request is decided: on one shard or on several, and asked again where it has moved to.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::cmd;
use stock_common::id::UserId;

use super::request::Sealed;
use super::switch::Switched;
use super::{DecideError, Judged, Ledger, Map, Placing, Request, Shard, across};
use crate::branch::{self, Route, Split};
use crate::bucket;
use crate::database::selling as selling_table;
use crate::layout::Layout;
use crate::selling;
use crate::verdict::{Refusal, Verdict};

/// How long MySQL may take to hear a switch; afterwards it is told again each second.
const TELLING_MAX: Duration = Duration::from_secs(1);

impl Ledger {
    /// The shard on which a request becomes an entry.
    ///
    /// # Errors
    /// [`DecideError::Fenced`] while the layout is not known, `Elsewhere` while what it is about is moving.
    pub fn home_of(&self, request: &Request) -> Result<Shard, DecideError> {
        let layout = self.known_layout()?;
        let home = match branch::route(request, &layout, 0) {
            Route::One(shard) => shard,
            Route::Several(split) => split.home.shard,
            Route::Moving => {
                return Err(DecideError::Elsewhere(
                    "it is moving to another shard".into(),
                ));
            }
        };
        Ok(self.shard(home)?)
    }

    /// Decides one request, wherever what it is about lies.
    ///
    /// # Errors
    /// [`DecideError`] when there is no verdict; only with `OutcomeUnknown` may something have been
    /// changed.
    pub async fn decide(&self, request: Request) -> Result<Verdict, DecideError> {
        if request.draft.selling.is_some() {
            // The first verdict for all, or the first reason why a shard has none.
            let mut decided = self.decide_everywhere(&request).await?;
            let failed = decided
                .iter()
                .position(|(_, of)| !matches!(of, Ok(Verdict::Accepted(_))));
            return decided.swap_remove(failed.unwrap_or(0)).1;
        }
        let map = self.map();
        let (is_one, concerns) = map.layout.as_ref().map_or((true, false), |layout| {
            let is_one = layout.shards == 1 && layout.buckets.is_empty();
            (is_one, bucket::concerns(&request, &layout.buckets))
        });
        if is_one {
            return self.decide_placed(request).await;
        }
        if !concerns {
            match self.decide_placed(request.clone()).await {
                // Its stock was divided meanwhile.
                Err(DecideError::Elsewhere(_)) => {}
                decided => return decided,
            }
        }
        // A client that leaves does not leave units on their way.
        let ledger = self.clone();
        let decided = tokio::spawn(async move { ledger.decide_divided(&request).await }).await;
        decided.unwrap_or(Err(DecideError::OutcomeUnknown))
    }

    async fn decide_divided(&self, request: &Request) -> Result<Verdict, DecideError> {
        let started = Instant::now();
        loop {
            match self.place_and_decide(request.clone()).await {
                // It was divided in another way.
                Err(DecideError::Elsewhere(_)) if started.elapsed() < self.patience() => {}
                Err(DecideError::Elsewhere(why)) => return Err(DecideError::Fenced(why)),
                decided => return decided,
            }
        }
    }

    async fn place_and_decide(&self, request: Request) -> Result<Verdict, DecideError> {
        let mut placing = match Placing::begin(self, &request).await? {
            None => return self.decide_placed(request).await,
            Some(Err(verdict)) => return Ok(verdict),
            Some(Ok(placing)) => placing,
        };
        loop {
            let verdict = self.decide_placed(placing.request()).await;
            match placing.judge(self, verdict).await? {
                Judged::Whole(verdict) => return Ok(verdict),
                Judged::AskAgain => {}
            }
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.inner.config.queue_wait_ms_max)
    }

    /// Decides one request that says of which accounts it takes; `Elsewhere` when stock is divided in another way than
    /// when it came.
    pub(super) async fn decide_placed(&self, request: Request) -> Result<Verdict, DecideError> {
        let sealed = Arc::new(request.seal()?);
        let started = Instant::now();
        loop {
            let seen = self.map();
            let verdict = self.attempt(&seen, &sealed).await;
            let again = matches!(
                verdict,
                Ok(Verdict::Refused(Refusal::Moved)) | Err(DecideError::Elsewhere(_))
            );
            if !again {
                return verdict;
            }
            // Nothing was executed. As soon as it is known where it lies now, it is asked there.
            if started.elapsed() > self.patience() {
                let why = "what it is about is moving to another server";
                return Err(DecideError::Fenced(why.into()));
            }
            self.await_change(&seen).await;
            if self.is_divided_otherwise(&seen) {
                return Err(DecideError::Elsewhere("its stock was divided".into()));
            }
        }
    }

    /// The same as a value of known type: the end of a branch is decided while its entry is.
    pub(super) fn decide_boxed(
        &self,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Result<Verdict, DecideError>> + Send + '_>> {
        Box::pin(self.decide(request))
    }

    /// Decides one request without waiting for it to arrive where it is moving to: for whoever holds locks meanwhile.
    ///
    /// # Errors
    /// [`DecideError`]; `Elsewhere` where [`Ledger::decide`] would ask again: nothing was changed.
    pub async fn decide_once(&self, request: Request) -> Result<Verdict, DecideError> {
        let seen = self.map();
        match self.attempt(&seen, &Arc::new(request.seal()?)).await {
            Ok(Verdict::Refused(Refusal::Moved)) => Err(DecideError::Elsewhere(
                "it is moving to another shard".into(),
            )),
            other => other,
        }
    }

    /// Waits a moment for what is moving to have arrived.
    pub async fn moment(&self) {
        self.await_change(&self.map()).await;
    }

    fn is_divided_otherwise(&self, seen: &Map) -> bool {
        let buckets = |map: &Map| map.layout.as_ref().map(|layout| layout.buckets.clone());
        buckets(seen) != buckets(&self.map())
    }

    /// Waits a moment for another layout, or for gates that are shut to open.
    pub(super) async fn await_change(&self, seen: &Arc<Map>) {
        const A_MOMENT: Duration = Duration::from_millis(20);
        self.inner.wanted.notify_one();
        let mut changes = self.inner.map.subscribe();
        let other = changes.wait_for(|map| !Arc::ptr_eq(map, seen));
        drop(tokio::time::timeout(A_MOMENT, other).await);
        for shard in self.shards() {
            if !shard.is_open() {
                shard.wait_open(A_MOMENT).await;
            }
        }
    }

    /// Switches selling on every shard, on this instance at once and on the others as soon as they hear it. Returns of
    /// each shard whether selling is open there, as far as is known: one that cannot be reached did not follow.
    ///
    /// # Errors
    /// [`DecideError`] when the entry has no JSON form, or it is not known which shards there are.
    pub async fn switch_selling(
        &self,
        open: bool,
        actor: UserId,
    ) -> Result<Vec<(u64, bool)>, DecideError> {
        let request = selling::switch(open, actor)?;
        let switch = &self.inner.switch;
        let last_ms = switch.last().map_or(0, |last| last.at_ms);
        let switched = Switched {
            open,
            at_ms: self.redis_now_ms().max(last_ms + 1),
        };
        self.hear_switch(switched);
        let generation = switch.generation();
        let (decided, ()) =
            tokio::join!(self.decide_everywhere(&request), self.tell_switch(switched),);
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

    /// Tells the other instances, by MySQL's row and by the channel, whichever can be reached.
    async fn tell_switch(&self, switched: Switched) {
        let storing = async {
            let stored = selling_table::save(&self.inner.pool, switched);
            match tokio::time::timeout(TELLING_MAX, stored).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "mysql does not know the switch yet"),
                Err(_) => tracing::warn!("mysql does not answer: it does not know the switch yet"),
            }
        };
        let publishing = async {
            // The servers of a cluster tell each other; of one server any link will do.
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
        };
        tokio::join!(storing, publishing);
    }

    /// Decides the same on every shard at the same time, and stops at none that fails.
    async fn decide_everywhere(
        &self,
        request: &Request,
    ) -> Result<Vec<(u64, Result<Verdict, DecideError>)>, DecideError> {
        let until = Instant::now() + self.patience();
        let mut all = Vec::new();
        for shard in self.shards() {
            let mut own = request.clone();
            // A key is remembered once.
            own.idempotency = own.idempotency.filter(|_| all.is_empty());
            let own = Arc::new(own.seal()?);
            all.push(async move {
                let number = shard.keys().shard();
                (number, self.decide_on(&shard, &own, until).await)
            });
        }
        match all.is_empty() {
            true => Err(DecideError::Fenced("there is no shard".into())),
            false => Ok(join_all(all).await),
        }
    }

    async fn decide_on(
        &self,
        shard: &Shard,
        own: &Arc<Sealed>,
        until: Instant,
    ) -> Result<Verdict, DecideError> {
        loop {
            let seen = self.map();
            let version = self.known_layout()?.version(shard.keys().shard());
            let verdict = shard.decide(Arc::clone(own), version).await?;
            if verdict != Verdict::Refused(Refusal::Moved) || Instant::now() > until {
                return Ok(verdict);
            }
            self.await_change(&seen).await;
        }
    }

    async fn attempt(&self, map: &Map, sealed: &Arc<Sealed>) -> Result<Verdict, DecideError> {
        let Some(layout) = &map.layout else {
            let why = "mysql has not said yet where everything lies";
            return Err(DecideError::Fenced(why.into()));
        };
        let request = &sealed.request;
        match branch::route(request, layout, self.inner.config.branch_hold_ms) {
            Route::Moving => Ok(Verdict::Refused(Refusal::Moved)),
            Route::One(shard) => {
                let send = || self.send(layout, shard, sealed);
                match &request.idempotency {
                    Some(of) if layout.shards > 1 => {
                        self.under_key(layout, (of, shard), send).await
                    }
                    Some(of) => match send().await? {
                        // Claimed while there were more.
                        Verdict::Refused(Refusal::Claimed(_)) => {
                            self.under_key(layout, (of, shard), send).await
                        }
                        verdict @ (Verdict::Accepted(_)
                        | Verdict::Replayed(_)
                        | Verdict::Refused(_)) => Ok(verdict),
                    },
                    None => send().await,
                }
            }
            Route::Several(split) => {
                let split: Arc<Split> = split.into();
                let send = || self.send_across(layout, &split);
                match &request.idempotency {
                    Some(of) => self.under_key(layout, (of, split.home.shard), send).await,
                    None => send().await,
                }
            }
        }
    }

    async fn send(
        &self,
        layout: &Layout,
        shard: u64,
        sealed: &Arc<Sealed>,
    ) -> Result<Verdict, DecideError> {
        let version = layout.version(shard);
        self.shard(shard)?.decide(Arc::clone(sealed), version).await
    }

    /// Decides on several shards, in a task of its own: a client that leaves breaks nothing off halfway.
    async fn send_across(
        &self,
        layout: &Arc<Layout>,
        split: &Arc<Split>,
    ) -> Result<Verdict, DecideError> {
        let (ledger, layout, split) = (self.clone(), Arc::clone(layout), Arc::clone(split));
        let deciding = async move { across::decide(&ledger, &layout, &split).await };
        let decided = tokio::spawn(deciding).await;
        decided.unwrap_or(Err(DecideError::OutcomeUnknown))
    }

    /// Decides a part of a request on its shard, by the layout that it was divided by: what has moved since then is
    /// refused, and the whole is routed again.
    pub(super) async fn decide_part(
        &self,
        layout: &Layout,
        shard: u64,
        request: Request,
    ) -> Result<Verdict, DecideError> {
        self.send(layout, shard, &Arc::new(request.seal()?)).await
    }
}
