//! Orders under row locks: buyers who queue for one product's row keep nobody from another product.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{Shop, until};

#[tokio::test(flavor = "multi_thread")]
async fn buyers_who_queue_for_one_row_keep_nobody_from_another() {
    // Danger: waiting buyers hold every permit. Method: another transaction locks a row, and more
    // buyers than there are permits want it.
    let shop = Shop::open_undivided(2, 1_000).await;
    let service = Arc::new(shop.serve().await);
    shop.drained().await;
    let mut other = shop.pool.begin().await.unwrap();
    sqlx::query(
        "SELECT balance FROM accounts WHERE kind = 'AVAILABLE' AND owner_id = 1 FOR UPDATE",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..4 * shop.config.mysql.synchronous_orders_max {
        let service = Arc::clone(&service);
        waiting.spawn(async move {
            let call = service.client.order("/api/orders", 2, &[(1, 1)]);
            call.send().await.status
        });
    }
    until("somebody waits for the row in mysql", || async {
        // InnoDB refreshes this table only when nobody has read it for a tenth of a second.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let text =
            "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
        shop.count(text).await > 0
    })
    .await;
    for _ in 0..10 {
        let call = service.client.order("/api/orders", 3, &[(2, 1)]);
        assert_eq!(call.send().await.status, 201);
    }
    other.rollback().await.unwrap();
    while let Some(status) = waiting.join_next().await {
        // The order may not have got its ticket in time.
        assert!([201, 503].contains(&status.unwrap()));
    }
    Arc::into_inner(service).unwrap().stop().await;
}
