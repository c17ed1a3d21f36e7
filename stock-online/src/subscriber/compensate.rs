//! Compensation: an order that could not be stored is taken back, exactly once.
//!
//! The dead letter is durable. The compensation sets the order's state, and its verdict says
//! whether the order was taken back now, or cancelled before by its buyer. So running it again is
//! safe.

use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_domain::order::{self, Order, OrderStatus, Reversed, Units};
use stock_domain::verdict::{Refusal, Verdict, Why};
use stock_engine::lookup;
use stock_mysql::{dead_letters, journal};
use stock_redis::Ledger;

/// Compensates every open dead letter. A compensation that fails is tried again later.
pub(super) async fn all(pool: &MySqlPool, ledger: &Ledger) {
    let open = match dead_letters::list(pool, Some("OPEN")).await {
        Ok(open) => open,
        Err(error) => return tracing::debug!(%error, "cannot read dead letters"),
    };
    for letter in open {
        match one(pool, ledger, letter.position).await {
            Ok(Some(state)) => {
                tracing::error!(order.id = %letter.position, state, "dead letter of an order");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(order.id = %letter.position, %error, "not compensated yet");
            }
        }
    }
}

async fn take_back(
    pool: &MySqlPool,
    ledger: &Ledger,
    id: Position,
    order: &Order,
) -> Result<Verdict, Box<dyn std::error::Error + Send + Sync>> {
    let has_code = lookup::has_code(ledger, order).await?;
    let forgotten = lookup::forgotten_sales(pool, ledger, order).await?;
    // A part may have been taken back before.
    let state = ledger.state(&order::state_id(id)).await?;
    let left = state.as_deref().and_then(Units::of_state);
    let of = Reversed {
        id,
        order,
        has_code,
        forgotten: &forgotten,
        left: left.as_ref(),
        has_state: left.is_some(),
    };
    Ok(ledger.decide(order::fail(of)?).await?)
}

/// Compensates one order; returns the state that its dead letter is in now, if it changed.
async fn one(
    pool: &MySqlPool,
    ledger: &Ledger,
    position: Position,
) -> Result<Option<&'static str>, Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = pool.acquire().await?;
    let entry = journal::find(&mut connection, position).await?;
    drop(connection);
    let order = entry
        .and_then(Result::ok)
        .and_then(|entry| entry.body::<Order>().ok());
    let state = match order {
        // The order cannot be read, so nobody knows what it took. Its postings are settled, and it
        // is left for a person.
        None => "KEPT",
        Some(order) => match take_back(pool, ledger, position, &order).await? {
            Verdict::Accepted(_) => "COMPENSATED",
            Verdict::Refused(Refusal::StaleState {
                transition: 0,
                state,
            }) if Units::of_state(&state).is_none() => {
                let was_failed = state == OrderStatus::Fail.as_str();
                if was_failed {
                    "COMPENSATED"
                } else {
                    "CANCELLED"
                }
            }
            // Redis refuses to give back only where that would be wrong; then the order is left for
            // a person.
            Verdict::Refused(
                // Insufficient: the points that the order earned are spent.
                Refusal::Posting {
                    why: Why::Overflow | Why::Unknown | Why::Insufficient { .. },
                    ..
                },
            ) => "KEPT",
            Verdict::Refused(_) | Verdict::Replayed(_) => return Ok(None),
        },
    };
    dead_letters::set_state(pool, position, state).await?;
    Ok(Some(state))
}
