//! The shard map: a fixed function that maps a thing and the number of shards to the thing's shard.
//!
//! `shard = CRC-32("product:7") mod shards` (IEEE, as MySQL's `CRC32`). The number of shards is
//! stored when a database is new. Only `rehome` changes it, while nothing is sold: it is like the
//! number of partitions in Kafka. In a cluster the servers' own commands move whole shards from
//! master to master.
//!
//! | accounts and states | lie with |
//! |---|---|
//! | AVAILABLE, RESERVED, ALLOWANCE (of its sales), `opened` | the product |
//! | COUPON, `coupon`, `issued`, `code` | the coupon |
//! | POINTS, HOLD, Idempotency-Keys | the user |
//! | `order`, `hold`, `extended`, `payment`, `point` | the position in the id, which names its shard |
//! | `till`, `device` | the first product of the sale |
//! | `across`, `branch` | the shard whose number stands in the id |
//! | `import` | its own text |
//!
//! So an order of one product, in its sale or not, is one script call on one shard.

use std::fmt::Display;

use stock_common::id::{Position, ProductId, UserId};

use crate::account::{Account, AccountKind};
use crate::coupon::{CODE_STATE, CodeState};
use crate::posting::Posting;
use crate::transition::Transition;

/// The most shards: a position has six bits for the shard.
pub const SHARDS_MAX: u64 = 64;

/// The map from things to shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardMap {
    /// The number of shards, numbered from 0; at least 1.
    shards: u64,
}

impl ShardMap {
    /// The map of a number of shards; 0 counts as 1.
    #[must_use]
    pub const fn new(shards: u64) -> Self {
        Self {
            shards: if shards == 0 { 1 } else { shards },
        }
    }

    /// The number of shards.
    #[must_use]
    pub const fn shards(self) -> u64 {
        self.shards
    }

    /// The shard of a thing: a product, a coupon, a user, or a state that belongs to none of them.
    fn of(self, kind: &str, id: impl Display) -> u64 {
        if self.shards == 1 {
            return 0;
        }
        u64::from(crc32fast::hash(format!("{kind}:{id}").as_bytes())) % self.shards
    }

    /// The shard on which a product's stock and limits lie.
    #[must_use]
    pub fn of_product(self, product: ProductId) -> u64 {
        self.of("product", product)
    }

    /// The shard on which a user's points, holds and keys lie.
    #[must_use]
    pub fn of_user(self, user: UserId) -> u64 {
        self.of("user", user)
    }

    /// The shard that a position names; the first shard, if there is no such shard any more.
    #[must_use]
    pub const fn of_position(self, position: Position) -> u64 {
        self.of_number(position.shard())
    }

    /// The shard of a stored number; the first shard, if there is no such shard any more.
    #[must_use]
    pub const fn of_number(self, shard: u64) -> u64 {
        if shard < self.shards { shard } else { 0 }
    }

    /// The shard of an account; `None` for an ALLOWANCE without its sale's product.
    #[must_use]
    pub fn of_account(self, account: Account, product: Option<ProductId>) -> Option<u64> {
        Some(match account.kind {
            AccountKind::Available | AccountKind::Reserved | AccountKind::Bucket => {
                self.of_product(ProductId(account.owner))
            }
            AccountKind::Coupon => self.of("coupon", account.owner),
            AccountKind::Points | AccountKind::Hold => self.of_user(UserId(account.owner)),
            AccountKind::Allowance => return product.map(|product| self.of_product(product)),
        })
    }

    /// The shard of a posting's account. An ALLOWANCE without its product is looked for on
    /// `beside`.
    #[must_use]
    pub fn of_posting(self, posting: &Posting, beside: u64) -> u64 {
        self.of_account(posting.account, posting.product)
            .unwrap_or(beside)
    }

    /// The shard of a transition; `None` for a coupon's code if neither state names the coupon.
    #[must_use]
    pub fn of_transition(self, transition: &Transition) -> Option<u64> {
        if let Some(product) = transition.product {
            return Some(self.of_product(product));
        }
        let of_code = [&transition.from, &transition.to]
            .into_iter()
            .find_map(|state| CodeState::parse(state));
        self.of_state_id(&transition.id, of_code)
    }

    /// The shard of a state by its id. For a coupon's code the code's state is needed too.
    #[must_use]
    pub fn of_state_id(self, id: &str, code: Option<CodeState>) -> Option<u64> {
        if id.starts_with(CODE_STATE) {
            return code.map(|of| self.of("coupon", of.coupon_id));
        }
        let (kind, rest) = id.split_once(':').unwrap_or((id, ""));
        let first = rest.split(':').next().unwrap_or_default();
        Some(match kind {
            "order" | "point" => self.of_position(rest.parse().unwrap_or(Position::ZERO)),
            "hold" | "extended" | "payment" => {
                self.of_position(Position::from_stream_id(first).unwrap_or_default())
            }
            "across" | "branch" => self.of_number(first.parse().unwrap_or(0)),
            "opened" => self.of("product", first),
            "coupon" | "issued" => self.of("coupon", first),
            _ => self.of("mark", id),
        })
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::{CouponId, LocationId, Position, ProductId, SaleId, UserId};

    use super::ShardMap;
    use crate::account::Account;
    use crate::posting::Posting;
    use crate::transition::Transition;

    #[test]
    fn things_lie_where_they_always_lay() {
        // The values are frozen: another function would look for everything on other shards.
        let map = ShardMap::new(16);
        assert_eq!(map.of_product(ProductId(1)), 11);
        assert_eq!(map.of_product(ProductId(7)), 14);
        assert_eq!(map.of_user(UserId(1)), 2);
        assert_eq!(map.of_account(Account::coupon(CouponId(42)), None), Some(8));
    }

    #[test]
    fn each_shard_has_its_share_of_the_products() {
        for shards in [1, 3, 16, 64] {
            let map = ShardMap::new(shards);
            let mut counts = vec![0_u64; usize::try_from(shards).unwrap()];
            for id in 1..=6_400 {
                counts[usize::try_from(map.of_product(ProductId(id))).unwrap()] += 1;
            }
            let even = 6_400 / shards;
            assert!(
                counts
                    .iter()
                    .all(|count| (even / 2..even * 2).contains(count)),
                "{shards}: {counts:?}"
            );
        }
    }

    #[test]
    fn what_belongs_together_lies_together() {
        let map = ShardMap::new(7);
        let product = ProductId(9);
        let coordinator = map.of_account(Account::available(product, LocationId::ONLINE), None);
        let mut limit = Posting::new(Account::allowance(SaleId(3), UserId(5)), -1);
        limit.product = Some(product);
        assert_eq!(Some(map.of_posting(&limit, 99)), coordinator);
        assert_eq!(map.of_state_id("opened:9", None), coordinator);
        let coupon = map.of_account(Account::coupon(CouponId(4)), None);
        assert_eq!(map.of_state_id("issued:4:5:6", None), coupon);
        let code = Transition::new("code:ABC".to_owned(), "", "FREE 4 5".to_owned());
        assert_eq!(map.of_transition(&code), coupon);
        let position = Position::from_parts(1_800_000_000_000, 5 << 16).unwrap();
        assert_eq!(map.of_state_id(&format!("order:{position}"), None), Some(5));
        assert_eq!(ShardMap::new(3).of_position(position), 0, "there is none");
    }
}
