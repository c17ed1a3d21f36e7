//! Verifies that Redis still has what entries of the last day have set: their states, and the
//! records of their keys.

use std::collections::BTreeMap;

use redis::pipe;
use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_domain::branch::CROSS_SHARD_STATE;
use stock_domain::coupon::CodeState;
use stock_domain::journal::{Entry, Kind};
use stock_domain::order::parse_offline_state_id;
use stock_domain::shard_map::ShardMap;
use stock_redis::keys::{Keys, Records};
use stock_redis::records::RecordName;
use stock_redis::{Ledger, ReadError};

use super::Difference;
use super::late::{find, value};
use super::states::{coupon_of, says};

/// A margin in ms, because a state or a record that is about to be forgotten may be gone.
const SLACK_MS: u64 = 60_000;
/// For how long, in ms, `recover` restores the state of a thing that has ended.
const DAY_MS: u64 = 24 * 3_600_000;

/// Something that an entry has set.
enum Set<'a> {
    /// A state: its id, and the value that the entry set.
    State(&'a str, &'a str),
    /// The record that is kept under an idempotency key: its name and its value.
    Record(RecordName, Vec<u8>),
}

/// The states and records that should stand on each shard, with the entry that set each.
type ByShard<'a> = BTreeMap<u64, Vec<(Position, Set<'a>)>>;

/// Compares the states and records that the entries have set with those in Redis. While Redis
/// cannot be asked, no difference is returned; the silence is reported elsewhere.
pub(super) async fn differing(
    pool: &MySqlPool,
    ledger: &Ledger,
    entries: &[Entry],
) -> Result<Vec<Difference>, sqlx::Error> {
    let Some(map) = ledger.shard_map() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (number, set) in set_by(ledger, map, entries) {
        for part in set.chunks(500) {
            match read(ledger, number, part).await {
                Ok((wrong, lacking)) => {
                    found.extend(wrong);
                    missing.extend(lacking);
                }
                Err(_unreachable) => return Ok(Vec::new()),
            }
        }
    }
    found.extend(lacking(pool, entries, missing).await?);
    Ok(found)
}

fn set_by<'a>(ledger: &Ledger, map: ShardMap, entries: &'a [Entry]) -> ByShard<'a> {
    let config = ledger.config();
    let now = ledger.redis_now_ms();
    let since = |kept: u64| now.saturating_sub(kept).saturating_add(SLACK_MS);
    let states_since = since(config.decide.marks_keep_ms.min(DAY_MS));
    let records_since = since(config.decide.idempotency_accepted_ms);
    let mut by_shard = ByShard::new();
    for entry in entries {
        let at = entry.position;
        let mut add = |shard: u64, set: Set<'a>| {
            by_shard.entry(shard).or_default().push((at, set));
        };
        for transition in &entry.transitions {
            let is_kept = ["opened:", "coupon:", "code:", "issued:"]
                .iter()
                .any(|kind| transition.id.starts_with(kind));
            // The state of an import is needed only while its file is written.
            let is_wanted = (is_kept || at.unix_ms() > states_since)
                && !transition.to.is_empty()
                && !transition.id.starts_with("import:")
                && parse_offline_state_id(&transition.id).is_none();
            if is_wanted {
                let code = CodeState::parse(&transition.to);
                if let Some(shard) = map.of_state_id(&transition.id, code) {
                    add(shard, Set::State(&transition.id, &transition.to));
                }
            }
        }
        let idempotency = entry.idempotency.as_ref();
        if let Some(of) = idempotency.filter(|_| at.unix_ms() > records_since) {
            let name = RecordName::of(of);
            add(map.of_position(at), Set::Record(name, name.accepted(at)));
        }
    }
    by_shard
}

/// Returns the differences, and the states that are missing.
async fn read<'a>(
    ledger: &Ledger,
    number: u64,
    part: &[(Position, Set<'a>)],
) -> Result<(Vec<Difference>, Vec<(Position, &'a str, &'a str)>), ReadError> {
    let shard = ledger.shard(number)?;
    let mut link = shard.link()?;
    let keys: &Keys = shard.keys();
    let mut commands = pipe();
    for (_, set) in part {
        match set {
            Set::State(id, _) => {
                commands.cmd("HGET").arg(keys.states()).arg(id);
                commands.cmd("HGET").arg(keys.states()).arg(id);
            }
            Set::Record(name, _) => {
                for generation in 0..2 {
                    let book = keys.records(Records::Accepted, generation);
                    commands.cmd("HGET").arg(book).arg(&name.key);
                }
            }
        }
    }
    let values: Vec<Option<Vec<u8>>> = commands.query_async(&mut link.read).await?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for ((at, set), values) in part.iter().zip(values.chunks(2)) {
        let mut known = values.iter().flatten();
        match set {
            Set::Record(_, record) => {
                if !known.any(|value| value == record) {
                    let text = "what it decided is not remembered under its key".to_owned();
                    found.push(Difference::new("records", at, text));
                }
            }
            Set::State(id, next) => match known.next() {
                None => missing.push((*at, *id, *next)),
                // The coordinator sets this state once, for good.
                Some(value) if id.starts_with(CROSS_SHARD_STATE) => {
                    let is = String::from_utf8_lossy(value);
                    if is.split('@').next() != Some(next) {
                        let text = format!("is {is:?}, entry {at} set {next}");
                        found.push(Difference::new("states", id, text));
                    }
                }
                Some(_) => {}
            },
        }
    }
    Ok((found, missing))
}

/// Differences for the missing states that should be there: those of cross-shard orders, and those
/// that MySQL knows.
async fn lacking(
    pool: &MySqlPool,
    entries: &[Entry],
    missing: Vec<(Position, &str, &str)>,
) -> Result<Vec<Difference>, sqlx::Error> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = missing.iter().map(|(_, id, _)| *id).collect();
    let says = says(pool, &ids).await?;
    let coupons = missing
        .iter()
        .filter_map(|(_, id, next)| coupon_of(id, next));
    let over = "COALESCE(valid_to < NOW(3) - INTERVAL 23 HOUR, 0)";
    let over = find(pool, "coupons", "id", over, coupons).await?;
    let held = entries
        .iter()
        .filter(|entry| entry.kind == Kind::BranchHeld);
    let held = find(
        pool,
        "branches",
        "id",
        "state",
        held.map(|of| of.position.get()),
    )
    .await?;
    let mut found = Vec::new();
    for (at, id, next) in missing {
        let is_over = coupon_of(id, next)
            .is_some_and(|coupon| value(&over, Position::new(coupon), 0) == Some("1"));
        let expected = match says.get(id) {
            Some(expected) => expected.clone(),
            None if id.starts_with(CROSS_SHARD_STATE) => Some(next.to_owned()),
            None if id.starts_with("branch:") => value(&held, at, 0).map(str::to_owned),
            None => None,
        };
        if let Some(expected) = expected.filter(|_| !is_over) {
            let text = format!("is not there, and should be {expected}");
            found.push(Difference::new("states", id, text));
        }
    }
    Ok(found)
}
