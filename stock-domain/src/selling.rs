//! The switch that stops all selling at once, and the entry that begins an epoch.

use serde::{Deserialize, Serialize};
use stock_common::id::UserId;

use crate::journal::{Draft, DraftError, Kind};
use crate::request::Request;

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
    request.allow_backlog = true;
    Ok(request)
}

/// The draft of the entry that begins an epoch. `migrate` and `recover` write the entry themselves,
/// because no script can check it yet.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn epoch_begun(epoch: &str) -> Result<Draft, DraftError> {
    Draft::new(
        Kind::EpochBegun,
        UserId::ENGINE,
        &EpochBegun {
            epoch: epoch.to_owned(),
        },
    )
}

/// A switch of selling, as an operator asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switched {
    /// Whether selling is open.
    pub open: bool,
    /// The time of the switch, in Unix ms. The later switch counts.
    pub at_ms: u64,
}

impl Switched {
    /// The text that a channel carries.
    #[must_use]
    pub fn text(self) -> String {
        format!("{} {}", u8::from(self.open), self.at_ms)
    }

    /// Parses the text of a channel; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (open, at_ms) = text.split_once(' ')?;
        let open = match open {
            "1" => true,
            "0" => false,
            _ => return None,
        };
        let at_ms = at_ms.parse().ok()?;
        Some(Self { open, at_ms })
    }

    /// Whether it counts before another: the later one does, and of two at the same time the one
    /// that stops.
    #[must_use]
    pub const fn is_newer(self, than: Self) -> bool {
        self.at_ms > than.at_ms || self.at_ms == than.at_ms && !self.open && than.open
    }
}

#[cfg(test)]
mod tests {
    use super::Switched;

    #[test]
    fn what_is_told_is_read_again_and_nothing_else_is() {
        for open in [true, false] {
            let told = Switched {
                open,
                at_ms: 1_790_000_000_000,
            };
            assert_eq!(Switched::parse(&told.text()), Some(told));
        }
        for other in ["", "0", "2 5", "1 x", "changed"] {
            assert_eq!(Switched::parse(other), None);
        }
    }
}
