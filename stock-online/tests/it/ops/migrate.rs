//! Migrations that are cut off, and several at once: the next run finishes them (F28).

use std::process::Stdio;

use sqlx::{AssertSqlSafe, MySqlPool};
use stock_mysql::Role;
use stock_mysql::migrate::{Run, Schema, migrate, schema};
use tokio::process::{Child, Command};

use crate::support::{Shop, until};

/// A shop's settings with an empty database.
async fn empty_beside(shop: &Shop, name: &str) -> (Shop, MySqlPool) {
    let (server, database) = shop.config.mysql.database_url.rsplit_once('/').unwrap();
    let database = format!("{database}_{name}");
    sqlx::query(AssertSqlSafe(format!(
        "CREATE DATABASE {database} CHARACTER SET utf8mb4"
    )))
    .execute(&shop.pool)
    .await
    .unwrap();
    let mut empty = shop.clone();
    empty.config.mysql.database_url = format!("{server}/{database}");
    empty.config.redis.redis_prefix = format!("{}:{name}", shop.config.redis.redis_prefix);
    let pool = stock_mysql::pool(&empty.config, Role::Tool).unwrap();
    (empty, pool)
}

/// Every column, key and constraint of a database, and the rows that migrations wrote into its
/// tables.
async fn form(pool: &MySqlPool) -> Vec<String> {
    let mut form: Vec<String> = sqlx::query_scalar(
        "SELECT CONCAT_WS(' ', table_name, ordinal_position, column_name, column_type, is_nullable, \
         column_default, extra, generation_expression) FROM information_schema.columns \
         WHERE table_schema = DATABASE() UNION ALL \
         SELECT CONCAT_WS(' ', table_name, index_name, seq_in_index, column_name, non_unique) \
         FROM information_schema.statistics WHERE table_schema = DATABASE() UNION ALL \
         SELECT CONCAT_WS(' ', table_name, constraint_name, constraint_type) \
         FROM information_schema.table_constraints WHERE table_schema = DATABASE() UNION ALL \
         SELECT CONCAT_WS(' ', version, success, HEX(checksum)) FROM _sqlx_migrations UNION ALL \
         SELECT CONCAT_WS(' ', 'steps', version, done) FROM migration_steps UNION ALL \
         SELECT CONCAT_WS(' ', 'beats', id, beat) FROM replica_beats",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    form.sort();
    form
}

/// The migration that has begun, and how many of its statements are noted as done.
async fn under_way(pool: &MySqlPool) -> Option<(i64, u32)> {
    sqlx::query_as("SELECT version, done FROM migration_steps")
        .fetch_optional(pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_killed_at_any_statement_is_finished_by_the_next_run() {
    // Danger: MySQL commits every change of a table by itself, so a killed migration is half done.
    // Method: a run is dropped after every statement, once with its note and once as if it had been
    // killed before the note.
    let shop = Shop::open(1, 1).await;
    let (_, whole) = empty_beside(&shop, "whole").await;
    let (_, cut) = empty_beside(&shop, "cut").await;
    migrate(&whole).await.unwrap();
    assert_eq!(schema(&cut).await.unwrap(), Schema::Behind);
    let (mut runs, mut statements) = (0_i64, 0_i64);
    while let Some(mut run) = Run::begin(&cut).await.unwrap() {
        run.step().await.unwrap();
        drop(run);
        let forgotten = sqlx::query("UPDATE migration_steps SET done = done - 1 WHERE done > 0");
        let forgotten = forgotten.execute(&cut).await.unwrap().rows_affected();
        if forgotten == 1 {
            let mut again = Run::begin(&cut).await.unwrap().unwrap();
            again.step().await.unwrap();
            statements += 1;
        }
        runs += 1;
    }
    let migrations = shop.count("SELECT COUNT(*) FROM _sqlx_migrations").await;
    assert!(
        statements > 60 && runs == statements + migrations,
        "{statements} of {runs}"
    );
    assert_eq!(form(&cut).await, form(&whole).await);
    assert_eq!(schema(&cut).await.unwrap(), Schema::Current);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_an_earlier_release_left_half_done_is_finished() {
    // Danger: releases before `migration_steps` noted that a migration had begun, but not how far
    // it came. Method: after every statement the database is made to look as they left it.
    let shop = Shop::open(1, 1).await;
    let (_, whole) = empty_beside(&shop, "whole").await;
    let (_, cut) = empty_beside(&shop, "cut").await;
    migrate(&whole).await.unwrap();
    let mut goal = (0, 0);
    while let Some(mut run) = Run::begin(&cut).await.unwrap() {
        while run.step().await.unwrap() {
            match under_way(&cut).await {
                Some(now) if now <= goal => {}
                Some(now) => {
                    goal = now;
                    break;
                }
                None => {}
            }
        }
        drop(run);
        if let Some((version, _)) = under_way(&cut).await {
            for text in [
                "INSERT IGNORE INTO _sqlx_migrations VALUES (?, 'begun', NOW(), FALSE, '', -1)",
                "DELETE FROM migration_steps WHERE version = ?",
            ] {
                sqlx::query(text).bind(version).execute(&cut).await.unwrap();
            }
        }
    }
    assert!(goal.1 > 0);
    assert_eq!(form(&cut).await, form(&whole).await);
}

fn process(shop: &Shop) -> Child {
    Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .arg("migrate")
        .envs(shop.variables())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrate_process_that_is_killed_again_and_again_is_finished_by_the_last() {
    let shop = Shop::open(1, 1).await;
    let (cut_shop, cut) = empty_beside(&shop, "cut").await;
    let tables = async || -> i64 {
        let text = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()";
        sqlx::query_scalar(text).fetch_one(&cut).await.unwrap()
    };
    for goal in [1, 4, 9, 17, 30, 44] {
        let mut child = process(&cut_shop);
        until("it has come so far", || async { tables().await >= goal }).await;
        child.kill().await.unwrap();
    }
    assert!(process(&cut_shop).wait().await.unwrap().success());
    let (_, whole) = empty_beside(&shop, "whole").await;
    migrate(&whole).await.unwrap();
    assert_eq!(form(&cut).await, form(&whole).await);
    let epochs: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM epochs")
        .fetch_one(&cut)
        .await
        .unwrap();
    assert_eq!(u64::try_from(epochs).unwrap(), shop.config.redis.shards);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_four_migrations_at_once_one_works_and_all_succeed() {
    let shop = Shop::open(1, 1).await;
    let (empty, pool) = empty_beside(&shop, "four").await;
    let all = [(); 4].map(|()| process(&empty));
    for mut child in all {
        assert!(child.wait().await.unwrap().success());
    }
    let (_, whole) = empty_beside(&shop, "whole").await;
    migrate(&whole).await.unwrap();
    assert_eq!(form(&pool).await, form(&whole).await);
}
