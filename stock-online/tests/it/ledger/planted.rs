//! The worth of a `verify` that says "nothing is missing": every column of every table and every
//! field of every key that states a fact is changed, one at a time, and `verify --full` must name
//! each change.
//!
//! The changes are not listed by hand: the schema names the columns, [`stock_redis::keys`] the
//! keys. A table, column or key that is new and neither changed here nor listed with a reason fails
//! a test. Each change is undone, so one shop serves all of them, and at the end it is verified
//! again.

mod keys;
mod shop;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Executor as _;
use stock_engine::verify::{Difference, verify};
use stock_redis::keys::Kind;

use self::tables::Planting;
use crate::support::{PATIENCE, Shop};

async fn differences(shop: &Shop) -> Vec<Difference> {
    let report = verify(&shop.pool, &shop.ledger, true, &mut |_, _| {}).await;
    let report = report.unwrap();
    assert_eq!(report.ok, report.differences.is_empty());
    report.differences
}

/// Waits until the shop that a change has fenced is open again.
async fn reopened(shop: &Shop) {
    shop.ledger.check_fence().await;
    assert!(
        shop.ledger.wait_open(PATIENCE).await,
        "{:?}",
        shop.ledger.fenced()
    );
}

/// The checks that may name a change of a table.
fn checks(table: &str) -> Vec<&str> {
    let more: &[&str] = match table {
        "accounts" => &["redis"],
        "archived_allowances" => &["accounts", "archived_levels"],
        "archived_levels" => &["accounts"],
        "archives" => &["journal"],
        "branches" => &["entry_branches", "point_transactions"],
        "coupons" => &["states"],
        // An entry whose dead letter is gone lacks its rows; an entry with a dead letter should
        // have none.
        "dead_letters" => &["orders"],
        "epochs" | "shards" => &["journal", "epoch", "redis", "shards", "epochs"],
        "journal" => &["frames", "postings", "orders"],
        "postings" => &["accounts", "journal", "frames"],
        _ => &[],
    };
    [&[table], more].concat()
}

/// Tables whose changes are also named by checks of other tables, so that two of them changed at
/// once would show nothing.
const ALONE: [&str; 8] = [
    "accounts",
    "archived_allowances",
    "archived_levels",
    "archives",
    "epochs",
    "journal",
    "postings",
    "shards",
];

/// Batches of changes that do not hide each other: one change per table, or one change alone.
fn batches(plantings: Vec<Planting>) -> Vec<Vec<Planting>> {
    let mut batches: Vec<Vec<Planting>> = Vec::new();
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for planting in plantings {
        if ALONE.contains(&planting.table.as_str()) {
            batches.push(vec![planting]);
            continue;
        }
        let next = at.entry(planting.table.clone()).or_default();
        while batches
            .get(*next)
            .is_some_and(|of| ALONE.contains(&of[0].table.as_str()))
        {
            *next += 1;
        }
        if *next == batches.len() {
            batches.push(Vec::new());
        }
        batches[*next].push(planting);
        *next += 1;
    }
    batches
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_every_change_of_what_mysql_says() {
    let shop = shop::lived_in().await;
    let columns = tables::columns(&shop.pool).await;
    let known: BTreeSet<&str> = tables::LEDGER
        .into_iter()
        .chain(tables::OTHERS.map(|(table, _)| table))
        .collect();
    for column in &columns {
        let table = column.table_name.as_str();
        assert!(
            known.contains(table),
            "{table} is neither changed nor listed with a reason"
        );
    }
    let is_fact = |column: &&tables::Column| {
        let (table, name) = (column.table_name.as_str(), column.column_name.as_str());
        tables::LEDGER.contains(&table) && (table, name) != tables::FIRST_RELEASE
            || tables::FACTS.contains(&(table, name))
    };
    let facts: Vec<tables::Column> = columns.iter().filter(is_fact).cloned().collect();
    let kept_tables: BTreeSet<&str> = facts.iter().map(|of| of.table_name.as_str()).collect();
    let kept_columns = columns
        .iter()
        .filter(|of| kept_tables.contains(of.table_name.as_str()));
    let kept = tables::Kept::of(&shop.pool, &kept_columns.cloned().collect::<Vec<_>>()).await;
    // Changes of columns come first, then changes of whole rows.
    let mut plantings: Vec<Planting> = facts.iter().flat_map(tables::changes).collect();
    plantings.extend(
        tables::LEDGER
            .iter()
            .flat_map(|table| tables::rows(table, &columns)),
    );
    let (mut alone, together): (Vec<Planting>, Vec<Planting>) = plantings
        .into_iter()
        .partition(|of| ALONE.contains(&of.table.as_str()));
    let mut all = batches(together);
    all.extend(batches(std::mem::take(&mut alone)));
    let (mut changed, mut missed) = (0, Vec::new());
    for batch in all {
        let mut planted = Vec::new();
        for planting in batch {
            // A change of a column that never has a value, or always has one, may touch no row.
            if kept.run(&planting.statement).await > 0 {
                planted.push(planting);
            }
        }
        if planted.is_empty() {
            continue;
        }
        let found = differences(&shop).await;
        for planting in &planted {
            changed += 1;
            let checks = checks(&planting.table);
            if !found.iter().any(|of| checks.contains(&of.check)) {
                missed.push(planting.statement.clone());
            }
        }
        for planting in &planted {
            kept.restore(&planting.table).await;
        }
        reopened(&shop).await;
    }
    assert!(
        missed.is_empty(),
        "{} of {changed} missed: {missed:#?}",
        missed.len()
    );
    assert!(changed > 200, "only {changed} changes");
    shop.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_every_change_of_what_redis_says() {
    let shop = shop::lived_in().await;
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let (mut changed, mut missed) = (0, Vec::new());
    for kind in Kind::ALL {
        let mut batches: BTreeMap<u32, Vec<keys::Planting>> = BTreeMap::new();
        for shard in shop.ledger.shards() {
            let planter = keys::Planter::new(&mut redis, shard.keys());
            for planting in planter.of(kind).await {
                batches.entry(planting.batch).or_default().push(planting);
            }
        }
        assert!(!batches.is_empty(), "{kind:?} is not changed");
        for batch in batches.into_values() {
            let kept = keys::Kept::of(&mut redis, &batch).await;
            for command in batch.iter().flat_map(|planting| &planting.commands) {
                let _: redis::Value = command.query_async(&mut redis).await.unwrap();
            }
            let found = differences(&shop).await;
            for planting in &batch {
                changed += 1;
                let (check, about) = &planting.names;
                // Under another epoch nothing else can be compared.
                let is_fenced = about == "epoch";
                let is_named = |of: &Difference| {
                    let is_about = of.subject.contains(about) || of.detail.contains(about);
                    (of.check == *check && is_about) || (is_fenced && of.subject == "fence")
                };
                if !found.iter().any(is_named) {
                    missed.push(format!("{kind:?} {} {:?}", planting.key, planting.names));
                }
            }
            kept.restore(&mut redis).await;
            reopened(&shop).await;
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {changed} missed: {missed:#?}",
        missed.len()
    );
    assert!(changed > 80, "only {changed} changes");
    shop.verify().await;
}

/// Runs `verify` as the hourly job does until everything due is compared, and returns the
/// differences.
async fn within_a_day(shop: &Shop) -> Vec<Difference> {
    let age =
        "UPDATE proofs SET balance = balance - 86400000 WHERE subject IN ('round', 'round:names')";
    assert_eq!(shop.pool.execute(age).await.unwrap().rows_affected(), 2);
    let mut found = Vec::new();
    for _ in 0..5 {
        let report = verify(&shop.pool, &shop.ledger, false, &mut |_, _| {}).await;
        found.extend(report.unwrap().differences);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_proved_before_is_proved_again_within_a_day() {
    let shop = Shop::open_undivided(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    for _ in 0..3 {
        let order = client.order("/api/redis/orders", 2, &[(1, 1)]);
        assert_eq!(order.status().await, 201);
    }
    let cancelled = client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
    let cancel = format!("/api/redis/orders/{}/cancel", cancelled.order_id());
    assert_eq!(client.patch(&cancel).user(2).status().await, 200);
    shop.drained().await;
    service.stop().await;
    shop.verify().await;
    let _begun = verify(&shop.pool, &shop.ledger, false, &mut |_, _| {}).await;
    assert_eq!(within_a_day(&shop).await, []);
    for (check, change, back) in [
        (
            "order_products",
            "UPDATE order_products SET quantity = 2 ORDER BY order_id LIMIT 1",
            "UPDATE order_products SET quantity = 1 ORDER BY order_id LIMIT 1",
        ),
        // No single row shows this change; it is found because the whole round is counted.
        (
            "orders",
            "UPDATE orders SET status = 'FAIL', updated_at = '2026-01-01' ORDER BY id LIMIT 1",
            "UPDATE orders SET status = 'SUCCESS', updated_at = NULL ORDER BY id LIMIT 1",
        ),
        (
            "accounts",
            "UPDATE postings SET delta = 0, balance_after = 7 WHERE kind = 'AVAILABLE' AND seq = 1",
            "UPDATE postings SET delta = 0, balance_after = 0 WHERE kind = 'AVAILABLE' AND seq = 1",
        ),
    ] {
        assert_eq!(shop.pool.execute(change).await.unwrap().rows_affected(), 1);
        let found = within_a_day(&shop).await;
        let is_named = found.iter().any(|of| of.check == check);
        assert!(is_named, "{change}: {found:?}");
        assert_eq!(shop.pool.execute(back).await.unwrap().rows_affected(), 1);
        assert_eq!(within_a_day(&shop).await, []);
    }
    shop.verify().await;
}
