//! A request to the script: the draft of an entry, and the conditions under which the script may
//! accept it.
//!
//! Handlers, tests and jobs never fill in a request by hand. Each kind of entry has one function in
//! its noun's file that builds the request.

use crate::account::Account;
use crate::journal::{Draft, Idempotency};
use crate::verdict::Refusal;

/// A hold that begins with the request. It stays in `deadlines` until another request releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// How long it lives, from the time of its position on.
    pub ttl_ms: u64,
    /// The text of its member after the id: all that its expiry gives back.
    pub text: String,
    /// Its lines.
    pub lines: Vec<HoldLine>,
}

/// A line of a hold that begins with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldLine {
    /// Its units.
    pub units: HeldUnits,
    /// How many units of the product the user may hold, these included; 0 is any number.
    pub most: u32,
}

/// Units that count in Redis' `held_units` as long as a hold lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldUnits {
    /// The field of `held_units` in which they count.
    pub field: String,
    /// Their number.
    pub units: u32,
}

impl HeldUnits {
    /// A branch. It belongs to no user, so branches are counted in a field of their own.
    #[must_use]
    pub fn branch() -> Self {
        Self {
            field: "branches".to_owned(),
            units: 1,
        }
    }
}

/// The end of a live hold, or its extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The member of `deadlines`.
    pub member: String,
    /// Redis' time in Unix ms from which the request is too late; 0 is never.
    pub until_ms: u64,
    /// The fate of the hold.
    pub then: Then,
}

impl Release {
    /// The units that count no more.
    #[must_use]
    pub fn units(&self) -> &[HeldUnits] {
        match &self.then {
            Then::Ends(units) => units,
            Then::LivesUntil(_) => &[],
        }
    }

    /// The time until which an extended hold lives.
    #[must_use]
    pub const fn extended_ms(&self) -> Option<u64> {
        match self.then {
            Then::Ends(_) => None,
            Then::LivesUntil(ms) => Some(ms),
        }
    }
}

/// The fate of a live hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It ends, and its units count no more.
    Ends(Vec<HeldUnits>),
    /// It lives until another time, in Redis' Unix ms.
    LivesUntil(u64),
}

/// A request that the script is asked to decide.
#[derive(Debug, Clone)]
pub struct Request {
    /// The draft of the entry that it wants to become.
    pub draft: Draft,
    /// The key under which the answer is remembered.
    pub idempotency: Option<Idempotency>,
    /// Redis' time in Unix ms after which the request comes too late.
    pub deadline_ms: Option<u64>,
    /// Redis' times in Unix ms from which and until which the request may be accepted; 0 is no
    /// bound.
    pub window_ms: Option<(u64, u64)>,
    /// A predecided answer. The script remembers it under the key and moves nothing.
    pub refuse: Option<String>,
    /// Whether it takes stock. It is then refused while selling is stopped.
    pub takes_stock: bool,
    /// Whether it may take from closed accounts, as corrections and reversals may.
    pub allow_closed: bool,
    /// Whether it may use the reserve above the backlog limit, as reversals and switches may.
    pub allow_backlog: bool,
    /// The hold that begins with it.
    pub hold: Option<Hold>,
    /// The hold that ends or is extended with it.
    pub release: Option<Release>,
    /// An account, and the balance that it must have.
    pub expected: Option<(Account, i64)>,
    /// Index of the posting before which the last transition is checked, so that refusals keep
    /// their order; `postings.len()` checks it last. With `None` all transitions are checked before
    /// the postings.
    pub late_check: Option<usize>,
    /// Whether it is made anew with another code after a `TAKEN`, which is then not remembered
    /// under its key.
    pub retried_with_new_code: bool,
    /// Whether it is made anew and sent again after a `NOT_OPEN`, a `CLOSED`, a `STALE_STATE` or a
    /// `HOLD_EXPIRED`, which is then not remembered under its key.
    pub retried_anew: bool,
    /// Whether it is refused if its user holds units of a product that it takes, so that it may be
    /// made anew with the hold.
    pub own_hold: bool,
}

impl Request {
    /// A request without conditions.
    #[must_use]
    pub const fn new(draft: Draft) -> Self {
        Self {
            draft,
            idempotency: None,
            deadline_ms: None,
            window_ms: None,
            refuse: None,
            takes_stock: false,
            allow_closed: false,
            allow_backlog: false,
            hold: None,
            release: None,
            expected: None,
            late_check: None,
            retried_with_new_code: false,
            retried_anew: false,
            own_hold: false,
        }
    }

    /// A request that only remembers the refusal of this one under its key, if it has one.
    #[must_use]
    pub fn refusing(&self, refusal: &Refusal) -> Self {
        let draft = Draft {
            postings: Vec::new(),
            transitions: Vec::new(),
            closings: Vec::new(),
            ..self.draft.clone()
        };
        Self {
            idempotency: self.idempotency.clone(),
            deadline_ms: self.deadline_ms,
            refuse: Some(format!("={}", refusal.text())),
            takes_stock: self.takes_stock,
            allow_backlog: self.allow_backlog,
            ..Self::new(draft)
        }
    }
}
