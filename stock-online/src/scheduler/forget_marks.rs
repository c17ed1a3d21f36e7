//! Removes marks of orders, reservations, tills' sales and files that are final, old enough, and final in MySQL too.
//!
//! Until then a late twin finds the mark; afterwards handlers find MySQL's state.

use std::sync::Arc;

use redis::{RedisError, cmd};
use stock_common::id::Position;
use stock_domain::database::{jobs, shards};
use stock_domain::ledger::scripts::SCRIPTS;
use stock_domain::ledger::{Link, ReadError};

use crate::app::App;

const JOB: &str = "forget_marks";
const SCAN: usize = 1_000;

/// One run over all marks.
pub(super) async fn run(app: Arc<App>) {
    match forget(&app).await {
        Ok(Some(removed)) => tracing::info!(removed, "forgot old marks"),
        Ok(None) => tracing::debug!("another instance is forgetting marks"),
        Err(error) => tracing::warn!(%error, "forgetting marks will be tried again"),
    }
}

async fn forget(app: &App) -> Result<Option<i64>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(claim) = jobs::claim(&app.jobs_pool, JOB).await? else {
        return Ok(None);
    };
    let mut link = app.ledger.link()?;
    let state = shards::load(&app.pool, app.ledger.keys().shard()).await?;
    let settled_ms = state.map_or(0, |state| state.watermark.unix_ms());
    let now = app.ledger.redis_now_ms();
    let before = now.saturating_sub(app.config.marks_keep_ms).min(settled_ms);
    let (mut cursor, mut removed) = (0u64, 0);
    loop {
        let (next, marks): (u64, Vec<(String, String)>) = cmd("HSCAN")
            .arg(app.ledger.keys().states())
            .arg(cursor)
            .arg("COUNT")
            .arg(SCAN)
            .query_async(&mut link.read)
            .await
            .map_err(ReadError::from)?;
        let old: Vec<(String, String)> = marks
            .into_iter()
            .filter(|(id, value)| is_old(id, value, before))
            .collect();
        removed += remove(app, &mut link, &old).await?;
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    jobs::succeed(claim, JOB).await?;
    Ok(Some(removed))
}

/// `opened:` marks stay for ever, the others until they are old.
fn is_old(id: &str, value: &str, before_ms: u64) -> bool {
    let is_final = match id.split_once(':') {
        Some(("order", id)) => id.parse::<Position>().is_ok(),
        Some(("hold", id)) => Position::from_stream_id(id).is_some(),
        Some(("till" | "import", _)) => true,
        _ => false,
    };
    let set_ms = value
        .rsplit_once('@')
        .and_then(|(_, ms)| ms.parse::<u64>().ok());
    is_final && set_ms.is_some_and(|set_ms| set_ms < before_ms)
}

async fn remove(app: &App, link: &mut Link, marks: &[(String, String)]) -> Result<i64, RedisError> {
    let mut removed = 0;
    for part in marks.chunks(200) {
        let mut call = cmd("EVALSHA");
        call.arg(&SCRIPTS.forget_marks.sha).arg(2);
        call.arg(app.ledger.keys().epoch())
            .arg(app.ledger.keys().states())
            .arg(&*link.epoch);
        for (id, value) in part {
            call.arg(id).arg(value);
        }
        let count: i64 = call.query_async(&mut link.read).await?;
        removed += count.max(0);
    }
    Ok(removed)
}
