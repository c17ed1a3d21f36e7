//! Verifies what a pass over the journal cannot meet, because no position leads there: rows after
//! the watermark without an entry, and tables that must agree with each other. Each rule is one
//! statement, so it sees one moment.

use sqlx::{AssertSqlSafe, MySqlPool};
use stock_common::id::Position;
use stock_mysql::shards;

use super::rows::{self, TABLES};
use super::{Difference, VerifyError};

/// A rule: the table that it is about, and a statement that selects subject and text of each row
/// that breaks it.
type Rule = (&'static str, &'static str);

/// The rules that hold at any moment.
const RULES: [Rule; 10] = [
    (
        "journal",
        "SELECT j.id, 'was archived, and is still there' FROM archives a JOIN journal j \
         ON j.shard = a.shard AND j.number BETWEEN a.first_number AND a.number",
    ),
    (
        "journal",
        "SELECT j.id, 'is not settled, and its number is' FROM shards s JOIN journal j \
         ON j.shard = s.shard AND j.id > s.watermark AND j.number <= s.number",
    ),
    (
        "epochs",
        "SELECT s.shard, 'has no epoch' FROM shards s LEFT JOIN epochs e ON e.shard = s.shard \
         WHERE e.shard IS NULL UNION ALL SELECT e.shard, 'is of no shard' FROM epochs e \
         LEFT JOIN shards s ON s.shard = e.shard WHERE s.shard IS NULL",
    ),
    (
        "archived_levels",
        "SELECT CONCAT_WS(':', l.kind, l.owner_id, l.place_id), 'is of no account' \
         FROM archived_levels l LEFT JOIN accounts a \
         ON (a.kind, a.owner_id, a.place_id) = (l.kind, l.owner_id, l.place_id) \
         LEFT JOIN archived_allowances r ON l.kind = 'ALLOWANCE' AND r.sale_id = l.owner_id \
         AND r.user_id = l.place_id WHERE a.kind IS NULL AND r.sale_id IS NULL",
    ),
    (
        "archives",
        "SELECT CONCAT_WS(':', a.shard, a.first_number), 'does not follow the one before' \
         FROM archives a LEFT JOIN shards s ON s.shard = a.shard LEFT JOIN archives b \
         ON b.shard = a.shard AND b.last_number + 1 = a.first_number WHERE s.shard IS NULL OR (a.first_number > 1 AND b.shard IS NULL) \
         OR a.number + 1 < a.first_number OR a.number > a.last_number \
         OR a.entries + a.first_number <> a.last_number + 1",
    ),
    (
        "archived_allowances",
        "SELECT CONCAT_WS(':', r.sale_id, r.user_id), 'is of a sale that was not forgotten' \
         FROM archived_allowances r LEFT JOIN sales s ON s.id = r.sale_id \
         AND s.forgotten_at IS NOT NULL WHERE s.id IS NULL",
    ),
    (
        "sales",
        "SELECT s.id, 'was forgotten, and has accounts' FROM sales s WHERE s.allowances_archived_at \
         IS NOT NULL AND (s.forgotten_at IS NULL OR EXISTS (SELECT 1 FROM accounts a \
         WHERE a.kind = 'ALLOWANCE' AND a.owner_id = s.id))",
    ),
    (
        "products",
        "SELECT p.id, IF(p.opened = 1, 'is said to be opened, and has no account', \
         'is said not to be opened, and has accounts') FROM products p LEFT JOIN accounts a \
         ON a.kind = 'AVAILABLE' AND a.owner_id = p.id AND a.place_id = 0 \
         WHERE (p.opened = 1) <> (a.owner_id IS NOT NULL)",
    ),
    (
        "coupons",
        "SELECT c.id, 'says otherwise than its account whether it was opened' FROM coupons c \
         LEFT JOIN accounts a ON a.kind = 'COUPON' AND a.owner_id = c.id AND a.place_id = 0 \
         WHERE c.user_id IS NULL AND (c.opened = 1) <> (a.owner_id IS NOT NULL) UNION ALL \
         SELECT c.id, 'says otherwise than its code whether it was opened' FROM coupons c \
         WHERE c.user_id IS NOT NULL AND (c.opened = 1) <> EXISTS \
         (SELECT 1 FROM coupon_issues i WHERE i.coupon_id = c.id)",
    ),
    (
        "coupons",
        // A coupon without a count is opened with the most that one entry may move.
        "SELECT c.id, CONCAT_WS(' ', 'was opened with', p.delta, 'and has a count of', c.count) \
         FROM coupons c JOIN postings p ON p.kind = 'COUPON' AND p.owner_id = c.id \
         AND p.place_id = 0 AND p.seq = 2 WHERE p.delta <> COALESCE(c.count, 1000000000000)",
    ),
];

/// The rule that only a full run checks, because it reads a posting of every buyer.
const FULL_RULES: [Rule; 1] = [(
    "sales",
    "SELECT s.id, CONCAT('counts from ', s.counted_from, ', a buyer was counted from ', \
     MIN(p.delta)) FROM sales s JOIN postings p ON p.kind = 'ALLOWANCE' AND p.owner_id = s.id \
     AND p.seq = 1 WHERE p.delta <> s.counted_from GROUP BY s.id",
)];

/// Most rows of a rule that are listed.
const LISTED_MAX: u32 = 100;

/// Checks the rows after the watermark, and the rules.
pub(super) async fn differing(
    pool: &MySqlPool,
    full: bool,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = beyond(pool).await?;
    let full = full.then_some(FULL_RULES).into_iter().flatten();
    for (table, text) in RULES.into_iter().chain(full) {
        let text = format!(
            "SELECT CAST(subject AS CHAR), CAST(wrong AS CHAR) FROM (SELECT NULL AS subject, \
             NULL AS wrong WHERE FALSE UNION ALL {text}) broken LIMIT {LISTED_MAX}"
        );
        let rows: Vec<(String, String)> =
            sqlx::query_as(AssertSqlSafe(text)).fetch_all(pool).await?;
        let rows = rows.into_iter();
        found.extend(rows.map(|(subject, wrong)| Difference::new(table, subject, wrong)));
    }
    Ok(found)
}

/// Rows after the watermark whose entry is not there.
async fn beyond(pool: &MySqlPool) -> Result<Vec<Difference>, sqlx::Error> {
    let states = shards::all(pool).await?;
    let end = states.iter().map(|state| state.watermark).max();
    let shards = states
        .iter()
        .map(|state| (Some(state.shard), state.watermark));
    let mut found = Vec::new();
    for (shard, after) in shards.chain([(None, end.unwrap_or_default())]) {
        found.extend(beyond_of(pool, shard, after).await?);
    }
    Ok(found)
}

async fn beyond_of(
    pool: &MySqlPool,
    shard: Option<u64>,
    after: Position,
) -> Result<Vec<Difference>, sqlx::Error> {
    let text = || "has no entry that made it".to_owned();
    let mut found = Vec::new();
    for table in TABLES {
        let stray = table.stray(pool, shard, after).await?;
        found.extend(stray.map(|id| Difference::new(table.name, id, text())));
    }
    let stray = rows::stray(pool, "postings", "journal_id", shard, after).await?;
    found.extend(stray.map(|id| Difference::new("postings", id, text())));
    Ok(found)
}
