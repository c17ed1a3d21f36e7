//! Readiness: whether orders can be taken, from the last seen state of everything that they need.
//! No server is asked.

use serde::Serialize;
use stock_domain::server_settings::Standing;
use stock_mysql::migrate::Schema;
use stock_redis::FenceState;
use utoipa::ToSchema;

use crate::app::App;
use crate::health::{Database, ServerSetting};

/// The answer of `/readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `ready`, `degraded` or `unready`.
    pub status: &'static str,
    checks: Checks,
    /// Settings of the servers that are not as they must be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<SettingOut>,
}

/// A setting of a server that is not as it must be.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettingOut {
    server: &'static str,
    setting: &'static str,
    found: String,
    advice: &'static str,
}

/// The state of each thing that orders need, in one word.
#[derive(Debug, Serialize, ToSchema)]
pub struct Checks {
    redis: &'static str,
    mysql: &'static str,
    /// The schema compared with the program, as last seen: `current`, `ahead` or `behind`;
    /// `unknown` when MySQL has not answered since the start. Only `behind` makes the service
    /// unready.
    schema: &'static str,
    epoch: &'static str,
    journal: &'static str,
    /// `ok`, or the reason why accepted entries do not reach MySQL.
    apply: String,
}

/// The last found settings of all servers, without duplicates.
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

/// Whether a shard is fenced because its Redis does not answer.
#[must_use]
pub fn is_away(reason: &str) -> bool {
    ["redis does not answer", "the link to redis"]
        .iter()
        .any(|text| reason.contains(text))
}

/// Whether orders can be taken, as last seen.
#[must_use]
pub fn is_ready(app: &App) -> bool {
    readiness(app).status != "unready"
}

/// The readiness, from the last seen state of everything that orders need.
#[must_use]
pub fn readiness(app: &App) -> Ready {
    let wrong: Vec<ServerSetting> = settings(app)
        .into_iter()
        .filter(|known| known.setting.is_wrong())
        .collect();
    let worst = |server| {
        let of = wrong.iter().filter(|known| known.server == server);
        let is_unsafe = of
            .clone()
            .any(|known| known.setting.standing == Standing::Unsafe);
        match (is_unsafe, of.count()) {
            (true, _) => "unsafe",
            (false, 0) => "ok",
            (false, _) => "weak",
        }
    };
    let (redis, epoch) = match app.ledger.fence_state() {
        FenceState::Open(_) | FenceState::Mending(_) => (worst("redis"), "ok"),
        FenceState::Fenced(reason) if is_away(&reason) => ("down", "unknown"),
        FenceState::Fenced(_) => ("ok", "fenced"),
    };
    let Database { is_up, schema } = app.health.database();
    let mysql = if is_up { worst("mysql") } else { "down" };
    let full = app.lag_entries() >= app.config.decide.lag_hard_entries;
    let journal = if full { "full" } else { "ok" };
    // Without prices nothing can be ordered, so a service that has never read its catalog is not
    // ready.
    let has_begun = app.selling.catalog.is_read() && app.people.tokens.are_known();
    let is_refusing = redis == "unsafe" && !app.config.redis.allow_unsafe_redis;
    let is_unready =
        epoch != "ok" || schema == Some(Schema::Behind) || full || !has_begun || is_refusing;
    let trouble = app.troubles.reason();
    let status = match is_unready {
        true => "unready",
        false if redis == "ok" && mysql == "ok" && trouble.is_none() => "ready",
        false => "degraded",
    };
    let settings = wrong.into_iter().map(|known| SettingOut {
        server: known.server,
        setting: known.setting.name,
        found: known.setting.found,
        advice: known.setting.advice,
    });
    Ready {
        status,
        checks: Checks {
            redis,
            mysql,
            schema: schema.map_or("unknown", Schema::as_str),
            epoch,
            journal,
            apply: trouble.unwrap_or_else(|| "ok".to_owned()),
        },
        settings: settings.collect(),
    }
}
