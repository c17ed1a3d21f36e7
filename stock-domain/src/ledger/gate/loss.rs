//! What Redis lost of what this instance accepted: found, listed in MySQL, and in a cluster entered again.

use std::collections::HashSet;
use std::sync::PoisonError;

use redis::aio::MultiplexedConnection;
use stock_common::id::Position;

use super::{Gate, Memory, Remembered, Unproved};
use crate::database::shards::{self, ShardState};
use crate::database::{journal, lost_entries, witnesses};
use crate::ledger::reader;
use crate::recover::{self, RecoverError};

impl Gate {
    /// Rebuilds a Redis of a cluster that lost entries when it was promoted: what the instances remember is
    /// entered again. Never what would drop an entry; then it waits for a person.
    pub(super) async fn recover(&self, url: &str) {
        let shard = self.keys.shard();
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (true, true, Some(known)) = (
            self.servers.is_cluster(),
            self.config.failover_recovers,
            known,
        ) else {
            return;
        };
        // Who has not met this server yet may remember more.
        match witnesses::unmet(&self.pool, shard, known.watermark).await {
            Ok(0) => {}
            Ok(instances) => {
                return tracing::warn!(shard, instances, "waiting for what they remember");
            }
            Err(error) => return tracing::warn!(shard, %error, "redis cannot be rebuilt yet"),
        }
        // What is there is cleared: one node's word is not enough.
        match self.servers.agreed(&self.keys.epoch()).await {
            Ok(agreed) if agreed == url => {}
            Ok(_) => return tracing::warn!(shard, "most nodes name another master"),
            Err(error) => return tracing::warn!(shard, %error, "redis cannot be rebuilt yet"),
        }
        match recover::recover_lost(&self.config, shard, (&known.epoch, url)).await {
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

    /// What this instance accepted last must be in the journal, or settled.
    pub(super) async fn find_own_last(
        &self,
        read: &mut MultiplexedConnection,
        known: &ShardState,
    ) -> Result<(), Unproved> {
        self.list_lost_with_epoch(&known.epoch).await?;
        self.find_settled_in_silence().await?;
        let (last, first) = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let first = memory.unsettled.iter().map(|entry| entry.position).min();
            (memory.last, first.unwrap_or(memory.last))
        };
        if last <= known.watermark || reader::find(read, &self.keys, last).await?.is_some() {
            return Ok(());
        }
        let present: HashSet<Position> = reader::positions_from(read, &self.keys, first)
            .await?
            .into_iter()
            .collect();
        let lost: Vec<Remembered> = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let is_lost = |entry: &&Remembered| {
                entry.position > known.watermark && !present.contains(&entry.position)
            };
            memory.unsettled.iter().filter(is_lost).cloned().collect()
        };
        self.list_lost(&lost).await?;
        Err(Unproved::OwnEntryMissing {
            last,
            lost: lost.len(),
        })
    }

    /// A new epoch means that `recover` has run: what this instance accepted under the earlier one and
    /// MySQL's journal lacks is lost, and is listed before the memory of it begins anew.
    async fn list_lost_with_epoch(&self, epoch: &str) -> Result<(), Unproved> {
        let accepted: Vec<Remembered> = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.epoch == epoch {
                return Ok(());
            }
            memory.unsettled.iter().cloned().collect()
        };
        self.list_unrecorded(accepted).await?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        *memory = Memory {
            epoch: epoch.to_owned(),
            ..Memory::default()
        };
        Ok(())
    }

    /// Nobody waits for an instance that says nothing for long: behind a failover in that time others go on without what
    /// only it knew, and MySQL settles theirs. What is not among that is lost, and is listed.
    pub(super) async fn find_settled_in_silence(&self) -> Result<(), Unproved> {
        // One that goes on is compared again when it is over.
        let silences = self.beat.past_silences();
        let accepted: Vec<Remembered> = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.silences == self.beat.silences() {
                return Ok(());
            }
            memory.unsettled.iter().cloned().collect()
        };
        let shard = self.keys.shard();
        let state = shards::load(&self.pool, shard).await;
        let watermark = state
            .map_err(Unproved::Database)?
            .map(|state| state.watermark);
        let is_settled = |of: &Remembered| watermark.is_some_and(|upto| of.position <= upto);
        let settled: Vec<Remembered> = accepted.into_iter().filter(is_settled).collect();
        let compared: HashSet<Position> = settled.iter().map(|entry| entry.position).collect();
        self.list_unrecorded(settled).await?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |entry: &Remembered| !compared.contains(&entry.position);
        memory.unsettled.retain(is_open);
        memory.silences = silences;
        Ok(())
    }

    /// Lists those of the entries that MySQL's journal lacks.
    async fn list_unrecorded(&self, mut entries: Vec<Remembered>) -> Result<(), Unproved> {
        let positions: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
        let lost = journal::missing(&self.pool, &positions)
            .await
            .map_err(Unproved::Database)?;
        entries.retain(|entry| lost.contains(&entry.position));
        self.list_lost(&entries).await
    }

    /// Lists what was accepted and lost: in the log, and in MySQL for `recover` and `explain`.
    async fn list_lost(&self, lost: &[Remembered]) -> Result<(), Unproved> {
        let listed = lost_entries::list(&self.pool, self.keys.shard(), lost)
            .await
            .map_err(Unproved::Database)?;
        if listed > 0 {
            for Remembered { position, .. } in lost {
                tracing::error!(%position, "accepted entry is not in the journal any more");
            }
        }
        Ok(())
    }
}
