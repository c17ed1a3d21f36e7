//! The hash with the epoch, when a field of it was lost: the script refuses everything until it is there again, so what
//! the journal ends with and what MySQL says is still what it said.

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd, pipe};

use super::{Gate, Unproved};
use crate::database::shards::ShardState;
use crate::ledger::reader;
use crate::ledger::scripts::SCRIPTS;

/// The fields without which nothing is decided, beside the epoch.
pub(super) const NEEDED: [&str; 5] = ["ms", "low", "number", "settled", "selling"];

/// Why a link is given up when one of them is missing.
pub(super) const LOST: &str = "redis lost a field of the hash with the epoch";

/// Whether they are all there.
pub(super) fn is_whole(values: &[Option<String>]) -> bool {
    let is_number = |value: &Option<String>| {
        let number = value.as_deref().map(str::parse::<u64>);
        number.is_some_and(|number| number.is_ok())
    };
    values.iter().all(is_number)
}

/// Whether they say that selling is stopped.
pub(super) fn is_stopped(values: &[Option<String>]) -> bool {
    let selling = NEEDED
        .iter()
        .zip(values)
        .find(|(field, _)| **field == "selling");
    selling.is_some_and(|(_, value)| value.as_deref() == Some("0"))
}

impl Gate {
    /// Writes what was lost of the hash of a Redis that is proved otherwise.
    pub(super) async fn mend_head(
        &self,
        read: &mut MultiplexedConnection,
        epoch: &str,
        known: &ShardState,
    ) -> Result<(), Unproved> {
        let last: Value = cmd("XREVRANGE")
            .arg(self.keys.journal())
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(read)
            .await?;
        let last = reader::last_of(last);
        let (position, number) = last.ok_or(Unproved::WatermarkMissing(known.watermark))?;
        // Where an entry that MySQL has not settled switched it on, it is off until somebody repeats that.
        let selling = known.selling && !self.switch.is_stopped();
        let values = [
            position.unix_ms(),
            position.low(),
            number,
            known.number.min(number),
            u64::from(selling),
        ];
        let script = &SCRIPTS.mend_head;
        let mut mend = pipe();
        mend.cmd("SCRIPT").arg("LOAD").arg(script.text).ignore();
        mend.cmd("EVALSHA")
            .arg(&script.sha)
            .arg(1)
            .arg(self.keys.epoch())
            .arg(epoch);
        for (field, value) in NEEDED.into_iter().zip(values) {
            mend.arg(field).arg(value);
        }
        let (written,): (i64,) = mend.query_async(read).await?;
        if written < 0 {
            return Err(Unproved::OtherEpoch);
        }
        let shard = self.keys.shard();
        tracing::warn!(
            shard,
            written,
            "fields of the epoch's hash were lost and are written again"
        );
        Ok(())
    }
}
