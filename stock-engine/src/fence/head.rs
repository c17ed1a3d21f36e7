//! The hash with the epoch, when a field of it was lost: the script refuses everything until it is there again, so what
//! the journal ends with and what MySQL says is still what it said.

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd, pipe};
use stock_domain::shard_state::ShardState;
use stock_redis::fence::head::NEEDED;
use stock_redis::journal_stream;
use stock_redis::scripts::SCRIPTS;

use super::{Unverified, Verifier};

impl Verifier {
    /// Writes what was lost of the hash of a Redis that is proved otherwise.
    pub(super) async fn mend_head(
        &self,
        read: &mut MultiplexedConnection,
        epoch: &str,
        known: &ShardState,
    ) -> Result<(), Unverified> {
        let last: Value = cmd("XREVRANGE")
            .arg(self.fence.keys.journal())
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(read)
            .await?;
        let last = journal_stream::last_of(last);
        let (position, number) = last.ok_or(Unverified::WatermarkMissing(known.watermark))?;
        // Where an entry that MySQL has not settled switched it on, it is off until somebody repeats that.
        let selling = known.selling && !self.fence.is_stopped();
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
            .arg(self.fence.keys.epoch())
            .arg(epoch);
        for (field, value) in NEEDED.into_iter().zip(values) {
            mend.arg(field).arg(value);
        }
        let (written,): (i64,) = mend.query_async(read).await?;
        if written < 0 {
            return Err(Unverified::OtherEpoch);
        }
        let shard = self.fence.keys.shard();
        tracing::warn!(
            shard,
            written,
            "fields of the epoch's hash were lost and are written again"
        );
        Ok(())
    }
}
