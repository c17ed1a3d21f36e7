//! Witnesses: what each instance accepted last, so that a Redis that was promoted can be proved to have it.

use sqlx::MySqlPool;
use stock_common::id::Position;

/// How long an instance counts as alive after it was seen; it says so every second.
const ALIVE_SECONDS: u32 = 3;
/// Said while an instance meets no server: it accepts nothing.
const NO_SERVER: &str = "*";

/// Notes that an instance is there.
///
/// # Errors
/// When MySQL does not answer.
pub async fn seen(pool: &MySqlPool, instance: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO instances (id, seen_at) VALUES (?, NOW(3)) \
         ON DUPLICATE KEY UPDATE seen_at = NOW(3)",
    )
    .bind(instance)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets instances, and what they said, that were not seen for a day.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM instances WHERE seen_at < NOW(3) - INTERVAL 1 DAY")
        .execute(pool)
        .await?;
    sqlx::query("DELETE FROM witnesses WHERE instance NOT IN (SELECT id FROM instances)")
        .execute(pool)
        .await?;
    Ok(())
}

/// How many instances are alive.
///
/// # Errors
/// When MySQL does not answer.
pub async fn alive(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM instances WHERE seen_at > NOW(3) - INTERVAL ? SECOND",
    )
    .bind(ALIVE_SECONDS)
    .fetch_one(pool)
    .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// What all said about a server.
#[derive(Debug, Clone, Copy)]
pub struct Witnessed {
    /// Live instances that have said nothing yet.
    pub missing: u64,
    /// The highest position that any of the others accepted.
    pub last: Position,
}

/// Says what an instance accepted last, and asks what the others said of this server; `None` when it was proved
/// before.
///
/// # Errors
/// When MySQL does not answer.
pub async fn say(
    pool: &MySqlPool,
    shard: u64,
    (instance, last): (&str, Position),
    server: &str,
) -> Result<Option<Witnessed>, sqlx::Error> {
    seen(pool, instance).await?;
    write(pool, shard, (instance, last), server).await?;
    let proved: Option<String> = sqlx::query_scalar("SELECT server FROM masters WHERE shard = ?")
        .bind(shard)
        .fetch_optional(pool)
        .await?;
    if proved.is_some_and(|proved| proved == server) {
        return Ok(None);
    }
    let (missing, last): (i64, u64) = sqlx::query_as(
        "SELECT COUNT(*) - COUNT(w.instance), CAST(COALESCE(MAX(w.last_id), 0) AS UNSIGNED) \
         FROM instances i LEFT JOIN witnesses w \
         ON w.instance = i.id AND w.shard = ? AND w.server IN (?, ?) \
         WHERE i.seen_at > NOW(3) - INTERVAL ? SECOND",
    )
    .bind(shard)
    .bind(server)
    .bind(NO_SERVER)
    .bind(ALIVE_SECONDS)
    .fetch_one(pool)
    .await?;
    Ok(Some(Witnessed {
        missing: u64::try_from(missing).unwrap_or_default(),
        last: Position::new(last),
    }))
}

async fn write(
    pool: &MySqlPool,
    shard: u64,
    (instance, last): (&str, Position),
    server: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO witnesses (shard, instance, server, last_id) VALUES (?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE server = VALUES(server), last_id = VALUES(last_id)",
    )
    .bind(shard)
    .bind(instance)
    .bind(server)
    .bind(last.get())
    .execute(pool)
    .await?;
    Ok(())
}

/// Says what an instance accepted last, and that it accepts nothing until it has proved a server again: nobody
/// waits for it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn shut(
    pool: &MySqlPool,
    shard: u64,
    instance: &str,
    last: Position,
) -> Result<(), sqlx::Error> {
    write(pool, shard, (instance, last), NO_SERVER).await
}

/// How many live instances have not met the server that the others have: what they accepted and it lacks is not
/// listed yet.
///
/// # Errors
/// When MySQL does not answer.
pub async fn unmet(pool: &MySqlPool, shard: u64) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM instances i LEFT JOIN witnesses w \
         ON w.instance = i.id AND w.shard = ? WHERE i.seen_at > NOW(3) - INTERVAL ? SECOND \
         AND COALESCE(w.server, ?) = ?",
    )
    .bind(shard)
    .bind(ALIVE_SECONDS)
    .bind(NO_SERVER)
    .bind(NO_SERVER)
    .fetch_one(pool)
    .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Notes the server that has all that was accepted.
///
/// # Errors
/// When MySQL does not answer.
pub async fn prove(pool: &MySqlPool, shard: u64, server: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO masters (shard, server) VALUES (?, ?) \
         ON DUPLICATE KEY UPDATE server = VALUES(server)",
    )
    .bind(shard)
    .bind(server)
    .execute(pool)
    .await?;
    Ok(())
}
