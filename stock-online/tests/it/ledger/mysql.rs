//! Statements that MySQL is asked, and locks that they must not take; also on a MySQL server where
//! one is installed.

use sqlx::{AssertSqlSafe, Row};
use stock_common::config::Durability;
use stock_common::id::{LocationId, ProductId, UserId};
use stock_domain::account::Account;
use stock_domain::stock::{self, StockChanged};
use stock_domain::verdict::Verdict;
use stock_mysql::{Role, accounts, jobs, shards};
use stock_servers::proxy::Proxy;
use stock_servers::{Spec, has_mysql};

use crate::support::{OwnServers, Shop, folder, start, until};

#[tokio::test]
async fn locking_accounts_reads_only_their_rows_by_the_primary_key() {
    let shop = Shop::open(50, 1).await;
    let service = shop.serve().await;
    shop.drained().await;
    service.stop().await;
    let mut connection = shop.pool.acquire().await.unwrap();
    // MySQL 9 explains as a tree unless it is told otherwise; MariaDB does not know the variable.
    let table = "SET SESSION explain_format = 'TRADITIONAL'";
    drop(sqlx::query(table).execute(&mut *connection).await);
    let mut query = sqlx::query(AssertSqlSafe(format!("EXPLAIN {}", accounts::lock_text(4))));
    for product in 1..=4u64 {
        query = query.bind("AVAILABLE").bind(product).bind(0u64);
    }
    let plan = query.fetch_one(&mut *connection).await.unwrap();
    drop(connection);
    let text = |column: &str| plan.try_get::<String, _>(column).unwrap();
    assert_eq!(
        (text("type"), text("key")),
        ("range".to_owned(), "PRIMARY".to_owned())
    );

    // Another transaction may lock the neighbours at the same time.
    let lock = |product: u64| Account::parse(&format!("AVAILABLE:{product}:0")).unwrap();
    let (mut first, mut second) = (
        shop.pool.begin().await.unwrap(),
        shop.pool.begin().await.unwrap(),
    );
    assert_eq!(
        accounts::lock(&mut first, &[lock(1), lock(3)])
            .await
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        accounts::lock(&mut second, &[lock(2), lock(4)])
            .await
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn a_shard_and_a_job_belong_to_one_holder_at_a_time() {
    let shop = Shop::open(1, 1).await;
    let (mut first, mut second) = (
        shop.pool.begin().await.unwrap(),
        shop.pool.begin().await.unwrap(),
    );
    assert!(shards::try_lock(&mut first, 0).await.unwrap().is_some());
    assert!(shards::try_lock(&mut second, 0).await.unwrap().is_none());
    drop(first);
    let claim = async || jobs::claim(&shop.pool, "reconcile").await.unwrap();
    // A claim that was released is free at once, each time.
    for _ in 0..20 {
        claim().await.unwrap().release().await.unwrap();
    }
    let held = claim().await;
    assert!(held.is_some() && claim().await.is_none());
}

#[tokio::test]
async fn a_job_whose_holder_is_lost_without_a_word_is_free_again_in_seconds() {
    // Danger: a machine that dies, or a link that swallows everything, holds the job for as long as
    // the server keeps idle connections. Method: a proxy swallows everything that the holder sends.
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1).await;
    let proxy = Proxy::start(own.mysql.spec.port).await.unwrap();
    let direct = format!("127.0.0.1:{}", own.mysql.spec.port);
    let mut lost = shop.config.clone();
    lost.mysql.database_url = lost.mysql.database_url.replace(&direct, &proxy.address);
    let pool = stock_mysql::pool(&lost, Role::Tool).unwrap();
    let claim = jobs::claim(&pool, "reconcile").await.unwrap().unwrap();
    claim.check().unwrap();
    proxy.lose();
    until("another instance has the job", || async {
        let claim = jobs::claim(&shop.pool, "reconcile").await.unwrap();
        claim.is_some()
    })
    .await;
    until("the holder knows it", || async { claim.check().is_err() }).await;
    assert!(claim.succeed().await.is_err());
}

#[tokio::test]
async fn frames_that_nobody_needs_are_dropped_and_the_watermark_stays() {
    let mut shop = Shop::open(1, 1_000).await;
    shop.config.apply.journal_keep_entries = 10;
    let service = shop.serve().await;
    let frames = async || -> i64 {
        let mut link = shop.ledger.link().unwrap();
        let journal = shop.ledger.keys().journal();
        redis::cmd("XLEN")
            .arg(journal)
            .query_async(&mut link.read)
            .await
            .unwrap()
    };
    let mut last = String::new();
    for _ in 0..50 {
        last = service
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .order_id();
        shop.drained().await;
    }
    assert!(frames().await < 30, "{} frames", frames().await);
    let shown = service
        .client
        .get(&format!("/api/orders/{last}"))
        .user(2)
        .send()
        .await;
    assert_eq!(shown.body["orderStatus"], "SUCCESS");
    let again = shop.serve().await;
    assert_eq!(
        again
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
            .await
            .status,
        201
    );
    shop.drained().await;
    shop.verify().await;
    again.stop().await;
    service.stop().await;
}

#[tokio::test]
async fn the_same_holds_on_mysql_where_it_is_installed() {
    if !has_mysql() {
        return;
    }
    let folder = folder("oracle");
    let redis = Spec::redis(&folder.join("redis"), Durability::Always).unwrap();
    let mysql = Spec::oracle_mysql(&folder.join("mysql")).await.unwrap();
    let (redis, mysql) = (start(&redis).await, start(&mysql).await);
    let shop = Shop::open_on(&redis.spec, &mysql.spec, 2, 10).await;
    let service = shop.serve().await;
    for path in ["/api/redis/orders", "/api/orders"] {
        let placed = service
            .client
            .order(path, 2, &[(1, 1), (2, 2)])
            .send()
            .await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        let cancel = format!("{path}/{}/cancel", placed.order_id());
        assert_eq!(
            service.client.patch(&cancel).user(2).send().await.status,
            200
        );
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_stops_only_what_needs_it() {
    // Danger: the subscriber holds the rows of a whole batch while it waits for one row, and
    // everybody waits for it. Method: one product's row is held. Orders before that product's order
    // are stored, and the row of a product after it is free.
    let shop = Shop::open_undivided(3, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    shop.drained().await;
    let row = |product: u64| Account::parse(&format!("AVAILABLE:{product}:0")).unwrap();
    let mut holder = shop.pool.begin().await.unwrap();
    accounts::lock(&mut holder, &[row(2)]).await.unwrap();
    for product in [1, 1, 2, 3, 1] {
        let order = client.order("/api/redis/orders", 2, &[(product, 1)]);
        assert_eq!(order.send().await.status, 201);
    }
    until("what stands before it is stored", || async {
        shop.stored_orders().await.len() == 2
    })
    .await;
    let mut other = shop.pool.begin().await.unwrap();
    let rows = [row(1), row(2), row(3)];
    let free = accounts::lock_free(&mut other, &rows).await.unwrap();
    assert!(
        free.contains_key(&row(1)) && free.contains_key(&row(3)) && !free.contains_key(&row(2)),
        "{free:?}"
    );
    other.rollback().await.unwrap();
    holder.rollback().await.unwrap();
    shop.drained().await;
    assert_eq!(shop.stored_orders().await.len(), 5);
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_larger_than_a_batch_is_settled_alone() {
    // Danger: the limit of a batch's bytes leaves the batch empty, and the shard stands still for
    // ever. Method: two entries with payloads of 5 MB, where a batch has 4 MiB.
    let shop = Shop::open(1, 10).await;
    for _ in 0..2 {
        let change = StockChanged {
            product_id: ProductId(1),
            location_id: LocationId::ONLINE,
            quantity: 1,
            reason: "x".repeat(5_000_000),
        };
        let request = stock::receive(&change, &stock::Terms::default(), UserId(1), None).unwrap();
        let verdict = shop.ledger.decide(request).await.unwrap();
        assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    }
    let service = shop.serve().await;
    shop.drained().await;
    assert_eq!(shop.verify().await.lag_entries, 0);
    service.stop().await;
}
