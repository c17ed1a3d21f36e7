//! `doctor`: are the servers set up so that the promises hold?

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use sqlx::MySqlPool;
use stock_common::clock::Clock;
use stock_common::config::{Config, without_password};
use stock_domain::server_settings::{Setting, Standing};
use stock_engine::reads::Reads;
use stock_mysql::migrate::{self, Schema};
use stock_mysql::{Role, server_settings};
use stock_redis::info::Info;
use stock_redis::nodes::{self, Servers};
use stock_redis::redis_memory::RedisMemory;
use stock_redis::{FenceState, Ledger, redis_settings};

use super::{Common, Failure, NAMED_BY, meet, output};

/// Difference of clocks from which a check fails, in ms.
const CLOCK_SKEW_MS_MAX: i64 = 1_000;
/// How often replicas are checked, and for how long at most.
const PROBE_EVERY: Duration = Duration::from_millis(50);
const PROBE_MAX: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Finding {
    check: Cow<'static, str>,
    ok: bool,
    /// Whether the check could be made.
    #[serde(rename = "isKnown")]
    is_known: bool,
    found: String,
    advice: &'static str,
}

fn finding(check: &'static str, ok: bool, found: impl ToString, advice: &'static str) -> Finding {
    Finding {
        check: check.into(),
        ok,
        is_known: true,
        found: found.to_string(),
        advice: if ok { "" } else { advice },
    }
}

pub(super) async fn run(config: &Config, common: &Common) -> Result<bool, Failure> {
    let pool = stock_mysql::pool(config, Role::Tool)?;
    let ledger = meet(config, &pool).await?;
    let mut findings = Vec::new();
    match servers_findings(config, &ledger, &mut findings).await {
        Ok(()) => {}
        Err(error) => findings.push(finding(
            "redis",
            false,
            format!(
                "{error} (from {})",
                without_password(&config.redis.redis_url)
            ),
            NAMED_BY,
        )),
    }
    match mysql_findings(&pool, &mut findings).await {
        Ok(()) => {}
        Err(error) => {
            findings.push(finding(
                "mysql",
                false,
                format!(
                    "{error} (from {})",
                    without_password(&config.mysql.database_url)
                ),
                NAMED_BY,
            ));
        }
    }
    replica_findings(Reads::new(config, pool)?, &mut findings).await;
    findings.push(fence_finding(&ledger));
    findings.extend(shard_findings(config, &ledger));
    let weak = config.check_secret().is_err();
    let advice = "set STOCK_JWT_SECRET to at least 32 random bytes";
    findings.push(finding(
        "jwt secret",
        !weak,
        if weak { "too short" } else { "set" },
        advice,
    ));
    let all_ok = findings.iter().all(|finding| finding.ok);
    if common.json {
        output::document(&serde_json::json!({ "ok": all_ok, "checks": findings }))?;
    } else {
        for Finding {
            check,
            ok,
            is_known,
            found,
            advice,
        } in &findings
        {
            let sign = match (ok, is_known) {
                (false, _) => "FAIL",
                (true, true) => "ok  ",
                (true, false) => "?   ",
            };
            let advice = if advice.is_empty() {
                String::new()
            } else {
                format!(" — {advice}")
            };
            output::say(&format!("{sign} {check}: {found}{advice}"));
        }
    }
    Ok(all_ok)
}

/// Checks whether each read replica shows what was written on the primary.
async fn replica_findings(reads: Reads, findings: &mut Vec<Finding>) {
    let follow = async {
        while reads.lags().iter().any(|(_, lag)| lag.is_none()) {
            if reads.probe().await.is_err() {
                return;
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    };
    // After the timeout, the findings report what is known by then.
    drop(tokio::time::timeout(PROBE_MAX, follow).await);
    for (name, lag) in reads.lags() {
        let text = match lag {
            Some(lag) => format!("{name} follows, {lag} ms behind at most"),
            None => format!("{name} does not show what was written on the primary"),
        };
        let advice = "is it up, does it replicate, and is database_read_urls right?";
        findings.push(finding("read replica", lag.is_some(), text, advice));
    }
}

fn fence_finding(ledger: &Ledger) -> Finding {
    match ledger.fence_state() {
        FenceState::Open(link) => finding("epoch", true, &link.epoch, ""),
        FenceState::Mending(reason) | FenceState::Fenced(reason) => finding(
            "epoch",
            false,
            reason,
            "see docs/recovery.md: `migrate` once, or `recover`",
        ),
    }
}

/// Lists fenced shards, and compares the number of shards with the settings.
fn shard_findings(config: &Config, ledger: &Ledger) -> Vec<Finding> {
    let fenced = ledger.fenced().into_iter().map(|(shard, reason)| {
        let text = format!("shard {shard}: {reason}");
        finding("shard", false, text, "see docs/recovery.md")
    });
    let mut findings: Vec<Finding> = fenced.collect();
    if let Some(map) = ledger.shard_map() {
        let (there, wanted) = (map.shards(), config.shards());
        let text = format!("{there} in the database, {wanted} in the settings");
        let advice = "STOCK_SHARDS is for new databases; `rehome` changes this one";
        findings.push(finding("shards", there == wanted, text, advice));
    }
    findings
}

/// Checks every Redis server that has a shard.
async fn servers_findings(
    config: &Config,
    ledger: &Ledger,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let servers = Servers::parse(&config.redis.redis_url)?;
    let mut seen = HashSet::new();
    for shard in ledger.shards() {
        let key = shard.keys().epoch();
        let mut connection = servers.connect_agreed(&key, TIMEOUT).await?.connection;
        if seen.insert(nodes::run_id(&mut connection).await?) {
            redis_findings(config, connection, findings).await?;
        }
    }
    Ok(())
}

async fn redis_findings(
    config: &Config,
    mut connection: redis::aio::MultiplexedConnection,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let settings = redis_settings::read(&mut connection).await?;
    let is_cluster = Servers::parse(&config.redis.redis_url)?.is_cluster();
    let judged = settings.judge(config.redis.durability, is_cluster, false);
    findings.extend(
        judged
            .into_iter()
            .map(|setting| of_setting("redis", setting)),
    );
    let info = Info::read(&mut connection, &["server"]).await?;
    let version = info.field("redis_version").unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    findings.push(finding(
        "redis version",
        major.is_some_and(|major| major >= 7),
        version,
        "version 7 or newer is needed",
    ));
    let memory = RedisMemory::read(&mut connection).await?;
    let text = match memory.limit_bytes {
        0 => format!("{} bytes used, no maxmemory", memory.used_bytes),
        limit => format!("{} of {limit} bytes used", memory.used_bytes),
    };
    let advice = "raise maxmemory: a full Redis refuses every order";
    let ok = !memory.is_nearly_full();
    findings.push(finding("redis memory", ok, text, advice));
    let (seconds, micros): (i64, i64) = redis::cmd("TIME")
        .query_async(&mut connection.clone())
        .await?;
    let skew = seconds * 1_000 + micros / 1_000 - Clock::system().now_ms();
    let advice = "synchronise the clocks (NTP): tokens and windows would disagree";
    let text = format!("{skew} ms from this machine");
    findings.push(finding(
        "redis clock",
        skew.abs() < CLOCK_SKEW_MS_MAX,
        text,
        advice,
    ));
    Ok(())
}

/// A setting, checked by the rules of the running service.
fn of_setting(server: &str, setting: Setting) -> Finding {
    let is_known = setting.standing != Standing::Unknown;
    Finding {
        check: format!("{server} {}", setting.name).into(),
        ok: !setting.is_wrong(),
        is_known,
        advice: match is_known {
            true => setting.advice,
            false => "not checked: look at it on the server, or allow +config|get to this user",
        },
        found: setting.found,
    }
}

async fn mysql_findings(pool: &MySqlPool, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let version: String = sqlx::query_scalar("SELECT VERSION()")
        .fetch_one(pool)
        .await?;
    let numbers: Vec<u32> = version
        .split(['.', '-'])
        .map_while(|part| part.parse().ok())
        .take(2)
        .collect();
    let oldest = if version.contains("MariaDB") {
        [10, 6]
    } else {
        [8, 0]
    };
    let advice = "MySQL 8.0 or MariaDB 10.6 or newer is needed";
    findings.push(finding(
        "mysql version",
        numbers.as_slice() >= &oldest,
        version,
        advice,
    ));
    let judged = server_settings::read(pool).await?.judge();
    findings.extend(
        judged
            .into_iter()
            .map(|setting| of_setting("mysql", setting)),
    );
    let schema = migrate::schema(pool).await?;
    let is_enough = schema != Schema::Behind;
    let advice = "run `stock-online migrate`";
    findings.push(finding("schema", is_enough, schema.as_str(), advice));
    Ok(())
}
