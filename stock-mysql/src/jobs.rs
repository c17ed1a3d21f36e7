//! Jobs: one row per scheduled job. The instance that locks the row runs the job.

use std::time::Duration;

use chrono::NaiveDateTime;
use sqlx::{Connection, Executor, MySqlConnection, MySqlPool};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Pause between the statements that keep a claim alive.
const KEEP: Duration = Duration::from_secs(2);
/// Seconds of silence after which the server ends a claim. Another instance then takes over from an
/// instance whose machine or link is lost.
const KEPT_SECONDS: u32 = 10;

/// A job that this instance holds, until the claim is dropped or the server has heard nothing from
/// it for ten seconds.
#[derive(Debug)]
pub struct Claim {
    name: String,
    /// Dropping this sender ends the task that keeps the claim.
    end: oneshot::Sender<()>,
    keeping: JoinHandle<Result<MySqlConnection, sqlx::Error>>,
}

impl Claim {
    /// Checks that this instance still holds the job.
    ///
    /// # Errors
    /// When this instance has lost the job.
    pub fn check(&self) -> Result<(), sqlx::Error> {
        match self.keeping.is_finished() {
            true => Err(sqlx::Error::Protocol(format!(
                "the claim of {} was lost",
                self.name
            ))),
            false => Ok(()),
        }
    }

    /// Notes that the job succeeded, and releases it.
    ///
    /// # Errors
    /// When MySQL does not answer, or this instance has lost the job.
    pub async fn succeed(self) -> Result<(), sqlx::Error> {
        let name = self.name.clone();
        let mut connection = self.end().await?;
        sqlx::query("UPDATE jobs SET last_success_at = NOW(3) WHERE name = ?")
            .bind(name)
            .execute(&mut connection)
            .await?;
        connection.execute("COMMIT").await?;
        connection.close().await
    }

    /// Releases the job, which did not succeed. When this returns, it can be claimed again; a claim
    /// that is only dropped is released a moment later.
    ///
    /// # Errors
    /// When MySQL does not answer. The server then ends the claim.
    pub async fn release(self) -> Result<(), sqlx::Error> {
        let releasing = async {
            let mut connection = self.end().await?;
            connection.execute("ROLLBACK").await?;
            connection.close().await
        };
        let released = tokio::time::timeout(KEEP, releasing).await;
        released.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// The connection that holds the job.
    async fn end(self) -> Result<MySqlConnection, sqlx::Error> {
        drop(self.end);
        let kept = self.keeping.await;
        kept.map_err(|error| sqlx::Error::Protocol(error.to_string()))?
    }
}

/// Whether a job has a row, such as `seed` once it has run.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_known(pool: &MySqlPool, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM jobs WHERE name = ?)")
        .bind(name)
        .fetch_one(pool)
        .await
}

/// Claims a job for this instance; `None` while another instance holds it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn claim(pool: &MySqlPool, name: &str) -> Result<Option<Claim>, sqlx::Error> {
    // Read without a lock first, because an insert would wait for the instance that holds the row.
    if !is_known(pool, name).await? {
        sqlx::query("INSERT IGNORE INTO jobs (name) VALUES (?)")
            .bind(name)
            .execute(pool)
            .await?;
    }
    // The claim has a connection of its own. Dropping it closes it at once, even when its other end
    // is lost.
    let mut connection = pool.acquire().await?.detach();
    super::limit_silence(&mut connection, KEPT_SECONDS).await?;
    connection.execute("START TRANSACTION").await?;
    let locked = sqlx::query("SELECT name FROM jobs WHERE name = ? FOR UPDATE NOWAIT")
        .bind(name)
        .execute(&mut connection)
        .await;
    match locked {
        Ok(_) => {}
        Err(error) if super::is_passing(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let (end, ended) = oneshot::channel();
    Ok(Some(Claim {
        name: name.to_owned(),
        end,
        keeping: tokio::spawn(keep(connection, ended)),
    }))
}

/// Keeps a claim alive until it ends; returns the connection that holds it.
async fn keep(
    mut connection: MySqlConnection,
    mut ended: oneshot::Receiver<()>,
) -> Result<MySqlConnection, sqlx::Error> {
    let kept_max = Duration::from_secs(KEPT_SECONDS.into());
    loop {
        tokio::select! {
            _ = &mut ended => return Ok(connection),
            () = tokio::time::sleep(KEEP) => {}
        }
        let kept = tokio::time::timeout(kept_max, connection.execute("DO 0")).await;
        kept.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    }
}

/// When each job last succeeded, on any instance. Commands that a person starts take a lock of the
/// same kind, but are no jobs.
///
/// # Errors
/// When MySQL does not answer.
pub async fn last_success(
    pool: &MySqlPool,
) -> Result<Vec<(String, Option<NaiveDateTime>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT name, last_success_at FROM jobs WHERE name NOT IN ('seed', 'seed_campaign', 'rehome', 'reshard') \
         AND name NOT LIKE 'recover %' ORDER BY name",
    )
    .fetch_all(pool)
    .await
}
