//! A buyer's own live reservation, which an order of the same units takes without naming it.

use std::time::Duration;

use stock_domain::journal::Idempotency;
use stock_domain::order::Path;
use stock_domain::pricing::AskedOrder;
use stock_domain::verdict::{Refusal, Verdict};
use stock_engine::lookup;

use super::{Benefits, Placing, remember_unfit, try_price};
use crate::app::App;
use crate::http::problem::Problem;

/// How long an order waits until MySQL has its buyer's own reservation.
const OWN_HOLD_WAIT: Duration = Duration::from_millis(300);

/// An order that names no reservation, and may take its buyer's own.
pub(super) struct Own {
    /// How many more times the order may be made anew because of it.
    left: u8,
    /// The order as it takes the reservation that was found.
    pub(super) hold: Option<Placing>,
}

/// How an order is made anew.
pub(super) enum Anew {
    /// With its buyer's own reservation, if there is one.
    WithHold,
    /// Without, because the reservation that was found is over by now.
    Without,
}

impl Own {
    /// Once with the reservation, and once without.
    const ROUNDS: u8 = 2;

    pub(super) fn new(asked: &AskedOrder, benefits: &Benefits) -> Self {
        let may_take = benefits.reservation_id.is_none() && asked.path != Path::Till;
        Self {
            left: if may_take { Self::ROUNDS } else { 0 },
            hold: None,
        }
    }

    /// Whether the script is asked to say that there may be a reservation.
    pub(super) const fn is_asked(&self) -> bool {
        self.left == Self::ROUNDS
    }

    /// How the order is made anew after a verdict; `None` when the verdict is the answer.
    pub(super) fn anew(&mut self, placing: &Placing, verdict: &Verdict) -> Option<Anew> {
        let anew = match verdict {
            Verdict::Refused(Refusal::OwnHold) => Anew::WithHold,
            Verdict::Refused(Refusal::HoldExpired | Refusal::StaleState { .. })
                if placing.is_own =>
            {
                Anew::Without
            }
            Verdict::Accepted(_) | Verdict::Replayed(_) | Verdict::Refused(_) => return None,
        };
        self.left = self.left.checked_sub(1)?;
        Some(anew)
    }
}

/// Prices an order as [`super::price`] does. If it has no price as it is, the buyer may have a
/// reservation of it at another price.
pub(super) async fn price_or_hold(
    app: &App,
    asked: &AskedOrder,
    benefits: &Benefits,
    idempotency: Option<&Idempotency>,
    now_ms: u64,
) -> Result<Result<Placing, Verdict>, Problem> {
    let unfit = match try_price(app, asked, benefits, now_ms).await? {
        Ok(placing) => return Ok(Ok(placing)),
        Err(unfit) => unfit,
    };
    if let Some(placing) = Box::pin(own_hold(app, asked, benefits, now_ms)).await {
        return Ok(Ok(placing));
    }
    Ok(Err(Box::pin(remember_unfit(app, unfit, idempotency)).await?))
}

/// The order as it takes the buyer's own live reservation of one of its lines, if there is one and
/// the order asks for none.
pub(super) async fn own_hold(
    app: &App,
    asked: &AskedOrder,
    benefits: &Benefits,
    now_ms: u64,
) -> Option<Placing> {
    if benefits.reservation_id.is_some() || asked.path == Path::Till {
        return None;
    }
    let found = lookup::own_hold(&app.pool, &app.ledger, asked, OWN_HOLD_WAIT).await;
    let id = found.unwrap_or_else(|error| {
        // The order goes on without it, so that it waits for no server.
        tracing::debug!(%error, "a buyer's own reservation cannot be looked up");
        None
    })?;
    let with = Benefits {
        reservation_id: Some(id),
        ..benefits.clone()
    };
    let placing = try_price(app, asked, &with, now_ms).await.ok()?.ok()?;
    Some(Placing {
        is_own: true,
        ..placing
    })
}
