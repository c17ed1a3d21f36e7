//! Buyers: a load with a recorded seed, and the history of all answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use stock_client::{Client, Session};
use stock_common::lock::lock;
use tokio_util::sync::CancellationToken;

use super::history::{Asked, AskedBenefit, AskedHold, History, Told, UNSERVED, told};
use crate::Failure;

/// How long a buyer waits after a refusal or a broken connection.
const PAUSE: Duration = Duration::from_millis(5);
/// Users 2 to 41 buy; user 1 is the admin.
const USERS: u64 = 40;
/// The amount that a coupon takes off, and the points of a gift.
pub const COUPON: i64 = 100;
const EARNED: i64 = 50;

/// The actions of buyers besides Redis-first orders.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// The share of orders that are placed under row locks.
    pub row_locked: f64,
    /// Whether they reserve, cancel, and get coupons and points; some of that needs MySQL.
    pub is_mixed: bool,
    /// The time between an accepted order and the next one.
    pub pause: Duration,
}

impl Habits {
    /// All actions. Twelve of a hundred orders are placed under row locks, so that both paths meet.
    pub const ALL: Self = Self {
        row_locked: 0.12,
        is_mixed: true,
        pause: Duration::ZERO,
    };
    /// Redis-first orders only: no request needs MySQL.
    pub const REDIS_ONLY: Self = Self {
        row_locked: 0.0,
        is_mixed: false,
        pause: Duration::ZERO,
    };
}

/// A load that goes on until it is stopped.
pub struct Buyers {
    stop: CancellationToken,
    history: Arc<Mutex<History>>,
    workers: Vec<tokio::task::JoinHandle<Result<(), Failure>>>,
}

fn locked(history: &Mutex<History>) -> MutexGuard<'_, History> {
    lock(history)
}

impl Buyers {
    /// Starts `workers` buyers of some products, spread over the clients.
    #[must_use]
    pub fn start(
        clients: &[Client],
        workers: usize,
        products: impl IntoIterator<Item = u64>,
        habits: Habits,
        seed: u64,
    ) -> Self {
        let (stop, history) = (
            CancellationToken::new(),
            Arc::new(Mutex::new(History::default())),
        );
        let products: Arc<[u64]> = products.into_iter().collect();
        let workers = clients
            .iter()
            .cycle()
            .take(workers)
            .zip(0u64..)
            .map(|(client, number)| {
                let buyer = Buyer {
                    client: client.clone(),
                    session: Session::new(&client.address),
                    rng: StdRng::seed_from_u64(seed.wrapping_add(number)),
                    products: Arc::clone(&products),
                    habits,
                    name: format!("{seed:x}-{number}-"),
                    history: Arc::clone(&history),
                    versions: BTreeMap::new(),
                    purse: Vec::new(),
                };
                tokio::spawn(buyer.run(stop.clone()))
            })
            .collect();
        Self {
            stop,
            history,
            workers,
        }
    }

    /// Number of orders accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        locked(&self.history).accepted()
    }

    /// How often a code was the answer so far.
    #[must_use]
    pub fn refused(&self, code: &str) -> u64 {
        locked(&self.history)
            .codes
            .get(code)
            .copied()
            .unwrap_or_default()
    }

    /// Number of orders asked for so far, with any outcome.
    #[must_use]
    pub fn asked(&self) -> usize {
        locked(&self.history).orders.len()
    }

    /// [`History::served_since`] so far.
    #[must_use]
    pub fn served_since(&self, first: usize, is_victim: impl Fn(&Asked) -> bool) -> f64 {
        locked(&self.history).served_since(first, is_victim)
    }

    /// [`History::took_since`] so far.
    #[must_use]
    pub fn took_since(&self, first: usize) -> Vec<Duration> {
        locked(&self.history).took_since(first)
    }

    /// Stops the buyers, and returns their history.
    ///
    /// # Errors
    /// When a buyer could not even build a request.
    pub async fn stop(self) -> Result<History, Failure> {
        self.stop.cancel();
        for worker in self.workers {
            worker.await??;
        }
        Ok(std::mem::take(&mut *locked(&self.history)))
    }
}

/// Asks for an order again under its key, until the outcome is definite.
///
/// # Errors
/// When it stays unknown.
pub async fn settle(client: &Client, asked: &Asked, key: &str) -> Result<Told, Failure> {
    for _ in 0..200 {
        let call = client.post(asked.path).user(asked.user).json(&asked.body());
        match told(call.header("idempotency-key", key).try_send().await) {
            Told::Unknown => {}
            // Nothing was done. The key is free, or will be answered later.
            Told::Refused(code) if UNSERVED.contains(&code.as_str()) => {}
            definite @ (Told::Accepted(_) | Told::Refused(_)) => return Ok(definite),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("key {key} has no definite answer").into())
}

struct Buyer {
    client: Client,
    session: Session,
    rng: StdRng,
    /// The products that it chooses from.
    products: Arc<[u64]>,
    habits: Habits,
    name: String,
    history: Arc<Mutex<History>>,
    /// The newest stock version seen of each product.
    versions: BTreeMap<u64, u64>,
    /// Codes that no order has used yet, each with its user.
    purse: Vec<(u64, String)>,
}

impl Buyer {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let mut turn = 0_u64;
        while !stop.is_cancelled() {
            turn += 1;
            let is_mixed = self.habits.is_mixed;
            if is_mixed && self.rng.random_range(0..12) == 0 {
                self.hold().await?;
            }
            if is_mixed && self.rng.random_range(0..12) == 0 {
                self.give(turn).await?;
            }
            let was_accepted = self.order(turn).await?;
            if was_accepted && is_mixed {
                match self.rng.random_range(0..10) {
                    0 => self.cancel().await?,
                    1 => self.look_at_order().await?,
                    2 => self.look_at_product().await?,
                    _ => {}
                }
            }
            let pause = if was_accepted {
                self.habits.pause
            } else {
                PAUSE
            };
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// One of the products.
    fn product(&mut self) -> u64 {
        let at = self.rng.random_range(0..self.products.len());
        self.products.get(at).copied().unwrap_or_default()
    }

    /// Reserves stock, and then confirms or cancels that, or leaves it: nothing expires while the
    /// checks read.
    async fn hold(&mut self) -> Result<(), Failure> {
        let user = self.rng.random_range(2..2 + USERS);
        let product = self.product();
        let body = json!({ "productId": product, "quantity": self.rng.random_range(1..=3),
            "ttlSeconds": 1_800 });
        let call = self.client.post("/api/products/stock/reserve").user(user);
        let told_made = told(self.session.send(call.json(&body).request()?).await);
        let mut ended = None;
        if let Told::Accepted(id) = &told_made {
            let how = match self.rng.random_range(0..3) {
                0 => Some("confirm"),
                1 => Some("cancel"),
                _ => None,
            };
            if let Some(how) = how {
                let path = format!("/api/reservations/{id}/{how}");
                let call = self.client.post(&path).admin().json(&json!({}));
                ended = Some((how, told(self.session.send(call.request()?).await)));
            }
        }
        let told = told_made;
        locked(&self.history).holds.push(AskedHold { told, ended });
        Ok(())
    }

    /// Gives a user points and a coupon; some of the points are taken back at once.
    async fn give(&mut self, turn: u64) -> Result<(), Failure> {
        let user = self.rng.random_range(2..2 + USERS);
        let version = self.rng.random_range(1..=2);
        let gift = json!({ "userId": user, "amount": EARNED, "description": "a gift" });
        let path = format!("/api/v{version}/points/earn");
        let call = self.client.post(&path).admin().json(&gift);
        let earned = told(self.session.send(call.request()?).await);
        let mut asked = vec![(EARNED, earned.clone())];
        if let Told::Accepted(id) = &earned
            && self.rng.random_range(0..4) == 0
        {
            let path = format!("/api/v{version}/points/{id}/cancel");
            let call = self.client.post(&path).admin().json(&json!({}));
            asked.push((-EARNED, told(self.session.send(call.request()?).await)));
        }
        let code = format!("{}{turn}", self.name);
        let coupon =
            json!({ "name": code, "discountAmount": COUPON, "userId": user, "code": code });
        let call = self.client.post("/api/coupons").admin().json(&coupon);
        let answer = self.session.send(call.request()?).await;
        if answer.as_ref().is_ok_and(|answer| answer.status == 201) {
            self.purse.push((user, code));
        }
        let mut history = locked(&self.history);
        for (delta, told) in asked {
            history.benefits.push(AskedBenefit { user, delta, told });
        }
        Ok(())
    }

    async fn order(&mut self, turn: u64) -> Result<bool, Failure> {
        let mut lines: Vec<(u64, i64)> = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let product = self.product();
            if !lines.iter().any(|(known, _)| *known == product) {
                lines.push((product, self.rng.random_range(1..=3)));
            }
        }
        let (user, benefits) = match self.purse.pop() {
            Some((user, code)) => (user, Some((code, self.rng.random_range(0..=EARNED)))),
            None => (self.rng.random_range(2..2 + USERS), None),
        };
        let path = if self.rng.random_bool(self.habits.row_locked) {
            "/api/orders"
        } else {
            "/api/redis/orders"
        };
        let is_keyed = self.rng.random_bool(0.5);
        let key = is_keyed.then(|| format!("{}{turn}", self.name));
        let mut asked = Asked {
            user,
            path,
            key,
            lines,
            benefits,
            reservation: None,
            told: Told::Unknown,
            cancelled: None,
            sent: Instant::now(),
            took: Duration::ZERO,
        };
        let mut call = self.client.post(path).user(user).json(&asked.body());
        if let Some(key) = &asked.key {
            call = call.header("idempotency-key", key);
        }
        let request = call.request()?;
        asked.sent = Instant::now();
        let answer = self.session.send(request).await;
        asked.took = asked.sent.elapsed();
        let mut history = locked(&self.history);
        if let Ok(answer) = &answer
            && answer.status == 503
        {
            if asked.took > history.slowest_503.0 {
                history.slowest_503 = (asked.took, format!("{path} {}", answer.code()));
            }
            if !answer.headers.contains_key("retry-after") {
                let text = format!("a 503 {} without Retry-After", answer.code());
                history.complaints.push(text);
            }
        }
        let code = match &answer {
            Ok(answer) if answer.code().is_empty() => answer.status.to_string(),
            Ok(answer) => answer.code().to_owned(),
            Err(_) => "no answer".to_owned(),
        };
        *history.codes.entry(code).or_default() += 1;
        asked.told = told(answer);
        let was_accepted = matches!(asked.told, Told::Accepted(_));
        history.orders.push(asked);
        Ok(was_accepted)
    }

    /// The last order under a key of this buyer, if it was not cancelled. Other buyers may have
    /// ordered meanwhile.
    fn last(&self) -> Option<(usize, u64, String)> {
        let history = locked(&self.history);
        let mut newest = history.orders.iter().enumerate().rev();
        newest.find_map(|(at, asked)| match (&asked.told, &asked.key) {
            (Told::Accepted(id), Some(key)) if key.starts_with(&self.name) => asked
                .cancelled
                .is_none()
                .then(|| (at, asked.user, id.clone())),
            _ => None,
        })
    }

    async fn cancel(&mut self) -> Result<(), Failure> {
        let Some((at, user, id)) = self.last() else {
            return Ok(());
        };
        let path = match self.rng.random_bool(0.7) {
            true => format!("/api/redis/orders/{id}/cancel"),
            false => format!("/api/orders/{id}/cancel"),
        };
        let request = self.client.patch(&path).user(user).json(&json!({}));
        let answer = self.session.send(request.request()?).await;
        if let Some(asked) = locked(&self.history).orders.get_mut(at) {
            asked.cancelled = Some(told(answer));
        }
        Ok(())
    }

    /// I17: an accepted order is found, stored or not.
    async fn look_at_order(&mut self) -> Result<(), Failure> {
        let Some((_, user, id)) = self.last() else {
            return Ok(());
        };
        let path = format!("/api/orders/{id}");
        let request = self.client.get(&path).user(user).request()?;
        if let Ok(answer) = self.session.send(request).await
            && answer.status == 404
        {
            let text = format!("I17: order {id} was accepted and is not found");
            locked(&self.history).complaints.push(text);
        }
        Ok(())
    }

    /// I17: the version of a product's level never goes back.
    async fn look_at_product(&mut self) -> Result<(), Failure> {
        let product = self.product();
        let path = format!("/api/redis/products/{product}");
        let request = self.client.get(&path).user(2).request()?;
        let Ok(answer) = self.session.send(request).await else {
            return Ok(());
        };
        let Some(version) = answer.body.get("stockVersion").and_then(|v| v.as_u64()) else {
            return Ok(());
        };
        let before = self.versions.insert(product, version).unwrap_or(0);
        if version < before {
            let text = format!("I17: product {product} went from version {before} to {version}");
            locked(&self.history).complaints.push(text);
        }
        Ok(())
    }
}
