//! Extensions: how far the deadline of a checkout may move.
//!
//! The state `extended:<id>` says how often it was moved and by whom, so two extensions at once
//! cannot spend more than the budget. The member of the hold moves with it.

use serde::{Deserialize, Serialize};
use stock_common::id::{Position, UserId};

use super::{Changed, Checkout};
use crate::hold::state_id;
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::request::{Release, Request, Then};
use crate::transition::Transition;

/// How far the deadline of a checkout was moved. Its state in Redis is `times by_payment until_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// How many times its owner or the shop extended it.
    pub times: u32,
    /// Whether a payment whose outcome was open extended it.
    pub by_payment: bool,
    /// Its deadline, in Unix ms of Redis' clock.
    pub until_ms: u64,
}

/// How far a checkout may be extended.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// How many times.
    pub times_max: u32,
    /// The longest life in all, in ms.
    pub life_ms_max: u64,
}

impl Extended {
    /// The text of the state.
    #[must_use]
    pub fn state(self) -> String {
        let by_payment = u8::from(self.by_payment);
        format!("{} {by_payment} {}", self.times, self.until_ms)
    }

    /// Reads the text of the state.
    #[must_use]
    pub fn parse(state: &str) -> Option<Self> {
        let mut parts = state.split(' ');
        Some(Self {
            times: parts.next()?.parse().ok()?,
            by_payment: match parts.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
            until_ms: parts.next()?.parse().ok()?,
        })
    }
}

/// The body of the entry that moved a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutExtended {
    /// The checkout.
    pub checkout_id: Position,
    /// How far its deadline is moved now.
    pub extended: Extended,
}

impl Checkout {
    /// The extension that its owner or the shop asks for: it lives `ttl_ms` from now on, and never
    /// shorter than before. `None` when the budget is spent.
    #[must_use]
    pub fn extend(
        &self,
        id: Position,
        before: Option<Extended>,
        now_ms: u64,
        ttl_ms: u64,
        budget: Budget,
    ) -> Option<Extended> {
        let before = self.extended(id, before);
        let until_ms = before.until_ms.max(now_ms.saturating_add(ttl_ms));
        let times = before.times.saturating_add(1);
        let last_ms = id.unix_ms().saturating_add(budget.life_ms_max);
        (times <= budget.times_max && until_ms <= last_ms).then_some(Extended {
            times,
            until_ms,
            ..before
        })
    }

    /// The extension by a payment whose outcome is open: once, by its own time to live, and no
    /// further than the longest life. `None` when there was one before.
    #[must_use]
    pub fn extend_for_payment(
        &self,
        id: Position,
        before: Option<Extended>,
        now_ms: u64,
        budget: Budget,
    ) -> Option<Extended> {
        let before = self.extended(id, before);
        let last_ms = id.unix_ms().saturating_add(budget.life_ms_max);
        let until_ms = now_ms.saturating_add(self.ttl_ms).min(last_ms);
        (!before.by_payment).then_some(Extended {
            by_payment: true,
            until_ms: before.until_ms.max(until_ms),
            ..before
        })
    }

    /// How far its deadline is moved.
    #[must_use]
    pub fn extended(&self, id: Position, known: Option<Extended>) -> Extended {
        known.unwrap_or(Extended {
            times: 0,
            by_payment: false,
            until_ms: self.expires_ms(id),
        })
    }
}

/// The id of the state that says how far a checkout's deadline was moved.
#[must_use]
pub fn extended_state_id(checkout: Position) -> String {
    format!("extended:{}", checkout.stream_id())
}

/// Moves the deadline of a checkout that has not expired.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn extend(
    of: Changed<'_>,
    extended: Extended,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let body = CheckoutExtended {
        checkout_id: of.id,
        extended,
    };
    let mut draft = Draft::new(Kind::CheckoutExtended, actor, &body)?;
    draft.reference = Some(of.id.to_string());
    let before = of.extended.map(Extended::state).unwrap_or_default();
    draft.transitions = vec![
        // It is live, and stays so.
        Transition::new(state_id(of.id), "", String::new()),
        Transition::new(extended_state_id(of.id), &before, extended.state()),
    ];
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.allow_backlog = true;
    request.retried_anew = true;
    request.release = Some(Release {
        member: of.checkout.held(of.id).member(),
        until_ms: of.expires_ms(),
        then: Then::LivesUntil(extended.until_ms),
    });
    Ok(request)
}
