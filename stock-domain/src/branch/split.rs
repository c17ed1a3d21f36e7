//! Splits a request by the shards on which it lies.

use super::{Branch, CrossShardId, DEADLINE, HELD, Moved, reversed_order};
use crate::account::{Account, AccountKind};
use crate::journal::{Closing, Draft, DraftError, Kind};
use crate::posting::Posting;
use crate::request::{HeldUnits, Hold, HoldLine, Request};
use crate::shard_map::ShardMap;
use crate::transition::Transition;

/// The part of a request that lies on one shard.
#[derive(Debug)]
pub struct Part {
    /// The shard.
    pub shard: u64,
    /// The request to the shard.
    pub request: Request,
    /// Indices of the part's postings in the whole request.
    pub postings: Vec<usize>,
    /// Indices of the part's transitions in the whole request; `usize::MAX` for a state of the
    /// protocol itself.
    pub transitions: Vec<usize>,
    /// The body of the branch; none at the coordinator.
    pub branch: Option<Branch>,
}

impl Part {
    const fn new(shard: u64, request: Request) -> Self {
        Self {
            shard,
            request,
            postings: Vec::new(),
            transitions: Vec::new(),
            branch: None,
        }
    }
}

/// Where a request is decided.
#[derive(Debug)]
pub enum Plan {
    /// On one shard, as it is.
    One(u64),
    /// On several shards.
    Several(Box<Split>),
}

/// A request over several shards.
#[derive(Debug)]
pub struct Split {
    /// The branches, which are held first, in the order of their shards.
    pub branches: Vec<Part>,
    /// The coordinator's part, decided after the branches are held. Its draft lacks the branches'
    /// positions.
    pub coordinator: Part,
    late_check: Option<usize>,
}

impl Split {
    /// The transitions of all parts that are checked before the postings, with their index in the
    /// whole request, in the order of that index.
    #[must_use]
    pub fn judged_first(&self) -> Vec<(usize, &Transition)> {
        let parts = self.branches.iter().chain([&self.coordinator]);
        let transitions = parts.flat_map(|part| {
            part.transitions
                .iter()
                .copied()
                .zip(&part.request.draft.transitions)
        });
        let mut transitions: Vec<_> = transitions
            .filter(|(index, _)| *index != usize::MAX)
            .collect();
        transitions.sort_unstable_by_key(|(index, _)| *index);
        if self.late_check.is_some() {
            transitions.pop();
        }
        transitions
    }

    /// The postings of all parts that take, with their index in the whole request, in the order of
    /// that index.
    pub fn taken(&self) -> impl Iterator<Item = (usize, Posting)> {
        let parts = self.branches.iter().chain([&self.coordinator]);
        let taken = parts.flat_map(|part| {
            let postings = part.request.draft.postings.iter().copied();
            part.postings.iter().copied().zip(postings)
        });
        let mut taken: Vec<_> = taken.filter(|(_, posting)| posting.delta < 0).collect();
        taken.sort_unstable_by_key(|(index, _)| *index);
        taken.into_iter()
    }

    /// Index of the whole request's posting before which its last transition is checked.
    #[must_use]
    pub const fn late_check(&self) -> Option<usize> {
        self.late_check
    }
}

/// The shards of a request's postings, transitions and closings.
struct Shards {
    postings: Vec<u64>,
    transitions: Vec<u64>,
    closings: Vec<u64>,
}

impl Shards {
    fn all(&self) -> impl Iterator<Item = &u64> {
        self.postings
            .iter()
            .chain(&self.transitions)
            .chain(&self.closings)
    }

    fn closings_on(&self, request: &Request, shard: u64) -> Vec<Closing> {
        let closings = request.draft.closings.iter().zip(&self.closings);
        let own = closings.filter(|(_, at)| **at == shard);
        own.map(|(closing, _)| *closing).collect()
    }
}

/// Finds the shards on which the postings, transitions and closings of a request lie.
fn shards(request: &Request, map: ShardMap) -> Shards {
    let draft = &request.draft;
    // An ALLOWANCE without its product is looked for on the shard of the first posting whose shard
    // is known.
    let beside = draft
        .postings
        .iter()
        .find_map(|posting| map.of_account(posting.account, posting.product))
        .unwrap_or(0);
    let (postings, transitions) = (draft.postings.iter(), draft.transitions.iter());
    let of_closing = |account| map.of_account(account, None).unwrap_or(beside);
    let closings = draft.closings.iter();
    Shards {
        postings: postings.map(|of| map.of_posting(of, beside)).collect(),
        transitions: transitions
            .map(|of| map.of_transition(of).unwrap_or(beside))
            .collect(),
        closings: closings.map(|of| of_closing(of.account)).collect(),
    }
}

/// Whether a transition's id itself names the shard of the state, by a position or by a number.
fn is_stateful(transition: &Transition) -> bool {
    const KINDS: [&str; 7] = [
        "order:",
        "hold:",
        "extended:",
        "payment:",
        "point:",
        "across:",
        "branch:",
    ];
    KINDS.iter().any(|kind| transition.id.starts_with(kind))
}

/// Finds where a request is decided, and splits a request that lies on several shards.
#[must_use]
pub fn plan(request: &Request, map: ShardMap, hold_ms: u64) -> Plan {
    if map.shards() == 1 {
        return Plan::One(0);
    }
    let of = shards(request, map);
    let draft = &request.draft;
    let stateful = draft.transitions.iter().position(is_stateful);
    // Every request asks the shards in the same order, the coordinator last. So of two requests
    // that want the same last units, one reaches the second shard before the other.
    let is_held = |posting: &Posting| posting.account.kind == AccountKind::Reserved;
    let held = draft.postings.iter().position(is_held);
    let held_with = of.postings.get(held.unwrap_or_default());
    let held_with = held_with.filter(|_| request.hold.is_some());
    let coordinator = stateful
        .and_then(|at| of.transitions.get(at))
        // A hold begins on the shard of its stock: the request that ends the hold needs the stock,
        // and not the limits of the user.
        .or(held_with)
        .or(of.all().max())
        .copied()
        // A request that moves nothing is decided on the shard of its user's keys.
        .unwrap_or_else(|| alone(request, map));
    if of.all().all(|shard| *shard == coordinator) {
        return Plan::One(coordinator);
    }
    Plan::Several(Box::new(split(request, &of, coordinator, hold_ms)))
}

/// The shard of a request that moves nothing: the shard of its user's keys.
fn alone(request: &Request, map: ShardMap) -> u64 {
    let key = request.idempotency.as_ref();
    key.map_or(0, |key| map.of_user(key.user))
}

fn split(request: &Request, of: &Shards, coordinator: u64, hold_ms: u64) -> Split {
    let cross_shard = CrossShardId::new(coordinator);
    let mut others: Vec<u64> = of.all().copied().collect();
    others.retain(|shard| *shard != coordinator);
    others.sort_unstable();
    others.dedup();
    let branches = others
        .into_iter()
        .map(|shard| branch(request, of, &cross_shard, shard, hold_ms))
        .collect();
    let mut part = Part::new(coordinator, request.clone());
    let draft = &mut part.request.draft;
    draft.postings.clear();
    draft.transitions.clear();
    draft.closings = of.closings_on(request, coordinator);
    take(request, of, &mut part, |_| true);
    part.request
        .draft
        .transitions
        .insert(0, cross_shard.committed());
    part.transitions.insert(0, usize::MAX);
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
        coordinator: part,
        late_check: request.late_check,
    }
}

/// Copies the postings and transitions of a request that lie on the part's shard into the part.
fn take(request: &Request, of: &Shards, part: &mut Part, wanted: impl Fn(&Posting) -> bool) {
    let draft = &request.draft;
    let is_here = |shard: &u64| *shard == part.shard;
    let mut late_before = 0;
    for (index, (posting, shard)) in draft.postings.iter().zip(&of.postings).enumerate() {
        if is_here(shard) && wanted(posting) {
            part.request.draft.postings.push(*posting);
            part.postings.push(index);
            late_before += usize::from(request.late_check.is_some_and(|late| index < late));
        }
    }
    for (index, (transition, shard)) in draft.transitions.iter().zip(&of.transitions).enumerate() {
        if is_here(shard) {
            part.request.draft.transitions.push(transition.clone());
            part.transitions.push(index);
        }
    }
    // The late transition is the last of all.
    let has_late = of.transitions.last().is_some_and(is_here);
    part.request.late_check = request.late_check.filter(|_| has_late).map(|_| late_before);
}

/// Builds the branch on a shard. The branch holds all that is taken there; what is given waits for
/// the outcome.
fn branch(
    request: &Request,
    of: &Shards,
    cross_shard: &CrossShardId,
    shard: u64,
    hold_ms: u64,
) -> Part {
    let draft = Draft {
        kind: Kind::BranchHeld,
        reference: Some(cross_shard.id.clone()),
        postings: Vec::new(),
        transitions: Vec::new(),
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
        cross_shard: cross_shard.clone(),
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
        transitions: own
            .draft
            .transitions
            .iter()
            .map(|transition| (transition.clone(), transition.product))
            .collect(),
    };
    own.draft
        .transitions
        .insert(0, cross_shard.branch_transition(shard, "", HELD));
    part.transitions.insert(0, usize::MAX);
    own.deadline_ms = request.deadline_ms;
    own.window_ms = request.window_ms;
    own.takes_stock = request.takes_stock;
    own.own_hold = request.own_hold;
    own.allow_closed = request.allow_closed;
    own.allow_backlog = request.allow_backlog;
    own.retried_with_new_code = request.retried_with_new_code;
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
        lines: vec![HoldLine {
            units: HeldUnits::branch(),
            most: 0,
        }],
    });
    part.branch = Some(body);
    part
}

impl Part {
    /// The request that is sent to the shard. A branch gets its body here.
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
