//! Tables of MySQL that must agree: the journal with its postings, and the accounts with both and
//! with their rows.

use sqlx::MySqlPool;

use super::Seen;
use crate::Failure;

/// The units that buyers have taken in each sale: those of standing orders, and of holds that no
/// order took.
macro_rules! taken {
    () => {
        "(SELECT sale_id, user_id, SUM(quantity) AS units FROM (\
         SELECT l.sale_id, o.user_id, l.quantity FROM order_products l JOIN orders o ON o.id = l.order_id \
         WHERE o.status = 'SUCCESS' AND o.path <> 'till' AND l.sale_limit IS NOT NULL \
         UNION ALL SELECT sale_id, user_id, quantity FROM reservations WHERE sale_limit IS NOT NULL \
         AND (status = 'PENDING' OR status = 'CONFIRMED' AND order_id IS NULL)) AS each_of \
         GROUP BY sale_id, user_id) AS t"
    };
}

/// Statements that each count rows that must not exist.
const CHECKS: [(&str, &str); 12] = [
    (
        "I11: numbers missing in the journal",
        "SELECT CAST(MAX(number) - MIN(number) + 1 - COUNT(*) AS SIGNED) FROM journal",
    ),
    (
        "I11: entries whose position does not rise with their number",
        "SELECT COUNT(*) FROM (SELECT id, LAG(id) OVER (ORDER BY number) AS earlier FROM journal) AS j \
         WHERE id <= earlier",
    ),
    (
        "I11: entries above the watermark after everything was applied",
        "SELECT COUNT(*) FROM journal WHERE number > (SELECT number FROM shards)",
    ),
    (
        "I12: postings that do not follow the one before",
        "SELECT COUNT(*) FROM (SELECT seq, delta, balance_after, \
         COALESCE(LAG(seq) OVER w, 0) AS before_seq, \
         COALESCE(LAG(balance_after) OVER w, 0) AS before_balance \
         FROM postings WINDOW w AS (PARTITION BY kind, owner_id, place_id ORDER BY seq)) AS p \
         WHERE seq <> before_seq + 1 OR balance_after <> before_balance + delta OR balance_after < 0",
    ),
    (
        "I13: accounts that are not the sum of their postings",
        "SELECT COUNT(*) FROM accounts a JOIN (SELECT kind, owner_id, place_id, SUM(delta) AS total, \
         MAX(seq) AS seq FROM postings GROUP BY kind, owner_id, place_id) AS p \
         ON p.kind = a.kind AND p.owner_id = a.owner_id AND p.place_id = a.place_id \
         WHERE a.balance <> p.total OR a.seq <> p.seq",
    ),
    (
        "I13: postings without an entry",
        "SELECT COUNT(*) FROM postings p LEFT JOIN journal j ON j.id = p.journal_id WHERE j.id IS NULL",
    ),
    (
        "I16: buyers who have had more than their sale's limit",
        concat!(
            "SELECT COUNT(*) FROM ",
            taken!(),
            " JOIN sales s ON s.id = t.sale_id WHERE t.units > s.limit_per_user"
        ),
    ),
    (
        "I16: allowances that are not what was counted from less what was taken",
        concat!(
            "SELECT COUNT(*) FROM accounts a JOIN sales s ON s.id = a.owner_id LEFT JOIN ",
            taken!(),
            " ON t.sale_id = a.owner_id AND t.user_id = a.place_id WHERE a.kind = 'ALLOWANCE' \
             AND CAST(s.counted_from AS SIGNED) - a.balance <> COALESCE(t.units, 0)"
        ),
    ),
    (
        "I27: counts of holds that are not the limit less the live holds",
        "SELECT COUNT(*) FROM accounts a LEFT JOIN (SELECT user_id, hold_limit, COUNT(*) AS live \
         FROM reservations WHERE status = 'PENDING' GROUP BY user_id, hold_limit) AS r \
         ON r.user_id = a.owner_id AND r.hold_limit = a.place_id WHERE a.kind = 'HOLD' \
         AND CAST(a.place_id AS SIGNED) - a.balance <> COALESCE(r.live, 0)",
    ),
    (
        "I16: first-come coupons that are not their count less what was drawn",
        "SELECT COUNT(*) FROM accounts a JOIN coupons c ON c.id = a.owner_id LEFT JOIN (SELECT coupon_id, \
         COUNT(*) AS drawn FROM coupon_issues GROUP BY coupon_id) AS i ON i.coupon_id = c.id \
         WHERE a.kind = 'COUPON' AND c.count IS NOT NULL AND a.balance <> c.count - COALESCE(i.drawn, 0)",
    ),
    (
        "I16: users who drew a coupon twice",
        "SELECT COUNT(*) FROM (SELECT i.coupon_id FROM coupon_issues i JOIN coupons c ON c.id = i.coupon_id \
         WHERE c.user_id IS NULL GROUP BY i.coupon_id, i.user_id, COALESCE(i.work_id, 0) \
         HAVING COUNT(*) > 1) AS twice",
    ),
    (
        "I8: sales of tills that stand twice under one key",
        "SELECT COUNT(*) FROM (SELECT store_id FROM offline_sales GROUP BY store_id, device_id, sale_key \
         HAVING COUNT(*) > 1) AS twice",
    ),
];

/// I11, I12, I13: the journal is dense, each account's postings chain from the first on, and each
/// names an entry. I16, I27: nobody has had more than a limit allows, and the rest under a limit is
/// the limit less the units taken.
pub(super) async fn check(seen: &mut Seen, pool: &MySqlPool) -> Result<(), Failure> {
    for (what, text) in CHECKS {
        let found: i64 = sqlx::query_scalar(text).fetch_one(pool).await?;
        seen.complain(found == 0, || format!("{what}: {found}"));
    }
    Ok(())
}
