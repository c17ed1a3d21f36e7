//! The journal and its postings in MySQL: the lasting copy of the ledger.

use std::collections::{BTreeSet, HashSet};

use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::account::{Account, AccountKind};
use stock_domain::journal::{Entry, EntryError};
use stock_domain::posting::Posted;

use super::archives::{self, Reached};
use super::rows::{Binding, MultiRow, padded};

/// Most entries have neither a reference nor a key. Their statement leaves out those columns,
/// because each parameter costs time on the server.
static PLAIN_ENTRIES: MultiRow = MultiRow::new(
    "INSERT INTO journal (id, shard, number, kind, version, actor_id, payload) VALUES",
    "(?, ?, ?, ?, ?, ?, ?)",
    "",
);
static ENTRIES: MultiRow = MultiRow::new(
    "INSERT INTO journal (id, shard, number, kind, version, actor_id, payload, reference, \
     key_hash, fingerprint) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);
static POSTINGS: MultiRow = MultiRow::new(
    "INSERT INTO postings (kind, owner_id, place_id, seq, journal_id, delta, balance_after) VALUES",
    "(?, ?, ?, ?, ?, ?, ?)",
    "",
);

/// Decodes 32 hexadecimal digits to 16 bytes; `None` for anything else.
#[must_use]
pub fn hash_bytes(hex: &str) -> Option<Vec<u8>> {
    hex::decode(hex).ok().filter(|bytes| bytes.len() == 16)
}

fn bind_plain<'q>(query: Binding<'q>, entry: &'q Entry) -> Binding<'q> {
    query
        .bind(entry.position.get())
        .bind(entry.position.shard())
        .bind(entry.number)
        .bind(entry.kind.as_str())
        .bind(entry.version)
        .bind(entry.actor.0)
        .bind(entry.payload.as_slice())
}

/// Inserts entries and their postings, without the postings that are kept `aside`.
///
/// # Errors
/// When MySQL does not answer, or an entry is there already.
pub async fn insert(
    connection: &mut MySqlConnection,
    entries: &[&Entry],
    aside: &HashSet<(Position, Account)>,
) -> Result<(), sqlx::Error> {
    let (plain, full): (Vec<&Entry>, Vec<&Entry>) = entries
        .iter()
        .partition(|entry| entry.reference.is_none() && entry.idempotency.is_none());
    PLAIN_ENTRIES
        .execute_sized(
            connection,
            &plain,
            |entry| entry.payload.len(),
            |query, entry| bind_plain(query, entry),
        )
        .await?;
    ENTRIES
        .execute_sized(
            connection,
            &full,
            |entry| entry.payload.len() + 191,
            |query, entry| {
                let keys = entry.idempotency.as_ref();
                bind_plain(query, entry)
                    .bind(entry.reference.as_deref())
                    .bind(keys.and_then(|keys| hash_bytes(&keys.key)))
                    .bind(keys.and_then(|keys| hash_bytes(&keys.fingerprint)))
            },
        )
        .await?;
    let postings: Vec<(Position, Posted)> = entries
        .iter()
        .flat_map(|entry| {
            entry
                .postings
                .iter()
                .map(|posted| (entry.position, *posted))
        })
        .filter(|(position, posted)| {
            aside.is_empty() || !aside.contains(&(*position, posted.account))
        })
        .collect();
    insert_postings(connection, &postings).await
}

/// Inserts postings of entries.
///
/// # Errors
/// When MySQL does not answer, or the account has another posting with the same `seq` already.
pub async fn insert_postings(
    connection: &mut MySqlConnection,
    postings: &[(Position, Posted)],
) -> Result<(), sqlx::Error> {
    POSTINGS
        .execute(connection, postings, |query, (position, posted)| {
            query
                .bind(posted.account.kind.number())
                .bind(posted.account.owner)
                .bind(posted.account.location)
                .bind(posted.seq)
                .bind(position.get())
                .bind(posted.delta)
                .bind(posted.balance_after)
        })
        .await
}

/// Removes an entry and its postings.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(
    connection: &mut MySqlConnection,
    position: Position,
) -> Result<(), sqlx::Error> {
    const TABLES: [&str; 3] = [
        "DELETE FROM postings WHERE journal_id = ?",
        "DELETE FROM quarantined_postings WHERE journal_id = ?",
        "DELETE FROM journal WHERE id = ?",
    ];
    for text in TABLES {
        sqlx::query(text)
            .bind(position.get())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The positions of a shard's entries between two positions, both included.
///
/// # Errors
/// When MySQL does not answer.
pub async fn existing(
    connection: &mut MySqlConnection,
    shard: u64,
    first: Position,
    last: Position,
) -> Result<Vec<Position>, sqlx::Error> {
    let ids: Vec<u64> =
        sqlx::query_scalar("SELECT id FROM journal WHERE shard = ? AND id BETWEEN ? AND ?")
            .bind(shard)
            .bind(first.get())
            .bind(last.get())
            .fetch_all(connection)
            .await?;
    Ok(ids.into_iter().map(Position::new).collect())
}

/// The positions of a shard's entries that are recorded and not settled, in order. Their numbers
/// are above `number`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn recorded_behind(
    pool: &MySqlPool,
    shard: u64,
    number: u64,
) -> Result<Vec<Position>, sqlx::Error> {
    let ids: Vec<u64> =
        sqlx::query_scalar("SELECT id FROM journal WHERE shard = ? AND number > ? ORDER BY number")
            .bind(shard)
            .bind(number)
            .fetch_all(pool)
            .await?;
    Ok(ids.into_iter().map(Position::new).collect())
}

/// Returns those of the given positions at which there is neither an entry nor an archived entry.
///
/// # Errors
/// When MySQL does not answer.
pub async fn missing(
    pool: &MySqlPool,
    positions: &[Position],
) -> Result<Vec<Position>, sqlx::Error> {
    static FIND: MultiRow = MultiRow::new("SELECT id FROM journal WHERE", "id = ?", "");
    let mut missing: BTreeSet<Position> = positions.iter().copied().collect();
    for part in positions.chunks(1_024) {
        let ids = padded(part);
        let mut query = sqlx::query_scalar(AssertSqlSafe(FIND.alternatives(ids.len())));
        for id in &ids {
            query = query.bind(id.get());
        }
        for found in query.fetch_all(pool).await? {
            missing.remove(&Position::new(found));
        }
    }
    let shards: BTreeSet<u64> = missing.iter().map(|position| position.shard()).collect();
    for shard in shards {
        let archived = archives::reached(pool, shard).await?.position;
        missing.retain(|position| position.shard() != shard || *position > archived);
    }
    Ok(missing.into_iter().collect())
}

type PostingRow = (u64, String, u64, u64, u64, i64, i64);

/// The postings of entries between two positions, both included, by entry. Postings that are kept
/// aside are included.
///
/// # Errors
/// When MySQL does not answer.
pub async fn postings_between(
    connection: &mut MySqlConnection,
    first: Position,
    last: Position,
) -> Result<Vec<(Position, Posted)>, sqlx::Error> {
    let rows: Vec<PostingRow> = sqlx::query_as(
        "SELECT journal_id, CAST(kind AS CHAR) AS kind, owner_id, place_id, seq, delta, balance_after \
         FROM postings WHERE journal_id BETWEEN ? AND ? \
         UNION ALL SELECT journal_id, CAST(kind AS CHAR), owner_id, place_id, seq, delta, balance_after \
         FROM quarantined_postings WHERE journal_id BETWEEN ? AND ? \
         ORDER BY journal_id, kind, owner_id, place_id, seq",
    )
    .bind(first.get())
    .bind(last.get())
    .bind(first.get())
    .bind(last.get())
    .fetch_all(&mut *connection)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(id, kind, owner, location, seq, delta, balance_after)| {
            let account = Account {
                kind: AccountKind::parse(&kind)?,
                owner,
                location,
            };
            Some((
                Position::new(id),
                Posted {
                    account,
                    seq,
                    delta,
                    balance_after,
                },
            ))
        })
        .collect())
}

/// Reads up to `limit` entries of a shard after one number and up to another, in order.
///
/// Both ends are given so that the server reads a range of the index. With one end it may read the
/// index from its beginning for each page.
///
/// # Errors
/// When MySQL does not answer. An entry that cannot be read is an `Err` in its place.
pub async fn page(
    connection: &mut MySqlConnection,
    shard: u64,
    after_number: u64,
    last_number: u64,
    limit: u32,
) -> Result<Vec<Result<Entry, EntryError>>, sqlx::Error> {
    let rows: Vec<(u64, u64, Vec<u8>)> = sqlx::query_as(
        "SELECT id, number, payload FROM journal WHERE shard = ? AND number > ? AND number <= ? \
         ORDER BY number LIMIT ?",
    )
    .bind(shard)
    .bind(after_number)
    .bind(last_number)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let ids = rows.iter().map(|row| row.0);
    let (Some(first), Some(last)) = (ids.clone().min(), ids.max()) else {
        return Ok(Vec::new());
    };
    let postings = postings_between(connection, Position::new(first), Position::new(last)).await?;
    Ok(rows
        .into_iter()
        .map(|(id, number, payload)| {
            let position = Position::new(id);
            let from = postings.partition_point(|(at, _)| *at < position);
            let own = postings
                .iter()
                .skip(from)
                .take_while(|(at, _)| *at == position);
            let own: Vec<Posted> = own.map(|(_, posted)| *posted).collect();
            Entry::restore(position, number, payload, own)
        })
        .collect())
}

/// A shard's last entry before a position.
///
/// # Errors
/// When MySQL does not answer.
pub async fn last_before(
    pool: &MySqlPool,
    shard: u64,
    position: Position,
) -> Result<Option<Reached>, sqlx::Error> {
    let row: Option<(u64, u64)> = sqlx::query_as(
        "SELECT number, id FROM journal FORCE INDEX (PRIMARY) WHERE id < ? AND shard = ? \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(position.get())
    .bind(shard)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(number, id)| Reached {
        number,
        position: Position::new(id),
    }))
}

/// The position of a shard's entry with a number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn position_of(
    pool: &MySqlPool,
    shard: u64,
    number: u64,
) -> Result<Option<Position>, sqlx::Error> {
    let id: Option<u64> =
        sqlx::query_scalar("SELECT id FROM journal WHERE shard = ? AND number = ?")
            .bind(shard)
            .bind(number)
            .fetch_optional(pool)
            .await?;
    Ok(id.map(Position::new))
}

/// Finds one entry.
///
/// # Errors
/// When MySQL does not answer. An entry that cannot be read is an inner `Err`.
pub async fn find(
    connection: &mut MySqlConnection,
    position: Position,
) -> Result<Option<Result<Entry, EntryError>>, sqlx::Error> {
    let row: Option<(u64, Vec<u8>)> =
        sqlx::query_as("SELECT number, payload FROM journal WHERE id = ?")
            .bind(position.get())
            .fetch_optional(&mut *connection)
            .await?;
    let Some((number, payload)) = row else {
        return Ok(None);
    };
    let postings = postings_between(connection, position, position).await?;
    let postings = postings.into_iter().map(|(_, posted)| posted).collect();
    Ok(Some(Entry::restore(position, number, payload, postings)))
}
