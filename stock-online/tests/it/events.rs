//! GET `/api/events/levels`: the levels that a watcher sees, also after it has come back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stock_online::http::auth::Role;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

use crate::support::{Client, Shop};

/// A client that reads an event stream.
struct Watcher {
    lines: Lines<BufReader<TcpStream>>,
}

impl Watcher {
    async fn open(client: &Client, query: &str, last_event_id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(&client.address).await.unwrap();
        let bearer = client.bearer(2, Role::User);
        let resume = last_event_id.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let head = format!(
            "GET /api/events/levels{query} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n{resume}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next_line().await.unwrap().unwrap();
        assert!(status.contains("200"), "{status}");
        Self { lines }
    }

    /// The next event: its id and levels; `None` when the stream has ended.
    async fn next(&mut self) -> Option<(String, Vec<Value>)> {
        let mut id = String::new();
        loop {
            let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line());
            let line = line.await.unwrap().ok().flatten()?;
            if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            }
            if let Some(text) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(text).unwrap();
                return Some((id, data["levels"].as_array().unwrap().clone()));
            }
        }
    }

    /// Reads until product 1 has `left` units; returns the last id and the seqs seen of it.
    async fn until_left(&mut self, left: i64) -> (String, Vec<u64>) {
        let mut seqs = Vec::new();
        loop {
            let (id, levels) = self.next().await.unwrap();
            let own = levels
                .iter()
                .find(|l| l["productId"] == 1 && l["locationId"] == 0);
            if let Some(level) = own {
                seqs.push(level["seq"].as_u64().unwrap());
                if level["available"] == left {
                    return (id, seqs);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_the_latest_levels_and_goes_on_behind_what_they_saw() {
    let shop = Shop::open(3, 1_000).await;
    let (service, other) = (shop.serve().await, shop.serve().await);
    let client = &service.client;
    let buy = async |product: u64, quantity: i64| {
        let order = client.order("/api/redis/orders", 2, &[(product, quantity)]);
        assert_eq!(order.send().await.status, 201);
    };
    let mut all = Watcher::open(client, "", None).await;
    let mut own = Watcher::open(client, "?productId=1,2", None).await;
    let (_, first) = all.next().await.unwrap();
    assert_eq!(first.len(), 3);
    assert_eq!(
        first[0],
        json!({ "kind": "AVAILABLE", "productId": 1, "locationId": 0, "available": 1_000, "seq": 2 })
    );
    assert_eq!(own.next().await.unwrap().1.len(), 2);
    buy(3, 1).await;
    buy(1, 4).await;
    let (id, _) = all.until_left(996).await;
    let (_, levels) = own.next().await.unwrap();
    assert!(
        levels
            .iter()
            .any(|l| l["productId"] == 1 && l["available"] == 996)
    );
    assert!(levels.iter().all(|l| l["productId"] != 3), "{levels:?}");

    // Changes while nobody watches: another instance sends all of them, only the latest levels, and
    // nothing older.
    drop(all);
    buy(1, 1).await;
    buy(1, 1).await;
    let mut resumed = Watcher::open(&other.client, "", Some(&id)).await;
    let (id, seqs) = resumed.until_left(994).await;
    assert!(seqs.iter().all(|seq| *seq > 3), "{seqs:?}");
    // An id from before this instance began, and an id that is none, lead to a new snapshot.
    for id in ["1", "x", &id] {
        let mut again = Watcher::open(client, "", Some(id)).await;
        buy(2, 1).await;
        assert!(again.next().await.is_some(), "{id}");
    }
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_watched_as_a_product_is() {
    let shop = Shop::open(2, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for name in ["one", "two"] {
        let coupon = json!({ "name": name, "discountAmount": 100, "count": 5 });
        let made = client
            .post("/api/coupons")
            .admin()
            .json(&coupon)
            .send()
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let mut watcher = Watcher::open(client, "?couponId=1&productId=2", None).await;
    let (_, mut first) = watcher.next().await.unwrap();
    first.sort_by_key(|level| level["kind"].as_str().unwrap().to_owned());
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(
        (&first[0]["productId"], &first[0]["available"]),
        (&json!(2), &json!(10))
    );
    assert_eq!(
        (&first[1]["couponId"], &first[1]["remaining"]),
        (&json!(1), &json!(5))
    );
    for coupon in [2, 1] {
        let path = format!("/api/coupons/{coupon}/issue");
        assert_eq!(client.post(&path).user(2).send().await.status, 201);
    }
    let (_, levels) = watcher.next().await.unwrap();
    let seen: Vec<_> = levels
        .iter()
        .map(|level| (&level["couponId"], &level["remaining"]))
        .collect();
    assert_eq!(seen, [(&json!(1), &json!(4))]);
    for wrong in ["couponId=x", "couponId=1,,2"] {
        let refused = client
            .get(&format!("/api/events/levels?{wrong}"))
            .user(2)
            .send()
            .await;
        assert_eq!(refused.status, 422, "{wrong}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rush_is_told_five_times_a_second_and_ends_with_the_last_level() {
    let shop = Shop::open(1, 600).await;
    let service = shop.serve().await;
    let mut watcher = Watcher::open(&service.client, "?productId=1", None).await;
    watcher.next().await.unwrap();
    let started = Instant::now();
    let buying: Vec<_> = (0..20)
        .map(|_| {
            let client = service.client.clone();
            tokio::spawn(async move {
                for _ in 0..30 {
                    client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
                }
            })
        })
        .collect();
    let (_, seqs) = watcher.until_left(0).await;
    let most = started.elapsed().as_millis() / 200 + 2;
    assert!(
        (seqs.len() as u128) <= most,
        "{} events, at most {most}",
        seqs.len()
    );
    assert!(seqs.is_sorted() && seqs.last() == Some(&602), "{seqs:?}");
    for buying in buying {
        buying.await.unwrap();
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_service_stops() {
    // Danger: an open stream delays the shutdown up to its deadline.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let mut watchers = Vec::new();
    for _ in 0..50 {
        let mut watcher = Watcher::open(&service.client, "", None).await;
        watcher.next().await.unwrap();
        watchers.push(watcher);
    }
    let started = Instant::now();
    service.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    for mut watcher in watchers {
        assert!(watcher.next().await.is_none());
    }
}
