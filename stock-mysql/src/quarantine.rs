//! Quarantine: accounts whose postings do not chain, and the postings that are kept aside.
//!
//! One broken account must not stop a shard. Its entries are recorded and settled like any other.
//! Only its own postings are kept here instead of in `postings`, and its level stays as it was.
//! Meanwhile nothing may be taken from the account in Redis (`quarantine` of `stock-engine`). The
//! end of the quarantine adds the postings to the chain again, so no accepted entry is dropped.

use std::collections::{HashMap, HashSet};

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::Position;
use stock_domain::account::{Account, AccountKind, Level};
use stock_domain::posting::Posted;

use super::rows::{MultiRow, padded};

/// Accounts or postings that one statement names at most.
const TOGETHER: usize = 256;

/// Why an account came under quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The account.
    pub account: Account,
    /// The first entry whose posting does not chain.
    pub position: Position,
    /// A text that says which posting was expected and which one came.
    pub reason: String,
}

/// An account under quarantine, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The shard whose journal moves it.
    pub shard: u64,
    /// The account and the break in its chain.
    pub broken: Broken,
    /// Number of postings that are kept aside.
    pub kept: u64,
    /// When the account came under quarantine, UTC.
    pub created_at: NaiveDateTime,
}

/// The accounts of a shard that are under quarantine.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_shard(
    connection: &mut MySqlConnection,
    shard: u64,
) -> Result<HashSet<Account>, sqlx::Error> {
    let rows: Vec<(String, u64, u64)> = sqlx::query_as(
        "SELECT CAST(kind AS CHAR), owner_id, place_id FROM quarantined_accounts \
         WHERE shard = ? AND released_upto IS NULL",
    )
    .bind(shard)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(account_of).collect())
}

fn account_of((kind, owner, location): (String, u64, u64)) -> Option<Account> {
    let kind = AccountKind::parse(&kind)?;
    Some(Account {
        kind,
        owner,
        location,
    })
}

/// Puts accounts of a shard under quarantine; the caller holds the lock of the shard's row.
///
/// # Errors
/// When MySQL does not answer.
pub async fn begin(
    connection: &mut MySqlConnection,
    shard: u64,
    broken: &[Broken],
) -> Result<(), sqlx::Error> {
    static INSERT: MultiRow = MultiRow::new(
        "INSERT INTO quarantined_accounts (kind, owner_id, place_id, shard, journal_id, reason) VALUES",
        "(?, ?, ?, ?, ?, ?)",
        "ON DUPLICATE KEY UPDATE shard = VALUES(shard), journal_id = VALUES(journal_id), \
         reason = VALUES(reason), created_at = NOW(3), released_upto = NULL",
    );
    INSERT
        .execute(connection, broken, |query, of| {
            query
                .bind(of.account.kind.number())
                .bind(of.account.owner)
                .bind(of.account.location)
                .bind(shard)
                .bind(of.position.get())
                .bind(of.reason.chars().take(1_000).collect::<String>())
        })
        .await
}

/// Keeps postings aside. Postings that a synchronous order has recorded already are moved.
///
/// # Errors
/// When MySQL does not answer.
pub async fn keep(
    connection: &mut MySqlConnection,
    kept: &[(Position, Posted)],
) -> Result<(), sqlx::Error> {
    static REMOVE: MultiRow = MultiRow::new(
        "DELETE FROM postings WHERE",
        "(kind = ? AND owner_id = ? AND place_id = ? AND seq = ? AND journal_id = ?)",
        "",
    );
    static INSERT: MultiRow = MultiRow::new(
        "INSERT INTO quarantined_postings \
         (journal_id, kind, owner_id, place_id, seq, delta, balance_after) VALUES",
        "(?, ?, ?, ?, ?, ?, ?)",
        "ON DUPLICATE KEY UPDATE delta = VALUES(delta), balance_after = VALUES(balance_after)",
    );
    for part in kept.chunks(TOGETHER) {
        let keys = padded(part);
        let mut query = sqlx::query(AssertSqlSafe(REMOVE.alternatives(keys.len())));
        for (position, posted) in &keys {
            query = query
                .bind(posted.account.kind.as_str())
                .bind(posted.account.owner)
                .bind(posted.account.location)
                .bind(posted.seq)
                .bind(position.get());
        }
        query.execute(&mut *connection).await?;
    }
    INSERT
        .execute(connection, kept, |query, (position, posted)| {
            query
                .bind(position.get())
                .bind(posted.account.kind.number())
                .bind(posted.account.owner)
                .bind(posted.account.location)
                .bind(posted.seq)
                .bind(posted.delta)
                .bind(posted.balance_after)
        })
        .await
}

/// The postings whose `seq` another posting of the account has already.
///
/// # Errors
/// When MySQL does not answer.
pub async fn occupied(
    connection: &mut MySqlConnection,
    postings: &[(Position, Posted)],
) -> Result<Vec<Broken>, sqlx::Error> {
    static FIND: MultiRow = MultiRow::new(
        "SELECT CAST(kind AS CHAR), owner_id, place_id, seq, journal_id FROM postings WHERE",
        "(kind = ? AND owner_id = ? AND place_id = ? AND seq = ?)",
        "",
    );
    let mut found = Vec::new();
    for part in postings.chunks(TOGETHER) {
        let keys = padded(part);
        let mut query = sqlx::query_as(AssertSqlSafe(FIND.alternatives(keys.len())));
        for (_, posted) in &keys {
            query = query
                .bind(posted.account.kind.as_str())
                .bind(posted.account.owner)
                .bind(posted.account.location)
                .bind(posted.seq);
        }
        let rows: Vec<(String, u64, u64, u64, u64)> = query.fetch_all(&mut *connection).await?;
        let mut stray: HashMap<(Account, u64), Position> = HashMap::new();
        for (kind, owner, location, seq, journal_id) in rows {
            if let Some(account) = account_of((kind, owner, location)) {
                stray.insert((account, seq), Position::new(journal_id));
            }
        }
        found.extend(part.iter().filter_map(|(position, posted)| {
            let other = stray.get(&(posted.account, posted.seq))?;
            let reason = format!(
                "posting {} of the account is in mysql already, of entry {other}",
                posted.seq
            );
            Some(Broken {
                account: posted.account,
                position: *position,
                reason,
            })
        }));
    }
    Ok(found)
}

/// The postings of an account that are kept aside, in the order of its entries.
///
/// # Errors
/// When MySQL does not answer.
pub async fn kept(
    connection: &mut MySqlConnection,
    account: Account,
) -> Result<Vec<(Position, Posted)>, sqlx::Error> {
    let rows: Vec<(u64, u64, i64, i64)> = sqlx::query_as(
        "SELECT journal_id, seq, delta, balance_after FROM quarantined_postings \
         WHERE kind = ? AND owner_id = ? AND place_id = ? ORDER BY journal_id, seq",
    )
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, seq, delta, after)| posted(account, id, seq, delta, after))
        .collect())
}

/// Up to `limit` of an account's postings after a sequence number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn postings_behind(
    connection: &mut MySqlConnection,
    account: Account,
    seq: u64,
    limit: u64,
) -> Result<Vec<(Position, Posted)>, sqlx::Error> {
    let rows: Vec<(u64, u64, i64, i64)> = sqlx::query_as(
        "SELECT journal_id, seq, delta, balance_after FROM postings \
         WHERE kind = ? AND owner_id = ? AND place_id = ? AND seq > ? ORDER BY seq LIMIT ?",
    )
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .bind(seq)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, seq, delta, after)| posted(account, id, seq, delta, after))
        .collect())
}

/// Removes an account's postings after a sequence number. The caller has seen that no entry holds
/// them. A posting of an entry after the watermark stays, because a synchronous order has recorded
/// it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn remove_behind(
    connection: &mut MySqlConnection,
    account: Account,
    seq: u64,
    watermark: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM postings WHERE kind = ? AND owner_id = ? AND place_id = ? AND seq > ? \
         AND (journal_id <= ? OR NOT EXISTS (SELECT 1 FROM journal j WHERE j.id = journal_id))",
    )
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .bind(seq)
    .bind(watermark.get())
    .execute(connection)
    .await?;
    Ok(())
}

fn posted(
    account: Account,
    id: u64,
    seq: u64,
    delta: i64,
    balance_after: i64,
) -> (Position, Posted) {
    let posted = Posted {
        account,
        seq,
        delta,
        balance_after,
    };
    (Position::new(id), posted)
}

/// Gives those of a shard's levels that are under quarantine the form that they have in Redis:
/// flagged, and with the postings that are kept aside.
///
/// # Errors
/// When MySQL does not answer.
pub async fn add_kept(
    connection: &mut MySqlConnection,
    shard: u64,
    levels: &mut [(Account, Level)],
) -> Result<(), sqlx::Error> {
    let rows: Vec<(String, u64, u64, i64, u64)> = sqlx::query_as(
        "SELECT CAST(a.kind AS CHAR), a.owner_id, a.place_id, \
         CAST(COALESCE(SUM(p.delta), 0) AS SIGNED), CAST(COUNT(p.seq) AS UNSIGNED) FROM quarantined_accounts a \
         LEFT JOIN quarantined_postings p ON p.kind = a.kind AND p.owner_id = a.owner_id \
         AND p.place_id = a.place_id WHERE a.shard = ? AND a.released_upto IS NULL GROUP BY a.kind, a.owner_id, a.place_id",
    )
    .bind(shard)
    .fetch_all(connection)
    .await?;
    let kept: HashMap<Account, (i64, u64)> = rows
        .into_iter()
        .filter_map(|(kind, owner, location, delta, count)| {
            Some((account_of((kind, owner, location))?, (delta, count)))
        })
        .collect();
    for (account, level) in levels {
        if let Some((delta, count)) = kept.get(account) {
            level.balance = level.balance.saturating_add(*delta).max(0);
            level.seq += count;
            level.quarantined = true;
        }
    }
    Ok(())
}

type Row = (String, u64, u64, u64, u64, String, u64, NaiveDateTime);

const SELECT: &str = "SELECT CAST(a.kind AS CHAR), a.owner_id, a.place_id, a.shard, a.journal_id, a.reason, \
     (SELECT CAST(COUNT(*) AS UNSIGNED) FROM quarantined_postings p WHERE p.kind = a.kind AND p.owner_id = a.owner_id \
     AND p.place_id = a.place_id), a.created_at FROM quarantined_accounts a";

fn quarantined(
    (kind, owner, location, shard, journal_id, reason, kept, created_at): Row,
) -> Option<Quarantined> {
    let account = account_of((kind, owner, location))?;
    let position = Position::new(journal_id);
    Some(Quarantined {
        shard,
        broken: Broken {
            account,
            position,
            reason,
        },
        kept,
        created_at,
    })
}

/// Accounts under quarantine, oldest first, at most 1,000.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(pool: &MySqlPool) -> Result<Vec<Quarantined>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "{SELECT} WHERE a.released_upto IS NULL ORDER BY a.created_at, a.journal_id LIMIT 1000"
    )))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().filter_map(quarantined).collect())
}

/// One account under quarantine.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    connection: &mut MySqlConnection,
    account: Account,
) -> Result<Option<Quarantined>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "{SELECT} WHERE a.kind = ? AND a.owner_id = ? AND a.place_id = ? AND a.released_upto IS NULL"
    )))
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(quarantined))
}

/// Number of accounts under quarantine.
///
/// # Errors
/// When MySQL does not answer.
pub async fn count(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM quarantined_accounts WHERE released_upto IS NULL")
        .fetch_one(pool)
        .await
}

/// Ends a quarantine. The caller has put the kept postings into `postings`. `upto` is the last
/// entry that was decided before the end.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end(
    connection: &mut MySqlConnection,
    account: Account,
    upto: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM quarantined_postings WHERE kind = ? AND owner_id = ? AND place_id = ?",
    )
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE quarantined_accounts SET released_upto = ? \
         WHERE kind = ? AND owner_id = ? AND place_id = ?",
    )
    .bind(upto.get())
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .execute(connection)
    .await?;
    Ok(())
}

/// Accounts of a shard that were released, each with the last entry that was decided before its
/// release.
///
/// # Errors
/// When MySQL does not answer.
pub async fn released(
    pool: &MySqlPool,
    shard: u64,
) -> Result<HashMap<Account, Position>, sqlx::Error> {
    let rows: Vec<(String, u64, u64, u64)> = sqlx::query_as(
        "SELECT CAST(kind AS CHAR), owner_id, place_id, released_upto FROM quarantined_accounts \
         WHERE shard = ? AND released_upto IS NOT NULL",
    )
    .bind(shard)
    .fetch_all(pool)
    .await?;
    let released = |(kind, owner, location, upto)| {
        Some((account_of((kind, owner, location))?, Position::new(upto)))
    };
    Ok(rows.into_iter().filter_map(released).collect())
}
