//! Settings that choose between a promise and availability.

use serde::{Deserialize, Serialize};

/// The failures that an accepted order survives; see `docs/durability.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `appendfsync always`: an order survives the kill of any process and a crash of the machine.
    Always,
    /// `appendfsync everysec`: an order usually survives the kill of a process. Up to 2 s of orders
    /// may be lost.
    Everysec,
}

impl Durability {
    /// The value of Redis' `appendfsync`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
        }
    }
}

/// The fate of an accepted order that too few replicas have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaPolicy {
    /// The order is answered as unknown. No order is taken while too few replicas are connected.
    Strict,
    /// The order is answered as accepted, and counted in a metric.
    Available,
}
