//! Buckets: the online stock of a hot product, divided over shards, so that one Redis core is not its limit.
//!
//! Without them a product is one account on one shard. With them AVAILABLE on the product's own shard is one
//! share of its stock, and each BUCKET, an account in a slot of another shard, is one more. A product's stock
//! is what all of them hold together:
//! - what is taken from the product is taken from one share, that of the shard on which the rest of the
//!   request lies anyway, or else its buyer's ([`place()`]); when that is short, from another that holds
//!   enough, or from several together ([`gather`]);
//! - what is given goes to AVAILABLE;
//! - what closes the product closes all of it;
//! - what one share has too much is moved to another now and then ([`balance`]), as an entry of its own.
//!
//! Sales' limits per user stay on the product's own shard, and so do orders that need them, and reservations,
//! as long as the share there lasts.

mod divide;
mod place;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, ProductId, UserId};

use crate::account::{Account, AccountKind, Level};
use crate::journal::{Closing, Draft, DraftError, Kind, Posting};
use crate::layout::{Layout, SLOTS, product_slot};
use crate::ledger::Request;
use crate::product;

pub use self::divide::{DivideError, divide, forget_emptied};
pub use self::place::{Placed, Short, concerns, gather, home, place, undivided};

/// Units that are worth an entry over two shards.
const WORTH_MOVING: i64 = 100;
/// What one posting may move.
const POSTING_MAX: i64 = 1_000_000_000_000;

/// A part of a product's stock beside AVAILABLE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The slot that it lies in, for ever.
    pub slot: u16,
    /// Whether it is filled; one that is not is emptied into the others, and sells what is left until then.
    pub is_open: bool,
}

/// The products whose stock is divided, and into which buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buckets(HashMap<ProductId, Vec<Bucket>>);

impl Buckets {
    /// Notes a bucket.
    pub fn add(&mut self, product: ProductId, bucket: Bucket) {
        self.0.entry(product).or_default().push(bucket);
    }

    /// Whether no product is divided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The products that are divided.
    #[must_use]
    pub fn products(&self) -> Vec<ProductId> {
        let mut products: Vec<ProductId> = self.0.keys().copied().collect();
        products.sort_unstable();
        products
    }

    /// The buckets of a product; none when it is not divided.
    #[must_use]
    pub fn of(&self, product: ProductId) -> &[Bucket] {
        self.0.get(&product).map_or(&[], Vec::as_slice)
    }

    /// Whether a product has an open bucket in a slot.
    #[must_use]
    pub fn has(&self, product: ProductId, slot: u16) -> bool {
        self.of(product)
            .iter()
            .any(|bucket| bucket.is_open && bucket.slot == slot)
    }

    /// The accounts that hold a product's stock; AVAILABLE is the first.
    #[must_use]
    pub fn accounts(&self, product: ProductId) -> Vec<Account> {
        let buckets = self.of(product).iter();
        let buckets = buckets.map(|bucket| Account::bucket(product, bucket.slot));
        [Account::available(product, LocationId::ONLINE)]
            .into_iter()
            .chain(buckets)
            .collect()
    }

    /// The accounts that a level is the sum of: a divided product's shares, of any other account itself.
    #[must_use]
    pub fn shares(&self, account: Account) -> Vec<Account> {
        match self.divided(account) {
            Some(product) => self.accounts(product),
            None => vec![account],
        }
    }

    /// The product of an account that holds a part of divided stock.
    #[must_use]
    pub fn divided(&self, account: Account) -> Option<ProductId> {
        let is_online = whole(account).place == LocationId::ONLINE.0;
        let is_stock = whole(account).kind == AccountKind::Available;
        let product = ProductId(account.owner);
        (is_stock && is_online && self.0.contains_key(&product)).then_some(product)
    }
}

/// The account that a bucket is a part of; any other account is itself.
#[must_use]
pub const fn whole(account: Account) -> Account {
    match account.kind {
        AccountKind::Bucket => Account::available(ProductId(account.owner), LocationId::ONLINE),
        AccountKind::Available
        | AccountKind::Reserved
        | AccountKind::Allowance
        | AccountKind::Coupon
        | AccountKind::Points
        | AccountKind::Hold => account,
    }
}

/// What several accounts hold together; closed as the first of them.
#[must_use]
pub fn sum(levels: &HashMap<Account, Level>, of: &[Account]) -> Option<Level> {
    let mut all = *levels.get(of.first()?)?;
    for level in of.iter().skip(1).filter_map(|name| levels.get(name)) {
        all.balance += level.balance;
        all.seq += level.seq;
    }
    Some(all)
}

/// Slots for `count` buckets of a product beside AVAILABLE, each on a shard of its own; fewer where there are not as
/// many other shards.
#[must_use]
pub fn slots(layout: &Layout, product: ProductId, count: usize) -> Vec<u16> {
    let own = product_slot(product);
    let home = layout.owner(own);
    // Behind the product's own slot, so that the buckets of several products are not in one slot.
    let all = (0..SLOTS).map(|step| (own + step) % SLOTS);
    let on = |shard: u64| all.clone().find(|slot| layout.owner(*slot) == shard);
    let others = (1..layout.shards).map(|step| (home + step) % layout.shards);
    others.filter_map(on).take(count).collect()
}

/// The body of an entry that moved stock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StockMoved {
    /// The product.
    pub product_id: ProductId,
}

/// Moves stock from one share to another, on sale or not.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn transfer(
    (from, to): (Account, Account),
    quantity: i64,
    actor: UserId,
) -> Result<Request, DraftError> {
    let mut request = open(to, actor)?;
    request.draft.postings = vec![Posting::new(from, -quantity), Posting::new(to, quantity)];
    Ok(request)
}

/// Opens a bucket, empty; one that is open already stays as it is.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn open(bucket: Account, actor: UserId) -> Result<Request, DraftError> {
    let product_id = ProductId(bucket.owner);
    let mut draft = Draft::new(Kind::StockMoved, actor, &StockMoved { product_id })?;
    draft.postings = vec![Posting::new(bucket, 0).opening(0)];
    let mut request = Request::new(draft);
    request.even_closed = true;
    Ok(request)
}

/// Closes or opens the shares that are not as the product's own account is; `None` when all are.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn follow(
    product: ProductId,
    levels: &HashMap<Account, Level>,
) -> Result<Option<Request>, DraftError> {
    let own = Account::available(product, LocationId::ONLINE);
    let Some(Level { closed, .. }) = levels.get(&own).copied() else {
        return Ok(None);
    };
    let differs = levels.iter().filter(|(_, level)| level.closed != closed);
    let closings: Vec<Closing> = differs
        .map(|(account, _)| Closing {
            account: *account,
            closed,
            only_if_opened: false,
        })
        .collect();
    if closings.is_empty() {
        return Ok(None);
    }
    let mut request = product::switch(product, closed, &[], UserId(0))?;
    request.draft.closings = closings;
    Ok(Some(request))
}

/// What should move between a product's shares.
///
/// All that is in one that is emptied; and of one that is open what it has above its part, to those that have less than
/// half of theirs. Nothing where that is not worth it: what is left when a product is nearly gone is found in any share.
#[must_use]
pub fn balance(
    buckets: &Buckets,
    product: ProductId,
    levels: &HashMap<Account, Level>,
) -> Vec<((Account, Account), i64)> {
    let holds = |account: &Account| levels.get(account).map_or(0, |level| level.balance);
    let own = Account::available(product, LocationId::ONLINE);
    let mut open = vec![(own, holds(&own))];
    let mut moves = Vec::new();
    for bucket in buckets.of(product) {
        let account = Account::bucket(product, bucket.slot);
        if bucket.is_open {
            open.push((account, holds(&account)));
        } else if holds(&account) > 0 {
            moves.push(((account, own), holds(&account).min(POSTING_MAX)));
        }
    }
    let all: i64 = open.iter().map(|(_, balance)| balance).sum();
    let part = all / i64::try_from(open.len()).unwrap_or(i64::MAX);
    while let (Some(most), Some(least)) = (
        open.iter().copied().max_by_key(|(_, balance)| *balance),
        open.iter().copied().min_by_key(|(_, balance)| *balance),
    ) {
        let quantity = (most.1 - part).min(part - least.1).min(POSTING_MAX);
        if least.1 >= part / 2 || quantity < WORTH_MOVING {
            break;
        }
        moves.push(((most.0, least.0), quantity));
        for (account, balance) in &mut open {
            *balance -= if *account == most.0 { quantity } else { 0 };
            *balance += if *account == least.0 { quantity } else { 0 };
        }
    }
    moves
}

#[cfg(test)]
mod tests;
