//! The values that a shard shares with the other shards of its ledger.

use std::sync::Arc;

use stock_domain::shard_map::ShardMap;
use tokio::runtime::Handle;

use crate::nodes::Servers;
use crate::recent::Recent;
use crate::switch::Switch;

/// The values that a shard shares with the other shards of its ledger.
pub(crate) struct Common {
    pub(crate) servers: Arc<Servers>,
    pub(crate) map: ShardMap,
    /// The runtime that requests run on.
    pub(crate) requests: Handle,
    pub(crate) switch: Arc<Switch>,
    pub(crate) recent: Arc<Recent>,
}
