//! Webhooks and their deliveries in MySQL.

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlExecutor, MySqlPool};

/// The state of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    /// Deliveries are sent.
    Active,
    /// An admin has paused the webhook.
    Paused,
    /// The receiver failed for the whole retry schedule (three days by default), or said that it is
    /// gone.
    Disabled,
}

impl WebhookState {
    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Paused => "PAUSED",
            Self::Disabled => "DISABLED",
        }
    }

    /// The state that has this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Disabled]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The number of the webhook.
    pub id: u64,
    /// The URL that it sends to.
    pub url: String,
    /// The kinds of messages that it sends.
    pub events: Vec<String>,
    /// Whether deliveries are sent.
    pub state: WebhookState,
    /// Number of entries that were delivered or passed over, over all shards.
    pub sent_number: u64,
    /// When the webhook was created.
    pub created_at: NaiveDateTime,
}

/// A delivery: a batch of entries that was sent or is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The number of the delivery.
    pub id: u64,
    /// The shard of its entries.
    pub shard: u64,
    /// The number of its first journal entry.
    pub first_number: u64,
    /// The number of its last journal entry.
    pub last_number: u64,
    /// `PENDING`, `DELIVERED` or `FAILED`.
    pub state: String,
    /// Number of attempts.
    pub attempts: u32,
    /// When the delivery is tried next.
    pub next_attempt_at: NaiveDateTime,
    /// The HTTP status of the last attempt, if there was an answer.
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When the delivery was created.
    pub created_at: NaiveDateTime,
}

from_row!(Delivery {
    id,
    shard,
    first_number,
    last_number,
    state,
    attempts,
    next_attempt_at,
    last_status,
    last_error,
    created_at
});

type Row = (u64, String, String, String, u64, NaiveDateTime);
const COLUMNS: &str = "SELECT id, url, events, CAST(state AS CHAR), CAST(COALESCE((SELECT SUM(sent_number) FROM \
     webhook_cursors WHERE webhook_id = webhooks.id), 0) AS UNSIGNED), created_at FROM webhooks";
const DELIVERY: &str = "SELECT id, shard, first_number, last_number, CAST(state AS CHAR) AS state, \
     attempts, next_attempt_at, last_status, last_error, created_at FROM webhook_deliveries";

fn parse((id, url, events, state, sent_number, created_at): Row) -> Option<Webhook> {
    Some(Webhook {
        id,
        url,
        events: events.split(',').map(str::to_owned).collect(),
        state: WebhookState::parse(&state)?,
        sent_number,
        created_at,
    })
}

/// Inserts a webhook that tells of the entries settled from now on, and returns its id. The caller
/// runs it in a transaction.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert(
    connection: &mut MySqlConnection,
    url: &str,
    events: &[String],
    secret: &str,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("INSERT INTO webhooks (url, events, secret) VALUES (?, ?, ?)")
        .bind(url)
        .bind(events.join(","))
        .bind(secret)
        .execute(&mut *connection)
        .await?;
    let id = done.last_insert_id();
    sqlx::query(
        "INSERT INTO webhook_cursors (webhook_id, shard, sent_number) \
         SELECT ?, shard, number FROM shards",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(id)
}

/// Writes the URL, the events and the state of a webhook. A webhook that becomes active begins with
/// the deliveries that failed. The caller runs it in a transaction.
///
/// # Errors
/// When MySQL does not answer.
pub async fn update(
    connection: &mut MySqlConnection,
    id: u64,
    url: &str,
    events: &[String],
    state: WebhookState,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE webhooks SET url = ?, events = ?, state = ? WHERE id = ?")
        .bind(url)
        .bind(events.join(","))
        .bind(state.as_str())
        .bind(id)
        .execute(&mut *connection)
        .await?;
    if state == WebhookState::Active {
        sqlx::query(
            "UPDATE webhook_deliveries SET state = 'PENDING', attempts = 0, \
             next_attempt_at = NOW(3) WHERE webhook_id = ? AND state = 'FAILED'",
        )
        .bind(id)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Writes a new secret. The previous secret signs too for one day.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_secret(
    executor: impl MySqlExecutor<'_>,
    id: u64,
    secret: &str,
) -> Result<(), sqlx::Error> {
    // Both MySQL and MariaDB assign the columns from left to right.
    let text = "UPDATE webhooks SET previous_secret = secret, \
         previous_until = NOW(3) + INTERVAL 1 DAY, secret = ? WHERE id = ? AND secret <> ?";
    sqlx::query(text)
        .bind(secret)
        .bind(id)
        .bind(secret)
        .execute(executor)
        .await?;
    Ok(())
}

/// Disables a webhook whose receiver is away for good.
///
/// # Errors
/// When MySQL does not answer.
pub async fn disable(pool: &MySqlPool, id: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE webhooks SET state = 'DISABLED' WHERE id = ?")
        .bind(id)
        .execute(pool)
        .await?;
    Ok(())
}

/// Removes a webhook; `false` when there is none. [`delete_log`] removes its deliveries.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(executor: impl MySqlExecutor<'_>, id: u64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM webhooks WHERE id = ?")
        .bind(id)
        .execute(executor)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes the deliveries of a webhook that was removed, in parts.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete_log(pool: &MySqlPool, id: u64) -> Result<(), sqlx::Error> {
    const LOG: &str = "DELETE FROM webhook_deliveries WHERE webhook_id = ? LIMIT 10000";
    while sqlx::query(LOG)
        .bind(id)
        .execute(pool)
        .await?
        .rows_affected()
        > 0
    {}
    Ok(())
}

/// All webhooks, by id.
///
/// # Errors
/// When MySQL does not answer.
pub async fn all(executor: impl MySqlExecutor<'_>) -> Result<Vec<Webhook>, sqlx::Error> {
    let text = format!("{COLUMNS} ORDER BY id");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .fetch_all(executor)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// Finds a webhook.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    executor: impl MySqlExecutor<'_>,
    id: u64,
) -> Result<Option<Webhook>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{COLUMNS} WHERE id = ?")))
        .bind(id)
        .fetch_optional(executor)
        .await?;
    Ok(row.and_then(parse))
}

/// The secrets that a webhook signs with, the current one first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn secrets(pool: &MySqlPool, id: u64) -> Result<Vec<String>, sqlx::Error> {
    let text = "SELECT secret, IF(previous_until > NOW(3), previous_secret, NULL) FROM webhooks WHERE id = ?";
    let row: Option<(String, Option<String>)> =
        sqlx::query_as(text).bind(id).fetch_optional(pool).await?;
    let secrets = row.map(|(current, previous)| std::iter::once(current).chain(previous));
    Ok(secrets.into_iter().flatten().collect())
}

/// Leases a webhook to this instance for some seconds; `false` while another instance has it, or
/// when it is not active.
///
/// # Errors
/// When MySQL does not answer.
pub async fn lease(
    pool: &MySqlPool,
    id: u64,
    holder: &str,
    seconds: u64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE webhooks SET lease = ?, leased_until = NOW(3) + INTERVAL ? SECOND WHERE id = ? \
         AND state = 'ACTIVE' AND (lease = ? OR leased_until IS NULL OR leased_until < NOW(3))",
    )
    .bind(holder)
    .bind(seconds)
    .bind(id)
    .bind(holder)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The number of a shard's journal up to which everything was delivered; 0 for a new shard.
///
/// # Errors
/// When MySQL does not answer.
pub async fn sent(pool: &MySqlPool, id: u64, shard: u64) -> Result<u64, sqlx::Error> {
    let number: Option<u64> = sqlx::query_scalar(
        "SELECT sent_number FROM webhook_cursors WHERE webhook_id = ? AND shard = ?",
    )
    .bind(id)
    .bind(shard)
    .fetch_optional(pool)
    .await?;
    Ok(number.unwrap_or(0))
}

/// Notes that no entry of a shard up to a number concerns the webhook any more.
///
/// # Errors
/// When MySQL does not answer.
pub async fn pass(pool: &MySqlPool, id: u64, shard: u64, number: u64) -> Result<(), sqlx::Error> {
    advance(&mut *pool.acquire().await?, id, shard, number).await
}

async fn advance(
    connection: &mut MySqlConnection,
    id: u64,
    shard: u64,
    number: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO webhook_cursors (webhook_id, shard, sent_number) VALUES (?, ?, ?) \
         ON DUPLICATE KEY UPDATE sent_number = GREATEST(sent_number, VALUES(sent_number))",
    )
    .bind(id)
    .bind(shard)
    .bind(number)
    .execute(connection)
    .await?;
    Ok(())
}

/// The first pending delivery, which is sent before any other, and whether it is due.
///
/// # Errors
/// When MySQL does not answer.
pub async fn next_pending(
    pool: &MySqlPool,
    webhook: u64,
) -> Result<Option<(Delivery, bool)>, sqlx::Error> {
    let text = format!("{DELIVERY} WHERE webhook_id = ? AND state = 'PENDING' ORDER BY id LIMIT 1");
    let found: Option<Delivery> = sqlx::query_as(AssertSqlSafe(text))
        .bind(webhook)
        .fetch_optional(pool)
        .await?;
    let Some(found) = found else { return Ok(None) };
    let is_due: bool =
        sqlx::query_scalar("SELECT next_attempt_at <= NOW(3) FROM webhook_deliveries WHERE id = ?")
            .bind(found.id)
            .fetch_one(pool)
            .await?;
    Ok(Some((found, is_due)))
}

/// Inserts a pending delivery of an active webhook. One that begins at the same entry stays:
/// another instance was quicker. A webhook that was paused after its entries were read gets none.
///
/// # Errors
/// When MySQL does not answer.
pub async fn insert_delivery(
    pool: &MySqlPool,
    webhook: u64,
    shard: u64,
    first: u64,
    last: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT IGNORE INTO webhook_deliveries (webhook_id, shard, first_number, last_number) \
         SELECT id, ?, ?, ? FROM webhooks WHERE id = ? AND state = 'ACTIVE'",
    )
    .bind(shard)
    .bind(first)
    .bind(last)
    .bind(webhook)
    .execute(pool)
    .await?;
    Ok(())
}

/// A delivery that is to be sent once more, beside the pending ones.
///
/// # Errors
/// When MySQL does not answer.
pub async fn next_resent(pool: &MySqlPool, webhook: u64) -> Result<Option<Delivery>, sqlx::Error> {
    let text = format!("{DELIVERY} WHERE webhook_id = ? AND is_resent = 1 ORDER BY id LIMIT 1");
    sqlx::query_as(AssertSqlSafe(text))
        .bind(webhook)
        .fetch_optional(pool)
        .await
}

/// Notes the result of a delivery that was sent once more. Its state does not change.
///
/// # Errors
/// When MySQL does not answer.
pub async fn resent(
    pool: &MySqlPool,
    delivery: u64,
    status: Option<u16>,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    let error: Option<String> = error.map(|error| error.chars().take(255).collect());
    sqlx::query(
        "UPDATE webhook_deliveries SET is_resent = 0, attempts = attempts + 1, last_status = ?, \
         last_error = ? WHERE id = ?",
    )
    .bind(status)
    .bind(error)
    .bind(delivery)
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that the receiver has a delivery, and moves the webhook on.
///
/// # Errors
/// When MySQL does not answer; the delivery is then sent again.
pub async fn delivered(
    pool: &MySqlPool,
    webhook: u64,
    delivery: &Delivery,
    status: u16,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "UPDATE webhook_deliveries SET state = 'DELIVERED', attempts = attempts + 1, \
         last_status = ?, last_error = NULL, ended_at = NOW(3) WHERE id = ? AND state = 'PENDING'",
    )
    .bind(status)
    .bind(delivery.id)
    .execute(&mut *transaction)
    .await?;
    advance(
        &mut transaction,
        webhook,
        delivery.shard,
        delivery.last_number,
    )
    .await?;
    transaction.commit().await
}

/// Notes that an attempt failed. The next attempt comes after `next_ms`; without one the delivery
/// has failed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn failed(
    pool: &MySqlPool,
    delivery: u64,
    status: Option<u16>,
    error: &str,
    next_ms: Option<u64>,
) -> Result<(), sqlx::Error> {
    let error: String = error.chars().take(255).collect();
    sqlx::query(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, last_status = ?, last_error = ?, \
         state = IF(?, 'PENDING', 'FAILED'), next_attempt_at = NOW(3) + INTERVAL ? MICROSECOND, \
         ended_at = IF(?, NULL, NOW(3)) WHERE id = ? AND state = 'PENDING'",
    )
    .bind(status)
    .bind(error)
    .bind(next_ms.is_some())
    .bind(next_ms.unwrap_or(0) * 1_000)
    .bind(next_ms.is_some())
    .bind(delivery)
    .execute(pool)
    .await?;
    Ok(())
}

/// Lists a webhook's deliveries in a state or in any, newest first, with ids below `before`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn deliveries(
    pool: &MySqlPool,
    webhook: u64,
    state: Option<&str>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let text = format!(
        "{DELIVERY} WHERE webhook_id = ? AND (? OR state = ?) AND id < ? ORDER BY id DESC LIMIT ?"
    );
    sqlx::query_as(AssertSqlSafe(text))
        .bind(webhook)
        .bind(state.is_none())
        .bind(state.unwrap_or_default())
        .bind(before.unwrap_or(u64::MAX))
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// Asks for a delivery to be sent once more: a pending one at once, any other beside the pending
/// ones. `false` when there is no such delivery.
///
/// # Errors
/// When MySQL does not answer.
pub async fn resend(
    executor: impl MySqlExecutor<'_>,
    webhook: u64,
    delivery: u64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE webhook_deliveries SET is_resent = IF(state = 'PENDING', 0, 1), \
         next_attempt_at = NOW(3) WHERE id = ? AND webhook_id = ?",
    )
    .bind(delivery)
    .bind(webhook)
    .execute(executor)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes deliveries that succeeded and are older than so many days, in parts; returns their
/// number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool, days: u32) -> Result<u64, sqlx::Error> {
    let mut removed = 0;
    loop {
        let done = sqlx::query(
            "DELETE FROM webhook_deliveries WHERE state = 'DELIVERED' \
             AND created_at < NOW(3) - INTERVAL ? DAY LIMIT 1000",
        )
        .bind(days)
        .execute(pool)
        .await?
        .rows_affected();
        removed += done;
        if done == 0 {
            return Ok(removed);
        }
    }
}

/// The webhook that still needs the oldest entries of a shard, and the number up to which it needs
/// none. Paused and disabled webhooks count too, because they go on where they stopped.
///
/// # Errors
/// When MySQL does not answer.
pub async fn slowest(pool: &MySqlPool, shard: u64) -> Result<Option<(u64, u64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, CAST(number AS UNSIGNED) FROM (SELECT w.id, COALESCE(c.sent_number, 0) AS number \
         FROM webhooks w LEFT JOIN webhook_cursors c ON c.webhook_id = w.id AND c.shard = ? \
         UNION ALL SELECT webhook_id, first_number - 1 FROM webhook_deliveries \
         WHERE is_resent = 1 AND shard = ?) needed ORDER BY number LIMIT 1",
    )
    .bind(shard)
    .bind(shard)
    .fetch_optional(pool)
    .await
}

/// Number of pending deliveries, over all webhooks, paused and disabled ones included.
///
/// # Errors
/// When MySQL does not answer.
pub async fn waiting(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM webhook_deliveries WHERE state = 'PENDING'")
        .fetch_one(pool)
        .await
}
