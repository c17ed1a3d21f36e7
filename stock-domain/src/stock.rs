//! Stock that comes in, and stock that is corrected by hand.

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, ProductId, UserId};

use crate::account::Account;
use crate::journal::{Draft, DraftError, Idempotency, Kind, Posting};
use crate::ledger::Request;

/// The largest change of a level by one entry (DESIGN: any posting is 1..=10^12).
pub const CHANGE_MAX: i64 = 1_000_000_000_000;

/// The body of an entry that changed a level from outside a sale.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StockChanged {
    /// The product.
    pub product_id: ProductId,
    /// Where.
    pub location_id: LocationId,
    /// By how much, ±1..=10^12.
    pub quantity: i64,
    /// Why, as a person said it.
    pub reason: String,
}

/// Takes stock in.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn receive(
    change: &StockChanged,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    moved(Kind::StockReceived, change, actor, idempotency)
}

/// Corrects a level by hand, also of a product that is not on sale; never below zero.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn adjust(
    change: &StockChanged,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    moved(Kind::StockAdjusted, change, actor, idempotency)
}

fn moved(
    kind: Kind,
    change: &StockChanged,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut draft = Draft::new(kind, actor, change)?;
    let account = Account::available(change.product_id, change.location_id);
    // A store meets a product for the first time when its first stock arrives.
    let open = (change.location_id != LocationId::ONLINE).then_some(0);
    draft.postings = vec![Posting {
        account,
        delta: change.quantity,
        open,
    }];
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.even_closed = true;
    Ok(request)
}
