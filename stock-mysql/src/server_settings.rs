//! Reads the settings of a MySQL server on which a promise rests.

use sqlx::MySqlPool;
use stock_domain::server_settings::DatabaseSettings;

/// Reads the settings.
///
/// # Errors
/// When the server does not answer.
pub async fn read(pool: &MySqlPool) -> Result<DatabaseSettings, sqlx::Error> {
    // A switch that is on reads as 1; newer MariaDB servers name its levels.
    let (read_only, flush, writes_log, sync): (String, u64, u64, u64) = sqlx::query_as(
        "SELECT UPPER(CAST(@@global.read_only AS CHAR)), \
         CAST(@@global.innodb_flush_log_at_trx_commit AS UNSIGNED), \
         CAST(@@global.log_bin AS UNSIGNED), CAST(@@global.sync_binlog AS UNSIGNED)",
    )
    .fetch_one(pool)
    .await?;
    Ok(DatabaseSettings {
        is_read_only: !matches!(read_only.as_str(), "0" | "OFF"),
        flush_log_at_commit: flush,
        sync_binlog: (writes_log == 1).then_some(sync),
    })
}
