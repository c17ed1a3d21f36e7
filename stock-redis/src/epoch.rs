//! Epochs: `migrate` begins the first epoch of a shard's Redis, and `recover` and `rehome` begin
//! the later ones.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, cmd, pipe};
use stock_common::id::Position;
use stock_domain::account::Book;

use super::keys::{Keys, Records, SENTINEL, SENTINEL_SCORE};

/// The number of the younger generation of idempotency records when an epoch begins.
pub const FIRST_GENERATION: u64 = 1;

/// The fields of the epoch's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The epoch; empty while `recover` is at work.
    pub epoch: String,
    /// The position of the last entry.
    pub position: Position,
    /// The number of the last entry.
    pub number: u64,
}

/// Reads the epoch's hash; `None` when one of its numbers is missing.
///
/// # Errors
/// When Redis does not answer.
pub async fn head(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<Option<Head>, RedisError> {
    type Number = Option<u64>;
    type Fields = (Option<String>, Number, Number, Number);
    let (epoch, ms, low, number): Fields = cmd("HMGET")
        .arg(keys.epoch())
        .arg("epoch")
        .arg("ms")
        .arg("low")
        .arg("number")
        .query_async(connection)
        .await?;
    let position = ms
        .zip(low)
        .and_then(|(ms, low)| Position::from_parts(ms, low));
    Ok(position.zip(number).map(|(position, number)| Head {
        epoch: epoch.unwrap_or_default(),
        position,
        number,
    }))
}

/// Redis' time in Unix ms.
///
/// # Errors
/// When Redis does not answer.
pub async fn time_ms(connection: &mut MultiplexedConnection) -> Result<u64, RedisError> {
    let (seconds, micros): (u64, u64) = cmd("TIME").query_async(connection).await?;
    Ok(seconds * 1_000 + micros / 1_000)
}

/// The beginning of an epoch.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The new epoch.
    pub epoch: String,
    /// The position of its first entry, above every position ever given.
    pub position: Position,
    /// The number of that entry.
    pub number: u64,
    /// Whether selling is open.
    pub selling: bool,
    /// The entry's payload.
    pub payload: Vec<u8>,
}

/// Writes the first entry, the books, and the hash with the epoch. From here on this Redis can be
/// verified.
///
/// # Errors
/// When Redis does not answer.
pub async fn begin(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    beginning: &Beginning,
) -> Result<(), RedisError> {
    let at = beginning.position;
    let mut commands = pipe();
    commands
        .atomic()
        .cmd("DEL")
        .arg(keys.journal())
        .cmd("XADD")
        .arg(keys.journal())
        .arg(at.stream_id())
        .arg("number")
        .arg(beginning.number)
        .arg("")
        .arg(&beginning.payload)
        .cmd("ZADD")
        .arg(keys.deadlines())
        .arg(SENTINEL_SCORE)
        .arg(SENTINEL)
        .cmd("HSET")
        .arg(keys.held_units())
        .arg(SENTINEL)
        .arg(0);
    let books = Book::OF_EVERY_SHARD.map(|book| keys.book(book));
    for book in books.into_iter().chain([keys.states()]) {
        commands
            .cmd("HSET")
            .arg(book)
            .arg(SENTINEL)
            .arg(&beginning.epoch);
    }
    for records in Records::ALL {
        for number in [FIRST_GENERATION - 1, FIRST_GENERATION] {
            commands
                .cmd("HSET")
                .arg(keys.records(records, number))
                .arg(SENTINEL)
                .arg(number);
        }
    }
    begin_head(&mut commands, keys, beginning);
    commands.query_async(connection).await
}

fn begin_head(commands: &mut Pipeline, keys: &Keys, beginning: &Beginning) {
    let at = beginning.position;
    commands
        .cmd("HSET")
        .arg(keys.epoch())
        .arg("epoch")
        .arg(&beginning.epoch)
        .arg("ms")
        .arg(at.unix_ms())
        .arg("low")
        .arg(at.low())
        .arg("number")
        .arg(beginning.number)
        .arg("settled")
        .arg(beginning.number)
        .arg("selling")
        .arg(u8::from(beginning.selling));
    for records in Records::ALL {
        commands
            .arg(records.as_str())
            .arg(FIRST_GENERATION)
            .arg(records.began())
            .arg(at.unix_ms());
    }
}
