//! Messages of commands: each names the file or the address, and the remedy. Settings are read as
//! they are written.

use std::path::Path;
use std::process::Command;

use redis::cmd;
use rustix::process::Signal;
use stock_common::config::Durability;

use crate::support::{OwnServers, Shop, folder, until};

/// Runs a command with these variables alone; returns its exit code, stdout and stderr.
fn run(
    folder: &Path,
    arguments: &[&str],
    variables: &[(&str, String)],
) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_stock-online"))
        .args(arguments)
        .env_clear()
        .envs(
            variables
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        )
        .current_dir(folder)
        .output()
        .unwrap();
    let [text, errors] = [out.stdout, out.stderr].map(|text| String::from_utf8(text).unwrap());
    (out.status.code(), text, errors)
}

/// The variables of a shop, some of them replaced.
fn but(shop: &Shop, other: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let mut variables = shop.variables();
    for (name, value) in other {
        variables.retain(|(known, _)| known != name);
        variables.push((name, (*value).to_owned()));
    }
    variables
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_command_names_the_file_the_address_and_the_remedy() {
    let shop = Shop::open(1, 10).await;
    let own = but(&shop, &[]);
    let no_database = but(
        &shop,
        &[(
            "STOCK_DATABASE_URL",
            "mysql://shop:geheim@127.0.0.1:1/stock",
        )],
    );
    let no_redis = but(
        &shop,
        &[("STOCK_REDIS_URL", "redis://:geheim@127.0.0.1:1/0")],
    );
    let no_url = but(&shop, &[("STOCK_DATABASE_URL", "127.0.0.1")]);
    let no_redis_url = but(&shop, &[("STOCK_REDIS_URL", "127.0.0.1")]);
    let nowhere = but(&shop, &[("STOCK_HTTP_ADDR", "127.0.0.1:1")]);
    let database = &[
        "mysql://shop:***@127.0.0.1:1/stock",
        "refused",
        "STOCK_DATABASE_URL",
        "--env-file",
    ][..];
    let redis = &[
        "redis://:***@127.0.0.1:1/0",
        "refused",
        "STOCK_REDIS_URL",
        "--env-file",
    ][..];
    let file = &["/nope/file", "No such file"][..];
    let folder = folder("messages");
    for (arguments, variables, words) in [
        (
            &["verify"][..],
            &[][..],
            &[
                "mysql://root@127.0.0.1:3306/stock",
                "STOCK_DATABASE_URL",
                "--env-file",
            ][..],
        ),
        (&["verify"], &no_database, database),
        (&["migrate"], &no_database, database),
        (&["recover"], &no_database, database),
        (&["dead-letters", "list"], &no_database, database),
        (&["verify"], &no_redis, redis),
        (
            &["explain", "AVAILABLE:1:0"],
            &no_redis,
            &[redis[0], "could not be asked"],
        ),
        (&["recover"], &no_redis, redis),
        (&["verify"], &no_url, &["127.0.0.1", "STOCK_DATABASE_URL"]),
        (
            &["verify"],
            &no_redis_url,
            &["127.0.0.1", "STOCK_REDIS_URL"],
        ),
        (
            &["recover"],
            &own,
            &["serves", "stock-online verify", "--force"],
        ),
        (&["import", "/nope/file"], &own, file),
        (&["import", "/tmp"], &own, &["/tmp", "directory"]),
        (&["export", "--output", "/nope/file"], &own, file),
        (
            &["archive", "--before", "2025-02", "--to", "/proc/nope"],
            &own,
            &["/proc/nope"],
        ),
        (&["verify", "--env-file", "/nope/file"], &own, file),
        (&["explain", "nothing"], &own, &["nothing", "AVAILABLE:7:0"]),
        (&["explain", "1"], &own, &["1 is unknown"]),
        (&["ready"], &nowhere, &["127.0.0.1:1", "STOCK_HTTP_ADDR"]),
        (
            &["token", "--user-id", "2"],
            &[],
            &["STOCK_JWT_SECRET", "32 bytes"],
        ),
    ] {
        let (code, _, errors) = run(&folder, arguments, variables);
        assert_eq!(code, Some(1), "{arguments:?}: {errors}");
        for word in words {
            assert!(
                errors.contains(word),
                "{arguments:?} without {word}: {errors}"
            );
        }
        assert!(!errors.contains("geheim"), "{errors}");
    }
    let (code, text, _) = run(&folder, &["explain", "AVAILABLE:1:0"], &own);
    assert_eq!(code, Some(0));
    assert!(
        text.lines().any(|line| line == "redis.balance: 10"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_checks_what_it_may_and_names_the_rest() {
    let shop = Shop::open(1, 10).await;
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    for (user, rights) in [("blind", "-config"), ("mute", "-info")] {
        let mut acl = cmd("ACL");
        for word in [
            "SETUSER",
            user,
            "on",
            ">password",
            "~*",
            "&*",
            "+@all",
            rights,
        ] {
            acl.arg(word);
        }
        let () = acl.query_async(&mut redis).await.unwrap();
    }
    let of = |user: &str| {
        shop.config
            .redis
            .redis_url
            .replace("://", &format!("://{user}:password@"))
    };
    let folder = folder("doctor");
    let (code, text, errors) = run(
        &folder,
        &["doctor"],
        &but(&shop, &[("STOCK_REDIS_URL", &of("blind"))]),
    );
    assert_eq!(code, Some(0), "{text}{errors}");
    for line in [
        "?    redis appendfsync: not told: CONFIG is not allowed — not checked",
        "ok   redis appendonly: yes",
        "ok   redis maxmemory-policy: noeviction",
        "ok   redis memory: ",
        "ok   schema: current",
    ] {
        assert!(
            text.lines().any(|told| told.starts_with(line)),
            "{line} in {text}"
        );
    }
    let (code, text, _) = run(
        &folder,
        &["doctor"],
        &but(&shop, &[("STOCK_REDIS_URL", &of("mute"))]),
    );
    assert_eq!(code, Some(1));
    assert!(
        text.contains("'info'") && text.contains("ok   schema: current"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_text_until_their_type_says_otherwise() {
    // Danger: a secret of digits is read as a float, or a line that cannot be read leaves the
    // default servers in place.
    let folder = folder("settings");
    let digits = "31415926535897932384626433832795028841";
    let shown = |variables: &[(&str, String)], arguments: &[&str]| {
        let arguments: Vec<&str> = ["serve", "--print-config"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let (code, text, errors) = run(&folder, &arguments, variables);
        let shown: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        (code, shown, errors)
    };
    let variables = [
        ("STOCK_REDIS_PREFIX", "007".to_owned()),
        ("STOCK_LOG", digits.to_owned()),
        ("STOCK_TIME_ZONE", "UTC".to_owned()),
        ("STOCK_SHARDS", "3".to_owned()),
        ("STOCK_PUBLIC_TLS", "true".to_owned()),
    ];
    let (code, config, errors) = shown(&variables, &[]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(config["redis_prefix"], "007");
    assert_eq!(config["log"], digits);
    assert_eq!(
        (config["shards"].as_u64(), config["public_tls"].as_bool()),
        (Some(3), Some(true))
    );
    let file = folder.join("env");
    let name = file.display().to_string();
    std::fs::write(
        &file,
        "\u{feff}export STOCK_REDIS_URL=redis://elsewhere:1/0\nSTOCK_REDIS_PREFIX=\"007\" # a comment\n",
    )
    .unwrap();
    let (_, config, errors) = shown(&[], &["--env-file", &name]);
    assert_eq!(config["redis_url"], "redis://elsewhere:1/0", "{errors}");
    assert_eq!(config["redis_prefix"], "007");
    std::fs::write(&file, "STOCK_SHARDS=3\nSTOCK_JWT_SECRET=geheim geheim\n").unwrap();
    let (code, _, errors) = shown(&[], &["--env-file", &name]);
    assert_eq!(code, Some(1));
    assert!(errors.contains(&format!("{name}, line 2")), "{errors}");
    assert!(!errors.contains("geheim"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_waits_for_a_mysql_that_is_silent_or_falls_silent() {
    let own = OwnServers::start(Durability::Everysec).await;
    let shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 10).await;
    let says_so = |(code, _, errors): (Option<i32>, String, String)| {
        assert_eq!(code, Some(1), "{errors}");
        for part in ["says nothing", "from mysql://", "STOCK_DATABASE_URL"] {
            assert!(errors.contains(part), "{errors}");
        }
    };
    // MySQL falls silent in the middle, while the command waits for a table that somebody holds.
    let mut holding = shop.pool.acquire().await.unwrap();
    let lock = sqlx::raw_sql("LOCK TABLES accounts WRITE");
    lock.execute(&mut *holding).await.unwrap();
    let variables = but(&shop, &[]);
    let command = tokio::task::spawn_blocking({
        let variables = variables.clone();
        move || run(&folder("silent"), &["verify"], &variables)
    });
    until("it waits for the table", || async {
        let text = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%accounts%' \
                    AND info NOT LIKE '%processlist%' AND command <> 'Sleep'";
        shop.count(text).await > 0
    })
    .await;
    own.mysql.signal(Signal::STOP);
    says_so(command.await.unwrap());
    // MySQL is silent from the beginning.
    says_so(run(&folder("silent"), &["reconcile"], &variables));
    own.mysql.signal(Signal::CONT);
    drop(holding);
}
