//! Verifies the part of the journal that Redis still has: each settled entry equals MySQL's, word
//! for word.

use std::collections::HashMap;

use sqlx::MySqlPool;
use stock_common::id::{Position, Span};
use stock_domain::account::Account;
use stock_domain::posting::Posted;
use stock_mysql::{archives, journal, quarantine, shards};
use stock_redis::Shard;

use super::entries::stored;
use super::{Difference, VerifyError};

/// Entries read at once.
const SLICE: usize = 5_000;

/// Compares a shard's frames.
pub(super) async fn differing(
    pool: &MySqlPool,
    shard: &Shard,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = unsettled(pool, shard).await?;
    let wrong = |at: Position, text: String| Difference::new("frames", at, text);
    let number = shard.keys().shard();
    let (mut after, mut before) = (Position::ZERO, None::<u64>);
    loop {
        let tail = shard.tail(after, SLICE).await?;
        if let Some(error) = tail.broken {
            return Err(stock_redis::ReadError::Entry(error).into());
        }
        let state = shards::load(pool, number)
            .await?
            .ok_or(VerifyError::NoEpoch)?;
        let archived = archives::reached(pool, number).await?.position;
        let released = quarantine::released(pool, number).await?;
        let (Some(first), Some(last)) = (tail.entries.first(), tail.entries.last()) else {
            return Ok(found);
        };
        let upto = last.position.min(state.watermark);
        let behind = Position::new(first.position.get().saturating_sub(1));
        let span = Span {
            after: behind,
            upto,
        };
        let stored = stored(pool, span, u32::MAX).await?;
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
            let plain = |of: &Posted| comparable(of, at, &released);
            let mut told: Vec<Posted> = entry.postings.iter().map(plain).collect();
            let is = posted.remove(&at).unwrap_or_default();
            let mut is: Vec<Posted> = is.iter().map(plain).collect();
            told.sort_unstable_by_key(|of| (of.account, of.seq, of.delta));
            is.sort_unstable_by_key(|of| (of.account, of.seq, of.delta));
            if told != is {
                found.push(wrong(at, format!("posts {told:?}, mysql has {is:?}")));
            }
        }
        after = last.position;
    }
}

/// Checks that entries which MySQL has before they are settled, as of an order under row locks, are
/// in Redis.
async fn unsettled(pool: &MySqlPool, shard: &Shard) -> Result<Vec<Difference>, VerifyError> {
    const LOOKED_AT_MAX: u32 = 100;
    let ids: Vec<u64> = sqlx::query_scalar(
        "SELECT j.id FROM shards s JOIN journal j ON j.shard = s.shard AND j.number > s.number \
         WHERE s.shard = ? ORDER BY j.number DESC LIMIT ?",
    )
    .bind(shard.keys().shard())
    .bind(LOOKED_AT_MAX)
    .fetch_all(pool)
    .await?;
    let mut found = Vec::new();
    for at in ids.into_iter().map(Position::new) {
        if shard.find(at).await?.is_none() {
            let text = "is not settled, and not in redis".to_owned();
            found.push(Difference::new("journal", at, text));
        }
    }
    Ok(found)
}

/// A posting without the numbers that the end of a quarantine may have changed.
fn comparable(of: &Posted, at: Position, released: &HashMap<Account, Position>) -> Posted {
    match released.get(&of.account) {
        Some(upto) if at <= *upto => Posted {
            seq: 0,
            balance_after: 0,
            ..*of
        },
        Some(_) | None => *of,
    }
}
