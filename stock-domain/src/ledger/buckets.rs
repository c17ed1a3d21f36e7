//! Deciding about divided stock: a share that is short is no refusal while another holds enough.

use std::time::{Duration, Instant};

use redis::cmd;
use stock_common::id::{LocationId, ProductId};

use super::{DecideError, Ledger, ReadError, Request, Shard};
use crate::account::Account;
use crate::bucket::{self, Placed, Short};
use crate::layout::{Layout, Place, product_slot};
use crate::verdict::{Refusal, Replay, Verdict};

/// Longer than a branch is held before a sweep ends it.
const IN_TRANSIT_MS: u64 = 15_000;
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
    /// Places a request; `None` when it is not about divided stock.
    pub(crate) async fn begin(
        ledger: &Ledger,
        request: &Request,
    ) -> Result<Option<Result<Self, Refusal>>, DecideError> {
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
                return Ok(Some(Err(Refusal::Changed { balance })));
            }
        }
        if let Some(refusal) = known_gone(ledger, &whole) {
            return Ok(Some(Err(refusal)));
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
        if let Some(over) = self.in_transit.take_if(|_| is_known) {
            over.end().await;
        }
        let layout = ledger.known_layout()?;
        Ok(Judged::Whole(match verdict? {
            Verdict::Refused(refusal) => {
                if self.placed.short(&layout.buckets, &refusal).is_some() {
                    return self.ask_others(ledger, &refusal).await;
                }
                Verdict::Refused(self.placed.of_whole(refusal))
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
                    if is_moving || ledger.own_levels(&names).await? != levels {
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
        if self.whole.idempotency.is_none() || due && self.whole.waits_for_holds {
            return Ok(Judged::Whole(Verdict::Refused(refusal)));
        }
        let request = self.whole.refusing(&refusal);
        Ok(Judged::Whole(ledger.decide_placed(request).await?))
    }
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

async fn is_in_transit(
    ledger: &Ledger,
    layout: &Layout,
    products: &[ProductId],
) -> Result<bool, ReadError> {
    for product in products {
        let shard = home(ledger, layout, *product)?;
        let mut link = shard.link()?;
        let moving: Vec<String> = cmd("ZRANGEBYSCORE")
            .arg(shard.keys().moving(*product))
            .arg(shard.redis_now_ms())
            .arg("+inf")
            .arg("LIMIT")
            .arg(0)
            .arg(1)
            .query_async(&mut link.read)
            .await?;
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
}

impl InTransit {
    /// Says so before they leave.
    pub(crate) async fn begin(ledger: &Ledger, products: &[ProductId]) -> Result<Self, ReadError> {
        let of = Self {
            ledger: ledger.clone(),
            products: products.to_vec(),
            token: format!("{:032x}", rand::random::<u128>()),
        };
        let layout = ledger.known_layout()?;
        for product in products {
            let shard = home(ledger, &layout, *product)?;
            let mut link = shard.link()?;
            let key = shard.keys().moving(*product);
            let _added: (i64, i64) = redis::pipe()
                .cmd("ZADD")
                .arg(&key)
                .arg(shard.redis_now_ms() + IN_TRANSIT_MS)
                .arg(&of.token)
                .cmd("PEXPIRE")
                .arg(&key)
                .arg(IN_TRANSIT_MS * 2)
                .query_async(&mut link.decide)
                .await?;
        }
        Ok(of)
    }

    /// They have arrived; where that is not known, it is after a while.
    pub(crate) async fn end(self) {
        let Ok(layout) = self.ledger.known_layout() else {
            return;
        };
        for product in &self.products {
            let Ok(shard) = home(&self.ledger, &layout, *product) else {
                continue;
            };
            let Ok(mut link) = shard.link() else {
                continue;
            };
            let removed: Result<i64, _> = cmd("ZREM")
                .arg(shard.keys().moving(*product))
                .arg(&self.token)
                .query_async(&mut link.decide)
                .await;
            if let Err(error) = removed {
                tracing::debug!(%error, "what has arrived is said to move for a while");
            }
        }
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
        let mut moved = 0;
        for (way, quantity) in bucket::balance(&layout.buckets, product, &levels) {
            let request = bucket::transfer(way, quantity, stock_common::id::UserId(0))?;
            let in_transit = InTransit::begin(self, &[product]).await?;
            let verdict = self.decide_placed(request).await;
            // Where the outcome is not known yet they are on their way until a sweep has ended that.
            let verdict = verdict?;
            in_transit.end().await;
            if let Verdict::Accepted(_) = verdict {
                moved += quantity;
            } else {
                tracing::debug!(%product, ?verdict, "stock not moved now");
            }
        }
        Ok(moved)
    }

    /// Hears that there is stock again.
    pub(super) fn hear_shares(&self, levels: &[(Account, crate::account::Level)]) {
        for (account, level) in levels {
            let of = bucket::whole(*account);
            if level.balance > 0 && of.place == LocationId::ONLINE.0 {
                self.inner.gone.hear(of, level.balance, level.seq);
            }
        }
    }
}
