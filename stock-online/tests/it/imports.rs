//! Files of stock: checked as a whole, and written once, whichever process ends in the middle.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};
use stock_online::ServiceRole;

use crate::support::{Answer, Client, ServiceProcess, Shop, folder, until};

const HEAD: &str = "product_id,location_id,quantity,mode\n";

async fn import(client: &Client, query: &str, rows: &str) -> Answer {
    let path = format!("/api/stock/import{query}");
    let call = client
        .post(&path)
        .admin()
        .raw(format!("{HEAD}{rows}").as_bytes());
    call.header("content-type", "text/csv").send().await
}

fn lines(answer: &Answer) -> Vec<u64> {
    let errors = answer.body["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|error| error["line"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_changes_levels_by_deltas_and_counts_and_a_dry_run_changes_nothing() {
    let shop = Shop::open(3, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let rows = "1,0,50,delta\n2,0,70,set\n3,0,100,set\n1,2,9,delta\n";
    let tried = import(client, "?dryRun=true", rows).await;
    assert_eq!(
        (tried.status, &tried.body["state"], &tried.body["rows"]),
        (200, &json!("DRY_RUN"), &json!(4)),
        "{}",
        tried.text
    );
    assert_eq!(shop.available(1).await, 100);
    let done = import(client, "", rows).await;
    assert_eq!(
        (done.status, &done.body["state"]),
        (201, &json!("DONE")),
        "{}",
        done.text
    );
    assert_eq!(
        (&done.body["applied"], &done.body["failed"]),
        (&json!(4), &json!(0))
    );
    let levels = (
        shop.available(1).await,
        shop.available(2).await,
        shop.available(3).await,
    );
    assert_eq!(levels, (150, 70, 100));
    let there = client.get("/api/stores/2/products/1/stock").send().await;
    assert_eq!(there.body["available"], 9);
    let id = done.body["importId"].as_u64().unwrap();
    let shown = client
        .get(&format!("/api/stock/import/{id}"))
        .admin()
        .send()
        .await;
    assert_eq!(shown.body, done.body);
    assert_eq!(
        client.get("/api/stock/import/99").admin().status().await,
        404
    );

    let name = json!({ "name": "=cmd()" });
    client
        .patch("/api/products/1")
        .admin()
        .json(&name)
        .send()
        .await;
    shop.drained().await;
    let export = client.get("/api/stock/export").admin().send().await;
    let text: Vec<&str> = export.text.lines().collect();
    assert_eq!(
        text[0],
        "product_id,location_id,product_name,available,reserved,physical,min_stock_level,reorder_point,stock_version,sku"
    );
    assert_eq!(text[1], "1,0,'=cmd(),150,0,150,10,100,3,");
    assert_eq!((text.len(), text[2]), (5, "1,2,'=cmd(),9,0,9,10,100,2,"));
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_wrong_row_changes_nothing_and_says_which() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let rows = "1,0,5,delta\n\
        99,0,5,delta\n\
        1,9,5,delta\n\
        2,0,-11,delta\n\
        2,0,0,delta\n\
        2,0,-1,set\n\
        2,0,1000000000001,set\n\
        2,0,x,delta\n\
        2,0,5,add\n";
    let refused = import(client, "", rows).await;
    assert_eq!((refused.status, refused.code()), (422, "UNPROCESSABLE"));
    assert_eq!(
        lines(&refused),
        [3, 4, 5, 6, 7, 8, 9, 10],
        "{}",
        refused.text
    );
    let twice = import(client, "", "1,0,5,delta\n2,0,5,delta\n1,0,6,delta\n").await;
    assert_eq!(lines(&twice), [4], "{}", twice.text);
    for (body, line) in [
        ("", 1),
        ("product_id,location_id,quantity,mode", 1),
        ("a,b\n1,0,5,delta\n", 1),
    ] {
        let call = client
            .post("/api/stock/import")
            .admin()
            .raw(body.as_bytes());
        let answer = call.header("content-type", "text/csv").send().await;
        assert_eq!(
            (answer.code(), lines(&answer)),
            ("UNPROCESSABLE", vec![line]),
            "{body:?}"
        );
    }
    let many = "99,0,1,delta\n".repeat(5_000);
    let answer = import(client, "", &many).await;
    assert_eq!(
        (lines(&answer).len(), &answer.body["errorCount"]),
        (100, &json!(5_000))
    );
    let call = client
        .post("/api/stock/import")
        .admin()
        .raw(HEAD.as_bytes());
    let other = call.header("content-type", "application/json").send().await;
    assert_eq!(other.code(), "UNSUPPORTED_MEDIA_TYPE");
    for table in [
        "SELECT COUNT(*) FROM imports",
        "SELECT COUNT(*) FROM import_rows",
    ] {
        assert_eq!(shop.count(table).await, 0, "{table}");
    }
    assert_eq!((shop.available(1).await, shop.available(2).await), (10, 10));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_is_refused_while_it_arrives() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.http.import_bytes_max = 100_000;
    let service = shop.serve().await;
    let rows = "1,0,5,delta\n".repeat(10_000);
    let refused = import(&service.client, "", &rows).await;
    assert_eq!((refused.status, refused.code()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(shop.count("SELECT COUNT(*) FROM imports").await, 0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_takes_the_same_file_once() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let send = async |key: &str, rows: &str| {
        let call = client
            .post("/api/stock/import")
            .admin()
            .raw(format!("{HEAD}{rows}").as_bytes());
        let call = call.header("content-type", "text/csv");
        call.header("idempotency-key", key).send().await
    };
    let (first, again) = (
        send("a", "1,0,5,delta\n").await,
        send("a", "1,0,5,delta\n").await,
    );
    assert_eq!(
        (first.status, again.status, &again.body),
        (201, 201, &first.body),
        "{}",
        again.text
    );
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(
        send("a", "1,0,6,delta\n").await.code(),
        "IDEMPOTENCY_KEY_REUSED"
    );
    assert_eq!(send("b", "1,0,5,delta\n").await.status, 201);
    assert_eq!(shop.available(1).await, 20);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sold_while_a_file_waits_stays_sold() {
    // Danger: a count overwrites later sales. Method: the file is checked, then stock is sold, then
    // another instance writes the file; a row that does not fit any more fails alone.
    let shop = Shop::open(4, 100).await;
    let http = shop
        .serve_roles(&[ServiceRole::Http, ServiceRole::Subscriber])
        .await;
    let client = &http.client;
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move {
            import(
                &client,
                "",
                "1,0,80,set\n2,0,-95,delta\n3,0,7,delta\n4,0,100,set\n",
            )
            .await
        })
    };
    until("the file was judged", || async {
        shop.count("SELECT COUNT(*) FROM imports WHERE state = 'APPLYING'")
            .await
            == 1
    })
    .await;
    for (product, quantity) in [(1, 30), (2, 10), (4, 1)] {
        let order = client.order("/api/redis/orders", 2, &[(product, quantity)]);
        assert_eq!(order.send().await.status, 201);
    }
    let answered = waiting.await.unwrap();
    assert_eq!(
        (answered.status, &answered.body["state"]),
        (201, &json!("APPLYING")),
        "{}",
        answered.text
    );
    let scheduler = shop.serve().await;
    let path = format!("/api/stock/import/{}", answered.body["importId"]);
    until("it was written", || async {
        client.get(&path).admin().send().await.body["state"] == "DONE"
    })
    .await;
    let done = client.get(&path).admin().send().await;
    assert_eq!(
        (&done.body["applied"], &done.body["failed"]),
        (&json!(3), &json!(1)),
        "{}",
        done.text
    );
    assert_eq!(done.body["failures"][0]["line"], 3);
    let mut levels = Vec::new();
    for product in 1..=4 {
        levels.push(shop.available(product).await);
    }
    assert_eq!(levels, [50, 90, 107, 99]);
    shop.drained().await;
    shop.verify().await;
    http.stop().await;
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_once_though_its_writer_is_killed() {
    // Danger: the next writer repeats or leaves out a part. Method: kill -9 in the middle of
    // thousands of rows, and two other instances take over at once; the sum over all levels tells.
    const PRODUCTS: u64 = 4_000;
    let shop = Shop::open(PRODUCTS, 1).await;
    let rows = (1..=PRODUCTS).fold(String::new(), |mut rows, product| {
        writeln!(rows, "{product},0,3,delta").unwrap();
        rows
    });
    let mut first = ServiceProcess::start(&shop).await;
    let sending = {
        let client = first.client.clone();
        tokio::spawn(async move {
            let call = client
                .post("/api/stock/import")
                .admin()
                .raw(format!("{HEAD}{rows}").as_bytes());
            drop(call.header("content-type", "text/csv").try_send().await);
        })
    };
    until("a part was written", || async {
        shop.count("SELECT COUNT(*) FROM import_rows WHERE state = 'APPLIED'")
            .await
            > 0
            || shop
                .count("SELECT COUNT(*) FROM imports WHERE state = 'DONE'")
                .await
                > 0
    })
    .await;
    first.child.kill().await.unwrap();
    sending.await.unwrap();
    let (second, third) = (
        ServiceProcess::start(&shop).await,
        ServiceProcess::start(&shop).await,
    );
    until("the rest was written", || async {
        shop.count("SELECT COUNT(*) FROM imports WHERE state = 'DONE'")
            .await
            == 1
    })
    .await;
    shop.drained().await;
    let sum = "SELECT CAST(SUM(balance) AS SIGNED) FROM accounts WHERE kind = 'AVAILABLE'";
    // Cross-shard changes that the killed instance had decided are confirmed by another instance.
    until("every row is there", || async {
        shop.count(sum).await == i64::try_from(PRODUCTS).unwrap() * 4
    })
    .await;
    shop.verify().await;
    drop((second, third));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_a_file_once_and_exports_what_there_is() {
    let shop = Shop::open(2, 10).await;
    let service = shop
        .serve_roles(&[ServiceRole::Http, ServiceRole::Subscriber])
        .await;
    let folder = folder("import");
    let file = folder.join("stock.csv");
    let run = |arguments: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(arguments)
            .envs(shop.variables())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        (out.status.code().unwrap(), text)
    };
    let path = file.to_str().unwrap();
    std::fs::write(&file, format!("{HEAD}1,0,5,delta\n9,0,5,delta\n")).unwrap();
    let (code, said) = run(&["import", path]);
    assert_eq!(
        (code, said.contains("line 3: there is no product 9")),
        (1, true),
        "{said}"
    );
    std::fs::write(&file, format!("{HEAD}1,0,5,delta\n2,0,3,set\n")).unwrap();
    let (code, said) = run(&["import", path, "--dry-run", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &said["ok"], &said["changes"]),
        (0, &json!(true), &json!(2))
    );
    for _ in 0..2 {
        let (code, said) = run(&["import", path, "--json"]);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, &said["applied"]), (0, &json!(2)), "{said}");
    }
    assert_eq!((shop.available(1).await, shop.available(2).await), (15, 3));
    assert_eq!(run(&["import", path, "--key", "once more"]).0, 0);
    assert_eq!((shop.available(1).await, shop.available(2).await), (20, 3));
    assert_eq!(run(&["import", "/nowhere.csv"]).0, 1);
    shop.drained().await;
    let (code, exported) = run(&["export"]);
    assert_eq!(
        (code, exported.lines().count(), exported.lines().nth(1)),
        (0, 3, Some("1,0,product 1,20,0,20,10,100,4,"))
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_writers_of_one_file_write_each_row_once() {
    // Danger: a second writer sends rows again that the first has sent and that are not settled
    // yet. Method: four writers begin again and again while a slow subscriber applies; the sum over
    // all levels tells.
    const PRODUCTS: u64 = 3_000;
    let mut shop = Shop::open(PRODUCTS, 1).await;
    shop.config.apply.apply_entries_max = 4;
    let service = shop
        .serve_roles(&[ServiceRole::Http, ServiceRole::Subscriber])
        .await;
    let rows = (1..=PRODUCTS).fold(String::new(), |mut rows, product| {
        writeln!(rows, "{product},0,3,delta").unwrap();
        rows
    });
    let sent = import(&service.client, "", &rows).await;
    assert_eq!(sent.body["state"], "APPLYING", "{}", sent.text);
    let id = sent.body["importId"].as_u64().unwrap();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (pool, ledger) = (shop.pool.clone(), shop.ledger.clone());
            tokio::spawn(async move {
                let mut quiet = |_, _| {};
                loop {
                    let done = stock_engine::import::apply(&pool, &ledger, id, &mut quiet).await;
                    if done.unwrap().is_some() {
                        return;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    shop.drained().await;
    let sum = "SELECT CAST(SUM(balance) AS SIGNED) FROM accounts WHERE kind = 'AVAILABLE'";
    assert_eq!(shop.count(sum).await, i64::try_from(PRODUCTS).unwrap() * 4);
    shop.verify().await;
    service.stop().await;
}
