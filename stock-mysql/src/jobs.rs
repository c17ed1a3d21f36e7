//! Jobs: a row per scheduled job, whose lock makes one instance run it.

use std::time::Duration;

use chrono::NaiveDateTime;
use sqlx::{Connection, Executor, MySqlConnection, MySqlPool};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often the server hears that the holder of a job is still there.
const KEEP: Duration = Duration::from_secs(2);
/// How long the server waits for that: so soon another instance takes over from one whose machine or link is lost.
const KEPT_SECONDS: u32 = 10;

/// A job that this instance holds until the claim is dropped, or the server has heard nothing of it for ten seconds.
#[derive(Debug)]
pub struct Claim {
    name: String,
    /// Dropped, it ends the keeping.
    end: oneshot::Sender<()>,
    keeping: JoinHandle<Result<MySqlConnection, sqlx::Error>>,
}

impl Claim {
    /// Whether the job is still this instance's.
    ///
    /// # Errors
    /// When it is this instance's no more.
    pub fn check(&self) -> Result<(), sqlx::Error> {
        match self.keeping.is_finished() {
            true => Err(sqlx::Error::Protocol(format!(
                "the claim of {} was lost",
                self.name
            ))),
            false => Ok(()),
        }
    }

    /// Notes that the job succeeded, and lets it go.
    ///
    /// # Errors
    /// When MySQL does not answer, or the job is this instance's no more.
    pub async fn succeed(self) -> Result<(), sqlx::Error> {
        drop(self.end);
        let kept = self.keeping.await;
        let mut connection = kept.map_err(|error| sqlx::Error::Protocol(error.to_string()))??;
        sqlx::query("UPDATE jobs SET last_success_at = NOW(3) WHERE name = ?")
            .bind(self.name)
            .execute(&mut connection)
            .await?;
        connection.execute("COMMIT").await?;
        connection.close().await
    }
}

/// Takes a job for this instance; `None` while another has it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn claim(pool: &MySqlPool, name: &str) -> Result<Option<Claim>, sqlx::Error> {
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
    // A connection of its own: dropped, it ends at once, also when its other end is lost.
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

/// Says that the holder of a job is still there, until it ends; returns the connection that holds it.
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
/// When each job last succeeded, on any instance. What a person starts is a lock of the same kind, and no job.
///
/// # Errors
/// When MySQL does not answer.
pub async fn last_success(
    pool: &MySqlPool,
) -> Result<Vec<(String, Option<NaiveDateTime>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT name, last_success_at FROM jobs WHERE name NOT IN ('seed', 'rehome', 'reshard') \
         AND name NOT LIKE 'recover %' ORDER BY name",
    )
    .fetch_all(pool)
    .await
}
