//! Idempotency records: what a shard remembers under a key, and for how long.
//!
//! A record is a field of a book ([`super::keys`]). The field's name is 14 bytes of the key's hash:
//! with two bytes of Redis' own they fill one block of its allocator. The value begins with 8 bytes
//! of the fingerprint, so one in 2^64 different requests under a key is taken for the same.
//!
//! Two generations of acceptances and two of refusals are kept. The younger generation is written.
//! When it is as old as its records are remembered, it becomes the older one, and the one before it
//! is dropped whole. So a record needs no time to live of its own. `lua/decide.lua` reads and
//! writes records. `lua/claim.lua` and `lua/unclaim.lua` do so for keys whose request another shard
//! decides.

use redis::{Cmd, cmd};
use stock_common::config::Config;
use stock_common::id::Position;
use stock_domain::journal::Idempotency;
use stock_domain::verdict::{Refusal, Replay};

use super::keys::{Keys, Records};
use super::scripts::SCRIPTS;
use super::{ReadError, Shard};

/// The name of a record within its book.
pub type RecordKey = [u8; 14];

/// The field of a record, and the first bytes of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordName {
    /// The first bytes of the hash of user and key.
    pub key: RecordKey,
    /// The first half of the fingerprint.
    pub print: [u8; 8],
}

impl RecordName {
    /// The record of the answer to a request under a key.
    #[must_use]
    pub fn of(idempotency: &Idempotency) -> Self {
        let bytes = |text: &str| {
            u128::from_str_radix(text, 16)
                .unwrap_or(u128::MAX)
                .to_be_bytes()
        };
        Self::from_bytes(bytes(&idempotency.key), bytes(&idempotency.fingerprint))
    }

    /// The same, from the bytes of both hashes.
    #[must_use]
    pub fn from_bytes(key: [u8; 16], fingerprint: [u8; 16]) -> Self {
        Self {
            key: first(key),
            print: first(fingerprint),
        }
    }

    /// The record of an acceptance.
    #[must_use]
    pub fn accepted(&self, position: Position) -> Vec<u8> {
        self.value(&format!("A{}", position.stream_id()))
    }

    /// The record of a claim that was made at `at_ms`.
    #[must_use]
    pub fn claimed(&self, at_ms: u64, shard: u64) -> Vec<u8> {
        self.value(&format!("C{at_ms} {shard}"))
    }

    fn value(&self, rest: &str) -> Vec<u8> {
        [&self.print, rest.as_bytes()].concat()
    }
}

/// The first bytes of a hash.
fn first<const N: usize>(hash: [u8; 16]) -> [u8; N] {
    std::array::from_fn(|at| hash.get(at).copied().unwrap_or_default())
}

/// The record that is kept under an Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The first half of the request's fingerprint.
    pub print: [u8; 8],
    /// The outcome of the request.
    pub outcome: KnownOutcome,
    /// The time since which it is remembered, in Unix ms.
    pub since_ms: u64,
}

/// The outcome of a request under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownOutcome {
    /// The request was decided.
    Decided(Replay),
    /// Another shard decides the request.
    Claimed(u64),
}

impl Known {
    /// Parses a record.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let (print, rest) = record.split_first_chunk::<8>()?;
        let (kind, rest) = std::str::from_utf8(rest).ok()?.split_at_checked(1)?;
        let behind_time = || Some(rest.split_once(' ')?.1);
        // A position's text begins with its ms as well.
        let since = rest.split([' ', '-']).next()?.parse();
        let outcome = match kind {
            "A" => KnownOutcome::Decided(Replay::Accepted(Position::from_stream_id(rest)?)),
            "R" => KnownOutcome::Decided(Replay::Refused(Refusal::parse(behind_time()?)?)),
            "C" => KnownOutcome::Claimed(behind_time()?.parse().ok()?),
            _ => return None,
        };
        Some(Self {
            print: *print,
            outcome,
            since_ms: since.ok()?,
        })
    }
}

/// A shard's answer to a claim.
#[derive(Debug)]
pub(super) enum Claim {
    /// The key is claimed now.
    Made,
    /// The key was known before.
    Known(Known),
    /// The shard has lost its records.
    Lost,
}

/// Begins the call of a script that reads a shard's records.
fn call(sha: &str, keys: &Keys, config: &Config) -> Cmd {
    let mut call = cmd("EVALSHA");
    call.arg(sha).arg(5).arg(keys.epoch());
    for records in Records::ALL {
        call.arg(keys.records(records, 0))
            .arg(keys.records(records, 1));
    }
    call.arg(config.decide.idempotency_accepted_ms)
        .arg(config.decide.idempotency_refused_ms);
    call
}

impl Shard {
    /// Claims a key for a request that another shard decides, unless the key is known already.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer. The caller may ask again.
    pub(super) async fn claim(&self, of: &Idempotency, for_shard: u64) -> Result<Claim, ReadError> {
        let (mut link, name) = (self.live_link().await?, RecordName::of(of));
        let answer: Vec<u8> = call(&SCRIPTS.claim.sha, self.keys(), self.config())
            .arg(&name.key)
            .arg(&name.print)
            .arg(for_shard)
            .query_async(&mut link.decide)
            .await?;
        Ok(match answer.as_slice() {
            b"" => Claim::Made,
            b"LOST" => Claim::Lost,
            record => Known::parse(record).map_or(Claim::Lost, Claim::Known),
        })
    }

    /// Removes the claim of a key for another shard, if the key still has that claim.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer. The caller may ask again.
    pub(super) async fn unclaim(&self, of: &Idempotency, for_shard: u64) -> Result<(), ReadError> {
        let (mut link, name) = (self.live_link().await?, RecordName::of(of));
        let mut call = cmd("EVALSHA");
        call.arg(&SCRIPTS.unclaim.sha).arg(2);
        for generation in 0..2 {
            call.arg(self.keys().records(Records::Accepted, generation));
        }
        let _removed: i64 = call
            .arg(&name.key)
            .arg(&name.print)
            .arg(for_shard)
            .query_async(&mut link.decide)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::Position;

    use super::{Known, KnownOutcome, RecordName};
    use stock_domain::verdict::{Refusal, Replay};

    #[test]
    fn a_record_is_read_as_it_was_written_whatever_bytes_a_fingerprint_has() {
        let name = RecordName::from_bytes(
            [7; 16],
            [
                b' ', 0xff, 0, b'A', b'R', b'C', b'\n', 0x80, 1, 2, 3, 4, 5, 6, 7, 8,
            ],
        );
        let position = Position::from_parts(1_795_250_000_123, 5).unwrap();
        let known = |outcome, since_ms| {
            Some(Known {
                print: name.print,
                outcome,
                since_ms,
            })
        };
        let accepted = KnownOutcome::Decided(Replay::Accepted(position));
        assert_eq!(
            Known::parse(&name.accepted(position)),
            known(accepted, position.unix_ms())
        );
        let claimed = KnownOutcome::Claimed(5);
        assert_eq!(Known::parse(&name.claimed(123, 5)), known(claimed, 123));
        let refused = KnownOutcome::Decided(Replay::Refused(Refusal::Changed { balance: 9 }));
        assert_eq!(Known::parse(&name.value("R123 52 9")), known(refused, 123));
        for record in [
            &b""[..],
            b"1234567",
            b"12345678",
            b"12345678X1",
            b"12345678R9",
        ] {
            assert_eq!(Known::parse(record), None);
        }
    }
}
