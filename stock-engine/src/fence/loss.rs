//! Finds the entries that this instance accepted and Redis lost, and lists them in MySQL.

use std::collections::HashSet;

use redis::aio::MultiplexedConnection;
use stock_common::id::Position;
use stock_domain::shard_state::{Remembered, ShardState};
use stock_mysql::{journal, lost_entries};
use stock_redis::fence::Memory;
use stock_redis::journal_stream;

use super::{Unverified, Verifier};
use crate::recover::{self, RecoverError};

impl Verifier {
    /// Rebuilds a promoted Redis of a cluster that lacks entries of MySQL. Its own entries that do
    /// not continue MySQL's state, because entries before them are lost, are listed as lost too.
    pub(super) async fn recover(&self, url: &str) {
        let shard = self.fence.keys.shard();
        let known = self.fence.known_state();
        let (true, true, Some(known)) = (
            self.fence.servers.is_cluster(),
            self.fence.config.redis.failover_recovers,
            known,
        ) else {
            return;
        };
        // A rebuild clears this server, so the word of one node is not enough.
        match self.fence.servers.agreed(&self.fence.keys.epoch()).await {
            Ok(agreed) if agreed == url => {}
            Ok(_) => return tracing::warn!(shard, "most nodes name another master"),
            Err(error) => return tracing::warn!(shard, %error, "redis cannot be rebuilt yet"),
        }
        match recover::recover_lost(&self.fence.config, shard, (&known.epoch, url)).await {
            Ok(done) => tracing::warn!(
                shard,
                applied = done.applied,
                epoch = done.epoch,
                "a failover had lost entries: redis was rebuilt"
            ),
            Err(RecoverError::Done | RecoverError::Busy) => {}
            Err(error) => tracing::error!(shard, %error, "redis cannot be rebuilt yet"),
        }
    }

    /// Looks for the entries that this instance accepted, when Redis is not known to be the one
    /// that was verified last. Entries that neither Redis' journal nor MySQL's has are listed as
    /// lost.
    ///
    /// A promoted replica has the beginning of its master's history, so it goes on without the
    /// listed entries. While a replica was connected, `WAIT` has seen to it that there are none. A
    /// lone Redis that lost its end waits for a person.
    pub(super) async fn find_accepted(
        &self,
        read: &mut MultiplexedConnection,
        known: &ShardState,
    ) -> Result<(), Unverified> {
        self.list_lost_with_epoch(&known.epoch).await?;
        let (last, accepted) = {
            let memory = self.fence.memory();
            (memory.last, Vec::from(memory.unsettled.clone()))
        };
        let (settled, open): (Vec<Remembered>, Vec<Remembered>) = accepted
            .into_iter()
            .partition(|entry| entry.position <= known.watermark);
        // MySQL may meanwhile have settled another instance's entries, from a server that never had
        // these.
        self.list_unrecorded(settled).await?;
        if last <= known.watermark
            || journal_stream::find(read, &self.fence.keys, last)
                .await?
                .is_some()
        {
            return Ok(());
        }
        let first = open.iter().map(|entry| entry.position).min();
        let present: HashSet<Position> =
            journal_stream::positions_from(read, &self.fence.keys, first.unwrap_or(last))
                .await?
                .into_iter()
                .collect();
        let is_lost = |entry: &Remembered| !present.contains(&entry.position);
        let lost: Vec<Remembered> = open.into_iter().filter(is_lost).collect();
        self.list_lost(&lost).await?;
        if self.fence.servers.is_cluster() {
            let listed: HashSet<Position> = lost.iter().map(|entry| entry.position).collect();
            let mut memory = self.fence.memory();
            memory
                .unsettled
                .retain(|entry| !listed.contains(&entry.position));
            memory.last = memory
                .unsettled
                .iter()
                .map(|entry| entry.position)
                .max()
                // Every entry that this instance accepted is settled or listed.
                .unwrap_or(Position::ZERO);
            return Ok(());
        }
        Err(Unverified::OwnEntryMissing {
            last,
            lost: lost.len(),
        })
    }

    /// Looks in Redis for the entries after the watermark that synchronous orders recorded in
    /// MySQL. Their numbers must not be given again.
    pub(super) async fn find_recorded(
        &self,
        read: &mut MultiplexedConnection,
        known: &ShardState,
    ) -> Result<(), Unverified> {
        let recorded = journal::recorded_behind(&self.pool, known.shard, known.number).await;
        for position in recorded.map_err(Unverified::Database)? {
            if journal_stream::find(read, &self.fence.keys, position)
                .await?
                .is_none()
            {
                return Err(Unverified::RecordedMissing(position));
            }
        }
        Ok(())
    }

    /// A new epoch means that `recover` has run. Entries that this instance accepted under the
    /// earlier epoch, and that MySQL's journal lacks, are lost. They are listed before the memory
    /// of them is cleared.
    async fn list_lost_with_epoch(&self, epoch: &str) -> Result<(), Unverified> {
        let accepted: Vec<Remembered> = {
            let memory = self.fence.memory();
            if memory.epoch == epoch {
                return Ok(());
            }
            Vec::from(memory.unsettled.clone())
        };
        self.list_unrecorded(accepted).await?;
        let mut memory = self.fence.memory();
        *memory = Memory {
            epoch: epoch.to_owned(),
            ..Memory::default()
        };
        Ok(())
    }

    /// Lists the entries that MySQL's journal lacks.
    async fn list_unrecorded(&self, mut entries: Vec<Remembered>) -> Result<(), Unverified> {
        let positions: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
        let lost = journal::missing(&self.pool, &positions)
            .await
            .map_err(Unverified::Database)?;
        entries.retain(|entry| lost.contains(&entry.position));
        self.list_lost(&entries).await
    }

    /// Lists lost entries in the log, and in MySQL for `recover` and `explain`.
    async fn list_lost(&self, lost: &[Remembered]) -> Result<(), Unverified> {
        let listed = lost_entries::list(&self.pool, self.fence.keys.shard(), lost)
            .await
            .map_err(Unverified::Database)?;
        if listed > 0 {
            for Remembered { position, .. } in lost {
                tracing::error!(%position, "accepted entry is not in the journal any more");
            }
        }
        Ok(())
    }
}
