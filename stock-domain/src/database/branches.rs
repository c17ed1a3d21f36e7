//! Branches: what entries take and give on other shards, and what became of it.

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::Position;

use super::rows::MultiRow;

static HELD: MultiRow = MultiRow::new(
    "INSERT INTO branches (id, across, state) VALUES",
    "(?, ?, 'HELD')",
    "ON DUPLICATE KEY UPDATE state = IF(state = 'EXPECTED', 'HELD', state)",
);
static OWNED: MultiRow = MultiRow::new(
    "INSERT INTO branches (id, across, state, entry_id) VALUES",
    "(?, ?, 'EXPECTED', ?)",
    "ON DUPLICATE KEY UPDATE entry_id = VALUES(entry_id)",
);

/// What a branch became, or was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The branch.
    pub id: Position,
    /// The entry that it was confirmed for; none when it was released.
    pub commit: Option<Position>,
}

/// Notes what was held, by the id that all parts share.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(
    connection: &mut MySqlConnection,
    held: &[(Position, String)],
) -> Result<(), sqlx::Error> {
    HELD.execute(connection, held, |query, (id, across)| {
        query.bind(id.get()).bind(across.as_str())
    })
    .await
}

/// Notes which entry branches belong to; its shard may be settled before theirs.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_entry(
    connection: &mut MySqlConnection,
    owned: &[(Position, String, Position)],
) -> Result<(), sqlx::Error> {
    OWNED
        .execute(connection, owned, |query, (branch, across, entry)| {
            query
                .bind(branch.get())
                .bind(across.as_str())
                .bind(entry.get())
        })
        .await
}

/// Takes back what [`set_entry`] noted of an entry that never takes effect.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget_entry(
    connection: &mut MySqlConnection,
    entry: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE branches SET entry_id = NULL WHERE entry_id = ?")
        .bind(entry.get())
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes what became of branches.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end(connection: &mut MySqlConnection, ended: &[Ended]) -> Result<(), sqlx::Error> {
    for Ended { id, commit } in ended {
        sqlx::query(
            "UPDATE branches SET state = IF(? IS NULL, 'RELEASED', 'CONFIRMED'), commit_id = ?, \
             updated_at = NOW(3) WHERE id = ?",
        )
        .bind(commit.map(Position::get))
        .bind(commit.map(Position::get))
        .bind(id.get())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The entry that a branch belongs to, if MySQL has that.
///
/// # Errors
/// When MySQL does not answer.
pub async fn entry_of(pool: &MySqlPool, branch: Position) -> Result<Option<Position>, sqlx::Error> {
    let id: Option<Option<u64>> = sqlx::query_scalar("SELECT entry_id FROM branches WHERE id = ?")
        .bind(branch.get())
        .fetch_optional(pool)
        .await?;
    Ok(id.flatten().map(Position::new))
}

/// A branch as MySQL has it.
#[derive(Debug, Clone)]
pub struct StoredBranch {
    /// Where it was held.
    pub id: Position,
    /// The id that all parts share, `home:id`.
    pub across: String,
    /// `HELD`, `CONFIRMED`, `RELEASED`, or `EXPECTED`.
    pub state: String,
    /// Whether its entry was written.
    pub is_committed: bool,
}

/// Branches that are held, or whose marks are still wanted, behind a position, in their order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn recent(
    connection: &mut MySqlConnection,
    after: Position,
    limit: u32,
) -> Result<Vec<StoredBranch>, sqlx::Error> {
    let rows: Vec<(u64, String, String, bool)> = sqlx::query_as(
        "SELECT id, across, CAST(state AS CHAR), entry_id IS NOT NULL FROM branches WHERE id > ? \
         AND (state = 'HELD' OR updated_at > NOW(3) - INTERVAL 1 DAY) ORDER BY id LIMIT ?",
    )
    .bind(after.get())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let row = |(id, across, state, is_committed)| StoredBranch {
        id: Position::new(id),
        across,
        state,
        is_committed,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Branches whose state contradicts their entry's, as far as both shards are settled, and those that were held
/// for longer than `seconds` and have not ended: the branch, and what is wrong.
///
/// # Errors
/// When MySQL does not answer.
pub async fn wrong(pool: &MySqlPool, seconds: u64) -> Result<Vec<(Position, String)>, sqlx::Error> {
    const TEXT: &str = "\
        SELECT b.id, CONCAT('is ', b.state, ', and entry ', b.entry_id, ' relies on it') \
          FROM branches b WHERE b.state = 'RELEASED' AND b.entry_id IS NOT NULL \
        UNION ALL SELECT b.id, CONCAT('was confirmed for entry ', b.commit_id, ', which is not there') \
          FROM branches b JOIN shards s ON s.shard = ((b.commit_id >> 16) & 63) \
          WHERE b.state = 'CONFIRMED' AND b.entry_id IS NULL AND b.commit_id <= s.watermark \
        UNION ALL SELECT b.id, CONCAT('is not there, and entry ', b.entry_id, ' relies on it') \
          FROM branches b JOIN shards s ON s.shard = ((b.id >> 16) & 63) \
          WHERE b.state = 'EXPECTED' AND b.id <= s.watermark \
        UNION ALL SELECT b.id, 'was held and has not ended' FROM branches b \
          JOIN shards s ON s.shard = ((b.id >> 16) & 63) WHERE b.state = 'HELD' \
          AND b.updated_at < NOW(3) - INTERVAL ? SECOND \
        LIMIT 1000";
    let rows: Vec<(u64, String)> = sqlx::query_as(TEXT).bind(seconds).fetch_all(pool).await?;
    Ok(rows
        .into_iter()
        .map(|(id, text)| (Position::new(id), text))
        .collect())
}
