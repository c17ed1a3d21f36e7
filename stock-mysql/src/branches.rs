//! Branches: the parts of entries on other shards, and how each of them ended.

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::Position;

use super::rows::MultiRow;

static HELD: MultiRow = MultiRow::new("INSERT INTO branches (id, across) VALUES", "(?, ?)", "");
static OWNED: MultiRow = MultiRow::new(
    "INSERT INTO entry_branches (branch_id, across, entry_id) VALUES",
    "(?, ?, ?)",
    "ON DUPLICATE KEY UPDATE across = VALUES(across)",
);

/// The end of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The id of the branch.
    pub id: Position,
    /// The entry for which the branch was confirmed; none when it was released.
    pub commit: Option<Position>,
}

/// Inserts branches that are held, each with the cross-shard id of its entry.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(
    connection: &mut MySqlConnection,
    held: &[(Position, String)],
) -> Result<(), sqlx::Error> {
    HELD.execute(connection, held, |query, (id, cross_shard)| {
        query.bind(id.get()).bind(cross_shard.as_str())
    })
    .await
}

/// Notes which entry each branch belongs to. The shard of the entry may be settled before the
/// shards of the branches.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_entry(
    connection: &mut MySqlConnection,
    owned: &[(Position, String, Position)],
) -> Result<(), sqlx::Error> {
    OWNED
        .execute(connection, owned, |query, (branch, cross_shard, entry)| {
            query
                .bind(branch.get())
                .bind(cross_shard.as_str())
                .bind(entry.get())
        })
        .await
}

/// Removes the rows that [`set_entry`] wrote for an entry that never takes effect.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget_entry(
    connection: &mut MySqlConnection,
    entry: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM entry_branches WHERE entry_id = ?")
        .bind(entry.get())
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes how branches ended.
///
/// # Errors
/// When MySQL does not answer.
pub async fn end(connection: &mut MySqlConnection, ended: &[Ended]) -> Result<(), sqlx::Error> {
    // One statement ends all of them, because a batch of cross-shard orders ends many branches.
    const TEXT: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$[0]', \
         entry_id BIGINT UNSIGNED PATH '$[1]')) e STRAIGHT_JOIN branches b FORCE INDEX (PRIMARY) \
         ON b.id = e.id \
         SET b.state = IF(e.entry_id IS NULL, 'RELEASED', 'CONFIRMED'), b.commit_id = e.entry_id, \
         b.updated_at = NOW(3)";
    if ended.is_empty() {
        return Ok(());
    }
    // Ids go as text, because not every JSON implementation keeps 64 bits of a number.
    let text = |position: Position| position.to_string();
    let rows: Vec<(String, Option<String>)> = ended
        .iter()
        .map(|Ended { id, commit }| (text(*id), commit.map(text)))
        .collect();
    let rows = serde_json::to_string(&rows);
    let rows = rows.map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(TEXT).bind(rows).execute(connection).await?;
    Ok(())
}

/// The entry that a branch belongs to, if MySQL has noted it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn entry_of(pool: &MySqlPool, branch: Position) -> Result<Option<Position>, sqlx::Error> {
    let id: Option<u64> =
        sqlx::query_scalar("SELECT entry_id FROM entry_branches WHERE branch_id = ?")
            .bind(branch.get())
            .fetch_optional(pool)
            .await?;
    Ok(id.map(Position::new))
}

/// A branch as MySQL has it.
#[derive(Debug, Clone)]
pub struct StoredBranch {
    /// The position at which the branch was held.
    pub id: Position,
    /// The id that all branches of one entry share: `coordinator:id`, with the coordinator's shard.
    pub cross_shard: String,
    /// `HELD`, `CONFIRMED` or `RELEASED`.
    pub state: String,
}

/// Branches after a position, in order, that are held or were changed within the last day, because
/// their states are still needed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn recent(
    connection: &mut MySqlConnection,
    after: Position,
    limit: u32,
) -> Result<Vec<StoredBranch>, sqlx::Error> {
    let rows: Vec<(u64, String, String)> = sqlx::query_as(
        "SELECT id, across, CAST(state AS CHAR) FROM branches WHERE id > ? \
         AND (state = 'HELD' OR updated_at > NOW(3) - INTERVAL 1 DAY) ORDER BY id LIMIT ?",
    )
    .bind(after.get())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let row = |(id, cross_shard, state)| StoredBranch {
        id: Position::new(id),
        cross_shard,
        state,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The cross-shard ids of the entries after a position that own branches.
///
/// # Errors
/// When MySQL does not answer.
pub async fn committed(
    connection: &mut MySqlConnection,
    after: Position,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT DISTINCT across FROM entry_branches WHERE entry_id > ?")
        .bind(after.get())
        .fetch_all(connection)
        .await
}

/// Number of branches at or before a position that a shard still holds for entries on other shards.
///
/// # Errors
/// When MySQL does not answer.
pub async fn held(pool: &MySqlPool, shard: u64, upto: Position) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM branches b JOIN journal j ON j.id = b.id \
         WHERE b.state = 'HELD' AND j.shard = ? AND b.id <= ?",
    )
    .bind(shard)
    .bind(upto.get())
    .fetch_one(pool)
    .await
}

/// Removes branches that have ended and agree with their entries, up to a position of every shard.
/// A branch that does not agree stays for `verify`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool, upto: &[(u64, Position)]) -> Result<(), sqlx::Error> {
    // Both must lie at or before the position of their shard: the branch, and its entry.
    const CONFIRMED: &str = "DELETE b, e FROM branches b JOIN entry_branches e \
         ON e.branch_id = b.id AND e.entry_id = b.commit_id \
         JOIN JSON_TABLE(?, '$[*]' COLUMNS (shard INT PATH '$[0]', upto BIGINT UNSIGNED PATH '$[1]')) h \
         ON h.shard = ((b.id >> 16) & 63) AND b.id <= h.upto \
         JOIN JSON_TABLE(?, '$[*]' COLUMNS (shard INT PATH '$[0]', upto BIGINT UNSIGNED PATH '$[1]')) c \
         ON c.shard = ((b.commit_id >> 16) & 63) AND b.commit_id <= c.upto \
         WHERE b.state = 'CONFIRMED'";
    const RELEASED: &str = "DELETE b FROM branches b LEFT JOIN entry_branches e \
         ON e.branch_id = b.id WHERE b.state = 'RELEASED' AND b.id <= ? AND e.branch_id IS NULL";
    let rows: Vec<(u64, String)> = upto
        .iter()
        .map(|(shard, position)| (*shard, position.to_string()))
        .collect();
    let rows = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(CONFIRMED)
        .bind(&rows)
        .bind(&rows)
        .execute(pool)
        .await?;
    // The entry that a released branch was held for could lie on any shard.
    let everywhere = upto.iter().map(|(_, position)| *position).min();
    sqlx::query(RELEASED)
        .bind(everywhere.unwrap_or_default().get())
        .execute(pool)
        .await?;
    Ok(())
}

/// Branches that contradict their entries, as far as both shards are settled, and branches that are
/// still held after `seconds`. Returns each branch with a text that says what is wrong.
///
/// # Errors
/// When MySQL does not answer.
pub async fn wrong(pool: &MySqlPool, seconds: u64) -> Result<Vec<(Position, String)>, sqlx::Error> {
    const TEXT: &str = "\
        SELECT b.id, CONCAT('is ', b.state, ', and entry ', e.entry_id, ' relies on it') \
          FROM branches b JOIN entry_branches e ON e.branch_id = b.id WHERE b.state = 'RELEASED' \
        UNION ALL SELECT b.id, CONCAT('was confirmed for entry ', b.commit_id, ', which is not there') \
          FROM branches b JOIN shards s ON s.shard = ((b.commit_id >> 16) & 63) \
          LEFT JOIN entry_branches e ON e.branch_id = b.id \
          WHERE b.state = 'CONFIRMED' AND e.entry_id IS NULL AND b.commit_id <= s.watermark \
        UNION ALL SELECT e.branch_id, CONCAT('is not there, and entry ', e.entry_id, ' relies on it') \
          FROM entry_branches e JOIN shards s ON s.shard = ((e.branch_id >> 16) & 63) \
          LEFT JOIN branches b ON b.id = e.branch_id \
          WHERE b.id IS NULL AND e.branch_id <= s.watermark \
        UNION ALL SELECT b.id, 'was held and has not ended' FROM branches b \
          WHERE b.state = 'HELD' AND b.updated_at < NOW(3) - INTERVAL ? SECOND \
        LIMIT 1000";
    let rows: Vec<(u64, String)> = sqlx::query_as(TEXT).bind(seconds).fetch_all(pool).await?;
    Ok(rows
        .into_iter()
        .map(|(id, text)| (Position::new(id), text))
        .collect())
}
