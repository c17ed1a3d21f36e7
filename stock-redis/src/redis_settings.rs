//! Reads the settings of a Redis on which a promise rests: by `CONFIG`, and by `INFO` alone where
//! `CONFIG` is forbidden.
//!
//! `INFO` tells whether Redis appends, whether it last succeeded, and what it evicts. It tells
//! neither when the file is brought to disk (`appendfsync`, `no-appendfsync-on-rewrite`) nor how
//! many replicas a write needs.

use std::collections::HashMap;

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, ServerErrorKind, cmd};
use stock_domain::server_settings::RedisSettings;

use super::info::Info;
use super::redis_memory::RedisMemory;

const ASKED: [&str; 3] = [
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "min-replicas-to-write",
];

/// Reads the settings of a Redis.
///
/// # Errors
/// When Redis does not answer.
pub async fn read(connection: &mut impl ConnectionLike) -> Result<RedisSettings, RedisError> {
    let info = Info::read(connection, &["persistence", "memory", "replication"]).await?;
    let mut command = cmd("CONFIG");
    command.arg("GET").arg(&ASKED);
    let config: Result<HashMap<String, String>, RedisError> = command.query_async(connection).await;
    let config = match config {
        Ok(config) => config,
        Err(error) if is_forbidden(&error) => HashMap::new(),
        Err(error) => return Err(error),
    };
    let text = |name| info.field(name).map(str::to_owned);
    let is = |name| info.number(name) == Some(1);
    Ok(RedisSettings {
        appendonly: is("aof_enabled"),
        is_rewriting: is("aof_rewrite_in_progress") || is("aof_rewrite_scheduled"),
        appendfsync: config.get("appendfsync").cloned(),
        no_appendfsync_on_rewrite: config.get("no-appendfsync-on-rewrite").cloned(),
        maxmemory_policy: text("maxmemory_policy"),
        is_nearly_full: RedisMemory::of(&info).is_ok_and(|memory| memory.is_nearly_full()),
        replicas: info.number("connected_slaves"),
        min_replicas_to_write: config.get("min-replicas-to-write").cloned(),
        aof_last_write_status: text("aof_last_write_status"),
        aof_last_bgrewrite_status: text("aof_last_bgrewrite_status"),
    })
}

/// Whether this user may not ask, or nobody may because the command was renamed away.
fn is_forbidden(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
}
