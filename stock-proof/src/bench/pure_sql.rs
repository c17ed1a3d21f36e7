//! The order of a shop without Stock Flow: `SELECT … FOR UPDATE`, `UPDATE`, three times `INSERT`,
//! and `COMMIT` on one hot row, from 16 connections, on the same MySQL.

use std::time::{Duration, Instant};

use sqlx::mysql::MySqlPoolOptions;
use sqlx::{Executor, MySqlPool};

use crate::Failure;
use crate::shop::Servers;

const CONNECTIONS: u32 = 16;
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

/// Orders per second.
///
/// # Errors
/// When MySQL does not answer.
pub async fn run(servers: &Servers, seconds: u32) -> Result<f64, Failure> {
    let name = format!("pure_sql_{:x}", rand::random::<u32>());
    servers.mysql.create_database(&name).await?;
    let url = format!("{}?ssl-mode=DISABLED", servers.mysql.spec.url(&name));
    let pool = MySqlPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(&url)
        .await?;
    for text in TABLES {
        pool.execute(text).await?;
    }
    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut orders = 0_u32;
                while Instant::now() < until {
                    order(&pool).await?;
                    orders += 1;
                }
                Ok::<_, sqlx::Error>(orders)
            })
        })
        .collect();
    let mut orders = 0;
    for worker in workers {
        orders += worker.await??;
    }
    pool.close().await;
    Ok(f64::from(orders) / f64::from(seconds))
}
