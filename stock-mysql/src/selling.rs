//! The selling switch: whether selling is open, as an operator last asked for it. One row tells
//! every instance.

use sqlx::MySqlPool;
use stock_domain::selling::Switched;

/// Reads the last request of an operator; `None` when there was none.
///
/// # Errors
/// When MySQL does not answer.
pub async fn load(pool: &MySqlPool) -> Result<Option<Switched>, sqlx::Error> {
    let row: Option<(bool, u64)> =
        sqlx::query_as("SELECT is_open, at_ms FROM selling WHERE id = 1")
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(open, at_ms)| Switched { open, at_ms }))
}

/// Saves a request, unless a later one is saved already. Of two requests with the same time the one
/// that stops selling stays.
///
/// # Errors
/// When MySQL does not answer.
pub async fn save(pool: &MySqlPool, switched: Switched) -> Result<(), sqlx::Error> {
    // The columns are assigned from left to right, so the time comes last.
    sqlx::query(
        "INSERT INTO selling (id, is_open, at_ms) VALUES (1, ?, ?) ON DUPLICATE KEY UPDATE \
         is_open = IF(VALUES(at_ms) > at_ms, VALUES(is_open), \
         IF(VALUES(at_ms) = at_ms, is_open AND VALUES(is_open), is_open)), \
         at_ms = GREATEST(at_ms, VALUES(at_ms))",
    )
    .bind(switched.open)
    .bind(switched.at_ms)
    .execute(pool)
    .await?;
    Ok(())
}
