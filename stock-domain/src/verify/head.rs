//! Part three, continued: the hash with the epoch, against MySQL, the end of the journal and the books that it numbers.

use std::collections::HashMap;

use redis::{Value, pipe};
use sqlx::MySqlPool;
use stock_common::id::Position;

use super::tail::Unsettled;
use super::{Difference, VerifyError};
use crate::database::shards;
use crate::ledger::keys::{HEAD_FIELDS, Records, SENTINEL};
use crate::ledger::reader::last_of;
use crate::ledger::{ReadError, Shard};

type Fields = HashMap<String, String>;

/// Compares a shard's head.
pub(super) async fn differing(
    pool: &MySqlPool,
    shard: &Shard,
) -> Result<Vec<Difference>, VerifyError> {
    let keys = shard.keys();
    let mut link = shard.link()?;
    let mut read = pipe();
    read.atomic();
    read.cmd("HGETALL").arg(keys.epoch());
    read.cmd("TIME");
    read.cmd("XREVRANGE")
        .arg(keys.journal())
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1);
    for records in Records::ALL {
        for generation in 0..2 {
            let book = keys.records(records, generation);
            read.cmd("HGET").arg(book).arg(SENTINEL);
        }
    }
    type Sentinels = (
        Option<String>,
        Option<String>,
        Option<String>,
        Option<String>,
    );
    type Read = (Fields, (u64, u64), Value);
    type All = (
        Fields,
        (u64, u64),
        Value,
        Option<String>,
        Option<String>,
        Option<String>,
        Option<String>,
    );
    let (head, time, last, a, b, c, d): All = read
        .query_async(&mut link.read)
        .await
        .map_err(ReadError::from)?;
    let (read, sentinels): (Read, Sentinels) = ((head, time, last), (a, b, c, d));
    let (head, (seconds, micros), last) = read;
    let now = seconds * 1_000 + micros / 1_000;
    let state = shards::load(pool, keys.shard()).await?;
    let state = state.ok_or(VerifyError::NoEpoch)?;
    let number = |field: &str| head.get(field).and_then(|value| value.parse::<u64>().ok());
    let mut wrong: Vec<(&str, String)> = Vec::new();
    let unknown = head
        .keys()
        .filter(|field| !HEAD_FIELDS.contains(&field.as_str()));
    wrong.extend(unknown.map(|field| ("fields", format!("has a field {field}"))));
    if head.get("epoch") != Some(&state.epoch) {
        wrong.push((
            "epoch",
            format!("is {:?}, mysql has {}", head.get("epoch"), state.epoch),
        ));
    }
    let position = number("ms").zip(number("low"));
    let position = position.and_then(|(ms, low)| Position::from_parts(ms, low));
    let ends = (position, number("number"));
    let journal = last_of(last).map(|(at, number)| (Some(at), Some(number)));
    if Some(ends) != journal {
        let text = format!("are {ends:?}, the journal ends with {journal:?}");
        wrong.push(("ms, low, number", text));
    }
    // It is told behind each step and may lag, as a subscriber that was killed leaves it; ahead it never is.
    let settled = number("settled");
    if settled.is_none_or(|settled| settled > state.number) {
        wrong.push((
            "settled",
            format!("is {settled:?}, mysql has {}", state.number),
        ));
    }
    if number("layout").unwrap_or_default() != state.layout {
        let text = format!("is {:?}, mysql has {}", head.get("layout"), state.layout);
        wrong.push(("layout", text));
    }
    let unsettled = Unsettled::read(shard, &state).await?;
    if let Some(unsettled) = unsettled {
        let selling = unsettled.selling.unwrap_or(state.selling);
        let says = (head.get("selling").map(String::as_str)) != Some("0");
        if says != selling || !matches!(number("selling"), Some(0 | 1)) {
            let text = format!("is {:?}, should be {selling}", head.get("selling"));
            wrong.push(("selling", text));
        }
    }
    let (a, b, c, d) = sentinels;
    for (records, books) in Records::ALL.into_iter().zip([[a, b], [c, d]]) {
        let young = number(records.as_str());
        let expected = young.map(|young| {
            let older = young.saturating_sub(1);
            let [even, odd] = if young % 2 == 0 {
                [young, older]
            } else {
                [older, young]
            };
            [Some(even.to_string()), Some(odd.to_string())]
        });
        if expected.as_ref() != Some(&books) {
            let text = format!("is {young:?}, its books say {books:?}");
            wrong.push((records.as_str(), text));
        }
        // A reading of the clock; what bounds it from below is what the book holds.
        let began = number(records.began());
        if began.is_none_or(|began| began == 0 || began > now) {
            wrong.push((records.began(), format!("is {began:?}, now is {now}")));
        }
    }
    let name = |field: &str| format!("{} {field}", keys.epoch());
    let wrong = wrong.into_iter();
    Ok(wrong
        .map(|(field, text)| Difference::new("epoch", name(field), text))
        .collect())
}
