//! Archive: months of the journal go into files, the rest can still be verified, and the next run
//! finishes a killed one.
//!
//! Redis gives an entry its time, so these tests move the cut-off instead: `everything` archives
//! all entries that were decided until now.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;
use stock_common::id::Position;
use stock_domain::account::Account;
use stock_engine::archive::{ArchiveError, Archived, Month, archive, plan, read};
use stock_engine::reconcile::reconcile;
use stock_engine::verify::{Difference, verify};
use stock_mysql::{archives, point_reports};

use crate::benefits::{balance, campaign, code, earn};
use crate::support::{Load, Shop, folder};

fn now_ms(shop: &Shop) -> u64 {
    shop.ledger.redis_now_ms() + 1_000
}

async fn everything(shop: &Shop, to: &Path) -> Result<Archived, ArchiveError> {
    archive(&shop.pool, to, now_ms(shop), &mut |_, _| {}).await
}

/// Waits until everything is settled, and verifies it: only verified entries are archived.
async fn verified(shop: &Shop) {
    shop.drained().await;
    shop.verify().await;
}

/// An entry with its postings, as text.
type Book = BTreeMap<u64, (Position, String, Vec<String>)>;

/// The entries of all files. Each file must be as the manifest says, and no entry may stand in two
/// files.
fn files(folder: &Path) -> (Book, BTreeMap<Account, (u64, i64)>) {
    let (mut book, mut levels) = (Book::new(), BTreeMap::new());
    let manifest = std::fs::read_to_string(folder.join("manifest.jsonl")).unwrap_or_default();
    let mut lines: Vec<Value> = manifest
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    lines.sort_by_key(|line| line["firstNumber"].as_u64());
    for line in lines {
        let path = folder.join(line["file"].as_str().unwrap());
        let checksum = hex::encode(Sha256::digest(std::fs::read(&path).unwrap()));
        assert_eq!(line["checksum"], json!(checksum), "{}", path.display());
        let mut count = 0;
        for entry in read(&path).unwrap() {
            let entry = entry.unwrap();
            count += 1;
            for posted in &entry.postings {
                let level = levels.entry(posted.account).or_insert((0, 0));
                assert_eq!(posted.seq, level.0 + 1, "{}", posted.account);
                assert_eq!(posted.balance_after, level.1 + posted.delta);
                *level = (posted.seq, posted.balance_after);
            }
            let mut postings: Vec<String> = entry
                .postings
                .iter()
                .map(|of| {
                    let (account, seq) = (of.account, of.seq);
                    format!("{account} {seq} {} {}", of.delta, of.balance_after)
                })
                .collect();
            postings.sort();
            let row = (entry.position, entry.payload.get().to_owned(), postings);
            assert!(book.insert(entry.number, row).is_none(), "{}", entry.number);
        }
        assert_eq!(line["entries"], json!(count));
    }
    (book, levels)
}

/// The entries that MySQL still has.
async fn rows(shop: &Shop) -> Book {
    let postings: Vec<(u64, String)> = sqlx::query_as(
        "SELECT journal_id, CONCAT(kind, ':', owner_id, ':', place_id, ' ', seq, ' ', delta, ' ', \
         balance_after) FROM postings",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let mut of: HashMap<u64, Vec<String>> = HashMap::new();
    for (id, text) in postings {
        of.entry(id).or_default().push(text);
    }
    let entries: Vec<(u64, u64, Vec<u8>)> =
        sqlx::query_as("SELECT number, id, payload FROM journal")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
    let book = entries.into_iter().map(|(number, id, payload)| {
        let mut postings = of.remove(&id).unwrap_or_default();
        postings.sort();
        let payload = String::from_utf8(payload).unwrap();
        (number, (Position::new(id), payload, postings))
    });
    let book: Book = book.collect();
    assert!(of.is_empty(), "every posting has its entry");
    book
}

/// Checks that each entry is either in MySQL or in a file, and that each account's archived
/// postings chain from 1 to its archived seq.
async fn add_up(shop: &Shop, folder: &Path) -> Book {
    let (mut book, levels) = files(folder);
    for (number, row) in rows(shop).await {
        assert!(book.insert(number, row).is_none(), "{number} is twice");
    }
    let names: Vec<Account> = levels.keys().copied().collect();
    let mut connection = shop.pool.acquire().await.unwrap();
    let kept = archives::levels(&mut connection, &names).await.unwrap();
    let kept = kept.into_iter().map(|(of, at)| (of, (at.seq, at.balance)));
    assert_eq!(kept.collect::<BTreeMap<_, _>>(), levels);
    let count = shop.count("SELECT COUNT(*) FROM archived_levels").await;
    assert_eq!(count, i64::try_from(levels.len()).unwrap());
    let numbers: Vec<u64> = book.keys().copied().collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    book
}

/// The result of `sell`, which makes entries of many kinds: an order of each path, a use of points,
/// and a coupon, to be taken back later.
struct Sold {
    orders: [String; 2],
    used: String,
    coupon: u64,
}

async fn sell(client: &crate::support::Client) -> Sold {
    let coupon = campaign(client, &json!({ "discountAmount": 300, "count": 5 })).await;
    code(client, 2, coupon).await;
    earn(client, 2, 1_000).await;
    let mut orders = Vec::new();
    for path in ["/api/redis/orders", "/api/orders"] {
        let placed = client.order(path, 2, &[(1, 2)]).send().await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        orders.push(placed.order_id());
    }
    let body = json!({ "userId": 2, "amount": 400, "description": "a book" });
    let call = client.post("/api/v2/points/use").user(2);
    let used = call.json(&body).send().await;
    assert_eq!(used.status, 201, "{}", used.text);
    Sold {
        orders: orders.try_into().unwrap(),
        used: used.member("id").to_owned(),
        coupon,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_proved_and_what_was_archived_is_still_taken_back() {
    let (shop, to) = (Shop::open_undivided(2, 100).await, folder("archive"));
    let service = shop.serve().await;
    let client = &service.client;
    let sold = sell(client).await;
    shop.drained().await;
    let today = stock_common::clock::datetime(shop.ledger.redis_now_ms()).date();
    let mut connection = shop.pool.acquire().await.unwrap();
    let begins = |date| {
        let ms = stock_common::clock::day_begins_ms(date, chrono_tz::UTC);
        Position::from_parts(ms.unwrap(), 0).unwrap()
    };
    let span = begins(today)..begins(today.succ_opt().unwrap());
    let written = point_reports::write(&mut connection, today, span.clone()).await;
    assert_eq!(written.unwrap(), 1);
    drop(connection);
    shop.verify().await;
    let before = rows(&shop).await;

    let planned = plan(&shop.pool, now_ms(&shop)).await.unwrap();
    assert_eq!(planned.held, []);
    assert_eq!(planned.stretches.len(), 1, "{planned:?}");
    let done = everything(&shop, &to).await.unwrap();
    assert_eq!(done.files[0].entries, before.len() as u64);
    assert_eq!(shop.count("SELECT COUNT(*) FROM journal").await, 0);
    assert_eq!(shop.count("SELECT COUNT(*) FROM postings").await, 0);
    assert_eq!(add_up(&shop, &to).await, before);
    assert_eq!(shop.verify().await.entries, 0);
    let again = everything(&shop, &to).await.unwrap();
    assert!(again.files.is_empty(), "{again:?}");
    let reconciled = reconcile(&shop.pool, &shop.ledger, true).await.unwrap();
    assert_eq!(reconciled.unwrap().differences, []);

    // Selling goes on, and every archived thing can still be read and taken back.
    let more = client.order("/api/redis/orders", 3, &[(1, 1)]).send().await;
    assert_eq!(more.status, 201, "{}", more.text);
    code(client, 3, sold.coupon).await;
    for (path, order) in ["/api/redis/orders", "/api/orders"]
        .iter()
        .zip(&sold.orders)
    {
        let shown = client.get(&format!("/api/orders/{order}")).user(2);
        let shown = shown.send().await;
        assert_eq!(
            (shown.status, shown.member("orderStatus")),
            (200, "SUCCESS")
        );
        let cancelled = client.patch(&format!("{path}/{order}/cancel")).user(2);
        assert_eq!(cancelled.status().await, 200);
    }
    for (path, status) in [("v1", 200), ("v2", 409)] {
        let path = format!("/api/{path}/points/{}/cancel", sold.used);
        assert_eq!(client.post(&path).user(2).status().await, status);
    }
    assert_eq!(balance(client, 2).await, 1_000);
    shop.drained().await;
    // The report of the same day can be written again.
    let mut connection = shop.pool.acquire().await.unwrap();
    let written = point_reports::write(&mut connection, today, span).await;
    assert_eq!(written.unwrap(), 1);
    drop(connection);
    shop.verify().await;
    let path = "/api/products/1/stock/movements";
    let shown = client.get(path).admin().send().await;
    assert_eq!(shown.body["items"].as_array().unwrap().len(), 3);
    assert!(shown.body["archivedUntil"].is_string(), "{}", shown.text);
    let path = "/api/products/2/stock/movements";
    let shown = client.get(path).admin().send().await;
    assert_eq!((shown.status, &shown.body["items"]), (200, &json!([])));

    // Later entries go into a second file.
    everything(&shop, &to).await.unwrap();
    let book = add_up(&shop, &to).await;
    assert!(book.len() > before.len());
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 3);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_in_what_is_left_is_found() {
    let (shop, to) = (Shop::open_undivided(2, 100).await, folder("archive"));
    let service = shop.serve().await;
    let client = &service.client;
    let sold = sell(client).await;
    verified(&shop).await;
    everything(&shop, &to).await.unwrap();
    let later = client.order("/api/redis/orders", 2, &[(1, 2)]).send().await;
    let later = later.order_id();
    shop.drained().await;
    service.stop().await;
    shop.verify().await;
    let first = &sold.orders[0];
    let account = "kind = 'AVAILABLE' AND owner_id = 1 AND place_id = 0";
    for (check, change, back) in [
        (
            "accounts",
            format!("UPDATE accounts SET balance = balance + 1 WHERE {account}"),
            format!("UPDATE accounts SET balance = balance - 1 WHERE {account}"),
        ),
        // Only the archived level of this account is left.
        (
            "accounts",
            "UPDATE accounts SET balance = 99 WHERE kind = 'AVAILABLE' AND owner_id = 2".to_owned(),
            "UPDATE accounts SET balance = 100 WHERE kind = 'AVAILABLE' AND owner_id = 2"
                .to_owned(),
        ),
        (
            "accounts",
            format!("UPDATE archived_levels SET balance_after = balance_after + 1 WHERE {account}"),
            format!("UPDATE archived_levels SET balance_after = balance_after - 1 WHERE {account}"),
        ),
        (
            "accounts",
            format!("UPDATE archived_levels SET seq = seq - 1 WHERE {account}"),
            format!("UPDATE archived_levels SET seq = seq + 1 WHERE {account}"),
        ),
        (
            "accounts",
            format!("INSERT INTO postings VALUES ('AVAILABLE', 1, 0, 1, {first}, 0, 0)"),
            format!("DELETE FROM postings WHERE journal_id = {first}"),
        ),
        (
            "journal",
            format!(
                "INSERT INTO journal (id, shard, number, kind, version, actor_id, payload) \
                 VALUES ({first}, 0, 3, 'order_placed', 1, 2, '{{}}')"
            ),
            format!("DELETE FROM journal WHERE id = {first}"),
        ),
        (
            "journal",
            "UPDATE archives SET number = number - 1".to_owned(),
            "UPDATE archives SET number = number + 1".to_owned(),
        ),
        (
            "orders",
            format!("UPDATE orders SET total_amount = total_amount + 1 WHERE id = {later}"),
            format!("UPDATE orders SET total_amount = total_amount - 1 WHERE id = {later}"),
        ),
        (
            "orders",
            format!("UPDATE orders SET id = id + 1 WHERE id = {later}"),
            format!("UPDATE orders SET id = id - 1 WHERE id = {later} + 1"),
        ),
    ] {
        let run = async |text: &str| {
            let done = sqlx::query(AssertSqlSafe(text.to_owned())).execute(&shop.pool);
            assert_eq!(done.await.unwrap().rows_affected(), 1, "{text}");
        };
        run(&change).await;
        let found = differences(&shop).await;
        assert!(
            found.iter().any(|of| of.check == check),
            "{change}: {found:?}"
        );
        run(&back).await;
    }
    shop.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_killed_anywhere_is_finished_by_the_next_one() {
    // Danger: an entry that is neither in MySQL nor in a file, or in both. Method: selling goes on,
    // and runs are killed at each step that they report: while they write, before and after the
    // file is noted, and between the batches that are removed.
    let (shop, to) = (Shop::open_undivided(1, 1_000_000).await, folder("archive"));
    let service = shop.serve().await;
    let load = Load::start(std::slice::from_ref(&service.client), 8);
    load.accept(2_500).await;
    assert_eq!(differences(&shop).await, []);
    let cut_off = now_ms(&shop);
    for kill_at in 1_u32.. {
        let (pool, folder) = (shop.pool.clone(), to.clone());
        let run = tokio::spawn(async move {
            let mut steps = 0;
            let mut die = |_, _| {
                steps += 1;
                assert!(steps < kill_at, "killed at step {steps}");
            };
            archive(&pool, &folder, cut_off, &mut die).await
        });
        match run.await {
            Err(_killed) => {
                add_up_loosely(&shop, &to).await;
                assert_eq!(differences(&shop).await, []);
            }
            Ok(done) => {
                done.unwrap();
                assert!(kill_at > 2, "it was killed before");
                break;
            }
        }
    }
    let history = load.stop().await;
    verified(&shop).await;
    everything(&shop, &to).await.unwrap();
    let book = add_up(&shop, &to).await;
    let orders = book
        .values()
        .filter(|(_, payload, _)| payload.contains("order_placed"));
    assert_eq!(orders.count(), history.accepted.len());
    shop.verify().await;
    service.stop().await;

    // Nothing is removed while its file is missing.
    let file = files_of(&to).remove(0);
    std::fs::rename(&file, to.join("elsewhere")).unwrap();
    sqlx::query("UPDATE archives SET number = first_number - 1 ORDER BY first_number LIMIT 1")
        .execute(&shop.pool)
        .await
        .unwrap();
    let refused = everything(&shop, &to).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::Missing(_)), "{refused}");
}

fn files_of(folder: &Path) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(folder).unwrap();
    let all = all.map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all
        .filter(|path| path.extension() == Some("gz".as_ref()))
        .collect();
    all.sort();
    all
}

/// Checks that the files have every entry that MySQL lacks.
async fn add_up_loosely(shop: &Shop, folder: &Path) {
    let (book, _) = files(folder);
    let left = rows(shop).await;
    let first = left.keys().next().copied().unwrap_or(1);
    assert!(
        (1..first).all(|number| book.contains_key(&number)),
        "{first}"
    );
}

async fn differences(shop: &Shop) -> Vec<Difference> {
    verify(&shop.pool, &shop.ledger, true, &mut |_, _| {})
        .await
        .unwrap()
        .differences
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_waits_for_stays() {
    let (shop, to) = (Shop::open_undivided(1, 100).await, folder("archive"));
    let service = shop.serve().await;
    let order = async || {
        let call = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
        let id: Position = call.send().await.order_id().parse().unwrap();
        verified(&shop).await;
        id
    };
    let reason = async || {
        let planned = plan(&shop.pool, now_ms(&shop)).await.unwrap();
        let last = planned.stretches.last().map(|of| of.last_number);
        (last, planned.held.first().map(|of| of.reason.clone()))
    };
    let run = async |text: String| {
        let done = sqlx::query(AssertSqlSafe(text)).execute(&shop.pool).await;
        done.unwrap();
    };
    order().await;
    let (first, _) = reason().await;
    let first = first.unwrap();
    let stuck = order().await;
    order().await;
    assert_eq!(reason().await, (Some(first + 2), None));
    let webhook = 7;
    let cursor = format!("INSERT INTO webhook_cursors VALUES ({webhook}, 0, {first})");
    run(cursor).await;
    for (make, undo, why) in [
        (
            format!("INSERT INTO dead_letters (journal_id, kind, reason) VALUES ({stuck}, '', '')"),
            "UPDATE dead_letters SET state = 'RESOLVED'",
            "is a dead letter",
        ),
        (
            format!(
                "INSERT INTO offline_sales (journal_id, store_id, sale_key, fingerprint, sold_ms, \
                 state) VALUES ({stuck}, 1, 'k', REPEAT('x', 16), 0, 'OVERSOLD')"
            ),
            "DELETE FROM offline_sales",
            "is not resolved",
        ),
        (
            format!(
                "INSERT INTO webhooks (id, url, events, secret, state) \
                 VALUES ({webhook}, 'http://127.0.0.1/', '', '', 'DISABLED')"
            ),
            "DELETE FROM webhooks",
            "has not delivered them",
        ),
        (
            format!("UPDATE proofs SET proved = {first} WHERE subject = 'journal:0'"),
            "UPDATE proofs SET proved = proved + 2 WHERE subject = 'journal:0'",
            "not verified yet",
        ),
    ] {
        run(make).await;
        let (last, held) = reason().await;
        let held = held.unwrap_or_default();
        assert!(last == Some(first) && held.contains(why), "{last:?} {held}");
        run(undo.to_owned()).await;
        assert_eq!(reason().await, (Some(first + 2), None));
    }
    // Files of another journal are not overwritten.
    let other = Shop::open_undivided(1, 1).await;
    other.verify().await;
    everything(&other, &to).await.unwrap();
    let refused = everything(&shop, &to).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::Foreign(_)), "{refused}");
    assert_eq!(shop.count("SELECT COUNT(*) FROM archives").await, 0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_only_months_that_are_long_over() {
    let (shop, to) = (Shop::open_undivided(1, 5).await, folder("archive"));
    shop.verify().await;
    let run = |before: &str, more: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(["archive", "--before", before, "--json", "--to"])
            .arg(&to)
            .args(more)
            .envs(shop.variables())
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        (
            out.status.code(),
            report,
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let today = stock_common::clock::datetime(shop.ledger.redis_now_ms()).date();
    let next_year = today + chrono::Days::new(366);
    let (code, _, text) = run(&next_year.format("%Y-%m").to_string(), &[]);
    assert!(code == Some(1) && text.contains("earlier month"), "{text}");
    assert_eq!(run("2026", &[]).0, Some(2));
    let (code, report, text) = run("2025-06", &["--dry-run"]);
    assert_eq!(
        (code, report),
        (Some(0), json!({ "dryRun": true, "files": [], "held": [] })),
        "{text}"
    );
    let (code, report, text) = run("2025-06", &[]);
    assert_eq!(
        (code, report),
        (Some(0), json!({ "files": [], "held": [] })),
        "{text}"
    );
    let done = everything(&shop, &to).await.unwrap();
    let id: u64 = shop
        .count("SELECT CAST(watermark AS SIGNED) FROM shards")
        .await
        .unsigned_abs();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .args(["explain", &id.to_string(), "--json"])
        .envs(shop.variables())
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(shown["archived"]["file"], json!(done.files[0].file));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_month_goes_into_a_file_of_its_own_and_what_is_young_stays() {
    // The first entries are dated back by SQL; they have no rows in tables of their own.
    let (shop, to) = (Shop::open_undivided(3, 5).await, folder("archive"));
    let service = shop.serve().await;
    verified(&shop).await;
    service.stop().await;
    let all = shop.count("SELECT COUNT(*) FROM journal").await;
    let kept = all.unsigned_abs() - 4;
    for (days, first, last) in [(110_u64, 1, 2), (70, 3, 4)] {
        let back = (days * 86_400_000) << 22;
        for text in [
            "UPDATE postings p JOIN journal j ON j.id = p.journal_id SET p.journal_id = j.id - ? \
             WHERE j.number BETWEEN ? AND ?",
            "UPDATE journal SET id = id - ? WHERE number BETWEEN ? AND ?",
        ] {
            let query = sqlx::query(text).bind(back).bind(first).bind(last);
            query.execute(&shop.pool).await.unwrap();
        }
    }
    // Redis still has the first entries with their true date, so its stream is trimmed.
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut trim = redis::cmd("XTRIM");
    trim.arg(shop.ledger.keys().journal()).arg("MAXLEN").arg(1);
    let _: i64 = trim.query_async(&mut redis).await.unwrap();
    let before = rows(&shop).await;
    let now_ms = shop.ledger.redis_now_ms();
    let first_kept = Month::of(now_ms - 7 * 86_400_000).to_string();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .args(["archive", "--before", &first_kept, "--json", "--to"])
        .arg(&to)
        .envs(shop.variables())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let month = |days: u64| Month::of(now_ms - days * 86_400_000).to_string();
    for (file, (days, first)) in [(110, 1), (70, 3)].into_iter().enumerate() {
        let of = &report["files"][file];
        assert_eq!(of["month"], json!(month(days)), "{report}");
        assert_eq!(
            (&of["firstNumber"], &of["entries"]),
            (&json!(first), &json!(2))
        );
    }
    assert_eq!(report["files"].as_array().unwrap().len(), 2);
    assert_eq!(rows(&shop).await.len() as u64, kept);
    assert_eq!(add_up(&shop, &to).await, before);
    assert_eq!(shop.verify().await.entries, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_branches_goes_with_their_entries() {
    let shop = Shop::open_in(3, 24, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let lines: Vec<(u64, i64)> = (1..=6).map(|product| (product, 1)).collect();
    let mut orders = Vec::new();
    for _ in 0..5 {
        let order = client.order("/api/redis/orders", 2, &lines).send().await;
        assert_eq!(order.status, 201, "{}", order.text);
        orders.push(order.order_id());
    }
    // One shard holds the second of these orders and releases it, because another shard has too
    // little.
    let much: Vec<(u64, i64)> = lines.iter().map(|(product, _)| (*product, 60)).collect();
    for expected in [201, 409] {
        let order = client.order("/api/redis/orders", 2, &much).send().await;
        assert_eq!(order.status, expected, "{}", order.text);
    }
    let cancel = format!("/api/redis/orders/{}/cancel", orders[0]);
    assert_eq!(client.patch(&cancel).user(2).send().await.status, 200);
    verified(&shop).await;
    let rows = "SELECT (SELECT COUNT(*) FROM branches) + (SELECT COUNT(*) FROM entry_branches)";
    assert!(shop.count(rows).await > 10);
    let to = folder("branches");
    everything(&shop, &to).await.unwrap();
    assert_eq!(shop.count(rows).await, 0);
    let order = client.order("/api/redis/orders", 2, &lines).send().await;
    assert_eq!(order.status, 201, "{}", order.text);
    verified(&shop).await;
    assert!(shop.count(rows).await > 0, "what is not archived stays");
    service.stop().await;
}
