//! Layout: which shard has what.
//!
//! Everything that has accounts or marks of its own is hashed to one of 1,024 slots, for ever:
//! `slot = CRC-32("product:7") mod 1024` (IEEE, as MySQL's `CRC32`). A table says which shard serves a
//! slot; by default the jump consistent hash of the slot ([Lamping and Veach, 2014]), so that one
//! shard more takes over its share of slots and moves no other.
//!
//! | accounts and marks | go with |
//! |---|---|
//! | AVAILABLE, RESERVED, ALLOWANCE (of its sales), mark `opened` | the product |
//! | BUCKET | itself: its place is a slot |
//! | COUPON, marks `coupon`, `issued`, `code` | the coupon |
//! | POINTS, HOLD, Idempotency-Keys | the user |
//! | marks `order`, `hold`, `point` | their own position, which names its shard |
//! | mark `till` | the first product of the sale |
//! | mark `import` | its own text |
//!
//! So an order of one product, in its sale or not, is one script call on one shard.
//!
//! [Lamping and Veach, 2014]: https://arxiv.org/abs/1406.2294

use std::fmt::Display;

use stock_common::id::{Position, ProductId, UserId};

use crate::account::{Account, AccountKind};
use crate::bucket::Buckets;
use crate::coupon::{CODE_MARK, CodeState};
use crate::journal::{Mark, Posting};

/// How many slots there are, whatever the number of shards.
pub const SLOTS: u16 = 1_024;
/// Shards at most: a position has six bits for them.
pub const SHARDS_MAX: u64 = 64;

/// The slot of a thing: a product, a coupon, a user, or a mark that belongs to none of them.
#[must_use]
pub fn slot(kind: &str, id: impl Display) -> u16 {
    let hash = crc32fast::hash(format!("{kind}:{id}").as_bytes());
    u16::try_from(hash % u32::from(SLOTS)).unwrap_or_default()
}

/// The slot that a product's stock and limits are in.
#[must_use]
pub fn product_slot(product: ProductId) -> u16 {
    slot("product", product)
}

/// The slot that a user's points, holds and keys are in.
#[must_use]
pub fn user_slot(user: UserId) -> u16 {
    slot("user", user)
}

/// The slot of an account; `None` for an ALLOWANCE, which lies with its sale's product.
#[must_use]
pub fn account_slot(account: Account) -> Option<u16> {
    match account.kind {
        AccountKind::Available | AccountKind::Reserved => Some(slot("product", account.owner)),
        AccountKind::Coupon => Some(slot("coupon", account.owner)),
        AccountKind::Points | AccountKind::Hold => Some(slot("user", account.owner)),
        AccountKind::Bucket => Some(u16::try_from(account.place).unwrap_or_default() % SLOTS),
        AccountKind::Allowance => None,
    }
}

/// The shard that serves a slot of `shards`, unless a table says otherwise.
#[must_use]
pub fn jump(slot: u16, shards: u64) -> u64 {
    let (mut key, mut bucket, mut next) = (u64::from(slot), 0, 0);
    // A slot's number has ten bits; the generator wants a key that uses all of them.
    key = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while next < shards {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let draw = u128::from((key >> 33) + 1);
        next = u64::try_from((u128::from(bucket) + 1) * (1 << 31) / draw).unwrap_or(u64::MAX);
    }
    bucket
}

/// Where something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this shard.
    Shard(u64),
    /// Nowhere for a moment: its slot is moving to another shard.
    Moving,
}

/// Which shard has what, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How many shards there are, numbered from 0.
    pub shards: u64,
    /// Of each shard, how often something was taken away from it: a batch routed before is refused.
    pub versions: Vec<u64>,
    /// The products whose online stock is divided.
    pub buckets: Buckets,
    slots: Vec<Slot>,
}

/// The shard of a slot, and whether it is moving away from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    shard: u64,
    is_moving: bool,
    /// The shards that had it less than a day ago, a bit for each.
    previous: u64,
}

impl Layout {
    /// The layout of so many shards from which nothing was ever moved.
    #[must_use]
    pub fn new(shards: u64) -> Self {
        let slots = (0..SLOTS).map(|slot| Slot {
            shard: jump(slot, shards),
            is_moving: false,
            previous: 0,
        });
        Self {
            shards,
            versions: vec![0; usize::try_from(shards).unwrap_or_default()],
            buckets: Buckets::default(),
            slots: slots.collect(),
        }
    }

    /// Notes where a slot is.
    pub fn place(&mut self, slot: u16, shard: u64, is_moving: bool, previous: u64) {
        if let Some(known) = self.slots.get_mut(usize::from(slot)) {
            *known = Slot {
                shard,
                is_moving,
                previous,
            };
        }
    }

    /// The shard that has a slot, also while it is moving away from there.
    #[must_use]
    pub fn owner(&self, slot: u16) -> u64 {
        let known = self.slots.get(usize::from(slot));
        known.map_or(0, |slot| slot.shard)
    }

    /// Slots that are said to be moving and belong where they are.
    #[must_use]
    pub fn halfway(&self, target: impl Fn(u16) -> u64) -> Vec<u16> {
        let stays = |(number, slot): &(u16, &Slot)| slot.is_moving && target(*number) == slot.shard;
        let slots = (0..SLOTS).zip(&self.slots).filter(stays);
        slots.map(|(number, _)| number).collect()
    }

    /// The shards that had a slot less than a day ago, where keys may be known.
    pub fn previous(&self, slot: u16) -> impl Iterator<Item = u64> + use<> {
        let known = self.slots.get(usize::from(slot));
        let previous = known.map_or(0, |slot| slot.previous);
        (0..SHARDS_MAX).filter(move |shard| previous >> shard & 1 == 1)
    }

    /// Where a slot is.
    #[must_use]
    pub fn of_slot(&self, slot: u16) -> Place {
        match self.slots.get(usize::from(slot)) {
            Some(Slot {
                is_moving: true, ..
            }) => Place::Moving,
            Some(slot) => Place::Shard(slot.shard),
            None => Place::Shard(0),
        }
    }

    /// The same layout with what moves where it was: what is rebuilt is rebuilt there.
    #[must_use]
    pub fn at_rest(&self) -> Self {
        let mut rest = self.clone();
        for slot in &mut rest.slots {
            slot.is_moving = false;
        }
        rest
    }

    /// Whether something is moving.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.slots.iter().any(|slot| slot.is_moving)
    }

    /// The version that a batch for a shard must name.
    #[must_use]
    pub fn version(&self, shard: u64) -> u64 {
        let at = usize::try_from(shard).unwrap_or(usize::MAX);
        self.versions.get(at).copied().unwrap_or_default()
    }

    /// The shard that has what a position names: the one that made it, or who has taken over from it.
    #[must_use]
    pub const fn of_position(&self, position: Position) -> u64 {
        self.of_number(position.shard())
    }

    /// The shard that answers for a shard's number: the first does for those that were given up.
    #[must_use]
    pub const fn of_number(&self, shard: u64) -> u64 {
        if shard < self.shards { shard } else { 0 }
    }

    /// Where a user's points, holds and keys are.
    #[must_use]
    pub fn of_user(&self, user: UserId) -> Place {
        self.of_slot(user_slot(user))
    }

    /// Where an account is; `None` for an ALLOWANCE without its product.
    #[must_use]
    pub fn of_account(&self, account: Account, product: Option<ProductId>) -> Option<Place> {
        let slot = account_slot(account).or_else(|| product.map(product_slot))?;
        Some(self.of_slot(slot))
    }

    /// Where a posting's account is. An ALLOWANCE whose product nobody named is looked for with `beside`.
    #[must_use]
    pub fn of_posting(&self, posting: &Posting, beside: Place) -> Place {
        self.of_account(posting.account, posting.product)
            .unwrap_or(beside)
    }

    /// Where a mark is; `None` for a coupon's code whose coupon its states do not name.
    #[must_use]
    pub fn of_mark(&self, mark: &Mark) -> Option<Place> {
        if let Some(product) = mark.product {
            return Some(self.of_slot(product_slot(product)));
        }
        let of_code = [&mark.expected, &mark.next]
            .into_iter()
            .find_map(|state| CodeState::parse(state));
        self.of_mark_id(&mark.id, of_code)
    }

    /// The same by a mark's name; a code needs its state.
    #[must_use]
    pub fn of_mark_id(&self, id: &str, code: Option<CodeState>) -> Option<Place> {
        Some(match MarkHome::of(id, code)? {
            MarkHome::Slot(slot) => self.of_slot(slot),
            MarkHome::Shard(shard) => Place::Shard(self.of_number(shard)),
        })
    }
}

/// What says where a mark lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkHome {
    /// The slot of what it belongs to.
    Slot(u16),
    /// The shard's number that a position, or the mark itself, names.
    Shard(u64),
}

impl MarkHome {
    /// What says where a mark lies; `None` for a coupon's code without its state.
    #[must_use]
    pub fn of(id: &str, code: Option<CodeState>) -> Option<Self> {
        if id.starts_with(CODE_MARK) {
            return code.map(|of| Self::Slot(slot("coupon", of.coupon_id)));
        }
        let (kind, rest) = id.split_once(':').unwrap_or((id, ""));
        let first = rest.split(':').next().unwrap_or_default();
        Some(match kind {
            "order" | "point" => {
                let position: Position = rest.parse().unwrap_or(Position::ZERO);
                Self::Shard(position.shard())
            }
            "hold" => {
                let position = Position::from_stream_id(rest).unwrap_or_default();
                Self::Shard(position.shard())
            }
            "across" | "branch" => Self::Shard(first.parse().unwrap_or(0)),
            "opened" => Self::Slot(slot("product", first)),
            "coupon" | "issued" => Self::Slot(slot("coupon", first)),
            _ => Self::Slot(slot("mark", id)),
        })
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::{CouponId, LocationId, Position, ProductId, SaleId, UserId};

    use super::{Layout, Place, SLOTS, jump, slot};
    use crate::account::Account;
    use crate::journal::{Mark, Posting};

    #[test]
    fn slots_are_what_they_always_were() {
        // Frozen: another function would look for everything in other places.
        for (kind, id, expected) in [
            ("product", 1, 331),
            ("product", 7, 126),
            ("user", 1, 642),
            ("coupon", 42, 776),
        ] {
            assert_eq!(slot(kind, id), expected, "{kind}:{id}");
        }
        let shards: Vec<u64> = (0..8).map(|slot| jump(slot, 3)).collect();
        assert_eq!(shards, [0, 1, 0, 1, 2, 1, 2, 0]);
    }

    #[test]
    fn one_shard_more_takes_its_share_and_moves_no_other() {
        for shards in 1..20 {
            let moved: Vec<u64> = (0..SLOTS)
                .filter(|&slot| jump(slot, shards) != jump(slot, shards + 1))
                .map(|slot| jump(slot, shards + 1))
                .collect();
            assert!(moved.iter().all(|&to| to == shards));
            let share = u64::from(SLOTS) / (shards + 1);
            let count = moved.len() as u64;
            assert!(
                (share / 2..share * 2).contains(&count),
                "{shards}: {count} of {share}"
            );
        }
    }

    #[test]
    fn what_belongs_together_lies_together() {
        let layout = Layout::new(7);
        let product = ProductId(9);
        let home = layout.of_account(Account::available(product, LocationId::ONLINE), None);
        let mut limit = Posting::new(Account::allowance(SaleId(3), UserId(5)), -1);
        limit.product = Some(product);
        assert_eq!(Some(layout.of_posting(&limit, Place::Moving)), home);
        assert_eq!(layout.of_mark_id("opened:9", None), home);
        let coupon = layout.of_account(Account::coupon(CouponId(4)), None);
        assert_eq!(layout.of_mark_id("issued:4:5:6", None), coupon);
        let code = Mark::new("code:ABC".to_owned(), "", "FREE 4 5".to_owned());
        assert_eq!(layout.of_mark(&code), coupon);
        let position = Position::from_parts(1_800_000_000_000, 5 << 16).unwrap();
        assert_eq!(
            layout.of_mark_id(&format!("order:{position}"), None),
            Some(Place::Shard(5))
        );
        assert_eq!(Layout::new(3).of_position(position), 0, "given up");
    }
}
