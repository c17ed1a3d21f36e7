//! The rights that docs/durability.md names are enough, on both servers.

use redis::cmd;
use sqlx::AssertSqlSafe;

use super::command;
use super::upgrade::warnings;
use crate::support::{ServiceProcess, Shop, folder, until};

const DOCUMENT: &str = include_str!("../../../../docs/durability.md");

/// The line of the document that begins with `begin`.
fn line(begin: &str) -> &'static str {
    let found = DOCUMENT.lines().find(|line| line.starts_with(begin));
    found.unwrap()
}

/// The shop, reached by users with the least rights.
pub(super) async fn with_least_rights(shop: &Shop) -> Shop {
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut words = line("ACL SETUSER").split(' ');
    let mut acl = cmd(words.next().unwrap());
    words.for_each(|word| {
        acl.arg(word);
    });
    let _: () = acl.query_async(&mut redis).await.unwrap();
    let (server, database) = shop.config.mysql.database_url.rsplit_once('/').unwrap();
    let grant = line("GRANT").replace("stock.*", &format!("{database}.*"));
    for text in [
        "CREATE USER IF NOT EXISTS 'stock'@'%' IDENTIFIED BY 'password'",
        grant.as_str(),
    ] {
        sqlx::query(AssertSqlSafe(text.to_owned()))
            .execute(&shop.pool)
            .await
            .unwrap();
    }
    let mut config = shop.config.clone();
    config.redis.redis_url = config.redis.redis_url.replace("://", "://stock:password@");
    let server = server.replace("://root@", "://stock:password@");
    config.mysql.database_url = format!("{server}/{database}");
    Shop::at(config)
}

/// The commands that a source sends to Redis, as an ACL names them.
fn commands(text: &str) -> impl Iterator<Item = String> {
    const BEGINS: [&str; 4] = ["cmd(\"", "redis.call('", "redis.pcall('", "Scan::new(\""];
    let found = BEGINS
        .into_iter()
        .flat_map(|begin| text.split(begin).skip(1));
    found.filter_map(|rest| {
        let name = rest.split(['"', '\'']).next()?;
        // A command with subcommands is allowed by each of them.
        let behind = rest.get(name.len()..)?.trim_start_matches(['"', '\'', ')']);
        let sub = behind.trim_start().strip_prefix(".arg(\"");
        let sub = sub.and_then(|sub| sub.split('"').next());
        let has_subs = ["CLUSTER", "CONFIG", "SCRIPT", "CLIENT"].contains(&name);
        let full = match sub.filter(|_| has_subs) {
            Some(sub) => format!("{name}|{sub}"),
            None => name.to_owned(),
        };
        let is_name = |c: char| c.is_ascii_uppercase() || c == '|';
        (!full.is_empty() && full.chars().all(is_name)).then(|| full.to_lowercase())
    })
}

#[test]
fn the_line_of_rights_names_every_command_of_the_sources() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = [
        "stock-redis/src",
        "stock-engine/src",
        "stock-online/src",
        "lua",
    ]
    .map(|name| root.join(name))
    .to_vec();
    let mut missing = std::collections::BTreeSet::new();
    let allowed: Vec<&str> = line("ACL SETUSER").split(" +").skip(1).collect();
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let text = text.split("#[cfg(test)]").next().unwrap();
                for command in commands(text) {
                    seen += 1;
                    let is_allowed = allowed.contains(&command.as_str());
                    // A command that is sent without its subcommand's name beside it.
                    let by_sub =
                        |right: &&str| right.split_once('|').is_some_and(|(of, _)| of == command);
                    if !is_allowed && !allowed.iter().any(by_sub) {
                        missing.insert(command);
                    }
                }
            }
        }
    }
    assert!(seen > 80, "{seen} commands were read");
    assert_eq!(missing, std::collections::BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_document_names_are_enough() {
    let shop = Shop::open(2, 10).await;
    let least = with_least_rights(&shop).await;
    let log = folder("rights").join("log");
    let often = |name| (name, "*/3 * * * * *".to_owned());
    let variables = vec![
        ("STOCK_LOG", "warn".to_owned()),
        often("STOCK_RECONCILE_CRON"),
        often("STOCK_VERIFY_CRON"),
        often("STOCK_FORGET_MARKS_CRON"),
        often("STOCK_FORGET_LOGINS_CRON"),
        often("STOCK_POINTS_REPORT_CRON"),
    ];
    let service = ServiceProcess::start_logging(&least, variables, &log).await;
    let client = &service.client;
    for (path, product) in [("/api/redis/orders", 1), ("/api/orders", 2)] {
        let order = client.order(path, 2, &[(product, 1)]);
        let placed = order.header("idempotency-key", path).send().await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        least.drained().await;
        let cancel = format!("{path}/{}/cancel", placed.order_id());
        let cancelled = client.patch(&cancel).user(2).send().await;
        assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    }
    let product = serde_json::json!({ "name": "new", "price": 10, "status": "ACTIVE", "stock": 5 });
    let made = client
        .post("/api/products")
        .admin()
        .json(&product)
        .send()
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    least.drained().await;
    until("every job has run", || async {
        let jobs = "SELECT COUNT(*) FROM jobs WHERE last_success_at IS NOT NULL AND name IN \
                    ('reconcile', 'verify', 'forget_marks', 'forget_logins', 'daily_points_report')";
        shop.count(jobs).await == 5
    })
    .await;
    let warned = warnings(&log);
    let warned = warned
        .iter()
        .filter(|line| !line.contains("a job is skipped"));
    assert_eq!(warned.collect::<Vec<_>>(), Vec::<&String>::new());
    for arguments in [
        &["migrate"][..],
        &["verify", "--full"],
        &["reconcile"],
        &["explain", "AVAILABLE:1:0"],
        &["doctor"],
        &["recover", "--force"],
    ] {
        let (code, _, text) = command(&least, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
    }
    until("selling goes on", || async {
        let order = client.order("/api/redis/orders", 2, &[(1, 1)]);
        order.send().await.status == 201
    })
    .await;
    least.drained().await;
    shop.verify().await;
}
