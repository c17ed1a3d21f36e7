//! The switch that stops all selling at once, and the entry that begins an epoch.

use serde::{Deserialize, Serialize};
use stock_common::id::UserId;

use crate::journal::{Draft, DraftError, Kind};
use crate::ledger::Request;

/// The body of the entry that stopped or resumed selling.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SellingSwitched {
    /// Whether orders and reservations are taken.
    pub open: bool,
}

/// The body of the first entry of an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EpochBegun {
    /// The epoch's random id.
    pub epoch: String,
}

/// Stops all selling, or resumes it.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn switch(open: bool, actor: UserId) -> Result<Request, DraftError> {
    let mut draft = Draft::new(Kind::SellingSwitched, actor, &SellingSwitched { open })?;
    draft.selling = Some(open);
    let mut request = Request::new(draft);
    request.even_backlog = true;
    Ok(request)
}

/// The draft of the entry that begins an epoch; `migrate` and `recover` write it themselves, there is
/// no script that could judge it.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn epoch_begun(epoch: &str) -> Result<Draft, DraftError> {
    Draft::new(
        Kind::EpochBegun,
        UserId(0),
        &EpochBegun {
            epoch: epoch.to_owned(),
        },
    )
}
