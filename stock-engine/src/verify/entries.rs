//! Verifies the journal's own rows: dense numbers, rising positions, columns that agree with the
//! payload, and exactly the postings that the payload asks for.

use std::collections::{HashMap, HashSet};

use sqlx::MySqlPool;
use stock_common::id::{Position, Span};
use stock_domain::journal::{Entry, Idempotency, Kind};
use stock_domain::posting::Posted;
use stock_domain::selling::EpochBegun;
use stock_mysql::archives::Reached;
use stock_mysql::journal::hash_bytes;
use stock_mysql::record::Rows;

use super::pass::{Courses, Read};
use super::{Difference, unreadable};

/// An entry's row of the journal, for `verify`.
#[derive(Debug)]
pub(super) struct StoredEntry {
    pub(super) position: Position,
    pub(super) number: u64,
    pub(super) payload: Vec<u8>,
    shard: u64,
    kind: String,
    version: u16,
    actor: u64,
    reference: Option<String>,
    key: Option<Vec<u8>>,
    fingerprint: Option<Vec<u8>>,
}

impl StoredEntry {
    /// Names the columns that do not agree with the payload.
    pub(super) fn differing(&self, entry: &Entry) -> Option<String> {
        let hash = |of: fn(&Idempotency) -> &str| hash_bytes(of(entry.idempotency.as_ref()?));
        let columns = [
            ("shard", self.shard == entry.position.shard()),
            ("kind", self.kind == entry.kind.as_str()),
            ("version", self.version == entry.version),
            ("actor_id", self.actor == entry.actor.0),
            ("reference", self.reference == entry.reference),
            ("key_hash", self.key == hash(|of| &of.key)),
            (
                "fingerprint",
                self.fingerprint == hash(|of| &of.fingerprint),
            ),
        ];
        let wrong: Vec<&str> = columns
            .into_iter()
            .filter(|(_, is_right)| !is_right)
            .map(|(column, _)| column)
            .collect();
        let text = format!("{} not what the payload says", wrong.join(", "));
        (!wrong.is_empty()).then_some(text)
    }
}

/// Reads the rows of entries of all shards after one position and up to another, in order, at most
/// `limit`.
///
/// # Errors
/// When MySQL does not answer.
pub(super) async fn stored(
    pool: &MySqlPool,
    Span { after, upto }: Span,
    limit: u32,
) -> Result<Vec<StoredEntry>, sqlx::Error> {
    type Columns = (
        u64,
        u64,
        u64,
        String,
        u16,
        u64,
        Option<String>,
        Hash,
        Hash,
        Vec<u8>,
    );
    type Hash = Option<Vec<u8>>;
    let rows: Vec<Columns> = sqlx::query_as(
        "SELECT id, CAST(shard AS UNSIGNED), number, kind, version, actor_id, reference, key_hash, \
         fingerprint, payload FROM journal FORCE INDEX (PRIMARY) WHERE id > ? AND id <= ? \
         ORDER BY id LIMIT ?",
    )
    .bind(after.get())
    .bind(upto.get())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let stored = |row: Columns| {
        let (id, shard, number, kind, version, actor, reference, key, fingerprint, payload) = row;
        StoredEntry {
            position: Position::new(id),
            number,
            payload,
            shard,
            kind,
            version,
            actor,
            reference,
            key,
            fingerprint,
        }
    };
    Ok(rows.into_iter().map(stored).collect())
}

/// Decodes the window's entries, and compares their columns, numbers and postings.
pub(super) fn decode(
    page: Vec<StoredEntry>,
    postings: Vec<(Position, Posted)>,
    courses: &mut Courses,
) -> Read {
    let mut own: HashMap<Position, Vec<Posted>> = HashMap::new();
    for (at, posted) in postings {
        own.entry(at).or_default().push(posted);
    }
    let mut read = Read {
        entries: Vec::with_capacity(page.len()),
        found: Vec::new(),
        rows: Rows::default(),
        stored: Vec::new(),
        dead: HashSet::new(),
    };
    for stored in page {
        let position = stored.position;
        let wrong = |text: String| Difference::new("journal", position, text);
        let Some(course) = courses.get_mut(&position.shard()) else {
            read.found
                .push(wrong("is of a shard that is none".to_owned()));
            continue;
        };
        if position > course.state.watermark {
            continue;
        }
        let posted = own.remove(&position).unwrap_or_default();
        if position <= course.archived.position {
            read.found
                .push(wrong("was archived, and is still there".to_owned()));
            continue;
        }
        let expected = course.done.number + 1;
        if stored.number != expected {
            let text = format!("number {} where {expected} should be", stored.number);
            read.found.push(wrong(text));
        }
        course.done = Reached {
            number: stored.number,
            position,
        };
        let entry = Entry::restore(position, stored.number, stored.payload.clone(), posted);
        match entry {
            Ok(entry) => {
                read.found.extend(stored.differing(&entry).map(wrong));
                read.found.extend(postings_of(&entry));
                course.selling = entry.selling.or(course.selling);
                let begun = (entry.kind == Kind::EpochBegun).then(|| entry.body::<EpochBegun>());
                if let Some(Ok(begun)) = begun {
                    course.epoch = Some(begun.epoch);
                }
                read.entries.push(entry);
            }
            Err(error) => read.found.push(unreadable(&error)),
        }
    }
    for (at, posted) in own {
        let names: Vec<String> = posted.iter().map(|of| of.account.to_string()).collect();
        let text = format!("has no entry that made it: {}", names.join(", "));
        read.found.push(Difference::new("postings", at, text));
    }
    read
}

/// Checks that an entry has exactly the postings that its payload asks for.
fn postings_of(entry: &Entry) -> Option<Difference> {
    let asked = match entry.asked() {
        Ok(asked) => asked,
        Err(error) => return Some(unreadable(&error)),
    };
    let mut left = entry.postings.clone();
    for posting in &asked {
        if posting.delta != 0 {
            let is_own = |p: &Posted| p.account == posting.account && p.delta == posting.delta;
            match left.iter().position(is_own) {
                Some(at) => drop(left.swap_remove(at)),
                None => {
                    let text =
                        format!("posting {} {:+} is missing", posting.account, posting.delta);
                    return Some(Difference::new("journal", entry.position, text));
                }
            }
        }
        left.retain(|p| {
            let is_opening = p.account == posting.account && p.seq == 1;
            !(is_opening && posting.open == Some(p.delta))
        });
    }
    (!left.is_empty()).then(|| {
        let text = format!("postings too many: {left:?}");
        Difference::new("journal", entry.position, text)
    })
}
