//! Upgrades: a schema that is ahead of the program, or behind it (F27).

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;

use super::command;
use super::rights::with_least_rights;
use crate::support::{Client, ROLES, ServiceProcess, Shop, folder, until};

/// Buyers behind a load balancer that knows the current instances.
struct Buyers {
    instances: Arc<Mutex<Vec<Arc<Client>>>>,
    /// The answers of all requests that did not succeed.
    failed: Arc<Mutex<Vec<String>>>,
    accepted: Arc<Mutex<usize>>,
    stop: CancellationToken,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Buyers {
    fn start(first: &ServiceProcess) -> Self {
        let mut buyers = Self {
            instances: Arc::new(Mutex::new(vec![Arc::new(first.client.clone())])),
            failed: Arc::default(),
            accepted: Arc::default(),
            stop: CancellationToken::new(),
            workers: Vec::new(),
        };
        for number in 0..8 {
            let (instances, stop) = (Arc::clone(&buyers.instances), buyers.stop.clone());
            let (failed, accepted) = (Arc::clone(&buyers.failed), Arc::clone(&buyers.accepted));
            buyers.workers.push(tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let client = {
                        let instances = instances.lock().unwrap();
                        Arc::clone(&instances[rand::random_range(0..instances.len())])
                    };
                    let (call, good) = match number {
                        0 => (client.order("/api/orders", 2, &[(1, 1)]), 201),
                        1 => (client.get("/api/products"), 200),
                        2 => (client.get("/api/orders").user(2), 200),
                        _ => (client.order("/api/redis/orders", 2, &[(1, 1)]), 201),
                    };
                    match call.try_send().await {
                        Ok(answer) if answer.status == good => {
                            *accepted.lock().unwrap() += usize::from(good == 201);
                        }
                        Ok(answer) => failed.lock().unwrap().push(answer.text),
                        Err(error) => failed.lock().unwrap().push(error.to_string()),
                    }
                }
            }));
        }
        buyers
    }

    fn add(&self, instance: &ServiceProcess) {
        let client = Arc::new(instance.client.clone());
        self.instances.lock().unwrap().push(client);
    }

    /// Sends nothing more to the instance that was added first, waits for its answers, and ends it.
    async fn take_away(&self, instance: ServiceProcess) {
        let client = self.instances.lock().unwrap().remove(0);
        until("it has answered everything", || async {
            Arc::strong_count(&client) == 1
        })
        .await;
        instance.end_by(Signal::TERM).await;
    }

    async fn accept(&self, more: usize) {
        let goal = *self.accepted.lock().unwrap() + more;
        until("orders are accepted", || async {
            *self.accepted.lock().unwrap() >= goal
        })
        .await;
    }

    async fn stop(self) {
        self.stop.cancel();
        for worker in self.workers {
            worker.await.unwrap();
        }
        assert_eq!(*self.failed.lock().unwrap(), Vec::<String>::new());
    }
}

/// Does what a migration of a later version may do: adds a row to the table of migrations, a table,
/// and a column to every table.
async fn migrate_to_the_next(shop: &Shop) {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() \
         AND table_type = 'BASE TABLE' AND table_name <> '_sqlx_migrations'",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let columns = tables
        .iter()
        .map(|table| format!("ALTER TABLE {table} ADD COLUMN of_the_next VARCHAR(20) NULL"));
    let note = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                VALUES (99999999999999, 'the next', TRUE, '', 0)";
    let table = "CREATE TABLE of_the_next (id INT NOT NULL PRIMARY KEY)";
    for text in columns.chain([note.to_owned(), table.to_owned()]) {
        sqlx::query(AssertSqlSafe(text))
            .execute(&shop.pool)
            .await
            .unwrap();
    }
}

async fn schema_of(client: &Client) -> (u16, serde_json::Value) {
    let ready = client.get("/readyz").try_send().await;
    ready.map_or((0, json!(null)), |ready| {
        (ready.status, ready.body["checks"]["schema"].clone())
    })
}

async fn is_ahead(client: &Client) {
    until("the schema is seen to be ahead", || async {
        schema_of(client).await == (200, json!("ahead"))
    })
    .await;
}

pub(super) fn warnings(log: &PathBuf) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap();
    let is_warning = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    text.lines().filter(is_warning).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_sell_side_by_side_over_a_migration_and_back() {
    // Danger: the migration of the next version runs while this version sells, and the next version
    // may have to be taken back. Method: under load a column is added to every table, a second
    // instance replaces the first, and a third replaces the second.
    let shop = Shop::open(1, 1_000_000).await;
    let folder = folder("upgrade");
    let logs = ["old", "new", "back"].map(|name| folder.join(name));
    let [old, new, back] = [0, 1, 2].map(|number: usize| {
        let warn = vec![("STOCK_LOG", "warn".to_owned())];
        ServiceProcess::start_logging(&shop, warn, &logs[number])
    });
    let old = old.await;
    let buyers = Buyers::start(&old);
    buyers.accept(100).await;
    migrate_to_the_next(&shop).await;
    is_ahead(&old.client).await;
    buyers.accept(100).await;
    let new = new.await;
    is_ahead(&new.client).await;
    buyers.add(&new);
    buyers.accept(100).await;
    buyers.take_away(old).await;
    buyers.accept(100).await;
    let back = back.await;
    buyers.add(&back);
    buyers.take_away(new).await;
    buyers.accept(100).await;
    for arguments in [&["migrate"][..], &["verify", "--full"], &["doctor"]] {
        let (code, _, text) = command(&shop, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
    }
    buyers.stop().await;
    shop.drained().await;
    back.end_by(Signal::TERM).await;
    let warned: Vec<_> = logs.iter().flat_map(warnings).collect();
    assert_eq!(warned, Vec::<String>::new());
    let of = |arguments: &[&str]| command(&shop, arguments).0;
    assert_eq!(
        of(&["archive", "--before", "2025-02", "--to", "/tmp"]),
        Some(1)
    );
    shop.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_schema_is_behind_waits_and_sells_when_it_is_migrated() {
    let shop = Shop::open(1, 10).await;
    for text in [
        "ALTER TABLE products DROP KEY products_sku, DROP COLUMN sku",
        "DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1",
    ] {
        sqlx::query(text).execute(&shop.pool).await.unwrap();
    }
    // A user who may not migrate, as in production.
    let least = with_least_rights(&shop).await;
    let log = folder("behind").join("log");
    let warn = vec![("STOCK_LOG", "warn".to_owned())];
    let out = std::fs::File::create(&log).unwrap().into();
    let service = ServiceProcess::begin(&least, warn, ROLES, out);
    let client = &service.client;
    until("the schema is seen to be behind", || async {
        schema_of(client).await == (503, json!("behind"))
    })
    .await;
    for path in ["/api/redis/orders", "/api/orders"] {
        let refused = client.order(path, 2, &[(1, 1)]).send().await;
        assert_eq!(refused.status, 503, "{}", refused.text);
    }
    for arguments in [
        &["verify"][..],
        &["recover", "--force"],
        &["seed"],
        &["export"],
    ] {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(arguments)
            .envs(shop.variables())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        assert!(
            text.contains("stock-online migrate"),
            "{arguments:?}: {text}"
        );
    }
    let before = warnings(&log).len();
    assert!(before < 8, "{:?}", warnings(&log));
    assert_eq!(command(&shop, &["migrate"]).0, Some(0));
    until("it is ready", || client.is_ready()).await;
    until("it sells", || async {
        let order = client.order("/api/redis/orders", 2, &[(1, 1)]);
        order.send().await.status == 201
    })
    .await;
    shop.drained().await;
    service.end_by(Signal::TERM).await;
    let reasons = warnings(&log);
    let waits = reasons
        .iter()
        .filter(|line| line.contains("waiting for the schema"));
    assert_eq!(waits.count(), 1, "{reasons:?}");
    shop.verify().await;
}
