//! Jobs: a row per scheduled job, whose lock makes one instance run it.

use chrono::NaiveDateTime;
use sqlx::{MySql, MySqlPool, Transaction};

/// Takes a job for this instance until the transaction ends; `None` while another has it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn claim(
    pool: &MySqlPool,
    name: &str,
) -> Result<Option<Transaction<'static, MySql>>, sqlx::Error> {
    // Asked for without a lock first: an insert would wait for the one who holds the row.
    let is_known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM jobs WHERE name = ?)")
        .bind(name)
        .fetch_one(pool)
        .await?;
    if !is_known {
        sqlx::query("INSERT IGNORE INTO jobs (name) VALUES (?)")
            .bind(name)
            .execute(pool)
            .await?;
    }
    let mut transaction = pool.begin().await?;
    let locked = sqlx::query("SELECT name FROM jobs WHERE name = ? FOR UPDATE NOWAIT")
        .bind(name)
        .execute(&mut *transaction)
        .await;
    match locked {
        Ok(_) => Ok(Some(transaction)),
        Err(error) if super::is_passing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says that the holder of a job is still at it: the server ends transactions that say nothing for long.
///
/// # Errors
/// When the job is this instance's no more.
pub async fn keep(claim: &mut Transaction<'static, MySql>) -> Result<(), sqlx::Error> {
    sqlx::query("DO 0").execute(&mut **claim).await?;
    Ok(())
}

/// Notes that the job succeeded, and lets it go.
///
/// # Errors
/// When MySQL does not answer.
pub async fn succeed(
    mut transaction: Transaction<'static, MySql>,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE jobs SET last_success_at = NOW(3) WHERE name = ?")
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// When each job last succeeded, on any instance. What a person starts is a lock of the same kind, and no job.
///
/// # Errors
/// When MySQL does not answer.
pub async fn last_success(
    pool: &MySqlPool,
) -> Result<Vec<(String, Option<NaiveDateTime>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT name, last_success_at FROM jobs WHERE name NOT IN ('seed', 'reshard') \
         AND name NOT LIKE 'recover %' ORDER BY name",
    )
    .fetch_all(pool)
    .await
}
