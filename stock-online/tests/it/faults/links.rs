//! Links that swallow everything that is sent.

use std::time::Duration;

use stock_servers::proxy::{Mode, Proxy};

use crate::support::{Load, Shop, sorted, until};

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_a_link_swallows_hold_up_neither_applying_nor_the_end() {
    // Danger: a statement without an answer holds its connection, its permit and the subscriber for
    // ever. Method: a link to MySQL that is half open again and again, under load on both paths.
    let mut shop = Shop::open(1, 1_000_000).await;
    let port = shop
        .config
        .mysql
        .database_url
        .split([':', '/'])
        .find_map(|part| part.parse().ok());
    let proxy = Proxy::start(port.unwrap()).await.unwrap();
    let direct = format!("127.0.0.1:{}", port.unwrap());
    shop.config.mysql.database_url = shop
        .config
        .mysql
        .database_url
        .replace(&direct, &proxy.address);
    shop.config.mysql.database_transaction_timeout_ms = 300;
    let service = shop.serve().await;
    let load = Load::start(std::slice::from_ref(&service.client), 8);
    for _ in 0..8 {
        load.accept(20).await;
        let before = proxy.swallowed();
        proxy.set(Mode::HalfOpen);
        until("a statement is swallowed", || async {
            proxy.swallowed() > before
        })
        .await;
        proxy.set(Mode::Pass);
    }
    load.accept(100).await;
    let history = load.stop().await;
    shop.drained().await;
    let stored = shop.stored_orders().await;
    for id in sorted(history.accepted) {
        assert!(stored.contains(&id), "{id} was accepted and is not stored");
    }
    shop.verify().await;
    let end = tokio::time::timeout(Duration::from_secs(10), service.stop());
    end.await.unwrap();
}
