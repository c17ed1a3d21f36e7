//! Reads the journal: one entry by its position, or the entries after the watermark.
//!
//! A frame's stream id is the position of its first entry. The positions of its other entries
//! follow by one. So an entry is in the newest frame that does not begin after it.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value, cmd, pipe};
use stock_common::id::Position;
use stock_domain::journal::{Entry, EntryError};

use super::keys::Keys;

/// The most frames that are read at once: as many as `apply_entries_max` may be, in case each frame
/// holds one entry.
const FRAMES_MAX: usize = 1_024;
/// The most payload bytes in one batch, so that a transaction's statements stay below MariaDB's
/// default `max_allowed_packet` of 16 MiB.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most postings in one batch, unless a single entry has more. So a transaction stays short
/// when entries are large, as those of imports are.
const BATCH_POSTINGS_MAX: usize = 20_000;

/// One stream item: the position and number of its first entry, and the posted levels and payload
/// of each entry.
struct Frame {
    first: Position,
    number: u64,
    entries: Vec<(String, Vec<u8>)>,
}

/// An entry as it stands in a frame.
struct Stored {
    position: Position,
    number: u64,
    posted_levels: String,
    payload: Vec<u8>,
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
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let first = Position::from_stream_id(&text(&id)?)?;
        let mut pairs = Vec::with_capacity(fields.len() / 2);
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let (Value::BulkString(name), Value::BulkString(value)) = (name, value) else {
                return None;
            };
            pairs.push((String::from_utf8(name).ok()?, value));
        }
        let mut entries = pairs.into_iter();
        let (name, number) = entries.next()?;
        let number = text(&number)?.parse().ok().filter(|_| name == "number")?;
        Some(Self {
            first,
            number,
            entries: entries.collect(),
        })
    }

    /// The frames of a reply, up to the first item that is none, and whether there is such an item.
    fn parse_all(reply: Value) -> (Vec<Self>, bool) {
        let Value::Array(items) = reply else {
            return (Vec::new(), false);
        };
        let all = items.len();
        let frames: Vec<Self> = items.into_iter().map_while(Self::parse).collect();
        let is_cut = frames.len() < all;
        (frames, is_cut)
    }

    fn into_entries(self) -> impl Iterator<Item = Stored> {
        let (first, number) = (self.first, self.number);
        (0u64..)
            .zip(self.entries)
            .map(move |(index, (posted_levels, payload))| Stored {
                position: first.plus(index),
                number: number.saturating_add(index),
                posted_levels,
                payload,
            })
    }
}

impl Stored {
    fn decode(self) -> Result<Entry, EntryError> {
        Entry::decode(
            self.position,
            self.number,
            &self.posted_levels,
            self.payload,
        )
    }
}

/// The position and number of the last entry in a reply's last frame.
pub fn last_of(reply: Value) -> Option<(Position, u64)> {
    let frame = Frame::parse_all(reply).0.pop()?;
    let last = frame.into_entries().last()?;
    Some((last.position, last.number))
}

/// Finds the entry at `position`, with its number; `None` when it is not in the journal.
///
/// # Errors
/// When Redis does not answer.
pub async fn find(
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
    let frame = Frame::parse_all(reply).0.pop();
    let found = frame.and_then(|frame| {
        frame
            .into_entries()
            .find(|entry| entry.position == position)
    });
    Ok(found.map(|stored| (stored.number, stored.decode())))
}

/// The positions of all entries from `from` on.
pub async fn positions_from(
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
        let (frames, _) = Frame::parse_all(reply);
        let Some(last) = frames.last() else {
            return Ok(positions);
        };
        start = format!("({}", last.first.stream_id());
        let read = frames.into_iter().flat_map(Frame::into_entries);
        positions.extend(read.map(|entry| entry.position));
    }
}

/// The entries of the journal after a position, and the epoch under which they were read.
#[derive(Debug)]
pub struct Tail {
    /// The epoch in Redis when the entries were read; `None` when Redis has none.
    pub epoch: Option<String>,
    /// The number of the entry at the position asked for; `None` when it is not there.
    pub number: Option<u64>,
    /// The entries that follow, in order. The list ends early at an item that cannot be decoded.
    pub entries: Vec<Entry>,
    /// The reason, if the list ends early.
    pub broken: Option<EntryError>,
    /// The position at which the frame of the last entry begins.
    pub last_frame: Position,
    /// The position that was asked for.
    pub after: Position,
    /// Entries in an average frame, so that the next read asks for as many frames as it needs.
    pub frame_entries: usize,
}

impl Tail {
    /// Keeps the first entries, and returns the rest as a tail after them; `None` where there is no
    /// rest.
    pub fn split_off(&mut self, at: usize) -> Option<Self> {
        let rest = self.entries.split_off(at.min(self.entries.len()));
        let last = self.entries.last().filter(|_| !rest.is_empty())?;
        let rest = Self {
            epoch: self.epoch.clone(),
            number: Some(last.number),
            entries: rest,
            broken: self.broken.take(),
            last_frame: self.last_frame,
            after: last.position,
            frame_entries: self.frame_entries,
        };
        // The frame of the last kept entry is not known, so no frame is dropped for it.
        self.last_frame = Position::ZERO;
        Some(rest)
    }
}

/// The amount to read at once.
#[derive(Debug, Clone, Copy)]
pub struct Portion {
    /// The most entries.
    pub entries_max: usize,
    /// Entries that a frame is expected to hold. A rush fills the frames, a quiet hour does not.
    pub frame_entries: usize,
}

/// Reads entries after `after`, together with the epoch, in one step.
///
/// # Errors
/// When Redis does not answer.
pub async fn tail(
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
    let (mut frames, _) = Frame::parse_all(before);
    let (more, is_cut) = Frame::parse_all(behind);
    frames.extend(more);
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
    let (mut bytes, mut postings) = (0, 0);
    for frame in frames {
        let first = frame.first;
        for stored in frame.into_entries() {
            if stored.position == after {
                tail.number = Some(stored.number);
            }
            if stored.position <= after {
                continue;
            }
            bytes += stored.payload.len();
            // A single entry is always taken, however large it is: the next batch would be no
            // smaller.
            let is_over = bytes > BATCH_BYTES_MAX || postings > BATCH_POSTINGS_MAX;
            if tail.entries.len() >= entries_max || (is_over && !tail.entries.is_empty()) {
                return Ok(tail);
            }
            match stored.decode() {
                Ok(entry) => {
                    postings += entry.postings.len();
                    tail.entries.push(entry);
                }
                Err(error) => {
                    tail.broken = Some(error);
                    return Ok(tail);
                }
            }
            tail.last_frame = first;
        }
    }
    if is_cut {
        tail.broken = Some(EntryError::Malformed {
            position: tail.last_frame,
            reason: "the item behind this frame is not a frame".to_owned(),
        });
    }
    Ok(tail)
}
