//! Archives: how far each shard's journal was removed into files, and the level of each account there.
//!
//! Entries are removed together with the levels that they leave behind, in one transaction: at any moment an
//! account's postings chain from its archived level, and numbers are dense from the last archived one. What is
//! written to files, and when: `archive` of `stock-engine`.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::account::{Account, AccountKind};

use super::rows::{MultiRow, padded};

/// The last entry of a shard that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Reached {
    /// Its number; 0 when none was.
    pub number: u64,
    /// Its position.
    pub position: Position,
}

/// The last posting of an account that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchivedLevel {
    /// Its seq; 0 when none was.
    pub seq: u64,
    /// The balance after it.
    pub balance: i64,
}

/// A file, and the stretch of a shard's journal in it; also a line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// The file's name within its folder.
    pub file: String,
    /// The shard.
    pub shard: u64,
    /// The month in which its entries were decided, `2026-01`, UTC.
    pub month: String,
    /// The first entry's number.
    pub first_number: u64,
    /// The last entry's number.
    pub last_number: u64,
    /// How many entries, one per line.
    pub entries: u64,
    /// SHA-256 of the file, 64 hexadecimal digits.
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

/// How many entries were removed, of all shards.
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

/// The archive whose entries are not all removed, if there is one: a run was killed.
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

/// Whether an entry at a position was removed, if there was one.
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

/// The archive in which the entry at a position is, if there was one.
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

/// Notes a complete file, of which nothing is removed yet.
///
/// # Errors
/// When MySQL does not answer, or another process was quicker.
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

/// Locks an archive's row until the transaction ends, and reads the number up to which it is removed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn lock(
    connection: &mut MySqlConnection,
    (shard, first_number): (u64, u64),
) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT number FROM archives WHERE shard = ? AND first_number = ? FOR UPDATE",
    )
    .bind(shard)
    .bind(first_number)
    .fetch_one(connection)
    .await
}

/// Moves an archive on to the last entry that was removed; the caller holds its lock.
///
/// # Errors
/// When MySQL does not answer.
pub async fn advance(
    connection: &mut MySqlConnection,
    (shard, first_number): (u64, u64),
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

/// Removes a stretch of a shard's journal with its postings; returns how many of each.
///
/// # Errors
/// When MySQL does not answer.
pub async fn remove(
    connection: &mut MySqlConnection,
    shard: u64,
    (first, last): (u64, u64),
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

/// The archived levels of some accounts; one of which nothing was removed is absent.
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

/// Of some accounts those that have a posting at or before an archived level, with its seq, for `verify`.
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
