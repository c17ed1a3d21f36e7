//! The levels message: what `lua/decide.lua` publishes about the accounts that a batch has moved.

use stock_common::id::Position;

use crate::account::{Account, Level};

/// New levels, in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelsMessage {
    /// The last entry of the batch.
    pub position: Position,
    /// The announced accounts that it moved.
    pub levels: Vec<(Account, Level)>,
}

impl LevelsMessage {
    /// Reads `ms-low unsettled|label balance seq closed|…`; what is none of ours is left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let (position, _unsettled) = parts.next()?.split_once(' ')?;
        let level = |part: &str| {
            let (account, level) = part.split_once(' ')?;
            Some((Account::parse(account)?, Level::parse(level)?))
        };
        Some(Self {
            position: Position::from_stream_id(position)?,
            levels: parts.filter_map(level).collect(),
        })
    }
}
