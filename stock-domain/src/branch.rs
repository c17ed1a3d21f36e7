//! Branches: an entry whose accounts lie on several shards.
//!
//! ```text
//! hold on shard a ─ hold on shard b ─ … ─ the entry itself on its home shard ─ confirm on a ─ confirm on b
//! ```
//!
//! What the entry takes elsewhere is held there first, shard by shard, each part an entry of its own with a
//! deadline; then the entry is decided at home, with what it takes and gives there; that is the moment at
//! which all of it happens. What it gives elsewhere is given when the branches are confirmed. If it is
//! refused at home, or nobody comes back, the branches are released: all that they took goes back.
//!
//! All parts share one id. At home the mark `across:<home>:<id>` goes from none to COMMITTED with the entry or to
//! ABORTED without it, never both; on a branch `branch:<shard>:<id>` goes from HELD to CONFIRMED or RELEASED. So each step
//! may be repeated by anybody, and the outcome is the home's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stock_common::id::{CouponId, Position, ProductId, UserId};

use crate::account::{Account, AccountKind};
use crate::coupon::{CODE_MARK, CodeState};
use crate::journal::{Closing, Draft, DraftError, Entry, Kind, Mark, Posting};
use crate::layout::{Layout, Place};
use crate::ledger::Request;
use crate::ledger::request::Hold;
use crate::order::OrderReversed;

/// The state of the home's mark when the entry was written, and when it never will be.
pub const COMMITTED: &str = "COMMITTED";
const ABORTED: &str = "ABORTED";
/// What the name of a home's mark begins with.
pub const ACROSS_MARK: &str = "across:";
/// The states of a branch's mark.
const HELD: &str = "HELD";
const CONFIRMED: &str = "CONFIRMED";
const RELEASED: &str = "RELEASED";
/// The text of a branch's member of `deadlines`, behind its id.
const DEADLINE: &str = "branch";

/// The id that the parts of one entry share, with the home's shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Across {
    /// The shard on which it is decided.
    pub home: u64,
    /// 32 hexadecimal digits.
    pub id: String,
}

impl fmt::Display for Across {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.home, self.id)
    }
}

impl FromStr for Across {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (home, id) = text.split_once(':').ok_or(())?;
        Ok(Self {
            home: home.parse().or(Err(()))?,
            id: id.to_owned(),
        })
    }
}

impl Across {
    /// A new one.
    #[must_use]
    pub fn new(home: u64) -> Self {
        let id = format!("{:032x}", rand::random::<u128>());
        Self { home, id }
    }

    fn mark(&self, expected: &str, next: &str) -> Mark {
        Mark::new(self.mark_id(), expected, next.to_owned())
    }

    /// The home's mark when the entry was written.
    #[must_use]
    pub fn committed(&self) -> Mark {
        self.mark("", COMMITTED)
    }

    /// The home's mark.
    #[must_use]
    pub fn mark_id(&self) -> String {
        format!("{ACROSS_MARK}{self}")
    }

    /// The mark of its branch on a shard.
    #[must_use]
    pub fn branch_mark_id(&self, shard: u64) -> String {
        format!("branch:{shard}:{}", self.id)
    }

    fn branch_mark(&self, shard: u64, expected: &str, next: &str) -> Mark {
        Mark::new(self.branch_mark_id(shard), expected, next.to_owned())
    }
}

/// A posting in a branch's body: kind, owner, place, delta, opening level, product of an ALLOWANCE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Moved(AccountKind, u64, u64, i64, Option<i64>, Option<ProductId>);

impl From<&Posting> for Moved {
    fn from(p: &Posting) -> Self {
        let Account { kind, owner, place } = p.account;
        Self(kind, owner, place, p.delta, p.open, p.product)
    }
}

impl From<&Moved> for Posting {
    fn from(&Moved(kind, owner, place, delta, open, product): &Moved) -> Self {
        Self {
            account: Account { kind, owner, place },
            delta,
            open,
            product,
        }
    }
}

/// What an entry takes and gives on another shard: the body of what is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The id that it shares with the others.
    pub across: Across,
    /// The shard that it is on.
    pub shard: u64,
    /// The kind of the entry.
    pub of: String,
    /// The order that the entry takes back, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Position>,
    /// What is taken when it is held.
    taken: Vec<Moved>,
    /// What is given when it is confirmed.
    given: Vec<Moved>,
    /// Accounts that are closed or opened when it is confirmed, and whether only if it opens them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    closings: Vec<(String, bool, bool)>,
    /// The entry's own marks, set when it is held, each with the product that it lies with.
    marks: Vec<(Mark, Option<ProductId>)>,
}

/// The body of an entry that ended a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchEnded {
    /// The branch.
    pub branch_id: Position,
    /// The kind of the entry that it belonged to.
    pub of: String,
    /// The entry, where the branch was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_id: Option<Position>,
    /// The order that the entry took back, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Position>,
    /// The coupon's code that it used or gave back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<(CouponId, String)>,
}

/// What became of a coupon's code on a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeMoved {
    /// An order used it.
    Used((CouponId, String), Position),
    /// The order that had used it was taken back.
    Freed(Position),
}

impl BranchEnded {
    /// The branch and the order that it was confirmed for, if that is an order.
    #[must_use]
    pub fn placed(&self) -> Option<(Position, Position)> {
        let is_order = self.of == Kind::OrderPlaced.as_str();
        self.entry_id
            .filter(|_| is_order)
            .map(|entry| (self.branch_id, entry))
    }

    /// What became of the code that it moved, if it moved one and was confirmed.
    #[must_use]
    pub fn code(&self) -> Option<CodeMoved> {
        let (code, entry) = self.code.clone().zip(self.entry_id)?;
        Some(match self.order_id {
            Some(order) => CodeMoved::Freed(order),
            None => CodeMoved::Used(code, entry),
        })
    }
}

/// A part of a request that lies on one shard.
#[derive(Debug)]
pub struct Part {
    /// The shard.
    pub shard: u64,
    /// What is asked there.
    pub request: Request,
    /// Which of the whole's postings the part's are.
    pub postings: Vec<usize>,
    /// Which of the whole's marks.
    pub marks: Vec<usize>,
    /// What the part holds; none at home.
    pub branch: Option<Branch>,
}

impl Part {
    const fn new(shard: u64, request: Request) -> Self {
        Self {
            shard,
            request,
            postings: Vec::new(),
            marks: Vec::new(),
            branch: None,
        }
    }
}

/// Where a request is decided.
#[derive(Debug)]
pub enum Route {
    /// On one shard, as it is.
    One(u64),
    /// On several.
    Several(Box<Split>),
    /// Nowhere for a moment.
    Moving,
}

/// A request over several shards.
#[derive(Debug)]
pub struct Split {
    /// What is held first, in the order of the shards.
    pub branches: Vec<Part>,
    /// What is decided behind them. Its draft lacks the branches' positions.
    pub home: Part,
    late_mark: Option<usize>,
}

impl Split {
    /// The marks of all parts that are judged before the postings, by their place in the whole, in that order.
    #[must_use]
    pub fn judged_first(&self) -> Vec<(usize, &Mark)> {
        let parts = self.branches.iter().chain([&self.home]);
        let marks =
            parts.flat_map(|part| part.marks.iter().copied().zip(&part.request.draft.marks));
        let mut marks: Vec<_> = marks.filter(|(index, _)| *index != usize::MAX).collect();
        marks.sort_unstable_by_key(|(index, _)| *index);
        if self.late_mark.is_some() {
            marks.pop();
        }
        marks
    }

    /// What all parts take, by its place in the whole, in that order.
    pub fn taken(&self) -> impl Iterator<Item = (usize, Posting)> {
        let parts = self.branches.iter().chain([&self.home]);
        let taken = parts.flat_map(|part| {
            let postings = part.request.draft.postings.iter().copied();
            part.postings.iter().copied().zip(postings)
        });
        let mut taken: Vec<_> = taken.filter(|(_, posting)| posting.delta < 0).collect();
        taken.sort_unstable_by_key(|(index, _)| *index);
        taken.into_iter()
    }

    /// Before which posting of the whole its late mark is judged.
    #[must_use]
    pub const fn late_mark(&self) -> Option<usize> {
        self.late_mark
    }
}

/// The shards of a request's postings, marks and closings.
struct Shards {
    postings: Vec<u64>,
    marks: Vec<u64>,
    closings: Vec<u64>,
}

impl Shards {
    fn all(&self) -> impl Iterator<Item = &u64> {
        self.postings
            .iter()
            .chain(&self.marks)
            .chain(&self.closings)
    }

    fn closings_on(&self, request: &Request, shard: u64) -> Vec<Closing> {
        let closings = request.draft.closings.iter().zip(&self.closings);
        let own = closings.filter(|(_, at)| **at == shard);
        own.map(|(closing, _)| *closing).collect()
    }
}

/// Where things of a request lie that is not moving.
fn shards(request: &Request, layout: &Layout) -> Option<Shards> {
    let draft = &request.draft;
    let known = |place| match place {
        Place::Shard(shard) => Some(shard),
        Place::Moving => None,
    };
    // An ALLOWANCE of which nobody says the product lies with the first account that says where it is.
    let beside = draft
        .postings
        .iter()
        .find_map(|posting| layout.of_account(posting.account, posting.product))
        .unwrap_or(Place::Shard(0));
    let postings: Option<Vec<u64>> = draft
        .postings
        .iter()
        .map(|posting| known(layout.of_posting(posting, beside)))
        .collect();
    let marks: Option<Vec<u64>> = draft
        .marks
        .iter()
        .map(|mark| known(layout.of_mark(mark).unwrap_or(beside)))
        .collect();
    let closings: Option<Vec<u64>> = draft
        .closings
        .iter()
        .map(|closing| known(layout.of_account(closing.account, None).unwrap_or(beside)))
        .collect();
    Some(Shards {
        postings: postings?,
        marks: marks?,
        closings: closings?,
    })
}

/// Whether a mark is the state of what its position names: that is looked for where the position says.
fn is_stateful(mark: &Mark) -> bool {
    const KINDS: [&str; 5] = ["order:", "hold:", "point:", "across:", "branch:"];
    KINDS.iter().any(|kind| mark.id.starts_with(kind))
}

/// Finds where a request is decided, and divides one that lies on several shards.
#[must_use]
pub fn route(request: &Request, layout: &Layout, hold_ms: u64) -> Route {
    if layout.shards == 1 {
        return Route::One(0);
    }
    let Some(of) = shards(request, layout) else {
        return Route::Moving;
    };
    let draft = &request.draft;
    let stateful = draft.marks.iter().position(is_stateful);
    // Everybody asks the shards in the same order, the home last of all: of two that want the same last units one
    // gets to the second shard before the other.
    let held_with = of.postings.first().filter(|_| request.hold.is_some());
    let home = stateful
        .and_then(|at| of.marks.get(at))
        // What ends a hold needs its stock, not the limits of its user.
        .or(held_with)
        .or(of.all().max())
        .copied();
    let home = match home {
        Some(home) => home,
        // It moves nothing: a key is its user's.
        None => match alone(request, layout) {
            Place::Shard(shard) => shard,
            Place::Moving => return Route::Moving,
        },
    };
    if of.all().all(|shard| *shard == home) {
        return Route::One(home);
    }
    Route::Several(Box::new(split(request, &of, home, hold_ms)))
}

/// Where a request that moves nothing is decided.
fn alone(request: &Request, layout: &Layout) -> Place {
    let user = request.idempotency.as_ref();
    let user = user.map(|key| layout.of_user(key.user));
    user.unwrap_or(Place::Shard(0))
}

fn split(request: &Request, of: &Shards, home: u64, hold_ms: u64) -> Split {
    let across = Across::new(home);
    let mut others: Vec<u64> = of.all().copied().collect();
    others.retain(|shard| *shard != home);
    others.sort_unstable();
    others.dedup();
    let branches = others
        .into_iter()
        .map(|shard| branch(request, of, (&across, shard), hold_ms))
        .collect();
    let mut part = Part::new(home, request.clone());
    let draft = &mut part.request.draft;
    draft.postings.clear();
    draft.marks.clear();
    draft.closings = of.closings_on(request, home);
    take(request, of, &mut part, |_| true);
    part.request.draft.marks.insert(0, across.committed());
    part.marks.insert(0, usize::MAX);
    if part.request.expected.is_some_and(|(account, _)| {
        !part
            .request
            .draft
            .postings
            .iter()
            .any(|p| p.account == account)
    }) {
        part.request.expected = None;
    }
    Split {
        branches,
        home: part,
        late_mark: request.late_mark,
    }
}

/// Takes over what of a request lies on the part's shard.
fn take(request: &Request, of: &Shards, part: &mut Part, wanted: impl Fn(&Posting) -> bool) {
    let draft = &request.draft;
    let is_here = |shard: &u64| *shard == part.shard;
    let mut late_before = 0;
    for (index, (posting, shard)) in draft.postings.iter().zip(&of.postings).enumerate() {
        if is_here(shard) && wanted(posting) {
            part.request.draft.postings.push(*posting);
            part.postings.push(index);
            late_before += usize::from(request.late_mark.is_some_and(|late| index < late));
        }
    }
    for (index, (mark, shard)) in draft.marks.iter().zip(&of.marks).enumerate() {
        if is_here(shard) {
            part.request.draft.marks.push(mark.clone());
            part.marks.push(index);
        }
    }
    // The late one is the last of all marks.
    let has_late = of.marks.last().is_some_and(is_here);
    part.request.late_mark = request.late_mark.filter(|_| has_late).map(|_| late_before);
}

/// What is held on a shard: all that is taken there; what is given waits for the outcome.
fn branch(request: &Request, of: &Shards, (across, shard): (&Across, u64), hold_ms: u64) -> Part {
    let draft = Draft {
        kind: Kind::BranchHeld,
        reference: Some(across.id.clone()),
        postings: Vec::new(),
        marks: Vec::new(),
        closings: Vec::new(),
        selling: None,
        ..request.draft.clone()
    };
    let mut part = Part::new(shard, Request::new(draft));
    let is_taken = |posting: &Posting| posting.delta < 0;
    take(request, of, &mut part, is_taken);
    let given = request.draft.postings.iter().zip(&of.postings);
    let given: Vec<Moved> = given
        .filter(|(posting, at)| **at == shard && !is_taken(posting))
        .map(|(posting, _)| Moved::from(posting))
        .collect();
    let own = &mut part.request;
    let body = Branch {
        across: across.clone(),
        shard,
        of: request.draft.kind.as_str().to_owned(),
        order_id: reversed_order(&request.draft),
        taken: own.draft.postings.iter().map(Moved::from).collect(),
        given,
        closings: of
            .closings_on(request, shard)
            .into_iter()
            .map(|of| (of.account.to_string(), of.closed, of.only_if_opened))
            .collect(),
        marks: own
            .draft
            .marks
            .iter()
            .map(|mark| (mark.clone(), mark.product))
            .collect(),
    };
    own.draft
        .marks
        .insert(0, across.branch_mark(shard, "", HELD));
    part.marks.insert(0, usize::MAX);
    own.deadline_ms = request.deadline_ms;
    own.window_ms = request.window_ms;
    own.takes_stock = request.takes_stock;
    own.even_closed = request.even_closed;
    own.even_backlog = request.even_backlog;
    own.waits_for_holds = request.waits_for_holds;
    own.redraws = request.redraws;
    let is_here = |(account, _): &(Account, i64)| {
        own.draft
            .postings
            .iter()
            .any(|posting| posting.account == *account)
    };
    own.expected = request.expected.filter(is_here);
    own.hold = Some(Hold {
        ttl_ms: hold_ms,
        text: DEADLINE.to_owned(),
    });
    part.branch = Some(body);
    part
}

/// The order that a cancel or failure takes back.
fn reversed_order(draft: &Draft) -> Option<Position> {
    if !matches!(draft.kind, Kind::OrderCancelled | Kind::OrderFailed) {
        return None;
    }
    let reversed: Result<OrderReversed, _> = serde_json::from_str(draft.body.get());
    reversed.ok().map(|reversed| reversed.order_id)
}

impl Part {
    /// What is sent: a branch with its body.
    ///
    /// # Errors
    /// [`DraftError`] when the body has no JSON form.
    pub fn request(&self) -> Result<Request, DraftError> {
        let mut request = self.request.clone();
        if let Some(branch) = &self.branch {
            request.draft.body = serde_json::value::to_raw_value(branch)?;
        }
        Ok(request)
    }
}

impl Branch {
    /// Reads what an entry holds.
    ///
    /// # Errors
    /// When the body has another form.
    pub fn of(entry: &Entry) -> Result<Self, serde_json::Error> {
        entry.body()
    }

    /// The member of `deadlines` of what was held at a position.
    #[must_use]
    pub fn member(at: Position) -> String {
        format!("{} {DEADLINE}", at.stream_id())
    }

    /// Reads such a member; `None` when it has another form.
    #[must_use]
    pub fn parse_member(member: &str) -> Option<Position> {
        let (id, text) = member.split_once(' ')?;
        Position::from_stream_id(id).filter(|_| text == DEADLINE)
    }

    /// Gives what the entry gives here: it was written.
    ///
    /// # Errors
    /// [`DraftError`] when the entry has no JSON form.
    pub fn confirm(&self, at: Position, entry: Position) -> Result<Request, DraftError> {
        let postings = self.given.iter().map(Posting::from).collect();
        let mut request = self.end((at, Some(entry)), CONFIRMED, (postings, Vec::new()))?;
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

    /// Gives back what was taken here: the entry was not written and never will be.
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
        let marks = self.marks.iter().map(|(mark, product)| Mark {
            product: *product,
            ..Mark::new(mark.id.clone(), &mark.next, mark.expected.clone())
        });
        let postings = self.taken.iter().map(back).collect();
        self.end((at, None), RELEASED, (postings, marks.collect()))
    }

    fn end(
        &self,
        (at, entry): (Position, Option<Position>),
        state: &str,
        (postings, marks): (Vec<Posting>, Vec<Mark>),
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
            code: self.marks.iter().find_map(|(mark, _)| {
                let code = mark.id.strip_prefix(CODE_MARK)?;
                Some((CodeState::parse(&mark.next)?.coupon_id, code.to_owned()))
            }),
        };
        let mut draft = Draft::new(kind, UserId(0), &body)?;
        draft.reference = Some(self.across.id.clone());
        draft.postings = postings;
        draft.marks = [self.across.branch_mark(self.shard, HELD, state)]
            .into_iter()
            .chain(marks)
            .collect();
        let mut request = Request::new(draft);
        request.even_closed = true;
        request.even_backlog = true;
        request.release = Some((Self::member(at), 0));
        Ok(request)
    }

    /// Sees to it that the entry will never be written.
    ///
    /// # Errors
    /// [`DraftError`] when the entry has no JSON form.
    pub fn abort(&self) -> Result<Request, DraftError> {
        let mut draft = Draft::new(Kind::AcrossAborted, UserId(0), &self.across)?;
        draft.reference = Some(self.across.id.clone());
        draft.marks = vec![self.across.mark("", ABORTED)];
        let mut request = Request::new(draft);
        request.even_backlog = true;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, ProductId, SaleId, UserId};

    use super::{Branch, Route, route};
    use crate::account::Account;
    use crate::journal::{Draft, Kind, Mark, Posting};
    use crate::layout::Layout;
    use crate::ledger::Request;

    const HOLD_MS: u64 = 5_000;

    /// Two products on different shards, and a user on the second's.
    fn apart(layout: &Layout) -> (ProductId, ProductId, UserId) {
        let shard =
            |id| layout.of_account(Account::available(ProductId(id), LocationId::ONLINE), None);
        let first = shard(1);
        let other = (2..).find(|&id| shard(id) != first).unwrap();
        let user = (1..)
            .find(|&id| Some(layout.of_user(UserId(id))) == shard(other))
            .unwrap();
        (ProductId(1), ProductId(other), UserId(user))
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
        let layout = Layout::new(5);
        let (first, other, user) = apart(&layout);
        let limit = Posting::new(Account::allowance(SaleId(4), user), -1);
        let of_sale = request(vec![take(first, 1), limit.opening(2).beside(first)]);
        assert!(matches!(route(&of_sale, &layout, HOLD_MS), Route::One(_)));
        let both = request(vec![take(first, 1), take(other, 1)]);
        assert!(matches!(
            route(&both, &Layout::new(1), HOLD_MS),
            Route::One(0)
        ));
        let mut moving = layout.clone();
        let slot = crate::layout::product_slot(other);
        moving.place(slot, 0, true, 0);
        assert!(matches!(route(&both, &moving, HOLD_MS), Route::Moving));
        assert!(matches!(route(&of_sale, &moving, HOLD_MS), Route::One(_)));
    }

    #[test]
    fn a_branch_takes_first_and_gives_last() {
        let layout = Layout::new(5);
        let (first, other, user) = apart(&layout);
        let points = Account::points(user);
        let mut both = request(vec![
            take(first, 1),
            take(other, 2),
            Posting::new(points, -30),
            Posting::new(points, 7).opening(0),
        ]);
        both.draft.marks.push(Mark::new(
            "code:AB".to_owned(),
            "FREE 1 2",
            "USED 1 2".to_owned(),
        ));
        both.late_mark = Some(2);
        let Route::Several(split) = route(&both, &layout, HOLD_MS) else {
            panic!("one call");
        };
        let parts: Vec<u64> = split.branches.iter().map(|part| part.shard).collect();
        assert!(parts.is_sorted() && parts.iter().all(|shard| *shard < split.home.shard));
        assert_eq!(split.home.request.draft.marks[0].next, "COMMITTED");
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
            assert_eq!(end.draft.marks[0].expected, "HELD");
            assert_eq!(end.release, Some((Branch::member(at), 0)));
        }
        assert_eq!(Branch::parse_member(&Branch::member(at)), Some(at));
    }
}
