//! The monitor: measures lag, Redis' memory, dead letters, the age of jobs and the newest products'
//! stock once a second. [`crate::history`] keeps the samples.

use std::sync::Arc;
use std::time::Duration;

use stock_common::clock::unix_ms;
use stock_common::id::{LocationId, ProductId};
use stock_domain::account::Account;
use stock_domain::catalog::{ProductFilter, ProductStatus};
use stock_engine::reconcile::age_seconds;
use stock_mysql::ledger_checks::{self, CheckKind};
use stock_mysql::{dead_letters, jobs, quarantine, shards, webhooks};
use stock_redis::redis_memory::RedisMemory;
use stock_redis::{ReadError, Shard, epoch};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::history::{Lag, Sample, Stock, Tables};

const EVERY: Duration = Duration::from_secs(1);
/// Maximum number of products whose stock is sampled.
const STOCK_MAX: u32 = 24;

/// Measures until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("stock_build_info", "version" => version).set(1.0);
    metrics::gauge!("stock_drift_accounts").set(0.0);
    metrics::gauge!("stock_verify_differences").set(0.0);
    let mut was_nearly_full = false;
    let mut sample = Sample::default();
    let mut has_begun = false;
    loop {
        match app.ledger.memory().await {
            Ok(memory) => {
                note_memory(memory, was_nearly_full);
                was_nearly_full = memory.is_nearly_full();
                app.people.limits.note_scarce(memory.is_scarce());
            }
            Err(error) => tracing::debug!(%error, "cannot measure redis' memory"),
        }
        // A value that could not be measured keeps its last measurement.
        match measure_lag(&app).await {
            Ok(Some(lag)) => (sample.lag, has_begun) = (lag, true),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "cannot measure the lag"),
        }
        match measure_tables(&app).await {
            Ok(tables) => sample.tables = tables,
            Err(error) => tracing::debug!(%error, "cannot read the job tables"),
        }
        match measure_stock(&app).await {
            Ok(stock) => sample.stock = stock,
            Err(error) => tracing::debug!(%error, "cannot read the newest products' stock"),
        }
        app.prometheus.run_upkeep();
        sample.at_ms = app.clock.now_ms();
        // A curve that began at zero would show everything as one leap.
        if has_begun {
            app.live.history.add(sample.clone());
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Sets the memory metrics, and warns once when Redis is nearly full.
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
async fn measure_lag(app: &App) -> Result<Option<Lag>, Box<dyn std::error::Error + Send + Sync>> {
    let mut all = None::<Lag>;
    for shard in app.ledger.shards().into_iter().filter(Shard::is_open) {
        let Some(lag) = lag_of(app, &shard).await? else {
            continue;
        };
        let number = shard.keys().shard().to_string();
        let entries = lag.accepted - lag.settled;
        metrics::gauge!("stock_shard_lag_entries", "shard" => number).set(entries as f64);
        let known = all.get_or_insert_default();
        known.accepted += lag.accepted;
        known.settled += lag.settled;
        known.seconds = known.seconds.max(lag.seconds);
    }
    let Some(lag) = all else {
        return Ok(None);
    };
    let entries = lag.accepted - lag.settled;
    app.set_lag_entries(entries);
    metrics::gauge!("stock_journal_lag_entries").set(entries as f64);
    metrics::gauge!("stock_journal_lag_seconds").set(lag.seconds);
    Ok(Some(lag))
}

#[expect(clippy::cast_precision_loss, reason = "a time is a float")]
async fn lag_of(
    app: &App,
    shard: &Shard,
) -> Result<Option<Lag>, Box<dyn std::error::Error + Send + Sync>> {
    let mut link = shard.link()?;
    // While MySQL does not answer, nothing is settled, so the state that this process last knew is
    // as good.
    let loaded = shards::load(&app.pool, shard.keys().shard()).await;
    if let Ok(Some(state)) = &loaded {
        shard.hear_state(state);
    }
    let Some(state) = loaded.unwrap_or_else(|_away| shard.known_state()) else {
        return Ok(None);
    };
    let head = epoch::head(&mut link.read, shard.keys())
        .await
        .map_err(ReadError::from)?;
    let lag = head.map_or(0, |head| head.number.saturating_sub(state.number));
    let oldest = match lag {
        0 => None,
        _ => shard.tail(state.watermark, 1).await?.entries.pop(),
    };
    let seconds = oldest.map_or(0.0, |entry| {
        let age_ms = shard
            .redis_now_ms()
            .saturating_sub(entry.position.unix_ms());
        age_ms as f64 / 1_000.0
    });
    Ok(Some(Lag {
        accepted: state.number + lag,
        settled: state.number,
        seconds,
    }))
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
async fn measure_tables(app: &App) -> Result<Tables, sqlx::Error> {
    let dead_letters = dead_letters::unresolved(&app.pool).await?;
    metrics::gauge!("stock_dead_letters").set(dead_letters as f64);
    // Most dead letters are taken back within a second, so this metric counts them too.
    metrics::gauge!("stock_new_dead_letters").set(dead_letters::new_ones(&app.pool).await? as f64);
    let quarantined = quarantine::count(&app.pool).await?;
    app.troubles.note_quarantined(quarantined);
    let reconciled = ledger_checks::latest(&app.pool, CheckKind::Reconcile).await?;
    let verified = ledger_checks::latest(&app.pool, CheckKind::Verify).await?;
    let drift_accounts = reconciled.map(|last| last.differences.saturating_sub(last.corrected));
    // Every instance reports the result, whichever one reconciled.
    metrics::gauge!("stock_drift_accounts").set(f64::from(drift_accounts.unwrap_or_default()));
    let unverified = verified.as_ref().map_or(0, |last| last.differences);
    metrics::gauge!("stock_verify_differences").set(f64::from(unverified));
    metrics::gauge!("stock_webhook_deliveries_waiting")
        .set(webhooks::waiting(&app.pool).await? as f64);
    let mut jobs = Vec::new();
    for (job, last) in jobs::last_success(&app.pool).await? {
        let age = age_seconds(last, app.clock.now_ms());
        if let Some(at) = last {
            let seconds = unix_ms(at) as f64 / 1_000.0;
            metrics::gauge!("stock_job_last_success_timestamp_seconds", "job" => job.clone())
                .set(seconds);
        }
        if let Some(age) = age {
            metrics::gauge!("stock_job_last_success_seconds", "job" => job.clone()).set(age as f64);
        }
        jobs.push((job, age));
    }
    Ok(Tables {
        dead_letters,
        drift_accounts,
        verified: verified.map(|last| (unix_ms(last.ended_at), last.differences)),
        jobs,
    })
}

/// The products whose stock the dashboard shows: the newest that can be ordered.
fn shown(app: &App) -> Vec<(ProductId, String)> {
    let filter = ProductFilter {
        status: Some(ProductStatus::Active),
        limit: STOCK_MAX,
        ..ProductFilter::default()
    };
    let found = app.selling.catalog.list(&filter).unwrap_or_default();
    let named = found
        .iter()
        .map(|known| (known.id, known.fields.name.clone()));
    named.collect()
}

async fn measure_stock(app: &App) -> Result<Vec<Stock>, ReadError> {
    let shown = shown(app);
    let online = |id: &ProductId| Account::available(*id, LocationId::ONLINE);
    let names: Vec<Account> = shown.iter().map(|(id, _)| online(id)).collect();
    let levels = app.ledger.levels(&names).await?;
    let stock = shown.into_iter().map(|(id, name)| Stock {
        id,
        name,
        available: levels.get(&online(&id)).map_or(0, |level| level.balance),
    });
    Ok(stock.collect())
}
