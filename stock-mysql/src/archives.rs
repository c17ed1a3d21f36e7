//! Archives: how far each shard's journal was moved into files, and the level of each account
//! there.
//!
//! One transaction removes entries and writes the levels that they leave behind. So the postings of
//! an account always chain from its archived level, and the numbers of entries have no gap after
//! the last archived one. `archive` of `stock-engine` decides which entries are written to files,
//! and when.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::account::{Account, AccountKind};

use super::rows::{MultiRow, padded};

/// The last entry of a shard that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Reached {
    /// The number of the entry; 0 when none was removed.
    pub number: u64,
    /// The position of the entry.
    pub position: Position,
}

/// The last posting of an account that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchivedLevel {
    /// The `seq` of the posting; 0 when none was removed.
    pub seq: u64,
    /// The balance after the posting.
    pub balance: i64,
}

/// A file with a stretch of a shard's journal; also a line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// The name of the file within its folder.
    pub file: String,
    /// The shard.
    pub shard: u64,
    /// The month (UTC) in which the entries were decided, such as `2026-01`.
    pub month: String,
    /// The number of the first entry.
    pub first_number: u64,
    /// The number of the last entry.
    pub last_number: u64,
    /// Number of entries, one per line of the file.
    pub entries: u64,
    /// SHA-256 of the file, as 64 hexadecimal digits.
    pub checksum: String,
}

type Row = (String, u64, String, u64, u64, u64, String);

impl From<Row> for Archive {
    fn from((file, shard, month, first_number, last_number, entries, checksum): Row) -> Self {
        Self {
            file,
            shard,
            month,
            first_number,
            last_number,
            entries,
            checksum,
        }
    }
}

const COLUMNS: &str = "SELECT file, CAST(shard AS UNSIGNED), month, first_number, last_number, \
     entries, checksum FROM archives";

/// How far a shard's journal was removed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn reached(pool: &MySqlPool, shard: u64) -> Result<Reached, sqlx::Error> {
    let row: Option<(u64, u64)> = sqlx::query_as(
        "SELECT number, position FROM archives WHERE shard = ? ORDER BY first_number DESC LIMIT 1",
    )
    .bind(shard)
    .fetch_optional(pool)
    .await?;
    Ok(
        row.map_or_else(Reached::default, |(number, position)| Reached {
            number,
            position: Position::new(position),
        }),
    )
}

/// Number of removed entries, over all shards.
///
/// # Errors
/// When MySQL does not answer.
pub async fn removed(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(IF(number < first_number, 0, number + 1 - first_number)), 0) \
         AS UNSIGNED) FROM archives",
    )
    .fetch_one(pool)
    .await
}

/// The archive with entries that a killed run has not removed yet, if there is one.
///
/// # Errors
/// When MySQL does not answer.
pub async fn unfinished(pool: &MySqlPool, shard: u64) -> Result<Option<Archive>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE shard = ? AND number < last_number");
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(shard)
        .fetch_optional(pool)
        .await?;
    Ok(row.map(Archive::from))
}

/// Whether the entry at a position was removed, if there ever was one.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_removed(
    connection: &mut MySqlConnection,
    position: Position,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM archives WHERE shard = ? AND position >= ? \
         AND number >= first_number)",
    )
    .bind(position.shard())
    .bind(position.get())
    .fetch_one(connection)
    .await
}

/// The archive that holds the entry at a position, if there ever was one.
///
/// # Errors
/// When MySQL does not answer.
pub async fn holding(pool: &MySqlPool, position: Position) -> Result<Option<Archive>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE shard = ? AND position >= ? ORDER BY first_number LIMIT 1");
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(position.shard())
        .bind(position.get())
        .fetch_optional(pool)
        .await?;
    Ok(row.map(Archive::from))
}

/// Notes a complete file, before any of its entries is removed.
///
/// # Errors
/// When MySQL does not answer, or another process has noted the file first.
pub async fn insert(
    pool: &MySqlPool,
    archive: &Archive,
    before: Reached,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO archives (shard, first_number, last_number, number, position, month, file, \
         entries, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(archive.shard)
    .bind(archive.first_number)
    .bind(archive.last_number)
    .bind(before.number)
    .bind(before.position.get())
    .bind(&archive.month)
    .bind(&archive.file)
    .bind(archive.entries)
    .bind(&archive.checksum)
    .execute(pool)
    .await?;
    Ok(())
}

/// Locks the row of an archive until the transaction ends. Returns the number up to which its
/// entries are removed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn lock(
    connection: &mut MySqlConnection,
    shard: u64,
    first_number: u64,
) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT number FROM archives WHERE shard = ? AND first_number = ? FOR UPDATE",
    )
    .bind(shard)
    .bind(first_number)
    .fetch_one(connection)
    .await
}

/// Notes the last entry of an archive that was removed; the caller holds the lock of the archive.
///
/// # Errors
/// When MySQL does not answer.
pub async fn advance(
    connection: &mut MySqlConnection,
    shard: u64,
    first_number: u64,
    reached: Reached,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE archives SET number = ?, position = ? WHERE shard = ? AND first_number = ?",
    )
    .bind(reached.number)
    .bind(reached.position.get())
    .bind(shard)
    .bind(first_number)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes a stretch of a shard's journal with its postings. Returns the number of removed entries
/// and of removed postings.
///
/// # Errors
/// When MySQL does not answer.
pub async fn remove(
    connection: &mut MySqlConnection,
    shard: u64,
    first: u64,
    last: u64,
) -> Result<(u64, u64), sqlx::Error> {
    const POSTINGS: &str = "DELETE p FROM journal j STRAIGHT_JOIN postings p ON p.journal_id = j.id \
         WHERE j.shard = ? AND j.number BETWEEN ? AND ?";
    const ENTRIES: &str = "DELETE FROM journal WHERE shard = ? AND number BETWEEN ? AND ?";
    let mut removed = [0; 2];
    for (count, text) in removed.iter_mut().zip([POSTINGS, ENTRIES]) {
        *count = sqlx::query(text)
            .bind(shard)
            .bind(first)
            .bind(last)
            .execute(&mut *connection)
            .await?
            .rows_affected();
    }
    let [postings, entries] = removed;
    Ok((entries, postings))
}

/// The archived levels of some accounts; accounts of which nothing was removed are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn levels(
    connection: &mut MySqlConnection,
    accounts: &[Account],
) -> Result<HashMap<Account, ArchivedLevel>, sqlx::Error> {
    static READ: MultiRow = MultiRow::new(
        "SELECT CAST(kind AS CHAR), owner_id, place_id, seq, balance_after FROM archived_levels \
         FORCE INDEX (PRIMARY) WHERE",
        "(kind = ? AND owner_id = ? AND place_id = ?)",
        "",
    );
    let mut levels = HashMap::new();
    for part in accounts.chunks(256) {
        let keys = padded(part);
        let mut query = sqlx::query_as(AssertSqlSafe(READ.alternatives(keys.len())));
        for key in &keys {
            query = query
                .bind(key.kind.as_str())
                .bind(key.owner)
                .bind(key.location);
        }
        let rows: Vec<(String, u64, u64, u64, i64)> = query.fetch_all(&mut *connection).await?;
        levels.extend(
            rows.into_iter()
                .filter_map(|(kind, owner, location, seq, balance)| {
                    let kind = AccountKind::parse(&kind)?;
                    Some((
                        Account {
                            kind,
                            owner,
                            location,
                        },
                        ArchivedLevel { seq, balance },
                    ))
                }),
        );
    }
    Ok(levels)
}

/// The accounts that still have a posting at or before their archived level, each with the lowest
/// `seq` of such a posting. For `verify`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn postings_left_behind(
    connection: &mut MySqlConnection,
    levels: &[(Account, ArchivedLevel)],
) -> Result<Vec<(Account, u64)>, sqlx::Error> {
    static FIND: MultiRow = MultiRow::new(
        "SELECT CAST(kind AS CHAR), owner_id, place_id, MIN(seq) FROM postings \
         FORCE INDEX (PRIMARY) WHERE",
        "(kind = ? AND owner_id = ? AND place_id = ? AND seq <= ?)",
        "GROUP BY kind, owner_id, place_id",
    );
    let mut found = Vec::new();
    for part in levels.chunks(256) {
        let keys = padded(part);
        let mut query = sqlx::query_as(AssertSqlSafe(FIND.alternatives(keys.len())));
        for (key, level) in &keys {
            query = query
                .bind(key.kind.as_str())
                .bind(key.owner)
                .bind(key.location)
                .bind(level.seq);
        }
        let rows: Vec<(String, u64, u64, u64)> = query.fetch_all(&mut *connection).await?;
        found.extend(rows.into_iter().filter_map(|(kind, owner, location, seq)| {
            let kind = AccountKind::parse(&kind)?;
            Some((
                Account {
                    kind,
                    owner,
                    location,
                },
                seq,
            ))
        }));
    }
    Ok(found)
}

/// Writes archived levels, in the transaction that removes their postings.
///
/// # Errors
/// When MySQL does not answer.
pub async fn write_levels(
    connection: &mut MySqlConnection,
    levels: &[(Account, ArchivedLevel)],
) -> Result<(), sqlx::Error> {
    static WRITE: MultiRow = MultiRow::new(
        "INSERT INTO archived_levels (kind, owner_id, place_id, seq, balance_after) VALUES",
        "(?, ?, ?, ?, ?)",
        "ON DUPLICATE KEY UPDATE seq = VALUES(seq), balance_after = VALUES(balance_after)",
    );
    WRITE
        .execute(connection, levels, |query, (account, level)| {
            query
                .bind(account.kind.as_str())
                .bind(account.owner)
                .bind(account.location)
                .bind(level.seq)
                .bind(level.balance)
        })
        .await
}
