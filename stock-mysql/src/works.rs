//! Works in MySQL: the campaign items that coupons are drawn for.

use chrono::NaiveDateTime;
use sqlx::{MySqlExecutor, MySqlPool};
use stock_common::id::WorkId;

/// A campaign item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The id of the work.
    pub id: WorkId,
    /// The title, 1..=100 characters, which no other work has.
    pub title: String,
}

/// Inserts a work. A title that another work has violates the unique key `works_title` (error
/// 1062).
///
/// # Errors
/// When MySQL does not answer, or the title is taken.
pub async fn insert(executor: impl MySqlExecutor<'_>, title: &str) -> Result<WorkId, sqlx::Error> {
    let done = sqlx::query("INSERT INTO works (title) VALUES (?)")
        .bind(title)
        .execute(executor)
        .await?;
    Ok(WorkId(done.last_insert_id()))
}

/// Changes the title of a work; `false` when there is no such work.
///
/// # Errors
/// When MySQL does not answer, or the title is taken.
pub async fn update(
    executor: impl MySqlExecutor<'_>,
    id: WorkId,
    title: &str,
) -> Result<bool, sqlx::Error> {
    // `updated_at` is assigned too, so that a row counts as changed even when its title stays the
    // same.
    let done = sqlx::query(
        "UPDATE works SET title = ?, updated_at = NOW(3) WHERE id = ? AND is_deleted = 0",
    )
    .bind(title)
    .bind(id.0)
    .execute(executor)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a work; codes that were drawn for it stay. `false` when there is no such work.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(executor: impl MySqlExecutor<'_>, id: WorkId) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE works SET is_deleted = 1 WHERE id = ? AND is_deleted = 0")
        .bind(id.0)
        .execute(executor)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Lists works, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    before: Option<WorkId>,
    limit: u32,
) -> Result<Vec<Work>, sqlx::Error> {
    let rows: Vec<(u64, String)> = sqlx::query_as(
        "SELECT id, title FROM works WHERE is_deleted = 0 AND id < ? ORDER BY id DESC LIMIT ?",
    )
    .bind(before.map_or(u64::MAX, |before| before.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let work = |(id, title)| Work {
        id: WorkId(id),
        title,
    };
    Ok(rows.into_iter().map(work).collect())
}

/// A work with the times of its creation and of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedWork {
    /// The work.
    pub work: Work,
    /// When it was made, UTC.
    pub created_at: NaiveDateTime,
    /// When it was last changed, UTC.
    pub updated_at: NaiveDateTime,
}

/// The first works, in the order in which they were made.
///
/// # Errors
/// When MySQL does not answer.
pub async fn first(pool: &MySqlPool, limit: u32) -> Result<Vec<DatedWork>, sqlx::Error> {
    let rows: Vec<(u64, String, NaiveDateTime, NaiveDateTime)> = sqlx::query_as(
        "SELECT id, title, created_at, updated_at FROM works WHERE is_deleted = 0 ORDER BY id \
         LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let dated = |(id, title, created_at, updated_at)| DatedWork {
        work: Work {
            id: WorkId(id),
            title,
        },
        created_at,
        updated_at,
    };
    Ok(rows.into_iter().map(dated).collect())
}

/// Works that were changed since a moment, each with whether it still exists. `None` reads all
/// works.
///
/// # Errors
/// When MySQL does not answer.
pub async fn changed_since(
    pool: &MySqlPool,
    since: Option<NaiveDateTime>,
) -> Result<Vec<(WorkId, bool)>, sqlx::Error> {
    let rows: Vec<(u64, bool)> =
        sqlx::query_as("SELECT id, is_deleted FROM works WHERE updated_at >= ?")
            .bind(since.unwrap_or_default())
            .fetch_all(pool)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(id, is_deleted)| (WorkId(id), !is_deleted))
        .collect())
}
