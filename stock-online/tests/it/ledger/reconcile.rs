//! Reconcile: corrects changes made by hand, and leaves everything else as it is.

use redis::cmd;
use stock_engine::reconcile::reconcile;
use stock_engine::verify::verify;
use stock_online::ServiceRole;

use crate::support::{Load, Shop, account, until};

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_differs_and_nothing_is_changed() {
    let shop = Shop::open(1, 1_000_000).await;
    let service = shop.serve().await;
    let load = Load::start(std::slice::from_ref(&service.client), 8);
    for _ in 0..10 {
        load.accept(100).await;
        let done = reconcile(&shop.pool, &shop.ledger, true).await.unwrap();
        if let Some(done) = done {
            assert!(done.differences.is_empty(), "{:?}", done.differences);
        }
        let report = verify(&shop.pool, &shop.ledger, false, &mut |_, _| {})
            .await
            .unwrap();
        assert!(report.ok, "{:?}", report.differences);
    }
    let history = load.stop().await;
    shop.drained().await;
    let sold = i64::try_from(history.accepted.len()).unwrap();
    assert_eq!(shop.available(1).await, 1_000_000 - sold);
    assert_eq!(shop.count("SELECT COUNT(*) FROM drifts").await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_level_changed_by_hand_is_reported_first_and_then_corrected() {
    let shop = Shop::open_undivided(3, 100).await;
    let service = shop.serve().await;
    assert_eq!(
        service
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status,
        201
    );
    shop.drained().await;
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let key = |product| shop.ledger.keys().account(account(product));
    let _: () = cmd("SET")
        .arg(key(1))
        .arg("500 3 0")
        .query_async(&mut redis)
        .await
        .unwrap();
    let _: i64 = cmd("DEL")
        .arg(key(2))
        .query_async(&mut redis)
        .await
        .unwrap();
    sqlx::query("UPDATE accounts SET balance = 7 WHERE kind = 'AVAILABLE' AND owner_id = 3")
        .execute(&shop.pool)
        .await
        .unwrap();

    let report = verify(&shop.pool, &shop.ledger, true, &mut |_, _| {})
        .await
        .unwrap();
    assert!(!report.ok);
    let seen = reconcile(&shop.pool, &shop.ledger, false)
        .await
        .unwrap()
        .unwrap();
    assert!(
        seen.differences.len() >= 3 && seen.corrected == 0,
        "{seen:?}"
    );
    let done = reconcile(&shop.pool, &shop.ledger, true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (done.differences.len(), done.corrected),
        (3, 3),
        "{:?}",
        done.differences
    );
    assert_eq!(
        (shop.available(1).await, shop.available(2).await),
        (99, 100)
    );
    assert_eq!(
        shop.count("SELECT COUNT(*) FROM drifts WHERE corrected = 1")
            .await,
        3
    );
    shop.verify().await;
    let healthy = reconcile(&shop.pool, &shop.ledger, true)
        .await
        .unwrap()
        .unwrap();
    assert!(healthy.differences.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn verify_finds_what_is_missing_doubled_or_changed() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            service
                .client
                .order("/api/redis/orders", 2, &[(1, 1)])
                .send()
                .await
                .order_id(),
        );
    }
    shop.drained().await;
    service.stop().await;
    shop.verify().await;
    let damages: [(&str, &str, &str); 5] = [
        (
            "UPDATE order_products SET quantity = 2 WHERE order_id = ?",
            "order_products",
            "entry says",
        ),
        (
            "UPDATE postings SET delta = -2 WHERE journal_id = ?",
            "accounts",
            "moves",
        ),
        (
            "DELETE FROM postings WHERE journal_id = ?",
            "accounts",
            "missing",
        ),
        ("DELETE FROM orders WHERE id = ?", "orders", "missing"),
        ("DELETE FROM journal WHERE id = ?", "journal", "where"),
    ];
    for (text, check, said) in damages {
        let mut transaction = shop.pool.begin().await.unwrap();
        sqlx::query(text)
            .bind(&ids[1])
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let report = verify(&shop.pool, &shop.ledger, true, &mut |_, _| {})
            .await
            .unwrap();
        let found =
            |d: &stock_engine::verify::Difference| d.check == check && d.detail.contains(said);
        assert!(
            !report.ok && report.differences.iter().any(found),
            "{text}: {:?}",
            report.differences
        );
    }
}

#[tokio::test]
async fn verify_names_a_mysql_that_does_not_move_until_it_does() {
    let shop = Shop::open(1, 100).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    let order = held.client.order("/api/redis/orders", 2, &[(1, 1)]);
    assert_eq!(order.status().await, 201);
    let checks = async || {
        let report = verify(&shop.pool, &shop.ledger, false, &mut |_, _| {}).await;
        let report = report.unwrap();
        assert_eq!(report.ok, report.differences.is_empty());
        let found = report.differences.into_iter();
        found.map(|found| found.check).collect::<Vec<_>>()
    };
    assert_eq!(checks().await, [""; 0], "a moment is no standstill");
    until("the standstill is named", || async {
        checks().await == ["stalled"]
    })
    .await;
    let service = shop.serve().await;
    shop.drained().await;
    assert_eq!(checks().await, [""; 0]);
    service.stop().await;
    held.stop().await;
}
