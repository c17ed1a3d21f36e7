//! Troubles that no comparison shows: accepted entries that were lost, accounts under quarantine,
//! and a MySQL that does not move.
//!
//! Each trouble is reported as a difference, so that a run never says that all is well beside one.

use sqlx::MySqlPool;
use stock_mysql::quarantine::{self, Quarantined};
use stock_mysql::shards;
use stock_redis::Ledger;

use super::{Difference, VerifyError};

/// How long MySQL may stand still while there is something to apply.
pub const STALLED_SECONDS: u64 = 10;
/// Most lost entries that are listed.
const LISTED_MAX: u32 = 100;

/// Looks for every trouble.
pub(super) async fn found(
    pool: &MySqlPool,
    ledger: &Ledger,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = lost(pool).await?;
    found.extend(quarantined(pool).await?);
    found.extend(stalled(pool, ledger).await?);
    Ok(found)
}

/// Entries that an instance accepted and that no journal has.
async fn lost(pool: &MySqlPool) -> Result<Vec<Difference>, sqlx::Error> {
    let rows: Vec<(u64, u64)> = sqlx::query_as(
        "SELECT journal_id, CAST(shard AS UNSIGNED) FROM lost_entries ORDER BY journal_id LIMIT ?",
    )
    .bind(LISTED_MAX)
    .fetch_all(pool)
    .await?;
    let lost = |(id, shard)| {
        let text = format!("was accepted on shard {shard}, and is in no journal");
        Difference::new("lost_entries", id, text)
    };
    Ok(rows.into_iter().map(lost).collect())
}

/// Accounts from which nothing may be taken.
async fn quarantined(pool: &MySqlPool) -> Result<Vec<Difference>, sqlx::Error> {
    let all = quarantine::list(pool).await?.into_iter();
    let difference = |of: Quarantined| {
        let text = format!("is under quarantine: {}", of.broken.reason);
        Difference::new("quarantine", of.broken.account, text)
    };
    Ok(all.map(difference).collect())
}

/// Shards that settle nothing although an entry waits for that.
async fn stalled(pool: &MySqlPool, ledger: &Ledger) -> Result<Vec<Difference>, VerifyError> {
    let mut found = Vec::new();
    for shard in ledger.shards() {
        let number = shard.keys().shard();
        let stands: Option<i64> = sqlx::query_scalar(
            "SELECT TIMESTAMPDIFF(SECOND, updated_at, NOW(3)) FROM shards WHERE shard = ?",
        )
        .bind(number)
        .fetch_optional(pool)
        .await?;
        let stands = u64::try_from(stands.unwrap_or_default()).unwrap_or_default();
        let Some(state) = shards::load(pool, number).await? else {
            continue;
        };
        let tail = shard.tail(state.watermark, 1).await?;
        let Some(first) = tail.entries.first().filter(|_| stands >= STALLED_SECONDS) else {
            continue;
        };
        let now = shard.redis_now_ms();
        let waits = now.saturating_sub(first.position.unix_ms()) / 1_000;
        if waits >= STALLED_SECONDS {
            let text = format!(
                "mysql has not moved for {stands} s, and entry {} waits since {waits} s",
                first.position
            );
            found.push(Difference::new("stalled", number, text));
        }
    }
    Ok(found)
}
