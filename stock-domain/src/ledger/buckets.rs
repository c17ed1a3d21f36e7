//! Deciding about divided stock: a share that is short is no refusal while another holds enough.

use std::time::{Duration, Instant};

use redis::cmd;
use stock_common::id::{LocationId, ProductId, UserId};

use super::{DecideError, Ledger, ReadError, Request, Shard};
use crate::account::{Account, Level};
use crate::bucket::{self, Placed, Short};
use crate::layout::{Layout, Place, product_slot};
use crate::verdict::{Refusal, Replay, Verdict};

/// How much longer than it is held a branch may take to be ended by a sweep.
const SWEPT_MS: u64 = 5_000;
/// How long it is waited before what moves is looked at again.
const A_MOMENT: Duration = Duration::from_millis(5);

/// A request about divided stock, and from which shares it takes that by now.
pub(crate) struct Placing {
    whole: Request,
    placed: Placed,
    until: Instant,
    /// What is gathered from several shares is missing in all of them until it is decided.
    in_transit: Option<InTransit>,
}

/// What the verdict on a placed request means.
pub(crate) enum Judged {
    /// It is the verdict on the whole.
    Whole(Verdict),
    /// It is asked again, of other shares.
    AskAgain,
}

impl Placing {
    /// Places a request, or says at once what becomes of it; `None` when it is not about divided stock.
    pub(crate) async fn begin(
        ledger: &Ledger,
        request: &Request,
    ) -> Result<Option<Result<Self, Verdict>>, DecideError> {
        let Some(layout) = ledger.layout() else {
            return Ok(None);
        };
        if !bucket::concerns(request, &layout.buckets) {
            return Ok(None);
        }
        let mut whole = request.clone();
        // What is expected of a product is expected of all its shares; they are looked at before.
        if let Some((account, expected)) = whole.expected
            && layout.buckets.divided(account).is_some()
        {
            whole.expected = None;
            let levels = ledger.levels(&[account]).await?;
            let balance = levels.get(&account).map_or(0, |level| level.balance);
            if balance != expected {
                let refusal = Refusal::Changed { balance };
                return Ok(Some(Err(remember(ledger, &whole, refusal).await?)));
            }
        }
        if let Some(refusal) = known_gone(ledger, &whole) {
            return Ok(Some(Err(Verdict::Refused(refusal))));
        }
        Ok(Some(Ok(Self {
            placed: bucket::place(&whole, &layout),
            until: Instant::now() + Duration::from_millis(ledger.config().queue_wait_ms_max),
            whole,
            in_transit: None,
        })))
    }

    /// What is asked now.
    pub(crate) fn request(&self) -> Request {
        self.placed.request.clone()
    }

    /// Judges the verdict on it.
    pub(crate) async fn judge(
        &mut self,
        ledger: &Ledger,
        verdict: Result<Verdict, DecideError>,
    ) -> Result<Judged, DecideError> {
        // What nobody knows the outcome of is on its way until a sweep has ended it.
        let is_known = !matches!(verdict, Err(DecideError::OutcomeUnknown));
        if let Some(in_transit) = self.in_transit.take() {
            in_transit.end(is_known).await;
        }
        let layout = ledger.known_layout()?;
        Ok(Judged::Whole(match verdict? {
            Verdict::Refused(refusal) => {
                if self.placed.short(&layout.buckets, &refusal).is_some() {
                    return self.ask_others(ledger, &refusal).await;
                }
                let is_short = refusal.short().is_some();
                let is_due = matches!(refusal, Refusal::Insufficient { due: true, .. });
                let refusal = self.placed.of_whole(refusal);
                // Short of something else: nobody else is asked for that.
                match is_short && !(is_due && self.whole.waits_for_holds) {
                    true => remember(ledger, &self.whole, refusal).await?,
                    false => Verdict::Refused(refusal),
                }
            }
            Verdict::Replayed(Replay::Refused(refusal)) => {
                Verdict::Replayed(Replay::Refused(bucket::undivided(refusal)))
            }
            verdict @ (Verdict::Accepted(_) | Verdict::Replayed(Replay::Accepted(_))) => verdict,
        }))
    }

    /// Places the request in shares that hold enough, or refuses it: when all of them together did not hold enough at
    /// one moment at which nothing moved between them.
    async fn ask_others(
        &mut self,
        ledger: &Ledger,
        refusal: &Refusal,
    ) -> Result<Judged, DecideError> {
        let mut due = matches!(refusal, Refusal::Insufficient { due: true, .. });
        while Instant::now() < self.until {
            let layout = ledger.known_layout()?;
            let taken = self.whole.draft.postings.iter().filter(|p| p.delta < 0);
            let mut products: Vec<ProductId> = taken
                .filter_map(|posting| layout.buckets.divided(posting.account))
                .collect();
            products.dedup();
            let names: Vec<Account> = products
                .iter()
                .flat_map(|product| layout.buckets.accounts(*product))
                .collect();
            let levels = ledger.own_levels(&names).await?;
            match bucket::gather(&self.whole, &layout, &levels) {
                Ok(placed) => {
                    let of_several =
                        placed.request.draft.postings.len() > self.whole.draft.postings.len();
                    if of_several {
                        self.in_transit = Some(InTransit::begin(ledger, &products).await?);
                    }
                    self.placed = placed;
                    return Ok(Judged::AskAgain);
                }
                Err(short) => {
                    let is_moving = is_in_transit(ledger, &layout, &products).await?;
                    let now = ledger.own_levels(&names).await?;
                    let is_short = bucket::gather(&self.whole, &layout, &now).is_err();
                    // Selling only lowers them: what was short before it was looked at again is short.
                    let rose = |(account, level): (&Account, &Level)| {
                        let before = levels.get(account).map_or(0, |level| level.balance);
                        level.balance > before
                    };
                    if is_moving || !is_short || now.iter().any(rose) {
                        tokio::time::sleep(A_MOMENT).await;
                        continue;
                    }
                    for shard in shards_of(ledger, &layout, &names)? {
                        due |= shard.has_due().await?;
                    }
                    return self.refuse(ledger, short, due).await;
                }
            }
        }
        Err(DecideError::Overloaded)
    }

    /// Refuses the whole, under its key too.
    async fn refuse(
        &self,
        ledger: &Ledger,
        Short { posting, left }: Short,
        due: bool,
    ) -> Result<Judged, DecideError> {
        let account = self.whole.draft.postings.get(posting);
        let account = account.map_or(Account::FIRST, |posting| posting.account);
        let refusal = Refusal::Insufficient {
            posting,
            account,
            balance: left,
            due,
        };
        if left == 0 && !due {
            ledger.inner.gone.refused_at_zero(account);
        }
        Ok(Judged::Whole(match due && self.whole.waits_for_holds {
            true => Verdict::Refused(refusal),
            false => remember(ledger, &self.whole, refusal).await?,
        }))
    }
}

/// A refusal of the whole, under its key too; or what is known under that already.
async fn remember(
    ledger: &Ledger,
    whole: &Request,
    refusal: Refusal,
) -> Result<Verdict, DecideError> {
    if whole.idempotency.is_none() {
        return Ok(Verdict::Refused(refusal));
    }
    let mut request = whole.refusing(&refusal);
    request.home = bucket::home(whole, &*ledger.known_layout()?);
    ledger.decide_placed(request).await
}

/// Refuses an order of a product that was gone a moment ago, while others are queueing anyway.
fn known_gone(ledger: &Ledger, request: &Request) -> Option<Refusal> {
    let account = request.draft.postings.first()?.account;
    let is_candidate = request.takes_stock && request.idempotency.is_none();
    let is_gone = is_candidate
        && ledger.inner.gone.is_flagged(account)
        && ledger.shards().iter().any(Shard::is_busy);
    is_gone.then_some(Refusal::Insufficient {
        posting: 0,
        account,
        balance: 0,
        due: false,
    })
}

fn shards_of(ledger: &Ledger, layout: &Layout, names: &[Account]) -> Result<Vec<Shard>, ReadError> {
    let place = |name: &Account| match layout.of_account(*name, None) {
        Some(Place::Shard(shard)) => Some(shard),
        Some(Place::Moving) | None => None,
    };
    let mut shards: Vec<u64> = names.iter().filter_map(place).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
        .into_iter()
        .map(|shard| ledger.shard(shard))
        .collect()
}

/// The shard that knows what moves between a product's shares.
fn home(ledger: &Ledger, layout: &Layout, product: ProductId) -> Result<Shard, ReadError> {
    ledger.shard(layout.owner(product_slot(product)))
}

/// Whether something is on its way between shares.
///
/// # Errors
/// `Elsewhere` when the stock was divided in another way meanwhile.
async fn is_in_transit(
    ledger: &Ledger,
    layout: &Layout,
    products: &[ProductId],
) -> Result<bool, DecideError> {
    for product in products {
        let shard = home(ledger, layout, *product)?;
        let mut link = shard.live_link().await?;
        let (moving, version): (Vec<String>, Option<u64>) = redis::pipe()
            .cmd("ZRANGEBYSCORE")
            .arg(shard.keys().moving(*product))
            .arg(shard.redis_now_ms())
            .arg("+inf")
            .arg("LIMIT")
            .arg(0)
            .arg(1)
            .cmd("HGET")
            .arg(shard.keys().epoch())
            .arg("layout")
            .query_async(&mut link.read)
            .await
            .map_err(ReadError::from)?;
        if version.is_some_and(|now| now > layout.version(shard.keys().shard())) {
            ledger.moment().await;
            return Err(DecideError::Elsewhere("its stock was divided".into()));
        }
        if !moving.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Units on their way from one share to another, or out of several: until that is decided they are in none, and
/// nobody is told that the product is gone.
pub(crate) struct InTransit {
    ledger: Ledger,
    products: Vec<ProductId>,
    token: String,
    is_over: bool,
}

impl InTransit {
    /// Says so before they leave.
    pub(crate) async fn begin(ledger: &Ledger, products: &[ProductId]) -> Result<Self, ReadError> {
        let of = Self {
            ledger: ledger.clone(),
            products: products.to_vec(),
            token: format!("{:032x}", rand::random::<u128>()),
            is_over: false,
        };
        let most_ms = ledger.config().branch_hold_ms + SWEPT_MS;
        let layout = ledger.known_layout()?;
        for product in products {
            let shard = home(ledger, &layout, *product)?;
            let mut link = shard.live_link().await?;
            let key = shard.keys().moving(*product);
            let _added: (i64, i64) = redis::pipe()
                .cmd("ZADD")
                .arg(&key)
                .arg(shard.redis_now_ms() + most_ms)
                .arg(&of.token)
                .cmd("PEXPIRE")
                .arg(&key)
                .arg(most_ms * 2)
                .query_async(&mut link.decide)
                .await?;
        }
        Ok(of)
    }

    /// They have arrived, or never left; where that is not known, it is so after a while.
    pub(crate) async fn end(mut self, is_known: bool) {
        self.is_over = true;
        if is_known {
            arrived(&self.ledger, &self.products, &self.token).await;
        }
    }
}

impl Drop for InTransit {
    /// Whoever asked has left before anything was decided, or the rest goes on without them.
    fn drop(&mut self) {
        if !self.is_over
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (ledger, token) = (self.ledger.clone(), self.token.clone());
            let products = std::mem::take(&mut self.products);
            runtime.spawn(async move { arrived(&ledger, &products, &token).await });
        }
    }
}

async fn arrived(ledger: &Ledger, products: &[ProductId], token: &str) {
    let Ok(layout) = ledger.known_layout() else {
        return;
    };
    for product in products {
        let Ok(shard) = home(ledger, &layout, *product) else {
            continue;
        };
        let Ok(mut link) = shard.live_link().await else {
            continue;
        };
        let removed: Result<i64, _> = cmd("ZREM")
            .arg(shard.keys().moving(*product))
            .arg(token)
            .query_async(&mut link.decide)
            .await;
        if let Err(error) = removed {
            tracing::debug!(%error, "what has arrived is said to move for a while");
        }
    }
}

/// What a branch holds or gives that could not be ended now stays on its way until a sweep has ended it.
pub(super) async fn left_on_its_way(ledger: &Ledger, accounts: impl Iterator<Item = Account>) {
    let Some(layout) = ledger.layout().filter(|layout| !layout.buckets.is_empty()) else {
        return;
    };
    let mut products: Vec<ProductId> = accounts
        .filter_map(|account| layout.buckets.divided(account))
        .collect();
    products.dedup();
    if products.is_empty() {
        return;
    }
    match InTransit::begin(ledger, &products).await {
        Ok(in_transit) => in_transit.end(false).await,
        Err(error) => tracing::warn!(%error, "what a branch holds may be missing for a while"),
    }
}

impl Ledger {
    /// Waits until this process knows that a product is divided into these slots; `false` when `limit` passes first.
    pub async fn wait_divided(&self, product: ProductId, slots: &[u16], limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let seen = self.map();
            let is_known = seen.layout.as_ref().is_some_and(|layout| {
                let open = layout.buckets.of(product).iter().filter(|of| of.is_open);
                let mut open: Vec<u16> = open.map(|bucket| bucket.slot).collect();
                open.retain(|slot| !slots.contains(slot));
                open.is_empty() && slots.iter().all(|slot| layout.buckets.has(product, *slot))
            });
            if is_known {
                return true;
            }
            self.await_change(&seen).await;
        }
        false
    }

    /// Moves stock between a product's shares where that is worth it; returns how many units.
    ///
    /// # Errors
    /// [`DecideError`]; what was moved stays so.
    pub async fn balance(&self, product: ProductId) -> Result<i64, DecideError> {
        let layout = self.known_layout()?;
        let levels = self.own_levels(&layout.buckets.accounts(product)).await?;
        // Closings arrive on each shard by themselves: one that came too late is mended.
        if let Some(request) = bucket::follow(product, &levels)? {
            let verdict = self.decide_placed(request).await?;
            tracing::info!(%product, ?verdict, "a share follows what is closed");
        }
        let mut moved = 0;
        for (way, quantity) in bucket::balance(&layout.buckets, product, &levels) {
            let request = bucket::transfer(way, quantity, UserId(0))?;
            let in_transit = InTransit::begin(self, &[product]).await?;
            let verdict = self.decide_placed(request).await;
            let is_known = !matches!(verdict, Err(DecideError::OutcomeUnknown));
            in_transit.end(is_known).await;
            let verdict = verdict?;
            if let Verdict::Accepted(_) = verdict {
                moved += quantity;
            } else {
                tracing::debug!(%product, ?verdict, "stock not moved now");
            }
        }
        Ok(moved)
    }

    /// Hears that there is stock again.
    pub(super) fn hear_shares(&self, levels: &[(Account, Level)]) {
        for (account, level) in levels {
            let of = bucket::whole(*account);
            if level.balance > 0 && of.place == LocationId::ONLINE.0 {
                self.inner.gone.hear(of, level.balance, level.seq);
            }
        }
    }
}
