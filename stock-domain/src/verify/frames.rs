//! Part three, continued: what Redis keeps of the journal, against MySQL's: each entry that is settled, word for word.

use std::collections::HashMap;

use sqlx::MySqlPool;
use stock_common::id::Position;

use super::{Difference, VerifyError};
use crate::database::{archives, journal, shards};
use crate::journal::Posted;
use crate::ledger::Shard;

/// Entries read at once.
const SLICE: usize = 5_000;

/// Compares a shard's frames.
pub(super) async fn differing(
    pool: &MySqlPool,
    shard: &Shard,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = Vec::new();
    let wrong = |at: Position, text: String| Difference::new("frames", at, text);
    let number = shard.keys().shard();
    let (mut after, mut before): (Position, Option<u64>) = (Position::ZERO, None);
    loop {
        let tail = shard.tail(after, SLICE).await?;
        if let Some(error) = tail.broken {
            return Err(crate::ledger::ReadError::Entry(error).into());
        }
        let state = shards::load(pool, number)
            .await?
            .ok_or(VerifyError::NoEpoch)?;
        let archived = archives::reached(pool, number).await?.position;
        let (Some(first), Some(last)) = (tail.entries.first(), tail.entries.last()) else {
            return Ok(found);
        };
        let upto = last.position.min(state.watermark);
        let behind = Position::new(first.position.get().saturating_sub(1));
        let stored = journal::stored(pool, (behind, upto), u32::MAX).await?;
        let stored: HashMap<Position, (u64, Vec<u8>)> = stored
            .into_iter()
            .map(|of| (of.position, (of.number, of.payload)))
            .collect();
        let mut connection = pool.acquire().await?;
        let postings = journal::postings_between(&mut connection, first.position, upto).await?;
        drop(connection);
        let mut posted: HashMap<Position, Vec<Posted>> = HashMap::new();
        for (at, of) in postings {
            posted.entry(at).or_default().push(of);
        }
        for entry in &tail.entries {
            let at = entry.position;
            if before.is_some_and(|before| entry.number != before + 1) {
                found.push(wrong(
                    at,
                    format!("number {} does not follow", entry.number),
                ));
            }
            before = Some(entry.number);
            if at > state.watermark || at <= archived {
                continue;
            }
            let is_right = stored.get(&at).is_some_and(|(number, payload)| {
                *number == entry.number && *payload == entry.payload
            });
            if !is_right {
                found.push(wrong(at, "is not what mysql's journal has".to_owned()));
            }
            let mut told = entry.postings.clone();
            let mut is = posted.remove(&at).unwrap_or_default();
            told.sort_unstable_by_key(|of| (of.account, of.seq));
            is.sort_unstable_by_key(|of| (of.account, of.seq));
            if told != is {
                found.push(wrong(at, format!("posts {told:?}, mysql has {is:?}")));
            }
        }
        after = last.position;
    }
}
