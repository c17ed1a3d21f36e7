//! Points and coupons: what was given is there, and used once.

use std::collections::BTreeMap;

use sqlx::MySqlPool;

use super::super::history::{History, Told};
use super::{Allowed, Seen};
use crate::Failure;

/// I16: points that were given are there, a code was used by at most one order that stands, and the
/// points of a user are the sum of their movements.
pub(super) async fn check(
    seen: &mut Seen,
    pool: &MySqlPool,
    history: &History,
    allowed: Allowed,
) -> Result<(), Failure> {
    const CHECKS: [(&str, &str); 4] = [
        (
            "I16: codes that several standing orders used",
            "SELECT COUNT(*) FROM (SELECT coupon_code FROM orders WHERE coupon_code IS NOT NULL \
             AND status = 'SUCCESS' GROUP BY coupon_code HAVING COUNT(*) > 1) AS twice",
        ),
        (
            "I16: codes that do not name the order that used them",
            "SELECT COUNT(*) FROM orders o JOIN coupon_issues i ON i.code = o.coupon_code \
             AND i.coupon_id = o.coupon_id WHERE o.status = 'SUCCESS' AND NOT i.order_id <=> o.id",
        ),
        (
            "I16: codes that name an order that does not stand",
            "SELECT COUNT(*) FROM coupon_issues i JOIN orders o ON o.id = i.order_id \
             WHERE o.status <> 'SUCCESS'",
        ),
        (
            "I16: balances of points that are not the sum of what moved them",
            "SELECT COUNT(*) FROM accounts a LEFT JOIN (SELECT user_id, SUM(delta) AS total \
             FROM point_transactions GROUP BY user_id) AS t ON t.user_id = a.owner_id \
             WHERE a.kind = 'POINTS' AND a.balance <> COALESCE(t.total, 0)",
        ),
    ];
    for (what, text) in CHECKS {
        let found: i64 = sqlx::query_scalar(text).fetch_one(pool).await?;
        seen.complain(found == 0, || format!("{what}: {found}"));
    }
    let rows: Vec<(u64, u64, i64)> =
        // Points that a cross-shard order held and gave back name no order, and nobody asked for
        // them.
        sqlx::query_as(
            "SELECT t.id, t.user_id, t.delta FROM point_transactions t JOIN journal j ON j.id = t.id \
             WHERE t.order_id IS NULL AND j.kind NOT IN ('branch_held', 'branch_confirmed', 'branch_released')",
        )
            .fetch_all(pool)
            .await?;
    let mut stored: BTreeMap<String, (u64, i64)> = rows
        .into_iter()
        .map(|(id, user, delta)| (id.to_string(), (user, delta)))
        .collect();
    let drawn = super::ids(pool, "SELECT id FROM coupon_issues").await?;
    for told in &history.drawn {
        if let Told::Accepted(id) = told {
            let is_known = drawn.contains(id) || (allowed.lost && seen.lost.contains(id));
            seen.complain(is_known, || {
                format!("I16: code {id} was drawn and is not stored")
            });
        }
    }
    let mut unknown = 0;
    for asked in &history.benefits {
        let Told::Accepted(id) = &asked.told else {
            unknown += usize::from(asked.told == Told::Unknown);
            continue;
        };
        let is_there = stored.remove(id) == Some((asked.user, asked.delta));
        let is_listed = allowed.lost && seen.lost.contains(id);
        seen.complain(is_there || is_listed, || {
            format!(
                "I16: {} points of movement {id} are not stored as told",
                asked.delta
            )
        });
    }
    let surplus = stored.len();
    seen.complain(surplus <= unknown, || {
        format!("I16: {surplus} movements that nobody was told of, {unknown} unknown")
    });
    Ok(())
}
