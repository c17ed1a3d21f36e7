//! Looks at MySQL several times a second, and reports what it finds, and the readiness, as metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::MySqlPool;
use stock_domain::server_settings::Standing;
use stock_mysql::migrate::{self, Schema};
use stock_mysql::server_settings;
use stock_redis::FenceState;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::health::{Database, ServerSetting};
use crate::readiness;

/// How often MySQL is asked whether it answers, and how long an answer may take.
const EVERY: Duration = Duration::from_millis(250);
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How often MySQL is asked for its settings.
const SETTINGS_EVERY: Duration = Duration::from_secs(2);

/// Checks the servers until `shutdown`, over a pool of its own that no request uses up.
pub async fn run(app: Arc<App>, pool: MySqlPool, shutdown: CancellationToken) {
    let mut looked = None::<Instant>;
    while !shutdown.is_cancelled() {
        let asked = tokio::time::timeout(ANSWER_MAX, migrate::schema(&pool)).await;
        app.health.note(asked.ok().and_then(Result::ok));
        if looked.is_none_or(|looked| looked.elapsed() >= SETTINGS_EVERY) {
            let read = tokio::time::timeout(ANSWER_MAX, server_settings::read(&pool)).await;
            // Settings that cannot be read stay as they were.
            if let Ok(Ok(read)) = read {
                app.health.note_settings(read.judge());
                looked = Some(Instant::now());
            }
        }
        tell(&app);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Sets the metrics.
fn tell(app: &App) {
    let is_ready = readiness::is_ready(app);
    metrics::gauge!("stock_ready").set(f64::from(u8::from(is_ready)));
    let Database { is_up, schema } = app.health.database();
    metrics::gauge!("stock_dependency_up", "name" => "mysql").set(f64::from(u8::from(is_up)));
    for state in Schema::ALL {
        let is_it = f64::from(u8::from(schema == Some(state)));
        metrics::gauge!("stock_schema", "state" => state.as_str()).set(is_it);
    }
    tell_process(app);
    let mut all_up = true;
    for shard in app.ledger.shards() {
        let (is_fenced, is_up) = match shard.fence_state() {
            FenceState::Open(_) | FenceState::Mending(_) => (false, true),
            FenceState::Fenced(reason) => (true, !readiness::is_away(&reason)),
        };
        all_up &= is_up;
        let number = shard.keys().shard().to_string();
        metrics::gauge!("stock_fenced", "shard" => number).set(f64::from(u8::from(is_fenced)));
    }
    metrics::gauge!("stock_dependency_up", "name" => "redis").set(f64::from(u8::from(all_up)));
    // A setting that differs between servers counts as the worst of its values.
    let mut worst: Vec<(&str, &str, u8)> = Vec::new();
    for ServerSetting { server, setting } in readiness::settings(app) {
        let standing = match setting.standing {
            Standing::Good | Standing::Unknown => 0,
            Standing::Weak => 1,
            Standing::Unsafe => 2,
        };
        let known = worst
            .iter_mut()
            .find(|known| (known.0, known.1) == (server, setting.name));
        match known {
            Some(known) => known.2 = known.2.max(standing),
            None => worst.push((server, setting.name, standing)),
        }
    }
    for (server, setting, standing) in worst {
        metrics::gauge!("stock_server_setting", "server" => server, "setting" => setting)
            .set(f64::from(standing));
    }
}

/// Sets the metrics of the process itself: its clock, and on Linux its memory.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn tell_process(app: &App) {
    metrics::gauge!("stock_clock_seconds").set(app.clock.now_ms() as f64 / 1_000.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse().ok());
    if let Some(kilobytes) = kilobytes.map(|kilobytes: u64| kilobytes * 1_024) {
        metrics::gauge!("process_resident_memory_bytes").set(kilobytes as f64);
    }
}
