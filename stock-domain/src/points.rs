//! Points: earned, used, taken back. Every movement has a reason and the balance after it.
//!
//! A user's points are an account. The points that an order uses and earns are postings of the
//! order's own entry, and the order's cancel nets them into one posting. The id of a movement is
//! the position of its entry. A movement that was made on its own is cancelled at most once, with
//! its full amount. A movement that an order made is cancelled with the order.
//!
//! In a day's report, `earn` and `use` are the sums of the points that were earned and used.
//! `cancel` is the sum of the points that were cancelled, in either direction. `net` is the change
//! of the balance: earned, less used, plus what cancels gave back, less what they took back.

use serde::{Deserialize, Serialize};
use stock_common::id::{Position, UserId};

use crate::account::{Account, AccountKind};
use crate::branch::{Branch, BranchEnded};
use crate::journal::{Draft, DraftError, Entry, Idempotency, Kind};
use crate::order::OrderReversed;
use crate::posting::{Posted, Posting};
use crate::request::Request;
use crate::stock::CHANGE_MAX;
use crate::transition::Transition;

/// Points in one movement: 1..=10^12.
pub const AMOUNT_MAX: i64 = CHANGE_MAX;

/// The type of a movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PointType {
    /// Points were earned.
    Earn,
    /// Points were used.
    Used,
    /// An earlier movement was taken back.
    Canceled,
}

impl PointType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Earn, Self::Used, Self::Canceled];

    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Earn => "EARN",
            Self::Used => "USED",
            Self::Canceled => "CANCELED",
        }
    }

    /// The type of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.as_str() == name)
    }
}

/// The body of an entry that earned or used points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsMoved {
    /// The owner of the points.
    pub user_id: UserId,
    /// The number of points, 1..=10^12.
    pub amount: i64,
    /// The reason, as a person said it.
    pub description: String,
}

/// The body of an entry that took points back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsCancelled {
    /// The movement that was taken back.
    pub point_id: Position,
    /// That movement.
    #[serde(flatten)]
    pub of: PointsMoved,
}

/// A movement of a user's points, as MySQL keeps it: a posting with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointTransaction {
    /// The position of its entry.
    pub id: Position,
    /// The owner of the points.
    pub user_id: UserId,
    /// Sequence number of the posting within the user's account, from 1.
    pub seq: u64,
    /// The type.
    pub point_type: PointType,
    /// The change of the balance.
    pub delta: i64,
    /// The balance after it.
    pub balance_snapshot: i64,
    /// The reason.
    pub description: String,
    /// The order that moved the points.
    pub order_id: Option<Position>,
    /// The movement that it took back.
    pub cancels_id: Option<Position>,
}

/// The id of the state of a movement that was made on its own.
#[must_use]
pub fn state_id(point: Position) -> String {
    format!("point:{point}")
}

/// Gives a user points. With `opens` a missing account is opened; the caller has checked that the
/// user exists.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn earn(
    moved: &PointsMoved,
    opens: bool,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut draft = Draft::new(Kind::PointsEarned, actor, moved)?;
    let earned = Posting::new(Account::points(moved.user_id), moved.amount);
    draft.postings = vec![Posting {
        open: opens.then_some(0),
        ..earned
    }];
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    Ok(request)
}

/// Takes points at their owner's word; never below zero.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn spend(
    moved: &PointsMoved,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut draft = Draft::new(Kind::PointsUsed, actor, moved)?;
    draft.postings = vec![Posting::new(Account::points(moved.user_id), -moved.amount)];
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    Ok(request)
}

/// Takes a movement back, once: used points are given back, earned points are taken back.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn cancel(
    cancelled: &PointsCancelled,
    was: PointType,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let PointsCancelled { point_id, of } = cancelled;
    let mut draft = Draft::new(Kind::PointsCancelled, actor, cancelled)?;
    draft.reference = Some(point_id.to_string());
    let delta = match was {
        PointType::Used => of.amount,
        PointType::Earn | PointType::Canceled => -of.amount,
    };
    draft.postings = vec![Posting::new(Account::points(of.user_id), delta)];
    draft.transitions = vec![Transition::new(
        state_id(*point_id),
        "",
        PointType::Canceled.as_str().to_owned(),
    )];
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.allow_backlog = true;
    Ok(request)
}

/// The movements of points in an entry, with their reasons.
///
/// # Errors
/// When the entry's body does not fit its kind.
pub fn transactions(entry: &Entry) -> Result<Vec<PointTransaction>, serde_json::Error> {
    let is_points = |posted: &&Posted| posted.account.kind == AccountKind::Points;
    let moved: Vec<&Posted> = entry
        .postings
        .iter()
        .filter(is_points)
        // Opening an account is no movement.
        .filter(|posted| posted.delta != 0)
        .collect();
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let reason = Reason::of(entry)?;
    let row = |posted: &Posted| PointTransaction {
        id: entry.position,
        user_id: UserId(posted.account.owner),
        seq: posted.seq,
        point_type: match reason.cancels {
            true => PointType::Canceled,
            false if posted.delta < 0 => PointType::Used,
            false => PointType::Earn,
        },
        delta: posted.delta,
        balance_snapshot: posted.balance_after,
        description: reason.description.clone(),
        order_id: reason.order_id,
        cancels_id: reason.cancels_id,
    };
    Ok(moved.into_iter().map(row).collect())
}

/// Whether an entry of a kind gives back what a checkout had set aside.
fn is_given_back(kind: &str) -> bool {
    [Kind::CheckoutCancelled, Kind::CheckoutExpired]
        .iter()
        .any(|of| of.as_str() == kind)
}

/// The reason why an entry moved points.
#[derive(Default)]
struct Reason {
    description: String,
    cancels: bool,
    order_id: Option<Position>,
    cancels_id: Option<Position>,
}

impl Reason {
    fn of(entry: &Entry) -> Result<Self, serde_json::Error> {
        let mut reason = Self::default();
        if entry.kind == Kind::OrderPlaced {
            reason.order_id = Some(entry.position);
        } else if entry.kind == Kind::CheckoutOpened {
            // A checkout's points are used when they are set aside. Its order comes later.
        } else if is_given_back(entry.kind.as_str()) {
            reason.cancels = true;
        } else if matches!(
            entry.kind,
            Kind::OrderCancelled | Kind::OrderReduced | Kind::OrderFailed
        ) {
            reason.cancels = true;
            reason.order_id = Some(entry.body::<OrderReversed>()?.order_id);
        } else if matches!(
            entry.kind,
            Kind::BranchHeld | Kind::BranchConfirmed | Kind::BranchReleased
        ) {
            reason.of_branch(entry)?;
        } else if entry.kind == Kind::PointsCancelled {
            let PointsCancelled { point_id, of } = entry.body()?;
            reason.cancels = true;
            reason.cancels_id = Some(point_id);
            reason.description = of.description;
        } else {
            reason.description = entry.body::<PointsMoved>()?.description;
        }
        Ok(reason)
    }

    /// A branch moves points for its entry. The entry is unknown until the branch is confirmed.
    fn of_branch(&mut self, entry: &Entry) -> Result<(), serde_json::Error> {
        let (of, entry_id, order_id) = if entry.kind == Kind::BranchHeld {
            let Branch { of, order_id, .. } = entry.body()?;
            (of, None, order_id)
        } else {
            let BranchEnded {
                of,
                entry_id,
                order_id,
                ..
            } = entry.body()?;
            (of, entry_id, order_id)
        };
        let is_reversal = order_id.is_some();
        self.cancels = is_reversal || is_given_back(&of) || entry.kind == Kind::BranchReleased;
        self.order_id = order_id.or(entry_id.filter(|_| of == Kind::OrderPlaced.as_str()));
        Ok(())
    }
}
