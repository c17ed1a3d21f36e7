//! Health: what the servers looked like a moment ago, so that `/readyz` answers at once whatever they do now.
//!
//! MySQL is asked several times a second whether it is there, and every few seconds for the settings on which a
//! promise rests; those of Redis come from the ledger, which looks by itself. Metrics tell what is found.

pub mod readiness;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::MySqlPool;
use stock_common::lock::lock;
use stock_domain::server_settings::{Setting, Standing};
use stock_mysql::migrate::{self, Schema};
use stock_mysql::server_settings;
use stock_redis::FenceState;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often MySQL is asked whether it is there, and how long it may take.
const EVERY: Duration = Duration::from_millis(250);
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How often it is asked for its settings.
const SETTINGS_EVERY: Duration = Duration::from_secs(2);

/// MySQL as it was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Database {
    /// Whether it answers.
    pub is_up: bool,
    /// Its schema; while it does not answer, as it was before. `None` when it has never answered.
    pub schema: Option<Schema>,
}

impl Database {
    /// Whether it has stopped to answer.
    #[must_use]
    pub const fn is_away(self) -> bool {
        !self.is_up && self.schema.is_some()
    }
}

#[derive(Default)]
struct Seen {
    database: Database,
    settings: Vec<Setting>,
}

/// The state of the servers, as it was seen last.
#[derive(Default)]
pub struct Health {
    seen: Mutex<Seen>,
}

/// A setting of one of the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSetting {
    /// `redis` or `mysql`.
    pub server: &'static str,
    /// The setting.
    pub setting: Setting,
}

impl Health {
    /// How MySQL was a moment ago.
    #[must_use]
    pub fn database(&self) -> Database {
        let seen = lock(&self.seen);
        seen.database
    }

    fn note(&self, answer: Option<Schema>) {
        let mut seen = lock(&self.seen);
        seen.database = Database {
            is_up: answer.is_some(),
            schema: answer.or(seen.database.schema),
        };
    }

    fn note_settings(&self, settings: Vec<Setting>) {
        let mut seen = lock(&self.seen);
        let known = std::mem::replace(&mut seen.settings, settings);
        for setting in &seen.settings {
            if setting.is_wrong() && !known.contains(setting) {
                let Setting {
                    name,
                    found,
                    advice,
                    ..
                } = setting;
                tracing::warn!(name, found, advice, "mysql is weak");
            }
        }
    }

    fn database_settings(&self) -> Vec<Setting> {
        let seen = lock(&self.seen);
        seen.settings.clone()
    }
}

/// The settings of all servers as they were found last, each once.
#[must_use]
pub fn settings(app: &App) -> Vec<ServerSetting> {
    let redis = app.ledger.shards().into_iter().flat_map(|shard| {
        let settings = shard.settings();
        settings.iter().cloned().collect::<Vec<_>>()
    });
    let of = |server| move |setting| ServerSetting { server, setting };
    let mysql = app.health.database_settings().into_iter().map(of("mysql"));
    let mut all: Vec<ServerSetting> = Vec::new();
    for setting in redis.map(of("redis")).chain(mysql) {
        if !all.contains(&setting) {
            all.push(setting);
        }
    }
    all
}

/// Looks until `shutdown`, over a connection of its own: one that no request takes away.
pub async fn run(app: Arc<App>, pool: MySqlPool, shutdown: CancellationToken) {
    let mut looked = None::<Instant>;
    while !shutdown.is_cancelled() {
        let asked = tokio::time::timeout(ANSWER_MAX, migrate::schema(&pool)).await;
        app.health.note(asked.ok().and_then(Result::ok));
        if looked.is_none_or(|looked| looked.elapsed() >= SETTINGS_EVERY) {
            let read = tokio::time::timeout(ANSWER_MAX, server_settings::read(&pool)).await;
            // Settings that cannot be read are kept as they were.
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

/// Tells it in metrics.
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
    // A setting that differs between servers counts as the worst of them.
    let mut worst: Vec<(&str, &str, u8)> = Vec::new();
    for ServerSetting { server, setting } in settings(app) {
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

/// Tells what only the process itself knows: its clock, and its memory where the system says it as Linux does.
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
