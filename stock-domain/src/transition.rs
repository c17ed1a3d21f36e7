//! Transitions: the states of things that an entry compares and sets.

use serde::{Deserialize, Serialize, Serializer};
use stock_common::id::{Position, ProductId};

/// The last character of a state in which the script writes the position of the entry.
pub const PLACE: char = '#';

/// A compare-and-set of a thing's state, made by the script together with the postings. `""` is no
/// state. The journal keeps `[id, from, to]`; older entries name the three.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "TransitionWire")]
pub struct Transition {
    /// The id of the state, such as `order:123`.
    pub id: String,
    /// The state that the thing must be in.
    pub from: String,
    /// The state that the thing is in afterwards.
    pub to: String,
    /// The product on whose shard the state lies, where its id does not say that. The journal does
    /// not keep it.
    pub product: Option<ProductId>,
}

impl Transition {
    /// The transition as the entry at a position made it: with the position where the draft has
    /// [`PLACE`].
    pub(crate) fn place(&mut self, at: Position) {
        if let Some(word) = self.to.strip_suffix(PLACE) {
            self.to = format!("{word}{}", at.stream_id());
        }
    }

    /// A transition on the shard that its id names.
    #[must_use]
    pub fn new(id: String, from: &str, to: String) -> Self {
        Self {
            id,
            from: from.to_owned(),
            to,
            product: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TransitionWire {
    List(String, String, String),
    Named {
        id: String,
        expected: String,
        next: String,
    },
}

impl From<TransitionWire> for Transition {
    fn from(wire: TransitionWire) -> Self {
        let (TransitionWire::List(id, from, to)
        | TransitionWire::Named {
            id,
            expected: from,
            next: to,
        }) = wire;
        Self::new(id, &from, to)
    }
}

impl Serialize for Transition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.id, &self.from, &self.to).serialize(serializer)
    }
}
