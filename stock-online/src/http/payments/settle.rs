//! What a reported payment does to its checkout.
//!
//! What is known is looked up, [`judge`] says the step, and the transitions of the step's request
//! make sure that nothing has changed in between; otherwise it begins anew.

use stock_common::id::{Position, UserId};
use stock_common::money::Money;
use stock_domain::checkout::{self, CheckoutStatus, Payment, PaymentOutcome, Step, Was, judge};
use stock_domain::journal::Idempotency;
use stock_domain::verdict::{Refusal, Replay, Verdict, Why};
use stock_engine::lookup::{self, LocatedCheckout};

use crate::app::App;
use crate::http::checkouts::{ROUNDS, count, find, over, pause};
use crate::http::code::Code;
use crate::http::problem::Problem;
use crate::http::verdicts::decide_stock;

/// The outcome of a reported payment.
pub(in crate::http) enum Settled {
    /// The checkout is an order.
    Confirmed {
        /// The checkout.
        checkout_id: Position,
        /// The order.
        order_id: Position,
        /// Whether it was paid after it had expired.
        is_late: bool,
        /// Whether this payment made it one just now.
        is_new: bool,
    },
    /// It sold nothing.
    Unused {
        /// Why.
        outcome: PaymentOutcome,
    },
}

/// The problem of a payment that sold nothing.
pub(in crate::http) fn problem(outcome: PaymentOutcome, total: Money) -> Problem {
    match outcome {
        PaymentOutcome::AmountMismatch => {
            let text = format!("the frozen total is {}", total.get());
            Problem::new(Code::AmountMismatch, text).with("expected", total.get())
        }
        PaymentOutcome::Cancelled => over(CheckoutStatus::Cancelled),
        PaymentOutcome::TooLate | PaymentOutcome::Duplicate | PaymentOutcome::Confirmed => {
            Problem::of(Code::RefundDue)
        }
    }
}

/// Settles a payment: sells the checkout, or notes that the payment is to be refunded.
pub(in crate::http) async fn settle(
    app: &App,
    id: Position,
    payment: &Payment,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Settled, Problem> {
    for round in 0..ROUNDS {
        if round > 0 {
            pause().await;
        }
        let found = find(app, id).await?;
        let found = found.ok_or_else(|| Problem::of(Code::CheckoutNotFound))?;
        if found.course.status == CheckoutStatus::Expired && !found.has_ended {
            continue;
        }
        let known = lookup::payment(&app.pool, &app.ledger, &found, &payment.id).await?;
        let paying = Paying {
            app,
            found: &found,
            payment,
            known,
            actor,
        };
        let total = found.checkout.order.total_amount;
        let step = judge(found.course.status, total, payment, known);
        if let Some(key) = idempotency.clone().filter(|_| step != Step::Confirm)
            && let Some(before) = paying.before(key).await?
        {
            return Ok(before);
        }
        let settled = match step {
            Step::Confirm => paying.confirm(idempotency.clone()).await?,
            Step::Retake => paying.retake().await?,
            Step::Note(outcome) => paying.note(outcome, None).await?,
            Step::Known(outcome) => Some(paying.known(outcome)),
        };
        if let Some(settled) = settled {
            return Ok(settled);
        }
    }
    // Nobody knows whether it sold: the same payment may be reported again.
    Err(Problem::of(Code::Overloaded))
}

/// A payment of a checkout, with all that is known of both.
struct Paying<'a> {
    app: &'a App,
    found: &'a LocatedCheckout,
    payment: &'a Payment,
    known: Option<PaymentOutcome>,
    actor: UserId,
}

impl Paying<'_> {
    fn count(&self, outcome: PaymentOutcome) {
        metrics::counter!("stock_payments_total", "outcome" => outcome.as_str()).increment(1);
    }

    fn sold(&self, order_id: Position, is_late: bool, is_new: bool) -> Settled {
        if is_new {
            self.count(PaymentOutcome::Confirmed);
            count(if is_late {
                "confirmed_late"
            } else {
                "confirmed"
            });
        }
        Settled::Confirmed {
            checkout_id: self.found.id,
            order_id,
            is_late,
            is_new,
        }
    }

    /// Sells the held checkout. `None` is that it was changed meanwhile.
    async fn confirm(&self, key: Option<Idempotency>) -> Result<Option<Settled>, Problem> {
        let changed = self.found.changed();
        let request = checkout::confirm(changed, self.payment, self.known, self.actor, key)?;
        match self.app.ledger.decide(request).await? {
            Verdict::Accepted(accepted) => Ok(Some(self.sold(accepted.position, false, true))),
            Verdict::Replayed(Replay::Accepted(order)) => Ok(Some(self.sold(order, false, false))),
            Verdict::Refused(Refusal::StaleState { .. } | Refusal::HoldExpired) => Ok(None),
            Verdict::Replayed(Replay::Refused(refusal)) => Err(Problem::from(refusal).replayed()),
            Verdict::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// The answer that the same request got before under its key. The request that asks for it
    /// comes too late to be decided.
    async fn before(&self, key: Idempotency) -> Result<Option<Settled>, Problem> {
        let (changed, key) = (self.found.changed(), Some(key));
        let mut request = checkout::confirm(changed, self.payment, self.known, self.actor, key)?;
        request.deadline_ms = Some(1);
        match self.app.ledger.decide(request).await? {
            Verdict::Replayed(Replay::Accepted(order)) => {
                Ok(Some(self.sold(order, self.found.course.is_late, false)))
            }
            Verdict::Accepted(_) | Verdict::Refused(Refusal::Expired) => Ok(None),
            Verdict::Replayed(Replay::Refused(refusal)) => Err(Problem::from(refusal).replayed()),
            Verdict::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Takes everything again that the expired checkout had held, or notes that the payment came
    /// too late.
    async fn retake(&self) -> Result<Option<Settled>, Problem> {
        let state = self.found.state.as_deref();
        let (payment, known) = (self.payment, self.known);
        let (changed, app) = (self.found.changed(), self.app);
        let order = &self.found.checkout.order;
        let forgotten = lookup::forgotten_sales(&app.pool, &app.ledger, order).await?;
        let build = || checkout::retake(changed, state, payment, known, &forgotten, self.actor);
        match decide_stock(self.app, build).await? {
            Verdict::Accepted(accepted) => Ok(Some(self.sold(accepted.position, true, true))),
            Verdict::Replayed(_) | Verdict::Refused(Refusal::StaleState { .. }) => Ok(None),
            Verdict::Refused(refusal) if is_gone(&refusal) => {
                let from = state.unwrap_or_default();
                self.note(PaymentOutcome::TooLate, Some(from)).await
            }
            Verdict::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// Notes that the payment sold nothing. `from` is the state of an expired checkout that is to
    /// be refunded from now on.
    async fn note(
        &self,
        outcome: PaymentOutcome,
        from: Option<&str>,
    ) -> Result<Option<Settled>, Problem> {
        let changed = self.found.changed();
        let was = Was {
            payment: self.known,
            due: from,
        };
        let request = checkout::note(changed, self.payment, outcome, was, self.actor)?;
        match self.app.ledger.decide(request).await? {
            Verdict::Accepted(_) => {
                self.count(outcome);
                Ok(Some(self.known(outcome)))
            }
            Verdict::Replayed(_) | Verdict::Refused(Refusal::StaleState { .. }) => Ok(None),
            Verdict::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// The answer to a payment whose outcome is on record.
    fn known(&self, outcome: PaymentOutcome) -> Settled {
        let course = self.found.course;
        match (outcome, course.order_id) {
            (PaymentOutcome::Confirmed | PaymentOutcome::Duplicate, Some(order_id)) => {
                self.sold(order_id, course.is_late, false)
            }
            _ => Settled::Unused { outcome },
        }
    }
}

/// The problem of a payment that was not settled and may be reported again.
fn refused(refusal: Refusal) -> Problem {
    if refusal.passes_by() {
        // A conflict would be final for a provider.
        return Problem::of(Code::Overloaded);
    }
    refusal.into()
}

/// Whether a refusal says that something which the checkout had held is gone. Any other refusal
/// passes by, and the payment may be reported again.
fn is_gone(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Posting { why, .. } => !matches!(why, Why::Broken) && !refusal.passes_by(),
        Refusal::Taken { .. } => true,
        Refusal::Fenced
        | Refusal::Lost(_)
        | Refusal::KeyReused
        | Refusal::Claimed(_)
        | Refusal::Expired
        | Refusal::Backlog
        | Refusal::Predecided(_)
        | Refusal::NotOpen
        | Refusal::Closed
        | Refusal::StaleState { .. }
        | Refusal::SellingStopped
        | Refusal::Changed { .. }
        | Refusal::HoldExpired
        | Refusal::HeldEnough { .. }
        | Refusal::OwnHold => false,
    }
}
