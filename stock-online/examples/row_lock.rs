//! The pure-SQL order that the bench compares with: SELECT … FOR UPDATE, UPDATE, three INSERTs, COMMIT on
//! one hot row, in a private database with `innodb_flush_log_at_trx_commit = 1`.
//!
//! `row_lock [SECONDS] [CONNECTIONS]` prints orders per second; default 5 s and 16 connections.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "an example may end with a message"
)]

use std::time::{Duration, Instant};

use sqlx::mysql::MySqlPoolOptions;
use sqlx::{Executor, MySqlPool};
use stock_online::servers::Spec;

const TABLES: [&str; 5] = [
    "CREATE TABLE stocks (product_id BIGINT PRIMARY KEY, quantity BIGINT NOT NULL) ENGINE = InnoDB",
    "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL, \
     total_amount BIGINT NOT NULL, status VARCHAR(20) NOT NULL) ENGINE = InnoDB",
    "CREATE TABLE order_products (id BIGINT AUTO_INCREMENT PRIMARY KEY, order_id BIGINT NOT NULL, \
     product_id BIGINT NOT NULL, quantity INT NOT NULL, unit_price BIGINT NOT NULL) ENGINE = InnoDB",
    "CREATE TABLE stock_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, product_id BIGINT NOT NULL, \
     quantity_change INT NOT NULL, order_id BIGINT NOT NULL) ENGINE = InnoDB",
    "INSERT INTO stocks VALUES (1, 1000000000)",
];

async fn order(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let left: i64 =
        sqlx::query_scalar("SELECT quantity FROM stocks WHERE product_id = ? FOR UPDATE")
            .bind(1)
            .fetch_one(&mut *transaction)
            .await?;
    sqlx::query("UPDATE stocks SET quantity = ? WHERE product_id = ?")
        .bind(left - 1)
        .bind(1)
        .execute(&mut *transaction)
        .await?;
    let done =
        sqlx::query("INSERT INTO orders (user_id, total_amount, status) VALUES (?, ?, 'SUCCESS')")
            .bind(2)
            .bind(1_000)
            .execute(&mut *transaction)
            .await?;
    sqlx::query(
        "INSERT INTO order_products (order_id, product_id, quantity, unit_price) \
         VALUES (?, 1, 1, 1000)",
    )
    .bind(done.last_insert_id())
    .execute(&mut *transaction)
    .await?;
    sqlx::query("INSERT INTO stock_log (product_id, quantity_change, order_id) VALUES (1, -1, ?)")
        .bind(done.last_insert_id())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse::<u32>().ok());
    let seconds = arguments.next().unwrap_or(5);
    let connections = arguments.next().unwrap_or(16);
    let folder = std::env::temp_dir().join(format!("stock-row-lock-{}", std::process::id()));
    let server = Spec::mysql(&folder)
        .await
        .expect("a database server is installed");
    let server = server.start().await.expect("it starts");
    server.create_database("shop").await.expect("it answers");
    let pool = MySqlPoolOptions::new()
        .max_connections(connections)
        .connect(&format!("{}?ssl-mode=DISABLED", server.spec.url("shop")))
        .await
        .expect("it answers");
    for text in TABLES {
        pool.execute(text).await.expect("the tables can be made");
    }
    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut orders = 0_u32;
                while Instant::now() < until {
                    order(&pool).await.expect("the order is written");
                    orders += 1;
                }
                orders
            })
        })
        .collect();
    let mut orders = 0;
    for worker in workers {
        orders += worker.await.expect("the worker ends");
    }
    println!("{}", orders / seconds);
    pool.close().await;
    server.stop().await;
    std::fs::remove_dir_all(folder).expect("the folder can be removed");
}
