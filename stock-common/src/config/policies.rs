//! The settings that choose between a promise and availability.

use serde::{Deserialize, Serialize};

/// The failures that an accepted order survives; see `docs/durability.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `appendfsync always`: the kill of any process and a machine crash.
    Always,
    /// `appendfsync everysec`: usually a process kill; up to 2 s may be lost.
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

/// The fate of an accepted order that no replica has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaPolicy {
    /// It is answered as unknown, and none is taken while too few replicas are connected.
    Strict,
    /// It stands, and is counted.
    Available,
}
