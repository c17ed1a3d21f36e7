//! Entries that were accepted and that Redis lost: listed by the instance that remembers them, and entered again
//! by `recover` where they continue what is there.

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::Position;

use crate::account::{Account, AccountKind};
use crate::journal::{Entry, Posted};
use crate::ledger::gate::Remembered;

/// Kind, owner, place, seq, delta, balance afterwards.
type Wire = (AccountKind, u64, u64, u64, i64, i64);

fn write(postings: &[Posted]) -> String {
    let wire: Vec<Wire> = postings
        .iter()
        .map(|p| {
            let Account { kind, owner, place } = p.account;
            (kind, owner, place, p.seq, p.delta, p.balance_after)
        })
        .collect();
    serde_json::to_string(&wire).unwrap_or_default()
}

fn read(text: &str) -> Option<Vec<Posted>> {
    let wire: Vec<Wire> = serde_json::from_str(text).ok()?;
    let posted = |(kind, owner, place, seq, delta, balance_after)| Posted {
        account: Account { kind, owner, place },
        seq,
        delta,
        balance_after,
    };
    Some(wire.into_iter().map(posted).collect())
}

/// Lists entries; returns how many were new.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool, shard: u64, lost: &[Remembered]) -> Result<u64, sqlx::Error> {
    // All at once: who rebuilds Redis finds what an instance remembers, or nothing of it.
    let mut transaction = pool.begin().await?;
    let mut listed = 0;
    for entry in lost {
        let done = sqlx::query(
            "INSERT IGNORE INTO lost_entries (journal_id, shard, number, postings, payload) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(entry.position.get())
        .bind(shard)
        .bind(entry.number)
        .bind(entry.content.as_ref().map(|(postings, _)| write(postings)))
        .bind(
            entry
                .content
                .as_ref()
                .map(|(_, request)| request.payload.as_slice()),
        )
        .execute(&mut *transaction)
        .await?;
        listed += done.rows_affected();
    }
    transaction.commit().await?;
    Ok(listed)
}

/// The lost entries of a shard that can be entered again, in order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn remembered(
    connection: &mut MySqlConnection,
    shard: u64,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows: Vec<(u64, u64, String, Vec<u8>)> = sqlx::query_as(
        "SELECT journal_id, number, postings, payload FROM lost_entries WHERE shard = ? \
         AND number IS NOT NULL AND postings IS NOT NULL AND payload IS NOT NULL ORDER BY number",
    )
    .bind(shard)
    .fetch_all(connection)
    .await?;
    let entry = |(id, number, postings, payload): (u64, u64, String, Vec<u8>)| {
        Entry::restore(Position::new(id), number, payload, read(&postings)?).ok()
    };
    Ok(rows.into_iter().filter_map(entry).collect())
}

/// Whether entries of a shard are listed that MySQL has not settled past.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_listed(connection: &mut MySqlConnection, shard: u64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM lost_entries l JOIN shards s ON s.shard = l.shard \
         WHERE l.shard = ? AND (l.number IS NULL OR l.number > s.number))",
    )
    .bind(shard)
    .fetch_one(connection)
    .await
}

/// Takes entries off the list: they are in MySQL's journal.
///
/// # Errors
/// When MySQL does not answer.
pub async fn found(
    connection: &mut MySqlConnection,
    positions: &[Position],
) -> Result<(), sqlx::Error> {
    for position in positions {
        sqlx::query("DELETE FROM lost_entries WHERE journal_id = ?")
            .bind(position.get())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
