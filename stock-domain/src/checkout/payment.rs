//! Payments of checkouts: what a reported payment does, and how its outcome is kept.

use serde::{Deserialize, Serialize};
use stock_common::id::{Position, UserId};
use stock_common::money::Money;

use super::{CONFIRMED, Changed, CheckoutStatus, REFUND_DUE};
use crate::hold::{CANCELLED, state_id};
use crate::journal::{Draft, DraftError, Kind};
use crate::request::Request;
use crate::transition::Transition;

/// Characters of a payment's id.
pub const PAYMENT_ID_MAX: usize = 100;

/// A payment, as the payment provider or the shop reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The provider's id, 1..=100 visible characters.
    pub id: String,
    /// The amount that was paid.
    pub amount: Money,
}

/// The fate of a payment. All but the first are to be refunded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentOutcome {
    /// It made the checkout an order.
    Confirmed,
    /// Another payment had made the checkout an order.
    Duplicate,
    /// It was not the frozen total.
    AmountMismatch,
    /// The checkout had expired, and could not be sold any more.
    TooLate,
    /// The checkout had been cancelled.
    Cancelled,
}

impl PaymentOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Confirmed,
        Self::Duplicate,
        Self::AmountMismatch,
        Self::TooLate,
        Self::Cancelled,
    ];

    /// The name in the table, in the state and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => CONFIRMED,
            Self::Duplicate => "DUPLICATE",
            Self::AmountMismatch => "AMOUNT_MISMATCH",
            Self::TooLate => "TOO_LATE",
            Self::Cancelled => CANCELLED,
        }
    }

    /// The outcome of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.as_str() == name)
    }
}

/// The body of the entry that notes a payment which sold nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentUnused {
    /// The checkout.
    pub checkout_id: Position,
    /// The payment's id.
    pub payment_id: String,
    /// The amount that was paid.
    pub amount: Money,
    /// Why it sold nothing.
    pub outcome: PaymentOutcome,
}

/// The effect of a payment on a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It makes the held checkout an order.
    Confirm,
    /// It makes the expired checkout an order, if everything is still there.
    Retake,
    /// It sells nothing, which is noted.
    Note(PaymentOutcome),
    /// It was reported before. Nothing happens.
    Known(PaymentOutcome),
}

/// Says what a payment does. `known` is what became of the same payment before.
#[must_use]
pub fn judge(
    status: CheckoutStatus,
    total: Money,
    payment: &Payment,
    known: Option<PaymentOutcome>,
) -> Step {
    use PaymentOutcome::{AmountMismatch, Cancelled, Confirmed, Duplicate, TooLate};
    let is_right = payment.amount == total;
    let outcome = match status {
        CheckoutStatus::Open if is_right => return Step::Confirm,
        CheckoutStatus::Expired if is_right => return Step::Retake,
        CheckoutStatus::Open | CheckoutStatus::Expired => AmountMismatch,
        CheckoutStatus::Confirmed => Duplicate,
        CheckoutStatus::Cancelled => Cancelled,
        CheckoutStatus::RefundDue => TooLate,
    };
    match known {
        Some(Confirmed) if !is_right => Step::Known(AmountMismatch),
        Some(known) => Step::Known(known),
        None => Step::Note(outcome),
    }
}

/// The id of the state that says what became of a payment.
#[must_use]
pub fn payment_state_id(checkout: Position, payment_id: &str) -> String {
    format!("payment:{}:{payment_id}", checkout.stream_id())
}

/// Whether a text can be the id of a payment: 1..=100 visible characters.
#[must_use]
pub fn is_payment_id(text: &str) -> bool {
    let count = text.chars().count();
    (1..=PAYMENT_ID_MAX).contains(&count) && !text.chars().any(char::is_control)
}

/// The knowledge on which a note of a payment rests.
#[derive(Debug, Clone, Copy)]
pub struct Was<'a> {
    /// The outcome of the same payment before.
    pub payment: Option<PaymentOutcome>,
    /// The state of the hold of an expired checkout that is to be refunded from now on.
    pub due: Option<&'a str>,
}

/// Notes a payment that sold nothing.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn note(
    of: Changed<'_>,
    payment: &Payment,
    outcome: PaymentOutcome,
    was: Was<'_>,
    actor: UserId,
) -> Result<Request, DraftError> {
    let body = PaymentUnused {
        checkout_id: of.id,
        payment_id: payment.id.clone(),
        amount: payment.amount,
        outcome,
    };
    let mut draft = Draft::new(Kind::PaymentUnused, actor, &body)?;
    draft.reference = Some(of.id.to_string());
    let due = |state| Transition::new(state_id(of.id), state, REFUND_DUE.to_owned());
    draft.transitions = was.due.map(due).into_iter().collect();
    draft
        .transitions
        .push(of.payment_becomes(&payment.id, was.payment, outcome));
    let mut request = Request::new(draft);
    request.allow_backlog = true;
    Ok(request)
}

impl Changed<'_> {
    /// The transition of a payment's state.
    pub(super) fn payment_becomes(
        &self,
        payment_id: &str,
        known: Option<PaymentOutcome>,
        next: PaymentOutcome,
    ) -> Transition {
        let from = known.map_or("", PaymentOutcome::as_str);
        let id = payment_state_id(self.id, payment_id);
        Transition::new(id, from, next.as_str().to_owned())
    }
}
