//! Reading the journal: one entry by its position, or what follows the watermark.
//!
//! A frame's stream id is its first entry's position; the others follow by one. So an entry is found
//! by the newest frame that does not begin behind it.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value, cmd, pipe};
use stock_common::id::Position;

use super::keys::Keys;
use crate::journal::{Entry, EntryError};

/// Frames read at once: `apply_entries_max` entries even if every frame holds few.
const FRAMES_MAX: usize = 1_024;
/// Payload bytes in one batch: with it a transaction's statements stay below MariaDB's default
/// `max_allowed_packet` of 16 MiB.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One stream item: its first position, and facts and payload of each entry.
struct Frame {
    first: Position,
    entries: Vec<(String, Vec<u8>)>,
}

impl Frame {
    fn parse(item: Value) -> Option<Self> {
        let Value::Array(parts) = item else {
            return None;
        };
        let mut parts = parts.into_iter();
        let (Some(Value::BulkString(id)), Some(Value::Array(fields))) =
            (parts.next(), parts.next())
        else {
            return None;
        };
        let first = Position::from_stream_id(std::str::from_utf8(&id).ok()?)?;
        let mut entries = Vec::with_capacity(fields.len() / 2);
        let mut fields = fields.into_iter();
        while let (Some(facts), Some(payload)) = (fields.next(), fields.next()) {
            let (Value::BulkString(facts), Value::BulkString(payload)) = (facts, payload) else {
                return None;
            };
            entries.push((String::from_utf8(facts).ok()?, payload));
        }
        Some(Self { first, entries })
    }

    fn parse_all(reply: Value) -> Vec<Self> {
        let Value::Array(items) = reply else {
            return Vec::new();
        };
        items.into_iter().filter_map(Self::parse).collect()
    }

    fn into_positions(self) -> impl Iterator<Item = (Position, (String, Vec<u8>))> {
        let first = self.first;
        (0u64..)
            .zip(self.entries)
            .map(move |(index, entry)| (first.plus(index), entry))
    }
}

/// Finds the entry at `position`; `None` when it is not in the journal. The first part is its number.
///
/// # Errors
/// When Redis does not answer.
pub(crate) async fn find(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    position: Position,
) -> Result<Option<(u64, Result<Entry, EntryError>)>, RedisError> {
    let reply: Value = cmd("XREVRANGE")
        .arg(keys.journal())
        .arg(position.stream_id())
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query_async(connection)
        .await?;
    let frame = Frame::parse_all(reply).pop();
    let found = frame.and_then(|frame| frame.into_positions().find(|(at, _)| *at == position));
    Ok(found.map(|(at, (facts, payload))| {
        let entry = Entry::decode(at, &facts, payload);
        (entry.as_ref().map_or(0, |entry| entry.number), entry)
    }))
}

/// The positions of all entries from `from` on.
pub(super) async fn positions_from(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    from: Position,
) -> Result<Vec<Position>, RedisError> {
    let mut positions = Vec::new();
    let mut start = from.stream_id();
    loop {
        let reply: Value = cmd("XRANGE")
            .arg(keys.journal())
            .arg(&start)
            .arg("+")
            .arg("COUNT")
            .arg(64)
            .query_async(connection)
            .await?;
        let frames = Frame::parse_all(reply);
        let Some(last) = frames.last() else {
            return Ok(positions);
        };
        start = format!("({}", last.first.stream_id());
        let read = frames.into_iter().flat_map(Frame::into_positions);
        positions.extend(read.map(|(at, _)| at));
    }
}

/// What the journal holds behind a position, and the epoch it was read under.
#[derive(Debug)]
pub struct Tail {
    /// The epoch in Redis when the entries were read; `None` when Redis has none.
    pub epoch: Option<String>,
    /// The number of the entry at the position asked for; `None` when it is not there.
    pub number: Option<u64>,
    /// What follows, in order; it ends early at something that cannot be decoded.
    pub entries: Vec<Entry>,
    /// Why it ends early.
    pub broken: Option<EntryError>,
    /// Where the frame of the last entry begins.
    pub last_frame: Position,
    /// What was asked for: what follows this position.
    pub after: Position,
    /// Entries in an average frame, so that the next read asks for as many frames as it needs.
    pub frame_entries: usize,
}

/// How much to read at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portion {
    /// Entries at most.
    pub entries_max: usize,
    /// Entries that a frame is believed to hold: a rush fills them, a quiet hour does not.
    pub frame_entries: usize,
}

/// Reads entries behind `after`, together with the epoch, in one step.
///
/// # Errors
/// When Redis does not answer.
pub(crate) async fn tail(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    after: Position,
    Portion {
        entries_max,
        frame_entries,
    }: Portion,
) -> Result<Tail, RedisError> {
    let frames_max = (entries_max / frame_entries.max(1) + 2).min(FRAMES_MAX);
    let (epoch, before, behind): (Option<String>, Value, Value) = pipe()
        .atomic()
        .cmd("HGET")
        .arg(keys.epoch())
        .arg("epoch")
        .cmd("XREVRANGE")
        .arg(keys.journal())
        .arg(after.stream_id())
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .cmd("XRANGE")
        .arg(keys.journal())
        .arg(format!("({}", after.stream_id()))
        .arg("+")
        .arg("COUNT")
        .arg(frames_max)
        .query_async(connection)
        .await?;
    let mut frames = Frame::parse_all(before);
    frames.extend(Frame::parse_all(behind));
    let all: usize = frames.iter().map(|frame| frame.entries.len()).sum();
    let mut tail = Tail {
        epoch,
        number: None,
        entries: Vec::with_capacity(entries_max.min(all)),
        broken: None,
        last_frame: after,
        after,
        frame_entries: all.checked_div(frames.len()).unwrap_or(frame_entries),
    };
    let mut bytes = 0;
    for frame in frames {
        let first = frame.first;
        for (position, (facts, payload)) in frame.into_positions() {
            if position == after {
                tail.number = facts
                    .split(' ')
                    .next()
                    .and_then(|number| number.parse().ok());
            }
            if position <= after {
                continue;
            }
            bytes += payload.len();
            if tail.entries.len() >= entries_max || bytes > BATCH_BYTES_MAX {
                return Ok(tail);
            }
            match Entry::decode(position, &facts, payload) {
                Ok(entry) => tail.entries.push(entry),
                Err(error) => {
                    tail.broken = Some(error);
                    return Ok(tail);
                }
            }
            tail.last_frame = first;
        }
    }
    Ok(tail)
}
