//! Verifies which order used a code, and which order moved points. Here a column leads from each
//! side to the other.

use std::collections::{HashMap, HashSet};

use stock_common::id::{CouponId, Position};
use stock_domain::branch::{Branch, BranchEnded, CodeMoved};
use stock_domain::journal::{Entry, Kind};
use stock_domain::order::{Order, OrderReversed};
use stock_mysql::coupon_issues;
use stock_mysql::record::sets_code_state;

use super::Difference;
use super::late::{Window, find, value};
use super::rows::{ISSUES, POINTS, Row};

impl Window<'_> {
    /// Checks that each code that an order used, or whose use was taken back, says so. It names the
    /// last order that used it, if that order stands.
    pub(super) async fn codes(&self) -> Result<Vec<Difference>, sqlx::Error> {
        let mut used: HashMap<(CouponId, String), Position> = HashMap::new();
        let mut freed = HashSet::new();
        for entry in &self.read.entries {
            match code_of(entry) {
                Some(CodeMoved::Used(code, order)) => {
                    used.insert(code, order);
                }
                Some(CodeMoved::Freed(order)) => {
                    freed.insert(order);
                }
                None => {}
            }
        }
        if used.is_empty() {
            return Ok(Vec::new());
        }
        let codes: Vec<String> = used.keys().map(|(_, code)| code.clone()).collect();
        let stored = coupon_issues::orders_of(self.pool, &codes).await?;
        let orders = used.values().map(|order| order.get());
        let standing = find(self.pool, "orders", "id", "status", orders).await?;
        let mut found = Vec::new();
        for (code, order) in used {
            // A later order may have used the code, after this one was taken back.
            let is_right = match stored.get(&code) {
                Some(by) if freed.contains(&order) => *by > order,
                Some(by) => *by >= order,
                None => freed.contains(&order) || value(&standing, order, 0) != Some("SUCCESS"),
            };
            if !is_right {
                let text = format!("order {order} used it, it says {:?}", stored.get(&code));
                found.push(Difference::new("coupon_issues", code.1, text));
            }
        }
        Ok(found)
    }

    /// Checks that each code that names an order was used by that order, and that the order stands.
    pub(super) async fn issues(&self) -> Result<Vec<Difference>, sqlx::Error> {
        let issues = self.stored(&ISSUES).iter();
        let used: Vec<(&Row, Position)> = issues
            .filter_map(|row| Some((row, row.late(0)?.parse().ok()?)))
            .collect();
        let ids = used.iter().map(|(_, order)| order.get());
        let columns = "coupon_id, coupon_code, status";
        let orders = find(self.pool, "orders", "id", columns, ids).await?;
        let lacking = used.iter().map(|(_, order)| *order);
        let lacking = lacking.filter(|order| !orders.contains_key(order));
        let lacking = lacking.map(Position::get);
        let letters = find(self.pool, "dead_letters", "journal_id", "state", lacking).await?;
        // When a coupon is over, its code is not given back with its order.
        let coupons = used
            .iter()
            .filter_map(|(row, _)| row.value(1)?.parse().ok());
        let over = "COALESCE(valid_to < NOW(3), 0)";
        let over = find(self.pool, "coupons", "id", over, coupons).await?;
        let mut found = Vec::new();
        for (row, order) in used {
            let coupon = row.value(1).and_then(|coupon| coupon.parse().ok());
            let coupon = Position::new(coupon.unwrap_or_default());
            let is_over = value(&over, coupon, 0) == Some("1");
            let expected = [row.value(1), row.value(4), Some("SUCCESS")];
            let is_standing = match orders.get(&order) {
                Some(of) => {
                    let known = of.iter().map(Option::as_deref).zip(expected);
                    let is_same = |(index, (is, says)): (usize, (Option<&str>, Option<&str>))| {
                        is == says || (is_over && index == 2)
                    };
                    known.enumerate().all(is_same)
                }
                // A code may be used on its shard before its order is settled on another shard.
                None => {
                    let course = self.courses.get(&order.shard());
                    let is_settled = course.is_some_and(|course| order <= course.state.watermark);
                    let is_dead = matches!(value(&letters, order, 0), Some("OPEN" | "KEPT"));
                    is_dead || (!is_settled && course.is_some())
                }
            };
            if !is_standing {
                let text =
                    format!("says that order {order} used it, which did not, or does not stand");
                found.push(Difference::new("coupon_issues", row.at, text));
            }
        }
        Ok(found)
    }

    /// Checks that each movement of points names the order that moved them. A branch's movements
    /// name it once the branch is confirmed.
    pub(super) async fn points(&self) -> Result<Vec<Difference>, sqlx::Error> {
        let moved = self.read.rows.points.iter();
        let told: HashMap<(String, String), Option<Position>> = moved
            .map(|of| ((of.user_id.to_string(), of.seq.to_string()), of.order_id))
            .collect();
        let entries = self.read.entries.iter();
        let held: HashSet<Position> = entries
            .filter(|entry| {
                let of_order = |branch: Branch| branch.of == Kind::OrderPlaced.as_str();
                entry.kind == Kind::BranchHeld && Branch::of(entry).is_ok_and(of_order)
            })
            .map(|entry| entry.position)
            .collect();
        let stored = self.stored(&POINTS);
        let ids = stored
            .iter()
            .map(|row| row.at)
            .filter(|at| held.contains(at));
        let ids = ids.map(Position::get);
        let branches = find(self.pool, "branches", "id", "commit_id", ids).await?;
        let mut found = Vec::new();
        for row in stored {
            let (Some(user), Some(seq)) = (row.value(1), row.value(2)) else {
                continue;
            };
            let Some(of) = told.get(&(user.to_owned(), seq.to_owned())) else {
                continue;
            };
            let says = of.map(|order| order.to_string());
            let says = match held.contains(&row.at) {
                true => value(&branches, row.at, 0),
                false => says.as_deref(),
            };
            if row.late(0) != says {
                let text = format!("names order {:?}, its entry says {says:?}", row.late(0));
                found.push(Difference::new("point_transactions", row.at, text));
            }
        }
        Ok(found)
    }
}

/// Returns what an entry did with a code. The code of another shard is left to the branch of that
/// shard.
fn code_of(entry: &Entry) -> Option<CodeMoved> {
    if entry.kind == Kind::BranchConfirmed {
        return entry.body::<BranchEnded>().ok()?.code();
    }
    if !sets_code_state(entry) {
        return None;
    }
    if entry.kind == Kind::OrderPlaced {
        let coupon = entry.body::<Order>().ok()?.coupon?;
        return Some(CodeMoved::Used(
            (coupon.coupon_id, coupon.code),
            entry.position,
        ));
    }
    let is_reversal = matches!(entry.kind, Kind::OrderCancelled | Kind::OrderFailed);
    let reversed = entry.body::<OrderReversed>().ok().filter(|_| is_reversal)?;
    Some(CodeMoved::Freed(reversed.order_id))
}
