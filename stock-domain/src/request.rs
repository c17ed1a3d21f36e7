//! A request to the script: a draft of an entry and the conditions under which it may be accepted.
//!
//! Handlers, tests and jobs never fill one in by hand; each kind of entry has one function in its
//! noun's file that builds it.

use crate::account::Account;
use crate::journal::{Draft, Idempotency};
use crate::verdict::Refusal;

/// A hold that begins with the request: it is in `deadlines` until something releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// How long it lives, from the position's milliseconds on.
    pub ttl_ms: u64,
    /// The member's text behind its id: all that its expiry gives back.
    pub text: String,
    /// How many units of its product its user may hold with it; 0 is any number.
    pub units_max: u32,
}

/// A request that the script is asked to decide.
#[derive(Debug, Clone)]
pub struct Request {
    /// The draft of the entry that it wants to become.
    pub draft: Draft,
    /// The key under which the answer is remembered.
    pub idempotency: Option<Idempotency>,
    /// Redis' time in Unix ms after which it comes too late.
    pub deadline_ms: Option<u64>,
    /// Redis' time in Unix ms from which, and until which, it may be accepted; 0 is no bound.
    pub window_ms: Option<(u64, u64)>,
    /// An answer decided outside, to be remembered under the key instead of moving anything.
    pub refuse: Option<String>,
    /// Whether it takes stock and so is refused while selling is switched off.
    pub takes_stock: bool,
    /// Whether it may take from closed accounts: corrections and reversals.
    pub allow_closed: bool,
    /// Whether it may use the reserve above the backlog limit: reversals and switches.
    pub allow_backlog: bool,
    /// The hold that begins with it.
    pub hold: Option<Hold>,
    /// The member of `deadlines` of the hold that ends with it, and Redis' time in Unix ms from which that is
    /// too late; 0 is never.
    pub release: Option<(String, u64)>,
    /// An account, and the balance that it must have.
    pub expected: Option<(Account, i64)>,
    /// Before which posting, from 0, the last of its states is judged, so that what is refused first is said first; one
    /// more than there are is behind all. Without it all states are judged before the postings.
    pub late_check: Option<usize>,
    /// Whether it is made anew when a late state is taken: that is not remembered under its key.
    pub retried_with_new_code: bool,
    /// Whether it is priced anew and asked again when its window is not open: that is not remembered under its
    /// key.
    pub retried_at_new_price: bool,
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
            retried_at_new_price: false,
        }
    }

    /// The request that only says under this one's key, if it has one, that it was refused.
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
