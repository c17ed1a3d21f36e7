//! Transitions: the states of things that an entry compares and sets.

use serde::{Deserialize, Serialize, Serializer};
use stock_common::id::ProductId;

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
