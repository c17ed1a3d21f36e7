//! Sessions: the data that pages keep for a browser, by the hash of the id in its cookie.

use sqlx::MySqlPool;

/// SHA-256 of a session's id.
pub type IdHash = [u8; 32];

/// Writes a new or a known session, which ends at `expires_at`, in Unix seconds.
///
/// # Errors
/// When MySQL does not answer, or `data` has more than 4,000 characters.
pub async fn write(
    pool: &MySqlPool,
    id: &IdHash,
    data: &str,
    expires_at: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sessions (id_hash, data, expires_at) VALUES (?, ?, FROM_UNIXTIME(?)) \
         ON DUPLICATE KEY UPDATE data = VALUES(data), expires_at = VALUES(expires_at)",
    )
    .bind(id.as_slice())
    .bind(data)
    .bind(expires_at)
    .execute(pool)
    .await?;
    Ok(())
}

/// Reads a session that has not ended: its data, and its end in Unix seconds.
///
/// # Errors
/// When MySQL does not answer.
pub async fn read(pool: &MySqlPool, id: &IdHash) -> Result<Option<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT data, CAST(UNIX_TIMESTAMP(expires_at) AS SIGNED) FROM sessions \
         WHERE id_hash = ? AND expires_at > NOW(3)",
    )
    .bind(id.as_slice())
    .fetch_optional(pool)
    .await
}

/// Ends a session.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(pool: &MySqlPool, id: &IdHash) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE id_hash = ?")
        .bind(id.as_slice())
        .execute(pool)
        .await?;
    Ok(())
}

/// Removes sessions that have ended; returns their number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM sessions WHERE expires_at < NOW(3)")
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}
