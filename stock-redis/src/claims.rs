//! Idempotency-Keys over several shards: a key is claimed on its user's shard for the shard that
//! decides.

use stock_domain::journal::Idempotency;
use stock_domain::shard_map::{SHARDS_MAX, ShardMap};
use stock_domain::verdict::{LostKey, Refusal, Verdict};

use super::records::{Claim, Known, KnownOutcome, RecordName};
use super::{DecideError, Ledger};

impl Ledger {
    /// Decides under a key. The key is claimed on the user's shard for the shard that decides. So
    /// the request is decided once, although the shard that decides may have changed. The claims
    /// are boxed, because otherwise each waiting order would keep room for them.
    pub(super) async fn under_key<F: Future<Output = Result<Verdict, DecideError>>>(
        &self,
        map: ShardMap,
        of: &Idempotency,
        coordinator: u64,
        send: impl Fn() -> F,
    ) -> Result<Verdict, DecideError> {
        let users = map.of_user(of.user);
        if users != coordinator
            && let Some(known) = Box::pin(self.claim(of, users, coordinator)).await?
        {
            return Ok(known);
        }
        let verdict = send().await?;
        let Verdict::Refused(Refusal::Claimed(before)) = verdict else {
            return Ok(verdict);
        };
        // The key was claimed for an earlier shard, which may have decided the request and must not
        // decide it any more.
        match Box::pin(self.claim(of, before, coordinator)).await? {
            Some(known) => Ok(known),
            None => {
                Box::pin(self.shard(coordinator)?.unclaim(of, before)).await?;
                send().await
            }
        }
    }

    /// Claims a key on a shard for another shard. Returns the answer, if it is known already.
    async fn claim(
        &self,
        of: &Idempotency,
        mut on: u64,
        coordinator: u64,
    ) -> Result<Option<Verdict>, DecideError> {
        // Follows the claims from shard to shard, one for each move since the key was first
        // claimed.
        for _ in 0..=SHARDS_MAX {
            if on == coordinator {
                return Ok(None);
            }
            let shard = self.shard(self.known_shard_map()?.of_number(on))?;
            let Known { print, outcome, .. } = match shard.claim(of, coordinator).await? {
                Claim::Made => return Ok(None),
                Claim::Lost => {
                    let lost = Refusal::Lost(LostKey::Records);
                    shard.note_lost(&lost);
                    return Ok(Some(Verdict::Refused(lost)));
                }
                Claim::Known(known) => known,
            };
            if print != RecordName::of(of).print {
                return Ok(Some(Verdict::Refused(Refusal::KeyReused)));
            }
            match outcome {
                KnownOutcome::Decided(replay) => return Ok(Some(Verdict::Replayed(replay))),
                KnownOutcome::Claimed(next) => on = next,
            }
        }
        Ok(None)
    }
}
