//! The monitor: once a second, measures what no request sees, lag, Redis' memory, dead letters, the
//! age of jobs.

use std::sync::Arc;
use std::time::Duration;

use stock_domain::database::{dead_letters, jobs, shards, webhooks};
use stock_domain::ledger::redis_memory::RedisMemory;
use stock_domain::ledger::{ReadError, epoch};
use stock_domain::reconcile::age_seconds;
use tokio_util::sync::CancellationToken;

use crate::app::App;

const EVERY: Duration = Duration::from_secs(1);

/// Measures until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("stock_build_info", "version" => version).set(1.0);
    metrics::gauge!("stock_drift_accounts").set(0.0);
    let mut was_nearly_full = false;
    loop {
        match app.ledger.memory().await {
            Ok(memory) => {
                note_memory(memory, was_nearly_full);
                was_nearly_full = memory.is_nearly_full();
            }
            Err(error) => tracing::debug!(%error, "cannot measure redis' memory"),
        }
        if let Err(error) = measure_lag(&app).await {
            tracing::debug!(%error, "cannot measure the lag");
        }
        if let Err(error) = measure_tables(&app).await {
            tracing::debug!(%error, "cannot read the job tables");
        }
        app.prometheus.run_upkeep();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Says once that it is getting full; the metrics say it all the time.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn note_memory(memory: RedisMemory, was_nearly_full: bool) {
    let (used, limit) = (memory.used_bytes, memory.limit_bytes);
    metrics::gauge!("stock_redis_memory_used_bytes").set(used as f64);
    metrics::gauge!("stock_redis_memory_limit_bytes").set(limit as f64);
    if memory.is_nearly_full() && !was_nearly_full {
        tracing::warn!(
            used,
            limit,
            "redis is nearly full: soon it will refuse every order"
        );
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and lags are far below 2^53"
)]
async fn measure_lag(app: &App) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut link = app.ledger.link()?;
    // Without MySQL, which then stands still, what this process last knew of it is as good.
    let loaded = shards::load(&app.pool, app.ledger.keys().shard()).await;
    let Some(state) = loaded.unwrap_or_else(|_away| app.ledger.known_state()) else {
        return Ok(());
    };
    let head = epoch::head(&mut link.read, app.ledger.keys())
        .await
        .map_err(ReadError::from)?;
    let lag = head.map_or(0, |head| head.number.saturating_sub(state.number));
    app.set_lag_entries(lag);
    metrics::gauge!("stock_journal_lag_entries").set(lag as f64);
    let oldest = match lag {
        0 => None,
        _ => app.ledger.tail(state.watermark, 1).await?.entries.pop(),
    };
    let seconds = oldest.map_or(0.0, |entry| {
        app.ledger
            .redis_now_ms()
            .saturating_sub(entry.position.unix_ms()) as f64
            / 1_000.0
    });
    metrics::gauge!("stock_journal_lag_seconds").set(seconds);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
async fn measure_tables(app: &App) -> Result<(), sqlx::Error> {
    metrics::gauge!("stock_dead_letters").set(dead_letters::unresolved(&app.pool).await? as f64);
    metrics::gauge!("stock_webhook_deliveries_waiting")
        .set(webhooks::waiting(&app.pool).await? as f64);
    for (job, last) in jobs::last_success(&app.pool).await? {
        if let Some(age) = age_seconds(last, app.clock.now_ms()) {
            metrics::gauge!("stock_job_last_success_seconds", "job" => job).set(age as f64);
        }
    }
    Ok(())
}
