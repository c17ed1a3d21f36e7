//! Removes old states from Redis: final states of orders, holds, payments, cross-shard orders,
//! tills' sales, files and cancelled points that MySQL has settled too; states of coupons that
//! ended long ago, since nobody draws or uses those any more; and the limits of sales that ended
//! long ago.
//!
//! Until then a late duplicate of a request finds the state in Redis. Afterwards handlers find
//! MySQL's state, or find that the coupon has ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, cmd};
use stock_common::id::{CouponId, Position};
use stock_domain::coupon::CodeState;
use stock_engine::forget_sales::{self, OVER_DAYS};
use stock_mysql::{coupons, jobs, shards};
use stock_redis::keys::Keys;
use stock_redis::scan::Scan;
use stock_redis::scripts::SCRIPTS;
use stock_redis::{Link, Shard};

use crate::app::App;

const JOB: &str = "forget_marks";

/// One run over all states.
pub(super) async fn run(app: Arc<App>) {
    match forget(&app).await {
        Ok(Some(removed)) => tracing::info!(removed, "forgot old states"),
        Ok(None) => tracing::debug!("another instance is forgetting states"),
        Err(error) => tracing::warn!(%error, "forgetting states will be tried again"),
    }
}

async fn forget(app: &App) -> Result<Option<i64>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(claim) = jobs::claim(&app.jobs_pool, JOB).await? else {
        return Ok(None);
    };
    let keep = Duration::from_millis(app.config.decide.marks_keep_ms);
    let over = coupons::over(&app.pool, keep).await?;
    let mut removed = 0;
    for shard in app.ledger.shards() {
        removed += forget_on(app, &shard, &over).await?;
    }
    forget_sales::forget_sales(&app.pool, &app.ledger, OVER_DAYS).await?;
    claim.succeed().await?;
    Ok(Some(removed))
}

async fn forget_on(
    app: &App,
    shard: &Shard,
    over: &HashSet<CouponId>,
) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    let mut link = shard.link()?;
    let state = shards::load(&app.pool, shard.keys().shard()).await?;
    let settled_ms = state.map_or(0, |state| state.watermark.unix_ms());
    let now = shard.redis_now_ms();
    let before = now
        .saturating_sub(app.config.decide.marks_keep_ms)
        .min(settled_ms);
    let states = shard.keys().states();
    let (mut removed, mut scan) = (0, Scan::hash(&states));
    while let Some(states) = scan.page_on::<Vec<(String, String)>>(shard).await? {
        let old: Vec<(String, String)> = states
            .into_iter()
            .filter(|(id, value)| is_old(id, value, before, over))
            .collect();
        removed += remove(shard.keys(), &mut link, &old).await?;
    }
    Ok(removed)
}

/// Whether a state may be removed. States of opened accounts stay for ever, states of a coupon
/// until it is `over`, other final states until `before_ms`.
fn is_old(id: &str, value: &str, before_ms: u64, over: &HashSet<CouponId>) -> bool {
    let Some((state, set_ms)) = value.rsplit_once('@') else {
        return false;
    };
    let is_over = |coupon: CouponId| over.contains(&coupon);
    let is_final = match id.split_once(':') {
        Some(("order" | "point", id)) => id.parse::<Position>().is_ok(),
        Some(("hold" | "extended", id)) => Position::from_stream_id(id).is_some(),
        Some(("payment", of)) => {
            let checkout = of.split(':').next().unwrap_or_default();
            Position::from_stream_id(checkout).is_some()
        }
        Some(("till" | "device" | "import", _)) => true,
        // A held branch is not final, however old it is.
        Some(("across" | "branch", _)) => state != "HELD",
        Some(("code", _)) => CodeState::parse(state).is_some_and(|of| is_over(of.coupon_id)),
        Some(("issued", of)) => {
            let coupon = of.split(':').next().and_then(|id| id.parse().ok());
            coupon.is_some_and(|id| is_over(CouponId(id)))
        }
        _ => false,
    };
    is_final && set_ms.parse().is_ok_and(|set_ms: u64| set_ms < before_ms)
}

async fn remove(
    keys: &Keys,
    link: &mut Link,
    states: &[(String, String)],
) -> Result<i64, RedisError> {
    let mut removed = 0;
    for part in states.chunks(200) {
        let mut call = cmd("EVALSHA");
        call.arg(&SCRIPTS.forget_states.sha).arg(2);
        call.arg(keys.epoch()).arg(keys.states()).arg(&*link.epoch);
        for (id, value) in part {
            call.arg(id).arg(value);
        }
        let count: i64 = call.query_async(&mut link.read).await?;
        removed += count.max(0);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use stock_common::id::CouponId;

    use super::is_old;

    #[test]
    fn a_mark_is_old_when_it_is_final_and_a_coupons_when_that_is_over() {
        let over = HashSet::from([CouponId(7)]);
        for (id, value, old) in [
            ("order:5", "FAIL@99", true),
            ("order:5", "FAIL@100", false),
            ("hold:1763700000000-1", "CANCELLED@1", true),
            ("extended:1763700000000-1", "1 0 1763700900000@1", true),
            ("payment:1763700000000-1:pay:1", "CONFIRMED@1", true),
            ("payment:1763700000000-1:pay:1", "CONFIRMED@100", false),
            ("point:5", "CANCELED@1", true),
            ("till:1:a:b", "SOLD x@1", true),
            ("device:1:1:a:b", "SOLD x@1", true),
            ("across:0:ab", "COMMITTED@1", true),
            ("branch:0:ab", "RELEASED@1", true),
            ("branch:0:ab", "HELD@1", false),
            ("opened:7", "OPEN@1", false),
            ("coupon:7", "OPEN@1", false),
            ("code:AB", "FREE 7 3@1", true),
            ("code:AB", "USED 7 3@1", true),
            ("code:AB", "USED 8 3@1", false),
            ("code:AB", "FREE 7 3@100", false),
            ("issued:7:3:0", "ISSUED@1", true),
            ("issued:8:7:7", "ISSUED@1", false),
        ] {
            assert_eq!(is_old(id, value, 100, &over), old, "{id} {value}");
        }
    }
}
