//! Which shares a request takes divided stock from.

use std::collections::HashMap;

use stock_common::id::{LocationId, ProductId, UserId};

use super::{Buckets, whole};
use crate::account::{Account, AccountKind, Level};
use crate::journal::{Closing, Kind, Posting};
use crate::layout::{Layout, Place, product_slot, user_slot};
use crate::ledger::Request;
use crate::verdict::Refusal;

/// A request whose stock was placed.
#[derive(Debug, Clone)]
pub struct Placed {
    /// What is asked.
    pub request: Request,
    /// Of each of its postings which one of the whole's it belongs to.
    pub(super) origin: Vec<usize>,
}

impl Placed {
    /// Divides what a request takes as `parts` says, and closes with a product its buckets.
    fn new(
        whole: &Request,
        buckets: &Buckets,
        mut parts: impl FnMut(usize) -> Option<Vec<(Account, i64)>>,
    ) -> Self {
        let mut request = whole.clone();
        let (mut postings, mut origin) = (Vec::new(), Vec::new());
        let mut late_mark = whole.late_mark;
        for (index, posting) in whole.draft.postings.iter().enumerate() {
            let parts = parts(index).unwrap_or_else(|| vec![(posting.account, posting.delta)]);
            let is_before = whole.late_mark.is_some_and(|late| index < late);
            late_mark = late_mark.map(|late| late + if is_before { parts.len() - 1 } else { 0 });
            for (account, delta) in parts {
                origin.push(index);
                postings.push(Posting {
                    account,
                    delta,
                    ..*posting
                });
            }
        }
        let closings = whole.draft.closings.iter().flat_map(|closing| {
            let product = buckets.divided(closing.account);
            let all = product.map_or_else(|| vec![closing.account], |of| buckets.accounts(of));
            let closed = |account| Closing {
                account,
                ..*closing
            };
            all.into_iter().map(closed)
        });
        request.draft.closings = closings.collect();
        request.draft.postings = postings;
        request.late_mark = late_mark;
        request.asks_on = true;
        Self { request, origin }
    }

    /// The same, decided on a shard, if it has a key.
    fn at(mut self, home: Option<u64>) -> Self {
        self.request.home = home.filter(|_| self.request.idempotency.is_some());
        self
    }

    /// The posting of the whole, and the account, that a refusal says is short: a share of divided stock.
    #[must_use]
    pub fn short(&self, buckets: &Buckets, refusal: &Refusal) -> Option<(usize, ProductId)> {
        let (account, _) = refusal.short()?;
        let index = *self.origin.get(refusal.posting()?)?;
        Some((index, buckets.divided(account)?))
    }

    /// The same refusal, as the request that is not divided would have been told.
    #[must_use]
    pub fn of_whole(&self, refusal: Refusal) -> Refusal {
        undivided(refusal.of_whole(&self.origin, &[]))
    }
}

/// The same refusal about the product's whole account.
#[must_use]
pub fn undivided(mut refusal: Refusal) -> Refusal {
    if let Refusal::UnknownAccount { account, .. }
    | Refusal::ClosedAccount { account, .. }
    | Refusal::Broken { account, .. }
    | Refusal::Insufficient { account, .. }
    | Refusal::Overflow { account, .. } = &mut refusal
    {
        *account = whole(*account);
    }
    refusal
}

/// The products of which a request takes divided stock, by its postings.
fn taken(request: &Request, buckets: &Buckets) -> Vec<(usize, ProductId, i64)> {
    let postings = request.draft.postings.iter().enumerate();
    postings
        .filter(|(_, posting)| posting.delta < 0)
        .filter_map(|(index, posting)| {
            let is_placed = posting.account.kind == AccountKind::Bucket;
            let product = buckets.divided(posting.account).filter(|_| !is_placed)?;
            Some((index, product, -posting.delta))
        })
        .collect()
}

/// Whether a request is about divided stock, and was not placed by whoever built it.
#[must_use]
pub fn concerns(request: &Request, buckets: &Buckets) -> bool {
    if buckets.is_empty() {
        return false;
    }
    const PLACED: [Kind; 4] = [
        Kind::StockMoved,
        Kind::BranchHeld,
        Kind::BranchConfirmed,
        Kind::BranchReleased,
    ];
    let draft = &request.draft;
    let closes = |closing: &Closing| buckets.divided(closing.account).is_some();
    let expects = |(account, _): &(Account, i64)| buckets.divided(*account).is_some();
    let is_about = !taken(request, buckets).is_empty()
        || draft.closings.iter().any(closes)
        || request.expected.iter().any(expects);
    is_about && !PLACED.contains(&draft.kind)
}

/// The shard on which a request lies apart from divided stock, or else its buyer's.
fn anchor(request: &Request, layout: &Layout, placed: &[(usize, ProductId, i64)]) -> Option<u64> {
    let postings = request.draft.postings.iter().enumerate();
    let is_fixed = |index: &usize| placed.iter().all(|(of, ..)| of != index);
    let fixed = postings
        .filter(|(index, _)| is_fixed(index))
        .find_map(|(_, posting)| layout.of_account(posting.account, posting.product));
    let of_mark = || {
        let mut marks = request.draft.marks.iter();
        marks.find_map(|mark| layout.of_mark(mark))
    };
    let user = || layout.of_user(request.draft.actor);
    match fixed.or_else(of_mark).unwrap_or_else(user) {
        Place::Shard(shard) => Some(shard),
        Place::Moving => None,
    }
}

/// The shard on which a request is decided that has a key.
#[must_use]
pub fn home(request: &Request, layout: &Layout) -> Option<u64> {
    anchor(request, layout, &taken(request, &layout.buckets))
}

/// The shares of a product in the order in which a request asks them.
fn shares(
    layout: &Layout,
    product: ProductId,
    (anchor, user): (Option<u64>, UserId),
) -> Vec<Account> {
    let buckets = layout.buckets.of(product).iter();
    let open = buckets.filter(|bucket| bucket.is_open);
    let own = Account::available(product, LocationId::ONLINE);
    let mut shares: Vec<(Account, u16)> = [(own, product_slot(product))]
        .into_iter()
        .chain(open.map(|bucket| (Account::bucket(product, bucket.slot), bucket.slot)))
        .collect();
    let near = |(_, slot): &(Account, u16)| anchor == Some(layout.owner(*slot));
    let first = shares.iter().position(near);
    let first = first.unwrap_or_else(|| usize::from(user_slot(user)) % shares.len());
    shares.rotate_left(first);
    shares.into_iter().map(|(account, _)| account).collect()
}

/// Places a request: all that it takes of a product from one share, the nearest.
#[must_use]
pub fn place(request: &Request, layout: &Layout) -> Placed {
    let taken = taken(request, &layout.buckets);
    let near = (anchor(request, layout, &taken), request.draft.actor);
    Placed::new(request, &layout.buckets, |index| {
        let (_, product, quantity) = taken.iter().find(|(of, ..)| *of == index)?;
        let share = shares(layout, *product, near).into_iter().next()?;
        Some(vec![(share, -quantity)])
    })
    .at(near.0)
}

/// A product of which there is too little in all shares together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// The posting that takes it.
    pub posting: usize,
    /// What there is for it.
    pub left: i64,
}

/// Places a request by what the shares hold: in the nearest that holds enough, or else in as few as hold enough
/// together.
///
/// # Errors
/// [`Short`] when all of them do not.
pub fn gather(
    request: &Request,
    layout: &Layout,
    levels: &HashMap<Account, Level>,
) -> Result<Placed, Short> {
    let taken = taken(request, &layout.buckets);
    let near = (anchor(request, layout, &taken), request.draft.actor);
    let mut left: HashMap<Account, i64> = levels
        .iter()
        .map(|(account, level)| (*account, level.balance))
        .collect();
    let mut placed = HashMap::new();
    for &(posting, product, quantity) in &taken {
        let mut accounts = shares(layout, product, near);
        // Behind those that are filled, what is emptied.
        let others = layout.buckets.accounts(product);
        accounts.extend(
            others
                .into_iter()
                .filter(|of| !accounts.contains(of))
                .collect::<Vec<_>>(),
        );
        let holds = |account: &Account| left.get(account).copied().unwrap_or_default();
        if !accounts.iter().any(|account| holds(account) >= quantity) {
            accounts.sort_by_key(|account| -holds(account));
        } else {
            accounts.retain(|account| holds(account) >= quantity);
        }
        let (mut wanted, mut parts) = (quantity, Vec::new());
        for account in accounts {
            let part = holds(&account).min(wanted);
            if part > 0 {
                wanted -= part;
                parts.push((account, -part));
            }
        }
        if wanted > 0 {
            let left = quantity - wanted;
            return Err(Short { posting, left });
        }
        for (account, part) in &parts {
            *left.entry(*account).or_default() += part;
        }
        placed.insert(posting, parts);
    }
    let placed = Placed::new(request, &layout.buckets, |index| placed.remove(&index));
    Ok(placed.at(near.0))
}
