//! The journal: one entry per business event, with its postings. It is the truth of the whole
//! ledger.
//!
//! | kind | postings | states | own tables | refusals |
//! |---|---|---|---|---|
//! | `order_placed` | AVAILABLE −q per line (RESERVED −q of its hold, HOLD +1), ALLOWANCE −q, opened above any limit, POINTS −used, POINTS +earned, opened at 0 | hold: none → ORDERED, till: none → SOLD, late code: FREE → USED; of a checkout hold: none → CONFIRMED or EXPIRED → LATE, payment: → CONFIRMED, code: HELD or FREE → USED | orders, `order_products`, reservations, checkouts, payments, `offline_sales`, `coupon_issues`, `point_transactions` | stock, not on sale, limit, hold over, coupon, points |
//! | `order_cancelled` | AVAILABLE +q per line, ALLOWANCE +q, POINTS +used −earned as one | order: none or LEFT → `CANCEL_REQUESTED`, code: USED → FREE | orders, `order_changes`, `coupon_issues`, `point_transactions` | already final, points |
//! | `order_reduced` | as `order_cancelled`, for a part; a return: AVAILABLE +q of any location, or none | order: none or LEFT → LEFT | `order_changes`, `point_transactions` | changed meanwhile, points |
//! | `order_failed` | as `order_cancelled` | order: none or LEFT → FAIL, code: USED → FREE | as `order_cancelled` | already final, points |
//! | `sale_oversold` | – | till: none → OVERSOLD | `offline_sales` | known already |
//! | `reservation_made` | AVAILABLE −q, RESERVED +q, ALLOWANCE −q, opened above any limit, HOLD −1, opened at the limit | – (a member of `deadlines`) | reservations | stock, not on sale, limits |
//! | `reservation_confirmed` | RESERVED −q, HOLD +1 | hold: none → CONFIRMED | reservations | over already |
//! | `reservation_cancelled` | RESERVED −q, AVAILABLE +q, ALLOWANCE +q, HOLD +1; forced: AVAILABLE +q, ALLOWANCE +q | hold: none → CANCELLED; forced: CONFIRMED → CANCELLED | reservations | over already |
//! | `reservation_expired` | RESERVED −q, AVAILABLE +q, ALLOWANCE +q, HOLD +1 | hold: none → EXPIRED | reservations | over already |
//! | `checkout_opened` | AVAILABLE −q and RESERVED +q per line, ALLOWANCE −q, opened above any limit, HOLD −1, opened at the limit, POINTS −used | late code: FREE → HELD (a member of `deadlines`) | checkouts, `checkout_lines`, `point_transactions` | stock, not on sale, limits, coupon, points |
//! | `checkout_extended` | – | hold: none → none, extended: before → now (the member moves) | checkouts | over already, budget spent |
//! | `checkout_cancelled` | RESERVED −q and AVAILABLE +q per line, ALLOWANCE +q, POINTS +used, HOLD +1 | hold: none → CANCELLED, code: HELD → FREE | checkouts, `point_transactions` | over already |
//! | `checkout_expired` | as `checkout_cancelled` | hold: none → EXPIRED, code: HELD → FREE | checkouts, `point_transactions` | over already |
//! | `payment_unused` | – | payment: none → outcome; of a late one hold: EXPIRED → `REFUND_DUE` | payments, checkouts | noted before |
//! | `product_opened` | AVAILABLE and RESERVED opened at 0 | opened: none → OPEN | products | already open |
//! | `product_switched` | – (closes or opens accounts) | – | – | – |
//! | `stock_received` | AVAILABLE +q; a store's accounts are opened at 0 | – | – | too large |
//! | `stock_adjusted` | AVAILABLE ±q; as above | – | – | below zero, changed meanwhile |
//! | `stock_imported` | AVAILABLE ±q per row; as above | import: line before → last line | `import_rows` | below zero |
//! | `stock_moved` | AVAILABLE or BUCKET −q, BUCKET or AVAILABLE +q, opened at 0 | – | – | stock |
//! | `coupon_opened` | COUPON opened at 0, +count; none of a personal one | coupon: none → OPEN; of a personal one code: none → FREE | coupons, `coupon_issues` | already open, code taken |
//! | `coupon_issued` | COUPON −1 | issued: none → ISSUED, late code: none → FREE | `coupon_issues` | already issued, sold out, code taken |
//! | `points_earned` | POINTS +amount, opened at 0 | – | `point_transactions` | too large |
//! | `points_used` | POINTS −amount | – | `point_transactions` | points |
//! | `points_cancelled` | POINTS ∓amount | point: none → CANCELED | `point_transactions` | already cancelled, points |
//! | `buyer_seen` | – | – | buyers | – |
//! | `selling_switched` | – (stops or resumes selling) | – | shards | – |
//! | `branch_held` | what an entry on another shard takes here | as that entry's, branch: none → HELD (a member of `deadlines`) | branches, `point_transactions` | as that entry |
//! | `branch_confirmed` | what it gives here | branch: HELD → CONFIRMED | branches, `point_transactions` | over already |
//! | `branch_released` | what was taken, reversed | as they were, branch: HELD → RELEASED | branches, `point_transactions` | over already |
//! | `across_aborted` | – | across: none → ABORTED | – | committed |
//! | `epoch_begun` | – | – | – | – |
//!
//!
//! A noun's function builds a [`Draft`] ([`crate::order::place`], …). The script turns the draft
//! into an [`Entry`]: it gives the entry a position, a number and the level after each posting. A
//! test compares the table with [`Kind::ALL`]. `stock-mysql` (`record`) writes the own tables.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stock_common::id::{Position, UserId};

use crate::account::{Account, AccountKind};
use crate::posting::{Posted, Posting};
use crate::transition::Transition;
use crate::verdict::Accepted;

mod kind;

pub use self::kind::Kind;

/// The version of the payload's shape. An instance that meets a newer one stops applying.
pub const VERSION: u16 = 1;

/// Closes an account for sale, or opens it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// The account.
    pub account: Account,
    /// Whether it is closed afterwards.
    pub closed: bool,
    /// Whether it is closed only if this entry opens it.
    pub only_if_opened: bool,
}

/// The key hash and fingerprint under which an entry was decided, 32 hexadecimal digits each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The user whose key it is.
    pub user: UserId,
    /// Hash of user and Idempotency-Key.
    pub key: String,
    /// Hash of method, path, query and body.
    pub fingerprint: String,
}

/// The draft of an entry: what a request asks the script to journal.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The kind of event.
    pub kind: Kind,
    /// The user who caused it, or [`UserId::ENGINE`].
    pub actor: UserId,
    /// The subject of the entry: an order, a hold, a coupon, a till's sale key, an import.
    pub reference: Option<String>,
    /// The postings.
    pub postings: Vec<Posting>,
    /// The transitions.
    pub transitions: Vec<Transition>,
    /// The accounts that are closed or opened.
    pub closings: Vec<Closing>,
    /// Whether all selling is open afterwards, if this entry switches it.
    pub selling: Option<bool>,
    /// The branches on other shards, which were held before. The entry takes over what they hold.
    pub branches: Vec<Position>,
    /// The typed body of the kind as JSON.
    pub body: Box<RawValue>,
}

/// The body could not be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the body of an entry: {0}")]
pub struct DraftError(#[from] serde_json::Error);

impl Draft {
    /// Begins a draft that moves nothing yet.
    ///
    /// # Errors
    /// [`DraftError`] when the body has no JSON form.
    pub fn new(kind: Kind, actor: UserId, body: &impl Serialize) -> Result<Self, DraftError> {
        Ok(Self {
            kind,
            actor,
            reference: None,
            postings: Vec::new(),
            transitions: Vec::new(),
            closings: Vec::new(),
            selling: None,
            branches: Vec::new(),
            body: serde_json::value::to_raw_value(body)?,
        })
    }

    /// The payload that the journal keeps.
    ///
    /// # Errors
    /// [`DraftError`] when a part has no JSON form.
    pub fn payload(&self, idempotency: Option<&Idempotency>) -> Result<Vec<u8>, DraftError> {
        let wire = WireOut {
            kind: self.kind.as_str(),
            version: VERSION,
            actor: self.actor,
            reference: self.reference.as_deref(),
            idempotency,
            postings: self.postings.iter().map(WirePosting::from).collect(),
            transitions: &self.transitions,
            closings: self.closings.iter().map(WireClosing::from).collect(),
            selling: self.selling,
            branches: &self.branches,
            body: &self.body,
        };
        Ok(serde_json::to_vec(&wire)?)
    }
}

/// Kind, owner, location, delta, and the opening level where there is one.
#[derive(Serialize, Deserialize)]
struct WirePosting(
    AccountKind,
    u64,
    u64,
    i64,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<i64>,
);

impl From<&Posting> for WirePosting {
    fn from(p: &Posting) -> Self {
        Self(
            p.account.kind,
            p.account.owner,
            p.account.location,
            p.delta,
            p.open,
        )
    }
}

impl From<&WirePosting> for Posting {
    fn from(&WirePosting(kind, owner, location, delta, open): &WirePosting) -> Self {
        Self {
            open,
            ..Self::new(
                Account {
                    kind,
                    owner,
                    location,
                },
                delta,
            )
        }
    }
}

#[derive(Serialize, Deserialize)]
struct WireClosing(
    AccountKind,
    u64,
    u64,
    bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")] bool,
);

impl From<&Closing> for WireClosing {
    fn from(c: &Closing) -> Self {
        let Account {
            kind,
            owner,
            location,
        } = c.account;
        Self(kind, owner, location, c.closed, c.only_if_opened)
    }
}

#[derive(Serialize)]
struct WireOut<'a> {
    kind: &'static str,
    version: u16,
    actor: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency: Option<&'a Idempotency>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    postings: Vec<WirePosting>,
    #[serde(rename = "marks", skip_serializing_if = "<[Transition]>::is_empty")]
    transitions: &'a [Transition],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    closings: Vec<WireClosing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selling: Option<bool>,
    #[serde(skip_serializing_if = "<[Position]>::is_empty")]
    branches: &'a [Position],
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct WireIn<'a> {
    kind: &'a str,
    version: u16,
    actor: UserId,
    reference: Option<String>,
    idempotency: Option<Idempotency>,
    #[serde(default)]
    postings: Vec<WirePosting>,
    #[serde(default, rename = "marks")]
    transitions: Vec<Transition>,
    #[serde(default)]
    closings: Vec<WireClosing>,
    selling: Option<bool>,
    #[serde(default)]
    branches: Vec<Position>,
    body: Box<RawValue>,
}

/// One business event, decided.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its position in the journal, which is also the id of the order or reservation that it made.
    pub position: Position,
    /// Its number within the shard, from 1 without a gap.
    pub number: u64,
    /// The kind of event.
    pub kind: Kind,
    /// The version of the payload's shape.
    pub version: u16,
    /// The user who caused it, or [`UserId::ENGINE`].
    pub actor: UserId,
    /// The subject of the entry: an order, a hold, a coupon, a till's sale key, an import.
    pub reference: Option<String>,
    /// The key that it was decided under.
    pub idempotency: Option<Idempotency>,
    /// The postings, opening ones included.
    pub postings: Vec<Posted>,
    /// The transitions.
    pub transitions: Vec<Transition>,
    /// The accounts that were closed or opened.
    pub closings: Vec<Closing>,
    /// Whether all selling is open afterwards, if it was switched.
    pub selling: Option<bool>,
    /// The branches on other shards.
    pub branches: Vec<Position>,
    /// The typed body of the kind as JSON.
    pub body: Box<RawValue>,
    /// The payload as it stands in the journal.
    pub payload: Vec<u8>,
}

/// Why something in the journal is not an entry of this program.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// A newer program wrote it. This instance stops applying.
    #[error("entry {position} has kind {kind:?} version {version}, newer than this program")]
    Newer {
        /// The position.
        position: Position,
        /// The kind that it names.
        kind: String,
        /// The version that it names.
        version: u16,
    },
    /// It cannot be read at all.
    #[error("entry {position} cannot be read: {reason}")]
    Malformed {
        /// The position.
        position: Position,
        /// The fault.
        reason: String,
    },
}

/// The posted levels of an entry: the level after each posting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedLevels {
    /// Per posting: seq, balance, and whether the account was opened first.
    pub levels: Vec<(u64, i64, bool)>,
}

impl PostedLevels {
    /// Parses `seq:balance seq:balance:o …`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let levels = text
            .split_terminator(' ')
            .map(|part| {
                let mut fields = part.split(':');
                let seq = fields.next()?.parse().ok()?;
                let balance = fields.next()?.parse().ok()?;
                Some((seq, balance, fields.next() == Some("o")))
            })
            .collect::<Option<_>>()?;
        Some(Self { levels })
    }

    /// Joins the postings that were asked for with their posted levels, opening postings included.
    /// `None` when the counts differ.
    #[must_use]
    pub fn join(&self, postings: &[Posting]) -> Option<Vec<Posted>> {
        if self.levels.len() != postings.len() {
            return None;
        }
        let mut posted = Vec::with_capacity(postings.len());
        for (posting, &(seq, balance_after, opened)) in postings.iter().zip(&self.levels) {
            let account = posting.account;
            if opened {
                let delta = posting.open?;
                posted.push(Posted {
                    account,
                    seq: 1,
                    delta,
                    balance_after: delta,
                });
            }
            if posting.delta != 0 {
                posted.push(Posted {
                    account,
                    seq,
                    delta: posting.delta,
                    balance_after,
                });
            }
        }
        Some(posted)
    }
}

impl Entry {
    /// Reads an entry from its position and number, the script's posted levels and the payload.
    ///
    /// # Errors
    /// [`EntryError::Newer`] for a kind or version of a later program, else
    /// [`EntryError::Malformed`].
    pub fn decode(
        position: Position,
        number: u64,
        posted_levels: &str,
        payload: Vec<u8>,
    ) -> Result<Self, EntryError> {
        let malformed = |reason: &str| EntryError::Malformed {
            position,
            reason: reason.to_owned(),
        };
        let posted_levels = PostedLevels::parse(posted_levels)
            .ok_or_else(|| malformed("its posted levels have another form"))?;
        Self::read(position, number, payload, |asked| {
            posted_levels
                .join(asked)
                .ok_or_else(|| malformed("its posted levels do not match its postings"))
        })
    }

    fn read(
        position: Position,
        number: u64,
        payload: Vec<u8>,
        posted: impl FnOnce(&[Posting]) -> Result<Vec<Posted>, EntryError>,
    ) -> Result<Self, EntryError> {
        let malformed = |reason: String| EntryError::Malformed { position, reason };
        let wire: WireIn<'_> =
            serde_json::from_slice(&payload).map_err(|error| malformed(error.to_string()))?;
        let Some(kind) = Kind::parse(wire.kind).filter(|_| wire.version <= VERSION) else {
            let kind = wire.kind.to_owned();
            return Err(EntryError::Newer {
                position,
                kind,
                version: wire.version,
            });
        };
        let asked: Vec<Posting> = wire.postings.iter().map(Posting::from).collect();
        let postings = posted(&asked)?;
        Ok(Self {
            position,
            number,
            kind,
            version: wire.version,
            actor: wire.actor,
            reference: wire.reference,
            idempotency: wire.idempotency,
            postings,
            transitions: placed(wire.transitions, position),
            closings: wire
                .closings
                .iter()
                .map(
                    |&WireClosing(kind, owner, location, closed, only_if_opened)| Closing {
                        account: Account {
                            kind,
                            owner,
                            location,
                        },
                        closed,
                        only_if_opened,
                    },
                )
                .collect(),
            selling: wire.selling,
            branches: wire.branches,
            body: wire.body,
            payload,
        })
    }

    /// Builds the entry that an accepted draft became, without reading it back.
    #[must_use]
    pub fn accepted(
        draft: Draft,
        idempotency: Option<Idempotency>,
        payload: Vec<u8>,
        accepted: &Accepted,
    ) -> Self {
        Self {
            position: accepted.position,
            number: accepted.number,
            kind: draft.kind,
            version: VERSION,
            actor: draft.actor,
            reference: draft.reference,
            idempotency,
            postings: accepted.postings.clone(),
            transitions: placed(draft.transitions, accepted.position),
            closings: draft.closings,
            selling: draft.selling,
            branches: draft.branches,
            body: draft.body,
            payload,
        }
    }

    /// Reads an entry that MySQL stores: its payload, its number and its postings.
    ///
    /// # Errors
    /// As [`Entry::decode`].
    pub fn restore(
        position: Position,
        number: u64,
        payload: Vec<u8>,
        postings: Vec<Posted>,
    ) -> Result<Self, EntryError> {
        Self::read(position, number, payload, |_| Ok(postings))
    }

    /// The postings that the payload asks for, without their posted levels.
    ///
    /// # Errors
    /// [`EntryError::Malformed`] when the payload cannot be read.
    pub fn asked(&self) -> Result<Vec<Posting>, EntryError> {
        let wire: WireIn<'_> =
            serde_json::from_slice(&self.payload).map_err(|error| EntryError::Malformed {
                position: self.position,
                reason: error.to_string(),
            })?;
        Ok(wire.postings.iter().map(Posting::from).collect())
    }

    /// Reads the typed body.
    ///
    /// # Errors
    /// When the body does not fit the type. Then the entry's own tables cannot be written.
    pub fn body<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.body.get())
    }
}

/// Transitions as the entry at a position made them.
fn placed(mut transitions: Vec<Transition>, position: Position) -> Vec<Transition> {
    for transition in &mut transitions {
        transition.place(position);
    }
    transitions
}

#[cfg(test)]
mod tests {
    use super::Transition;

    #[test]
    fn a_mark_is_read_in_the_form_of_before_too() {
        let transition = Transition::new("order:5".to_owned(), "", "FAIL".to_owned());
        let text = serde_json::to_string(&transition).unwrap();
        assert_eq!(text, r#"["order:5","","FAIL"]"#);
        let named = r#"{"id":"order:5","expected":"","next":"FAIL"}"#;
        for text in [text.as_str(), named] {
            assert_eq!(
                serde_json::from_str::<Transition>(text).unwrap(),
                transition
            );
        }
        assert!(serde_json::from_str::<Transition>(r#"["order:5",""]"#).is_err());
    }
}
