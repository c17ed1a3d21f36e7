//! Rebuilding a shard's keys in Redis from MySQL: accounts, marks, holds, idempotency keys.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd, pipe};
use sqlx::{MySql, Transaction};
use stock_common::config::Config;
use stock_common::id::{CouponId, Position, UserId, WorkId};

use super::RecoverError;
use crate::account::{Account, Level};
use crate::coupon::{self, CodeState};
use crate::database::{accounts, journal, reservations};
use crate::ledger::epoch;
use crate::ledger::keys::Keys;
use crate::order;
use crate::points;
use crate::reservation;
use crate::verify::Progress;

/// Rows read at once.
const PAGE: u32 = 1_000;
/// How far back what a till sold is marked.
const DAY_MS: u64 = 24 * 3_600_000;

/// Deletes every key of the shard; the epoch's hash, already without an epoch, goes with them.
pub(super) async fn clear(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<(), RedisError> {
    let mut cursor: u64 = 0;
    loop {
        let (next, found): (u64, Vec<Vec<u8>>) = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(keys.everything())
            .arg("COUNT")
            .arg(1_000)
            .query_async(redis)
            .await?;
        if !found.is_empty() {
            let _gone: i64 = cmd("UNLINK").arg(&found).query_async(redis).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

pub(super) async fn write_accounts(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    transaction: &mut Transaction<'static, MySql>,
    progress: Progress<'_>,
) -> Result<u64, RecoverError> {
    let (all,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM accounts")
        .fetch_one(&mut **transaction)
        .await?;
    let all = u64::try_from(all).unwrap_or_default();
    let (mut after, mut written) = (None, 0);
    loop {
        let page: Vec<(Account, Level)> = accounts::page(transaction, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(written);
        };
        after = Some(*last);
        let (mut levels, mut opened) = (cmd("MSET"), cmd("HSET"));
        opened.arg(keys.opened());
        for (account, level) in &page {
            levels.arg(keys.account(*account)).arg(level.to_string());
            opened.arg(keys.account(*account)).arg(1);
        }
        let _: () = pipe()
            .add_command(levels)
            .add_command(opened)
            .ignore()
            .query_async(redis)
            .await?;
        written += page.len() as u64;
        progress(written, all);
    }
}

/// Marks of orders that were taken back within a day, of reservations that ended, of what tills sold, and of
/// opened products.
pub(super) async fn write_marks(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    transaction: &mut Transaction<'static, MySql>,
    keep_ms: u64,
) -> Result<(), RecoverError> {
    let orders: Vec<(u64, String)> = sqlx::query_as(
        "SELECT id, IF(status = 'CANCEL', 'CANCEL_REQUESTED', CAST(status AS CHAR)) FROM orders \
         WHERE status <> 'SUCCESS' AND updated_at > NOW(3) - INTERVAL 1 DAY \
         UNION ALL SELECT journal_id, 'FAIL' FROM dead_letters WHERE state = 'COMPENSATED'",
    )
    .fetch_all(&mut **transaction)
    .await?;
    let holds: Vec<(u64, String)> = sqlx::query_as(
        "SELECT id, IF(order_id IS NULL, CAST(status AS CHAR), 'ORDERED') FROM reservations \
         WHERE status <> 'PENDING' AND ended_at > NOW(3) - INTERVAL 1 DAY",
    )
    .fetch_all(&mut **transaction)
    .await?;
    let now = epoch::time_ms(redis).await?;
    let yesterday = Position::from_parts(now.saturating_sub(DAY_MS), 0).unwrap_or_default();
    let sales: Vec<(u64, String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT store_id, sale_key, IF(state = 'SOLD', 'SOLD', 'OVERSOLD'), fingerprint \
         FROM offline_sales WHERE journal_id > ?",
    )
    .bind(yesterday.get())
    .fetch_all(&mut **transaction)
    .await?;
    write_benefits(redis, keys, transaction, keep_ms).await?;
    let products: Vec<u64> = sqlx::query_scalar("SELECT id FROM products WHERE opened = 1")
        .fetch_all(&mut **transaction)
        .await?;
    let orders = orders
        .into_iter()
        .map(|(id, state)| (format!("order:{id}"), state));
    let products = products
        .into_iter()
        .map(|id| (format!("opened:{id}"), "OPEN".to_owned()));
    let holds = holds
        .into_iter()
        .map(|(id, state)| (reservation::mark_id(Position::new(id)), state));
    let sales = sales.into_iter().map(|(store, key, state, fingerprint)| {
        let state = order::offline_state(&state, &journal::hash_text(&fingerprint));
        (order::offline_mark_id(store, &key), state)
    });
    let marks: Vec<(String, String)> = orders.chain(products).chain(holds).chain(sales).collect();
    set_marks(redis, keys, &marks, now).await?;
    Ok(())
}

async fn set_marks(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    marks: &[(String, String)],
    now: u64,
) -> Result<(), RedisError> {
    for part in marks.chunks(1_000) {
        let mut set = cmd("HSET");
        set.arg(keys.states());
        for (id, state) in part {
            set.arg(id).arg(format!("{state}@{now}"));
        }
        let _: i64 = set.query_async(redis).await?;
    }
    Ok(())
}

/// Marks of coupons that are not long over, of their codes, and of points that were taken back less than
/// `keep_ms` ago.
async fn write_benefits(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    transaction: &mut Transaction<'static, MySql>,
    keep_ms: u64,
) -> Result<(), RecoverError> {
    type Issue = (u64, u64, u64, Option<u64>, String, bool, bool);
    let now = epoch::time_ms(redis).await?;
    let coupons: Vec<u64> =
        sqlx::query_scalar("SELECT id FROM coupons WHERE opened = 1 AND user_id IS NULL")
            .fetch_all(&mut **transaction)
            .await?;
    let opened = |id| {
        (
            coupon::opened_mark_id(CouponId(id)),
            coupon::OPEN.to_owned(),
        )
    };
    let opened: Vec<_> = coupons.into_iter().map(opened).collect();
    set_marks(redis, keys, &opened, now).await?;
    // As long as handlers rely on the mark instead of asking MySQL.
    let from = Position::from_parts(now.saturating_sub(keep_ms), 0).unwrap_or_default();
    let cancelled: Vec<u64> = sqlx::query_scalar(
        "SELECT cancels_id FROM point_transactions WHERE cancels_id IS NOT NULL AND id > ?",
    )
    .bind(from.get())
    .fetch_all(&mut **transaction)
    .await?;
    let taken_back = |id| {
        let state = points::PointType::Canceled.as_str().to_owned();
        (points::mark_id(Position::new(id)), state)
    };
    let cancelled: Vec<_> = cancelled.into_iter().map(taken_back).collect();
    set_marks(redis, keys, &cancelled, now).await?;
    let mut after = 0;
    loop {
        let rows: Vec<Issue> = sqlx::query_as(
            "SELECT i.id, i.coupon_id, i.user_id, i.work_id, i.code, i.is_used = 1, \
             c.user_id IS NULL FROM coupon_issues i JOIN coupons c ON c.id = i.coupon_id \
             WHERE i.id > ? AND (c.valid_to IS NULL OR c.valid_to > NOW(3) - INTERVAL 1 DAY) \
             ORDER BY i.id LIMIT ?",
        )
        .bind(after)
        .bind(PAGE)
        .fetch_all(&mut **transaction)
        .await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.0;
        let mut marks = Vec::with_capacity(2 * rows.len());
        for (_, coupon, user, work, code, is_used, is_campaign) in rows {
            let (coupon_id, user_id) = (CouponId(coupon), UserId(user));
            if is_campaign {
                let id = coupon::issue_mark_id(coupon_id, user_id, work.map(WorkId));
                marks.push((id, coupon::ISSUED.to_owned()));
            }
            let state = CodeState {
                is_used,
                coupon_id,
                user_id,
            };
            marks.push((coupon::code_mark_id(&code), state.to_string()));
        }
        set_marks(redis, keys, &marks, now).await?;
    }
}

/// Live holds: those whose time went by meanwhile are released by the next sweep.
pub(super) async fn write_holds(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    transaction: &mut Transaction<'static, MySql>,
) -> Result<(), RecoverError> {
    let mut after = Position::ZERO;
    loop {
        let page = reservations::pending(transaction, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.id;
        let mut add = cmd("ZADD");
        add.arg(keys.deadlines());
        for of in &page {
            add.arg(of.reservation.expires_ms(of.id))
                .arg(of.reservation.held(of.id).member());
        }
        let _: i64 = add.query_async(redis).await?;
    }
}

/// Acceptances that are still remembered: a retry after a loss must find them.
pub(super) async fn write_keys(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
    transaction: &mut Transaction<'static, MySql>,
    config: &Config,
) -> Result<u64, RecoverError> {
    type Row = (u64, u64, Vec<u8>, Vec<u8>);
    let now = epoch::time_ms(redis).await?;
    let from = now.saturating_sub(config.idempotency_accepted_ms);
    let (mut after, mut written) = (Position::from_parts(from, 0).unwrap_or_default(), 0);
    loop {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, actor_id, key_hash, fingerprint FROM journal \
             WHERE id > ? AND key_hash IS NOT NULL AND fingerprint IS NOT NULL \
             ORDER BY id LIMIT ?",
        )
        .bind(after.get())
        .bind(PAGE)
        .fetch_all(&mut **transaction)
        .await?;
        let Some(last) = rows.last() else {
            return Ok(written);
        };
        after = Position::new(last.0);
        let mut commands = pipe();
        for (id, actor, key, fingerprint) in &rows {
            let position = Position::new(*id);
            let left = (position.unix_ms() + config.idempotency_accepted_ms).saturating_sub(now);
            commands
                .cmd("SET")
                .arg(keys.idempotency(UserId(*actor), &journal::hash_text(key)))
                .arg(format!(
                    "{} A {}",
                    journal::hash_text(fingerprint),
                    position.stream_id()
                ))
                .arg("PX")
                .arg(left.max(1))
                .ignore();
        }
        let _: () = commands.query_async(redis).await?;
        written += rows.len() as u64;
    }
}
