//! Replica beats: a number that rises on the primary and shows how far a replica follows.

use sqlx::MySqlPool;

/// Raises the number on the primary and returns it. A replica that shows this number has everything
/// that was committed before the call.
///
/// # Errors
/// When MySQL does not answer.
pub async fn raise(primary: &MySqlPool) -> Result<u64, sqlx::Error> {
    let text = "UPDATE replica_beats SET beat = LAST_INSERT_ID(beat + 1) WHERE id = 1";
    let done = sqlx::query(text).execute(primary).await?;
    Ok(done.last_insert_id())
}

/// The number that a replica shows; 0 when it has none yet.
///
/// # Errors
/// When the replica does not answer.
pub async fn seen(replica: &MySqlPool) -> Result<u64, sqlx::Error> {
    let beat: Option<u64> = sqlx::query_scalar("SELECT beat FROM replica_beats WHERE id = 1")
        .fetch_optional(replica)
        .await?;
    Ok(beat.unwrap_or_default())
}
