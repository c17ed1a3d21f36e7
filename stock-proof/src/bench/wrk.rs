//! Closed-loop load by `wrk`: each connection sends its next request as soon as the last is
//! answered.

use std::io::Write;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Value, json};
use stock_client::{Client, order_json};
use stock_online::http::auth::Role;
use tokio::process::Command;

use crate::Failure;
use crate::shop::Folder;

/// Buyers whose tokens are used in turn.
pub const BUYERS: u64 = 100;

/// A load of one kind of request.
#[derive(Debug, Clone)]
pub struct Load {
    method: &'static str,
    path: String,
    body: Option<Value>,
    is_keyed: bool,
    /// Another header.
    header: Option<(&'static str, String)>,
    is_anonymous: bool,
    /// A service key in place of the buyers' tokens; `BUYER` in the body is then a buyer's name.
    secret: Option<String>,
    /// How many such bodies, each with a key of its own, a request has; 0 is one body as it is.
    batch: u32,
    /// The number after which the rounds over all buyers are counted; each round's requests carry
    /// its number.
    first: Option<u64>,
    /// Connections, each with one request under way.
    pub connections: u32,
    /// Length of the load, in seconds.
    pub seconds: u32,
}

impl Load {
    /// Orders of one unit of each of products 1 to `lines`.
    #[must_use]
    pub fn orders(path: &str, lines: u64) -> Self {
        let lines: Vec<_> = (1..=lines).map(|product| (product, 1)).collect();
        Self {
            method: "POST",
            path: path.to_owned(),
            body: Some(order_json(&lines)),
            is_keyed: false,
            header: None,
            is_anonymous: false,
            secret: None,
            batch: 0,
            first: None,
            connections: 128,
            seconds: 6,
        }
    }

    /// Orders of one unit of one product.
    #[must_use]
    pub fn orders_of(path: &str, product: u64) -> Self {
        Self {
            body: Some(order_json(&[(product, 1)])),
            ..Self::orders(path, 1)
        }
    }

    /// Orders of one unit of product 1 by a service key for buyers whom it names.
    #[must_use]
    pub fn orders_by_key(path: &str, secret: &str) -> Self {
        let mut body = order_json(&[(1, 1)]);
        if let Some(members) = body.as_object_mut() {
            members.insert("buyer".to_owned(), json!("BUYER"));
        }
        Self {
            body: Some(body),
            secret: Some(secret.to_owned()),
            ..Self::orders(path, 1)
        }
    }

    /// Sends so many bodies in a request, each with a key of its own.
    #[must_use]
    pub fn batch(mut self, orders: u32) -> Self {
        self.batch = orders;
        self
    }

    /// Draws of a coupon, each for another pair of buyer and work. The works' ids follow `first`, a
    /// number of seven digits.
    #[must_use]
    pub fn draws(coupon: u64, first: u64) -> Self {
        Self {
            body: Some(json!({ "workId": 1_000_000 })),
            first: Some(first),
            ..Self::orders(&format!("/api/coupons/{coupon}/issue"), 1)
        }
    }

    /// Reads of a path.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET",
            body: None,
            ..Self::orders(path, 1)
        }
    }

    /// Gives each request its own Idempotency-Key.
    #[must_use]
    pub fn keyed(mut self) -> Self {
        self.is_keyed = true;
        self
    }

    /// Gives each request another header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.header = Some((name, value.to_owned()));
        self
    }

    /// Sends no tokens.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.is_anonymous = true;
        self
    }

    /// Sets the number of connections.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the length, in seconds.
    #[must_use]
    pub fn seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    /// Runs the load against a service.
    ///
    /// # Errors
    /// When `wrk` is not installed or connections broke.
    pub async fn run(&self, client: &Client) -> Result<Loaded, Failure> {
        let folder = Folder::new("wrk")?;
        let (script, tokens) = (
            folder.path().join("load.lua"),
            folder.path().join("tokens.txt"),
        );
        std::fs::write(&script, include_str!("load.lua"))?;
        let mut file = std::fs::File::create(&tokens)?;
        for buyer in 0..BUYERS {
            let bearer = client.bearer(2 + buyer, Role::User);
            writeln!(file, "{}", bearer.trim_start_matches("Bearer "))?;
        }
        let header = self.header.clone().unwrap_or_default();
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        let out = Command::new("wrk")
            .args(["--latency", "-t1", "--timeout", "20s"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .arg("-s")
            .arg(&script)
            .arg(format!("http://{}", client.address))
            .env("BENCH_TOKENS", &tokens)
            .env("BENCH_METHOD", self.method)
            .env("BENCH_PATH", &self.path)
            .env("BENCH_BODY", body)
            .env("BENCH_SECRET", self.secret.as_deref().unwrap_or_default())
            .env("BENCH_BATCH", self.batch.to_string())
            .env("BENCH_ANONYMOUS", if self.is_anonymous { "1" } else { "0" })
            .env("BENCH_HEADER", header.0)
            .env("BENCH_HEADER_VALUE", header.1)
            .env("BENCH_KEYED", if self.is_keyed { "1" } else { "0" })
            .env(
                "BENCH_COUNTED",
                if self.first.is_some() { "1" } else { "0" },
            )
            .env("BENCH_FIRST", self.first.unwrap_or_default().to_string())
            .env("BENCH_SALT", format!("{:x}", rand::random::<u64>()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| format!("wrk cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&out.stdout);
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let loaded: Loaded = serde_json::from_str(line.ok_or("wrk reported nothing")?)?;
        if loaded.broken > 0 {
            return Err(format!("{} connections broke under {}", loaded.broken, self.path).into());
        }
        Ok(loaded)
    }
}

/// The result of a load.
#[derive(Debug, Clone, Deserialize)]
pub struct Loaded {
    requests: u64,
    micros: u64,
    /// Answers that were not 2xx or 3xx.
    pub refused: u64,
    broken: u64,
    /// The median time of an answer, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile of the time of an answer, in microseconds.
    pub p99_us: u64,
}

impl Loaded {
    /// Number of answers.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Answers per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no last digit")]
    pub fn per_second(&self) -> f64 {
        self.requests as f64 * 1e6 / self.micros as f64
    }

    /// Answers per second, if all of them were good.
    ///
    /// # Errors
    /// When one was refused.
    pub fn accepted(&self) -> Result<f64, Failure> {
        if self.refused > 0 {
            return Err(format!("{} of {} were refused", self.refused, self.requests).into());
        }
        Ok(self.per_second())
    }

    /// Answers per second, if all of them were refusals.
    ///
    /// # Errors
    /// When one was not refused.
    pub fn refused(&self) -> Result<f64, Failure> {
        if self.refused < self.requests {
            return Err(format!("only {} of {} were refused", self.refused, self.requests).into());
        }
        Ok(self.per_second())
    }
}
