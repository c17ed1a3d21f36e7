//! Branches: how an entry is decided whose accounts lie on several shards.
//!
//! ```text
//! hold on a ─ hold on b ─ … ─ decide the entry on the coordinator ─ confirm on a ─ confirm on b
//! ```
//!
//! Each of the other shards first holds what the entry takes there, one shard after the other. Such
//! a branch is an entry of its own with a deadline. Then the coordinator decides the entry itself,
//! together with what it takes and gives there. At that moment the whole entry has happened. When
//! the branches are confirmed, the other shards give what the entry gives there. If the coordinator
//! refuses the entry, or the instance that held the branches never comes back, the branches are
//! released: all that they took goes back.
//!
//! All parts share one id. On the coordinator, the state `across:<coordinator>:<id>` goes from none
//! to COMMITTED with the entry, or to ABORTED without it, and never to both. On another shard, the
//! state `branch:<shard>:<id>` goes from HELD to CONFIRMED or to RELEASED. So anybody may repeat
//! any step, and the coordinator's state is the outcome.

mod split;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stock_common::id::{CouponId, Position, ProductId, UserId};

pub use self::split::{Part, Plan, Split, plan};
use crate::account::{Account, AccountKind};
use crate::coupon::{CODE_STATE, CodeState, CodeUse};
use crate::journal::{Closing, Draft, DraftError, Entry, Kind};
use crate::order::OrderReversed;
use crate::posting::Posting;
use crate::request::{HeldUnits, Release, Request, Then};
use crate::transition::Transition;

/// The coordinator's state when the entry was written.
pub const COMMITTED: &str = "COMMITTED";
/// The coordinator's state when the entry will never be written.
pub const ABORTED: &str = "ABORTED";
/// The prefix of the id of a coordinator's state.
pub const CROSS_SHARD_STATE: &str = "across:";
/// The state of a branch that waits for the outcome.
const HELD: &str = "HELD";
const CONFIRMED: &str = "CONFIRMED";
/// The state of a branch whose units went back.
pub const RELEASED: &str = "RELEASED";
/// The text of a branch's member of `deadlines`, after its id.
const DEADLINE: &str = "branch";

/// The id that all parts of an entry share, with the coordinator's shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossShardId {
    /// The shard that decides the entry.
    #[serde(rename = "home")]
    pub coordinator: u64,
    /// 32 hexadecimal digits.
    pub id: String,
}

impl fmt::Display for CrossShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.coordinator, self.id)
    }
}

impl FromStr for CrossShardId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (coordinator, id) = text.split_once(':').ok_or(())?;
        Ok(Self {
            coordinator: coordinator.parse().or(Err(()))?,
            id: id.to_owned(),
        })
    }
}

impl CrossShardId {
    /// Makes a random id.
    #[must_use]
    pub fn new(coordinator: u64) -> Self {
        let id = format!("{:032x}", rand::random::<u128>());
        Self { coordinator, id }
    }

    fn transition(&self, from: &str, to: &str) -> Transition {
        Transition::new(self.state_id(), from, to.to_owned())
    }

    /// The transition that the entry makes on the coordinator.
    #[must_use]
    pub fn committed(&self) -> Transition {
        self.transition("", COMMITTED)
    }

    /// The id of the coordinator's state.
    #[must_use]
    pub fn state_id(&self) -> String {
        format!("{CROSS_SHARD_STATE}{self}")
    }

    /// The id of the state of the branch on a shard.
    #[must_use]
    pub fn branch_state_id(&self, shard: u64) -> String {
        format!("branch:{shard}:{}", self.id)
    }

    fn branch_transition(&self, shard: u64, expected: &str, next: &str) -> Transition {
        Transition::new(self.branch_state_id(shard), expected, next.to_owned())
    }
}

/// A posting in a branch's body: kind, owner, location, delta, opening level, product of an
/// ALLOWANCE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Moved(AccountKind, u64, u64, i64, Option<i64>, Option<ProductId>);

impl From<&Posting> for Moved {
    fn from(p: &Posting) -> Self {
        let Account {
            kind,
            owner,
            location,
        } = p.account;
        Self(kind, owner, location, p.delta, p.open, p.product)
    }
}

impl From<&Moved> for Posting {
    fn from(&Moved(kind, owner, location, delta, open, product): &Moved) -> Self {
        Self {
            account: Account {
                kind,
                owner,
                location,
            },
            delta,
            open,
            // A confirm or a release takes nothing, so there is no least level to check.
            least: 0,
            product,
        }
    }
}

/// The body of a held branch: what the entry takes and gives on the branch's shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The id that all parts of the entry share.
    #[serde(rename = "across")]
    pub cross_shard: CrossShardId,
    /// The shard of the branch.
    pub shard: u64,
    /// The kind of the entry that the branch belongs to.
    pub of: String,
    /// The order that the entry takes back, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Position>,
    /// Postings that are made when the branch is held.
    taken: Vec<Moved>,
    /// Postings that are made when the branch is confirmed.
    given: Vec<Moved>,
    /// Accounts that are closed or opened when the branch is confirmed, and whether only if the
    /// confirm opens them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    closings: Vec<(String, bool, bool)>,
    /// The entry's own transitions, made when the branch is held, each with the product whose shard
    /// it lies on.
    #[serde(rename = "marks")]
    transitions: Vec<(Transition, Option<ProductId>)>,
}

/// The body of an entry that ended a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchEnded {
    /// The position of the branch.
    pub branch_id: Position,
    /// The kind of the entry that the branch belonged to.
    pub of: String,
    /// The position of the entry, where the branch was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_id: Option<Position>,
    /// The order that the entry took back, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Position>,
    /// The coupon's code that the entry used or gave back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<(CouponId, String)>,
}

/// A change of a coupon's code on a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeMoved {
    /// An order used it.
    Used((CouponId, String), Position),
    /// The order that had used it was taken back.
    Freed(Position),
}

impl BranchEnded {
    /// The branch and its order, if the branch was confirmed for an order.
    #[must_use]
    pub fn placed(&self) -> Option<(Position, Position)> {
        let is_order = self.of == Kind::OrderPlaced.as_str();
        self.entry_id
            .filter(|_| is_order)
            .map(|entry| (self.branch_id, entry))
    }

    /// The change of the code, if the branch moved one and was confirmed.
    #[must_use]
    pub fn code(&self) -> Option<CodeMoved> {
        let (code, entry) = self.code.clone().zip(self.entry_id)?;
        Some(match self.order_id {
            Some(order) => CodeMoved::Freed(order),
            None => CodeMoved::Used(code, entry),
        })
    }
}

/// The order that a cancel or failure takes back.
fn reversed_order(draft: &Draft) -> Option<Position> {
    if !matches!(
        draft.kind,
        Kind::OrderCancelled | Kind::OrderReduced | Kind::OrderFailed
    ) {
        return None;
    }
    let reversed: Result<OrderReversed, _> = serde_json::from_str(draft.body.get());
    reversed.ok().map(|reversed| reversed.order_id)
}

impl Branch {
    /// Reads the body of an entry that holds a branch.
    ///
    /// # Errors
    /// When the body has another form.
    pub fn of(entry: &Entry) -> Result<Self, serde_json::Error> {
        entry.body()
    }

    /// The accounts that the branch moves.
    pub fn accounts(&self) -> impl Iterator<Item = Account> + use<'_> {
        let moved = self.taken.iter().chain(&self.given);
        moved.map(|moved| Posting::from(moved).account)
    }

    /// The member of `deadlines` of a branch that was held at a position.
    #[must_use]
    pub fn member(at: Position) -> String {
        format!("{} {DEADLINE}", at.stream_id())
    }

    /// The end of a branch that was held at a position.
    fn end_of_hold(at: Position) -> Release {
        Release {
            member: Self::member(at),
            until_ms: 0,
            then: Then::Ends(vec![HeldUnits::branch()]),
        }
    }

    /// Parses such a member; `None` when it has another form.
    #[must_use]
    pub fn parse_member(member: &str) -> Option<Position> {
        let (id, text) = member.split_once(' ')?;
        Position::from_stream_id(id).filter(|_| text == DEADLINE)
    }

    /// Confirms the branch: gives what the entry gives here. The entry was written.
    ///
    /// # Errors
    /// [`DraftError`] when the entry has no JSON form.
    pub fn confirm(&self, at: Position, entry: Position) -> Result<Request, DraftError> {
        let postings = self.given.iter().map(Posting::from).collect();
        let mut request = self.end(at, Some(entry), CONFIRMED, postings, Vec::new())?;
        let closing = |(account, closed, only_if_opened): &(String, bool, bool)| {
            Some(Closing {
                account: Account::parse(account)?,
                closed: *closed,
                only_if_opened: *only_if_opened,
            })
        };
        request.draft.closings = self.closings.iter().filter_map(closing).collect();
        Ok(request)
    }

    /// Releases the branch: gives back what was taken here. The entry was not written and never
    /// will be.
    ///
    /// # Errors
    /// [`DraftError`] when the entry has no JSON form.
    pub fn release(&self, at: Position) -> Result<Request, DraftError> {
        let back = |moved: &Moved| {
            let posting = Posting::from(moved);
            Posting {
                delta: -posting.delta,
                open: None,
                ..posting
            }
        };
        let transitions = self
            .transitions
            .iter()
            .map(|(transition, product)| Transition {
                product: *product,
                ..Transition::new(
                    transition.id.clone(),
                    &transition.to,
                    transition.from.clone(),
                )
            });
        let postings = self.taken.iter().map(back).collect();
        self.end(at, None, RELEASED, postings, transitions.collect())
    }

    fn end(
        &self,
        at: Position,
        entry: Option<Position>,
        state: &str,
        postings: Vec<Posting>,
        transitions: Vec<Transition>,
    ) -> Result<Request, DraftError> {
        let kind = match entry {
            Some(_) => Kind::BranchConfirmed,
            None => Kind::BranchReleased,
        };
        let body = BranchEnded {
            branch_id: at,
            of: self.of.clone(),
            entry_id: entry,
            order_id: self.order_id,
            code: self.transitions.iter().find_map(|(transition, _)| {
                let code = transition.id.strip_prefix(CODE_STATE)?;
                let is_used =
                    |state: &str| CodeState::parse(state).filter(|of| of.code_use == CodeUse::Used);
                // No row says that a checkout has set a code aside, or given it back.
                let of = is_used(&transition.to).or_else(|| is_used(&transition.from))?;
                Some((of.coupon_id, code.to_owned()))
            }),
        };
        let mut draft = Draft::new(kind, UserId::ENGINE, &body)?;
        draft.reference = Some(self.cross_shard.id.clone());
        draft.postings = postings;
        draft.transitions = [self.cross_shard.branch_transition(self.shard, HELD, state)]
            .into_iter()
            .chain(transitions)
            .collect();
        let mut request = Request::new(draft);
        request.allow_closed = true;
        request.allow_backlog = true;
        request.release = Some(Self::end_of_hold(at));
        Ok(request)
    }

    /// Makes sure that the entry will never be written.
    ///
    /// # Errors
    /// [`DraftError`] when the entry has no JSON form.
    pub fn abort(&self) -> Result<Request, DraftError> {
        let mut draft = Draft::new(Kind::CrossShardAborted, UserId::ENGINE, &self.cross_shard)?;
        draft.reference = Some(self.cross_shard.id.clone());
        draft.transitions = vec![self.cross_shard.transition("", ABORTED)];
        let mut request = Request::new(draft);
        request.allow_backlog = true;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, ProductId, SaleId, UserId};

    use super::{Branch, Plan, plan};
    use crate::account::Account;
    use crate::journal::{Draft, Kind};
    use crate::posting::Posting;
    use crate::request::Request;
    use crate::shard_map::ShardMap;
    use crate::transition::Transition;

    const HOLD_MS: u64 = 5_000;

    /// A product on the last shard, a product on another shard, and a user on that other shard.
    fn apart(map: ShardMap) -> (ProductId, ProductId, UserId) {
        let on = |is_last: bool| {
            let lies = |id: &u64| (map.of_product(ProductId(*id)) + 1 == map.shards()) == is_last;
            ProductId((1..).find(lies).unwrap())
        };
        let other = on(false);
        let lies = |id: &u64| map.of_user(UserId(*id)) == map.of_product(other);
        (on(true), other, UserId((1..).find(lies).unwrap()))
    }

    fn take(product: ProductId, quantity: i64) -> Posting {
        Posting::new(Account::available(product, LocationId::ONLINE), -quantity)
    }

    fn request(postings: Vec<Posting>) -> Request {
        let mut draft = Draft::new(Kind::OrderPlaced, UserId(1), &()).unwrap();
        draft.postings = postings;
        Request::new(draft)
    }

    #[test]
    fn what_lies_on_one_shard_is_one_call() {
        let map = ShardMap::new(5);
        let (first, other, user) = apart(map);
        let limit = Posting::new(Account::allowance(SaleId(4), user), -1);
        let of_sale = request(vec![take(first, 1), limit.opening(2).beside(first)]);
        assert!(matches!(plan(&of_sale, map, HOLD_MS), Plan::One(_)));
        let both = request(vec![take(first, 1), take(other, 1)]);
        assert!(matches!(
            plan(&both, ShardMap::new(1), HOLD_MS),
            Plan::One(0)
        ));
    }

    #[test]
    fn a_branch_takes_first_and_gives_last() {
        let map = ShardMap::new(5);
        let (first, other, user) = apart(map);
        let points = Account::points(user);
        let mut both = request(vec![
            take(first, 1),
            take(other, 2),
            Posting::new(points, -30),
            Posting::new(points, 7).opening(0),
        ]);
        both.draft.transitions.push(Transition::new(
            "code:AB".to_owned(),
            "FREE 1 2",
            "USED 1 2".to_owned(),
        ));
        both.late_check = Some(2);
        let Plan::Several(split) = plan(&both, map, HOLD_MS) else {
            panic!("one call");
        };
        let parts: Vec<u64> = split.branches.iter().map(|part| part.shard).collect();
        assert!(parts.is_sorted() && parts.iter().all(|shard| *shard < split.coordinator.shard));
        assert_eq!(
            split.coordinator.request.draft.transitions[0].to,
            "COMMITTED"
        );
        let branch = split
            .branches
            .iter()
            .find(|part| part.postings.contains(&1))
            .unwrap();
        assert_eq!(branch.postings, [1, 2], "what is given is not held");
        let body = branch.branch.as_ref().unwrap();
        let at = stock_common::id::Position::new(77);
        let confirm = body.confirm(at, at).unwrap();
        assert_eq!(confirm.draft.postings, [Posting::new(points, 7).opening(0)]);
        let release = body.release(at).unwrap();
        assert_eq!(
            release.draft.postings,
            [take(other, -2), Posting::new(points, 30)]
        );
        for end in [&confirm, &release] {
            assert_eq!(end.draft.transitions[0].from, "HELD");
            assert_eq!(end.release, Some(Branch::end_of_hold(at)));
        }
        assert_eq!(Branch::parse_member(&Branch::member(at)), Some(at));
    }
}
