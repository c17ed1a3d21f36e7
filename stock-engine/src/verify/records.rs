//! Verifies the idempotency records in Redis against the keys that MySQL's journal names.
//!
//! An accepted record must belong to the entry that it names. Only Redis knows claims and refusals,
//! so they must have their form, and a time that is not in the future. [`super::kept`] checks that
//! no accepted record is missing.

use std::collections::HashMap;

use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_domain::verdict::Replay;
use stock_mysql::{archives, journal, shards};
use stock_redis::keys::{Records, SENTINEL};
use stock_redis::records::{Known, KnownOutcome, RecordKey, RecordName};
use stock_redis::scan::Scan;
use stock_redis::{Ledger, Shard};

use super::late::find;
use super::round::Due;
use super::tail::Unsettled;
use super::{Difference, VerifyError};

type Record = (Vec<u8>, Vec<u8>);

/// Compares a shard's books of records.
pub(super) async fn differing(
    pool: &MySqlPool,
    ledger: &Ledger,
    shard: &Shard,
    due: Due,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = Vec::new();
    for records in Records::ALL {
        for generation in 0..2 {
            let book = shard.keys().records(records, generation);
            let mut scan = Scan::hash(&book);
            while let Some(page) = scan.page_on::<Vec<Record>>(shard).await? {
                let is_due = |(key, _): &Record| due.has(&hex::encode(key));
                let page: Vec<Record> = page.into_iter().filter(is_due).collect();
                found.extend(compare(pool, ledger, shard, records, &page).await?);
            }
        }
    }
    Ok(found)
}

async fn compare(
    pool: &MySqlPool,
    ledger: &Ledger,
    shard: &Shard,
    records: Records,
    page: &[Record],
) -> Result<Vec<Difference>, VerifyError> {
    let now = shard.redis_now_ms().saturating_add(60_000);
    let shards = ledger.shards().len() as u64;
    let mut found = Vec::new();
    let mut accepted: Vec<(&Record, Position)> = Vec::new();
    for record in page.iter().filter(|(key, _)| key != SENTINEL.as_bytes()) {
        let known = Known::parse(&record.1).filter(|_| record.0.len() == size_of::<RecordKey>());
        let is_here = match known.as_ref().map(|known| &known.outcome) {
            Some(KnownOutcome::Decided(Replay::Accepted(at))) => {
                accepted.push((record, *at));
                records == Records::Accepted
            }
            Some(KnownOutcome::Decided(Replay::Refused(_))) => records == Records::Refused,
            Some(KnownOutcome::Claimed(of)) => records == Records::Accepted && *of < shards,
            None => false,
        };
        if !is_here || known.is_some_and(|known| known.since_ms > now) {
            found.push(wrong(record, "is none that this book may hold"));
        }
    }
    found.extend(accepted_of(pool, shard, accepted).await?);
    Ok(found)
}

/// Accepted records that do not belong to the entries that they name.
async fn accepted_of(
    pool: &MySqlPool,
    shard: &Shard,
    accepted: Vec<(&Record, Position)>,
) -> Result<Vec<Difference>, VerifyError> {
    let ids = accepted.iter().map(|(_, at)| at.get());
    let columns = "LOWER(HEX(key_hash)), LOWER(HEX(fingerprint))";
    let entries = find(pool, "journal", "id", columns, ids).await?;
    let mut suspects = Vec::new();
    for (record, at) in accepted {
        let says = entries.get(&at).and_then(|row| {
            let [key, fingerprint] = row.as_slice() else {
                return None;
            };
            name_of(key.as_deref()?, fingerprint.as_deref()?)
        });
        let is_right = says.is_some_and(|name| is_of(record, &name, at));
        if !is_right {
            suspects.push((record, at));
        }
    }
    if suspects.is_empty() {
        return Ok(Vec::new());
    }
    let state = shards::load(pool, shard.keys().shard()).await?;
    let state = state.ok_or(VerifyError::NoEpoch)?;
    let unsettled = Unsettled::read(shard, &state).await?.unwrap_or_default();
    let mut removed: HashMap<u64, Position> = HashMap::new();
    let mut found = Vec::new();
    for (record, at) in suspects {
        let known = RecordKey::try_from(record.0.as_slice()).ok();
        let known = known.and_then(|key| unsettled.records.get(&key));
        if known.is_some_and(|(position, name)| *position == at && is_of(record, name, at)) {
            continue;
        }
        let archived = match removed.get(&at.shard()) {
            Some(archived) => *archived,
            None => {
                let archived = archives::reached(pool, at.shard()).await?.position;
                removed.insert(at.shard(), archived);
                archived
            }
        };
        if at > archived || entries.contains_key(&at) {
            found.push(wrong(
                record,
                &format!("names entry {at}, which was not decided under it"),
            ));
        }
    }
    Ok(found)
}

fn is_of((key, value): &Record, name: &RecordName, at: Position) -> bool {
    key.as_slice() == name.key && *value == name.accepted(at)
}

fn name_of(key: &str, fingerprint: &str) -> Option<RecordName> {
    let bytes = |text: &str| <[u8; 16]>::try_from(journal::hash_bytes(text)?).ok();
    Some(RecordName::from_bytes(bytes(key)?, bytes(fingerprint)?))
}

fn wrong((key, value): &Record, text: &str) -> Difference {
    let value = String::from_utf8_lossy(value.get(8..).unwrap_or_default());
    let text = format!("{value:?} {text}");
    Difference::new("records", hex::encode(key), text)
}
