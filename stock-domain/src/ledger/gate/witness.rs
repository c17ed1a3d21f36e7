//! Statements that instances make to each other, by MySQL, when they meet another Redis than before.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use stock_common::id::Position;

use super::same::Identity;
use super::{Gate, Link, Unproved};
use crate::database::shards::{self, ShardState};
use crate::database::witnesses;
use crate::ledger::reader;

/// How long MySQL may take to give a connection, and then to hear that the gate is shut: a silent MySQL does not keep
/// this instance from a Redis that is back.
const CONNECTION_MAX: Duration = Duration::from_millis(200);
const HEARING_MAX: Duration = Duration::from_secs(1);

impl Gate {
    /// A Redis that is not the one that was proved before may lack what others accepted: it is proved when every
    /// live instance has said what it accepted last, and all of that is there. Until then nobody sells on it.
    pub(super) async fn witness(
        &self,
        read: &mut MultiplexedConnection,
        known: &ShardState,
        server: &str,
    ) -> Result<(), Unproved> {
        let shard = self.keys.shard();
        let own = (&*self.instance, self.own_last());
        self.note_told(false);
        self.has_met.store(true, Ordering::Relaxed);
        let said = witnesses::say(&self.pool, shard, own, server).await;
        let Some(witnessed) = said.map_err(Unproved::Database)? else {
            return Ok(());
        };
        // Behind an outage of MySQL nobody has said for a while that they are there.
        if !self.beat.is_steady(witnesses::ALIVE) {
            return Err(Unproved::WitnessesMissing(witnessed.missing.max(1)));
        }
        if witnessed.missing > 0 {
            return Err(Unproved::WitnessesMissing(witnessed.missing));
        }
        let is_settled = witnessed.last <= known.watermark;
        if !is_settled
            && reader::find(read, &self.keys, witnessed.last)
                .await?
                .is_none()
        {
            return Err(Unproved::OthersEntryMissing(witnessed.last));
        }
        // Only if nobody has met another one meanwhile.
        let proved = witnesses::prove(&self.pool, shard, server, witnessed.last).await;
        match proved.map_err(Unproved::Database)? {
            true => Ok(()),
            false => Err(Unproved::WitnessesMissing(1)),
        }
    }

    /// Tells MySQL of the server behind an open link that was proved while MySQL was away: whoever comes later waits for
    /// what the live instances say of it. The link is given up when MySQL knows better.
    pub(super) async fn say_afterwards(&self, link: &Link) -> Result<(), Unproved> {
        if !self.is_unsaid.load(Ordering::Relaxed) {
            return Ok(());
        }
        let known = shards::load(&self.pool, self.keys.shard()).await;
        let known = known.map_err(Unproved::Database)?;
        let known = known.ok_or(Unproved::NoDatabaseEpoch)?;
        let mut read = link.read.clone();
        let server = Identity::read(&mut read).await?;
        let said = match known.epoch == *link.epoch {
            true => self.witness(&mut read, &known, &server.run_id).await,
            false => Err(Unproved::OtherEpoch),
        };
        match said {
            Ok(()) => {
                let mut proved = self.proved.lock().unwrap_or_else(PoisonError::into_inner);
                *proved = Some(server);
                self.is_unsaid.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(why) => {
                if why.is_loss() || matches!(why, Unproved::OtherEpoch) {
                    self.shut(link.generation, &why.to_string());
                }
                Err(why)
            }
        }
    }

    fn own_last(&self) -> Position {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.last
    }

    /// From what is told now on others may go on without this instance on another server: none is the one of a moment
    /// ago ([`Gate::known_of_same`]) before MySQL has said so.
    fn note_told(&self, is_shut: bool) {
        *self.proved.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.said_shut.store(is_shut, Ordering::Relaxed);
    }

    /// Tells MySQL, once, that nobody needs to wait for what this instance will say of another server: it accepts
    /// nothing until it has said it.
    pub(super) async fn say_shut(&self) {
        if self.said_shut.load(Ordering::Relaxed) {
            return;
        }
        // A connection is asked before it is given out: without one, nothing was told.
        let acquired = tokio::time::timeout(CONNECTION_MAX, self.pool.acquire()).await;
        let Ok(Ok(mut connection)) = acquired else {
            return tracing::debug!("mysql does not hear that the gate is shut");
        };
        self.note_told(true);
        let own = (&*self.instance, self.own_last());
        let telling = witnesses::shut(&mut connection, self.keys.shard(), own);
        match tokio::time::timeout(HEARING_MAX, telling).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "mysql may not know that the gate is shut"),
            Err(_) => {
                // Its answer, if there is one, is nobody's.
                drop(connection.detach());
                tracing::debug!("mysql takes long to hear that the gate is shut");
            }
        }
    }
}
