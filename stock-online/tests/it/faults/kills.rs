//! `kill -9` of each process in mid-load, and SIGTERM.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stock_common::config::Durability;
use stock_domain::account::Account;
use stock_engine::recover::{Allowed, recover};
use stock_engine::verify::verify;
use stock_mysql::accounts;
use tokio::task::JoinSet;

use crate::support::{History, Load, OwnServers, PATIENCE, ServiceProcess, Shop, sorted, until};

/// After the faults: every order that was answered 201 is stored exactly once, and an order with an
/// unknown outcome may be stored.
async fn nothing_is_lost(shop: &Shop, history: History) {
    shop.drained().await;
    let stored = shop.stored_orders().await;
    let accepted = sorted(history.accepted);
    let missing: Vec<&String> = accepted
        .iter()
        .filter(|id| !stored.contains(id))
        .take(5)
        .collect();
    assert!(missing.is_empty(), "accepted and not stored: {missing:?}");
    let most = accepted.len() as u64 + history.unknown;
    assert!(
        stored.len() as u64 <= most,
        "{} stored, at most {most} expected",
        stored.len()
    );
    shop.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_loses_no_accepted_order() {
    // Danger: a 201 whose order only the process knew. Method: kill -9 in mid-load, start another
    // process.
    let shop = Shop::open(1, 1_000_000).await;
    let mut service = ServiceProcess::start(&shop).await;
    let load = Load::start(std::slice::from_ref(&service.client), 8);
    load.accept(500).await;
    service.child.kill().await.unwrap();
    let history = load.stop().await;
    let again = ServiceProcess::start(&shop).await;
    nothing_is_lost(&shop, history).await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_signal_under_load_answers_what_was_accepted_and_exits_with_zero() {
    // A terminal that closes sends SIGHUP, and more than once.
    for signals in [
        &[Signal::TERM][..],
        &[Signal::HUP, Signal::HUP],
        &[Signal::INT],
    ] {
        let shop = Shop::open(1, 1_000_000).await;
        let mut service = ServiceProcess::start(&shop).await;
        let load = Load::start(std::slice::from_ref(&service.client), 8);
        load.accept(500).await;
        for &signal in signals {
            service.signal(signal);
        }
        let status = tokio::time::timeout(Duration::from_secs(10), service.child.wait());
        let status = status.await.expect("it ends within 10 s").unwrap();
        assert_eq!(status.code(), Some(0), "{signals:?}");
        let history = load.stop().await;
        let again = shop.serve().await;
        nothing_is_lost(&shop, history).await;
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mysql_stops_no_redis_first_order_and_loses_none() {
    // Danger: a batch half written. Method: kill -9 in mid-load; orders go on; start it again.
    let mut own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1_000_000).await;
    let service = shop.serve().await;
    let load = Load::start(std::slice::from_ref(&service.client), 8);
    load.accept(300).await;
    own.mysql.kill().await;
    load.accept(300).await;
    until("it is degraded, and ready", || async {
        let ready = service.client.get("/readyz").send().await;
        (ready.status, ready.body["status"].clone()) == (200, "degraded".into())
    })
    .await;
    own.mysql.restart().await.unwrap();
    load.accept(100).await;
    let history = load.stop().await;
    nothing_is_lost(&shop, history).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_loses_nothing_when_it_syncs_always() {
    // Danger: a 201 for an order that was only in memory. Method: kill -9 in mid-load, start it
    // again.
    let mut own = OwnServers::start(Durability::Always).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1_000_000).await;
    let service = shop.serve().await;
    let load = Load::start(std::slice::from_ref(&service.client), 8);
    load.accept(300).await;
    own.redis.kill().await;
    own.redis.restart().await.unwrap();
    load.accept(300).await;
    let history = load.stop().await;
    nothing_is_lost(&shop, history).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_redis_loses_is_listed_and_nothing_is_oversold() {
    // Danger: everysec loses a second of accepted orders and nobody notices. Method: kill -9, then
    // cut the tail of the append-only file as a crash would, start it again.
    let mut own = OwnServers::start(Durability::Everysec).await;
    let mut shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 1_000_000).await;
    // Nothing is settled, so that an entry lost in Redis is lost for good.
    let service = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    let order = || {
        service
            .client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .send()
    };
    let mut accepted = Vec::new();
    for _ in 0..20 {
        accepted.push(order().await.order_id());
    }
    own.redis.kill().await;
    cut_append_only_file(&own);
    own.redis.restart().await.unwrap();
    until("the loss is noticed", || async {
        service.client.get("/readyz").send().await.body["checks"]["epoch"] == "fenced"
    })
    .await;
    let refused = order().await;
    assert_eq!((refused.status, refused.code()), (503, "FENCED"));
    assert!(refused.headers.contains_key("retry-after"));

    let recovered = recover(&shop.config, &shop.pool, Allowed::default(), &mut |_, _| {})
        .await
        .unwrap();
    assert!(
        recovered.applied < 20 && recovered.discarded == 0,
        "{recovered:?}"
    );
    let listed: Vec<u64> = sqlx::query_scalar("SELECT journal_id FROM lost_entries ORDER BY 1")
        .fetch_all(&shop.pool)
        .await
        .unwrap();
    let stored = shop.stored_orders().await;
    let lost: Vec<String> = accepted
        .into_iter()
        .filter(|id| !stored.contains(id))
        .collect();
    assert!(!lost.is_empty(), "the cut has lost something");
    let listed: Vec<String> = listed.iter().map(u64::to_string).collect();
    assert_eq!(lost, listed, "what was lost is what is listed");
    until("selling goes on", || async { order().await.status == 201 }).await;
    service.stop().await;
    shop.config.apply.apply_poll_ms = 10;
    let service = shop.serve().await;
    shop.drained().await;
    let sold = i64::try_from(shop.stored_orders().await.len()).unwrap();
    assert_eq!(shop.available(1).await, 1_000_000 - sold);
    // This process' own ledger must have seen the restarted Redis, or the report names its fence
    // too.
    shop.ledger.check_fence().await;
    assert!(shop.ledger.wait_open(PATIENCE).await);
    let report = verify(&shop.pool, &shop.ledger, true, &mut |_, _| {}).await;
    let report = report.unwrap();
    assert!(!report.ok, "what was lost is named");
    let named: Vec<String> = report
        .differences
        .into_iter()
        .map(|of| of.subject)
        .collect();
    assert_eq!(named, listed);
    sqlx::query("DELETE FROM lost_entries")
        .execute(&shop.pool)
        .await
        .unwrap();
    shop.verify().await;
    service.stop().await;
}

/// Cuts off the last kilobytes: within the last orders, and in the middle of a command.
fn cut_append_only_file(own: &OwnServers) {
    let folder = own.redis.spec.pid_file().with_file_name("appendonlydir");
    let file = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(length - 3_001)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_service_keeps_a_row_once_however_many_of_its_orders_wait_for_it() {
    // Danger: MySQL gives the row to one transaction of the sleeping service after another, and
    // ends each only after a second of idleness. Method: the row is held until the service's
    // subscriber and three of its orders want it, then the service sleeps.
    let shop = Shop::open_undivided(1, 100).await;
    let service = ServiceProcess::start(&shop).await;
    shop.drained().await;
    let row = [Account::parse("AVAILABLE:1:0").unwrap()];
    let mut holder = shop.pool.begin().await.unwrap();
    accounts::lock(&mut holder, &row).await.unwrap();
    let first = service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    assert_eq!(first.send().await.status, 201);
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist
        WHERE db = DATABASE() AND info LIKE '%FROM accounts%FOR UPDATE'";
    until("its subscriber waits", || async {
        shop.count(waiting).await > 0
    })
    .await;
    let mut load = JoinSet::new();
    for _ in 0..3 {
        let client = service.client.clone();
        load.spawn(async move {
            let order = client.order("/api/orders", 2, &[(1, 1)]);
            order.send().await.status
        });
    }
    // Once the process has answered these, its transactions wait in MySQL.
    for _ in 0..20 {
        assert!(service.client.is_ready().await);
    }
    service.signal(Signal::STOP);
    let began = Instant::now();
    holder.rollback().await.unwrap();
    let mut heir = shop.pool.begin().await.unwrap();
    accounts::lock(&mut heir, &row).await.unwrap();
    let took = began.elapsed();
    heir.rollback().await.unwrap();
    service.signal(Signal::CONT);
    assert!(took < Duration::from_secs(2), "{took:?}");
    // The order of the ended transaction is unknown or tried again; the others go on.
    let statuses = load.join_all().await;
    assert!(
        statuses.iter().filter(|status| **status == 201).count() >= 2,
        "{statuses:?}"
    );
    shop.drained().await;
    shop.verify().await;
}
