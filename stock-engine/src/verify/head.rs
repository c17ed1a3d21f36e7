//! Verifies the epoch's hash against MySQL, the end of the journal and the books of records that it
//! numbers.

use std::collections::HashMap;

use redis::{Value, pipe};
use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_domain::shard_state::ShardState;
use stock_mysql::shards;
use stock_redis::journal_stream::last_of;
use stock_redis::keys::{HEAD_FIELDS, Records, SENTINEL};
use stock_redis::{ReadError, Shard};

use super::tail::Unsettled;
use super::{Difference, VerifyError};

/// A field that the first release wrote and its instances still read.
const FIRST_RELEASE: &str = "layout";

type Fields = HashMap<String, String>;
/// The faults that were found: the fields, and a text.
type Wrong = Vec<(&'static str, String)>;

/// A shard's head, and the data that it must agree with, read at one moment.
struct Head {
    fields: Fields,
    now: u64,
    /// Position and number of the journal's last entry.
    end: Option<(Position, u64)>,
    /// The sentinels of the books of records: of accepted, then of refused ones, each by even and
    /// odd generation.
    sentinels: [[Option<String>; 2]; 2],
}

impl Head {
    async fn read(shard: &Shard) -> Result<Self, ReadError> {
        type Sentinel = Option<String>;
        type Read = (
            Fields,
            (u64, u64),
            Value,
            Sentinel,
            Sentinel,
            Sentinel,
            Sentinel,
        );
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
        let (fields, (seconds, micros), last, a, b, c, d): Read =
            read.query_async(&mut link.read).await?;
        Ok(Self {
            fields,
            now: seconds * 1_000 + micros / 1_000,
            end: last_of(last),
            sentinels: [[a, b], [c, d]],
        })
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.text(field)?.parse().ok()
    }

    /// Compares the head with MySQL's state, and with the end of the journal.
    fn of_state(&self, state: &ShardState) -> Wrong {
        let mut wrong = Wrong::new();
        let is_unknown =
            |field: &&String| *field != FIRST_RELEASE && !HEAD_FIELDS.contains(&field.as_str());
        let unknown = self.fields.keys().filter(is_unknown);
        wrong.extend(unknown.map(|field| ("fields", format!("has a field {field}"))));
        if self.text("epoch") != Some(&state.epoch) {
            let text = format!("is {:?}, mysql has {}", self.text("epoch"), state.epoch);
            wrong.push(("epoch", text));
        }
        let position = self.number("ms").zip(self.number("low"));
        let position = position.and_then(|(ms, low)| Position::from_parts(ms, low));
        let ends = position.zip(self.number("number"));
        if ends.is_none() || ends != self.end {
            let text = format!("are {ends:?}, the journal ends with {:?}", self.end);
            wrong.push(("ms, low, number", text));
        }
        // The subscriber writes `settled` after each step. A killed subscriber leaves it behind
        // MySQL; it is never ahead.
        let settled = self.number("settled");
        if settled.is_none_or(|settled| settled > state.number) {
            let text = format!("is {settled:?}, mysql has {}", state.number);
            wrong.push(("settled", text));
        }
        wrong
    }

    /// Compares `selling` with the last entry that switched it.
    fn of_selling(&self, state: &ShardState, unsettled: &Unsettled) -> Wrong {
        let selling = unsettled.selling.unwrap_or(state.selling);
        let is_right = self.text("selling") == Some(if selling { "1" } else { "0" });
        let text = format!("is {:?}, should be {selling}", self.text("selling"));
        (!is_right)
            .then_some(("selling", text))
            .into_iter()
            .collect()
    }

    /// Compares the generations with the sentinels of their books.
    fn of_records(&self) -> Wrong {
        let mut wrong = Wrong::new();
        for (records, books) in Records::ALL.into_iter().zip(&self.sentinels) {
            let young = self.number(records.as_str());
            let expected = young.map(|young| {
                let older = young.saturating_sub(1);
                let by_number = match young.is_multiple_of(2) {
                    true => [young, older],
                    false => [older, young],
                };
                by_number.map(|number| Some(number.to_string()))
            });
            if expected.as_ref() != Some(books) {
                let text = format!("is {young:?}, its books say {books:?}");
                wrong.push((records.as_str(), text));
            }
            // A clock reading has no second copy, so only its range is checked.
            let began = self.number(records.began());
            if began.is_none_or(|began| began == 0 || began > self.now) {
                let text = format!("is {began:?}, now is {}", self.now);
                wrong.push((records.began(), text));
            }
        }
        wrong
    }
}

async fn read(pool: &MySqlPool, shard: &Shard) -> Result<(Head, ShardState), VerifyError> {
    let head = Head::read(shard).await?;
    let state = shards::load(pool, shard.keys().shard()).await?;
    Ok((head, state.ok_or(VerifyError::NoEpoch)?))
}

/// Compares a shard's head.
pub(super) async fn differing(
    pool: &MySqlPool,
    shard: &Shard,
) -> Result<Vec<Difference>, VerifyError> {
    let (head, state) = read(pool, shard).await?;
    let mut wrong = head.of_state(&state);
    if let Some(unsettled) = Unsettled::read(shard, &state).await? {
        wrong.extend(head.of_selling(&state, &unsettled));
    }
    wrong.extend(head.of_records());
    let name = |field: &str| format!("{} {field}", shard.keys().epoch());
    let wrong = wrong.into_iter();
    Ok(wrong
        .map(|(field, text)| Difference::new("epoch", name(field), text))
        .collect())
}
