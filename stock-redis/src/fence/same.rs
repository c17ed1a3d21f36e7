//! The same Redis as a moment ago: a link that broke says nothing about the server behind it.
//!
//! A verified server that has not ended since, and was never a replica, has lost nothing. If it
//! still names the epoch and has what this instance accepted last, it is verified again without a
//! word of MySQL, which may be away.

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use stock_common::id::Position;
use stock_common::lock::lock;
use stock_domain::shard_state::ShardState;

use super::Fence;
use crate::info::Info;
use crate::{epoch, journal_stream};

/// The properties that tell a Redis server with its data from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// It differs after each start, and on each node.
    run_id: String,
    /// It differs when the server was a replica meanwhile.
    history: String,
    /// Only a master may be verified again like this.
    is_master: bool,
}

impl Identity {
    /// Reads the identity of a Redis.
    pub async fn read(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let info = Info::read(connection, &["server", "replication"]).await?;
        let field = |name| info.field(name).unwrap_or_default().to_owned();
        Ok(Self {
            run_id: field("run_id"),
            history: field("master_replid"),
            is_master: info.field("role") == Some("master"),
        })
    }
}

impl Fence {
    /// Reads the identity of the server behind an open link again. The first replica that the
    /// server gets begins another history.
    pub(super) async fn see(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let now = Identity::read(connection).await?;
        let mut proved = lock(&self.verified);
        if let Some(known) = &mut *proved
            && known.run_id == now.run_id
            && now.is_master
        {
            *known = now;
        }
        Ok(())
    }

    /// MySQL's state, and the last position that this instance accepted, if this server is the one
    /// that was verified last.
    fn remembered_of(&self, server: &Identity, epoch: &str) -> Option<(ShardState, Position)> {
        let is_same = {
            let proved = lock(&self.verified);
            server.is_master && proved.as_ref() == Some(server)
        };
        let known = lock(&self.known);
        let memory = lock(&self.memory);
        let is_known = is_same && memory.epoch == epoch;
        let known = known
            .clone()
            .filter(|state| is_known && state.epoch == epoch)?;
        Some((known, memory.last))
    }

    /// The known state of MySQL, if this server is the one that was verified last and still has all
    /// its entries.
    pub async fn known_of_same(
        &self,
        read: &mut MultiplexedConnection,
        server: &Identity,
        epoch: &str,
    ) -> Result<Option<ShardState>, RedisError> {
        let Some((known, last)) = self.remembered_of(server, epoch) else {
            return Ok(None);
        };
        let Some(head) = epoch::head(read, &self.keys).await? else {
            return Ok(None);
        };
        // The journal ends where the epoch's hash says, and not before the entries that MySQL has.
        let end = journal_stream::find(read, &self.keys, head.position).await?;
        let is_whole = end.is_some_and(|(number, _)| number == head.number);
        if !is_whole || head.number < known.number {
            return Ok(None);
        }
        let is_there = last <= known.watermark
            || journal_stream::find(read, &self.keys, last)
                .await?
                .is_some();
        Ok(is_there.then_some(known))
    }
}
