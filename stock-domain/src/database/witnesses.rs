//! Witnesses: what each instance accepted last, so that a Redis that was promoted can be proved to have it.

use std::time::Duration;

use sqlx::{MySqlConnection, MySqlPool};
use stock_common::id::Position;

/// How long an instance counts as alive after it was seen; it says so every second.
pub const ALIVE: Duration = Duration::from_secs(3);
/// Said while an instance meets no server: it accepts nothing.
const NO_SERVER: &str = "*";

/// Notes that an instance is there.
///
/// # Errors
/// When MySQL does not answer.
pub async fn seen(pool: &MySqlPool, instance: &str) -> Result<(), sqlx::Error> {
    touch(&mut *pool.acquire().await?, instance).await
}

async fn touch(connection: &mut MySqlConnection, instance: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO instances (id, seen_at) VALUES (?, NOW(3)) \
         ON DUPLICATE KEY UPDATE seen_at = NOW(3)",
    )
    .bind(instance)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets an instance that has ended in order: it accepts nothing any more.
///
/// # Errors
/// When MySQL does not answer.
pub async fn gone(pool: &MySqlPool, instance: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM instances WHERE id = ?")
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
    own: (&str, Position),
    server: &str,
) -> Result<Option<Witnessed>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let proved = lock(&mut transaction, shard).await?;
    touch(&mut transaction, own.0).await?;
    write(&mut transaction, shard, own, server).await?;
    let witnessed = match proved == server {
        true => None,
        false => Some(ask(&mut transaction, shard, server).await?),
    };
    transaction.commit().await?;
    Ok(witnessed)
}

/// Locks the row that says which server was proved last: of several instances one decides at a time.
async fn lock(connection: &mut MySqlConnection, shard: u64) -> Result<String, sqlx::Error> {
    sqlx::query("INSERT IGNORE INTO masters (shard, server) VALUES (?, '')")
        .bind(shard)
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT server FROM masters WHERE shard = ? FOR UPDATE")
        .bind(shard)
        .fetch_one(connection)
        .await
}

async fn ask(
    connection: &mut MySqlConnection,
    shard: u64,
    server: &str,
) -> Result<Witnessed, sqlx::Error> {
    let (missing, last): (i64, u64) = sqlx::query_as(
        "SELECT COUNT(*) - COUNT(w.instance), CAST(COALESCE(MAX(w.last_id), 0) AS UNSIGNED) \
         FROM instances i LEFT JOIN witnesses w \
         ON w.instance = i.id AND w.shard = ? AND w.server IN (?, ?) \
         WHERE i.seen_at > NOW(3) - INTERVAL ? SECOND",
    )
    .bind(shard)
    .bind(server)
    .bind(NO_SERVER)
    .bind(ALIVE.as_secs())
    .fetch_one(connection)
    .await?;
    Ok(Witnessed {
        missing: u64::try_from(missing).unwrap_or_default(),
        last: Position::new(last),
    })
}

async fn write(
    connection: &mut MySqlConnection,
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
    .execute(connection)
    .await?;
    Ok(())
}

/// Says what an instance accepted last, and that it accepts nothing until it has proved a server again: nobody
/// waits for it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn shut(
    connection: &mut MySqlConnection,
    shard: u64,
    own: (&str, Position),
) -> Result<(), sqlx::Error> {
    write(connection, shard, own, NO_SERVER).await
}

/// How many live instances accepted something that is not settled and meet no server: what Redis lacks of it is not
/// listed yet.
///
/// # Errors
/// When MySQL does not answer.
pub async fn unmet(pool: &MySqlPool, shard: u64, settled: Position) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM instances i JOIN witnesses w ON w.instance = i.id AND w.shard = ? \
         WHERE i.seen_at > NOW(3) - INTERVAL ? SECOND AND w.server = ? AND w.last_id > ?",
    )
    .bind(shard)
    .bind(ALIVE.as_secs())
    .bind(NO_SERVER)
    .bind(settled.get())
    .fetch_one(pool)
    .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Notes the server that has all that was accepted up to `last`, unless somebody has met another one or accepted more
/// meanwhile; returns whether it was noted.
///
/// # Errors
/// When MySQL does not answer.
pub async fn prove(
    pool: &MySqlPool,
    shard: u64,
    server: &str,
    last: Position,
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    lock(&mut transaction, shard).await?;
    let now = ask(&mut transaction, shard, server).await?;
    let is_proved = now.missing == 0 && now.last <= last;
    if is_proved {
        set(&mut transaction, shard, server).await?;
    }
    transaction.commit().await?;
    Ok(is_proved)
}

/// Notes a server that was just rebuilt.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set(
    connection: &mut MySqlConnection,
    shard: u64,
    server: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO masters (shard, server) VALUES (?, ?) \
         ON DUPLICATE KEY UPDATE server = VALUES(server)",
    )
    .bind(shard)
    .bind(server)
    .execute(connection)
    .await?;
    Ok(())
}
