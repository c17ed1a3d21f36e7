//! Repairs the epoch's hash after it lost a field.
//!
//! The script refuses every request until the field is back, so the end of the journal and MySQL's
//! state still say what the field held.

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd, pipe};
use stock_domain::shard_state::ShardState;
use stock_redis::fence::head::NEEDED;
use stock_redis::journal_stream;
use stock_redis::scripts::SCRIPTS;

use super::{Unverified, Verifier};

impl Verifier {
    /// Writes the lost fields of the epoch's hash. Everything else about this Redis is verified.
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
        // If selling was opened by an entry that MySQL has not settled, selling stays stopped until
        // somebody opens it again.
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
