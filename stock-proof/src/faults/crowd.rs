//! A thousand buyers of a few units: each asks for every product once, in one of all possible ways.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use stock_client::{Client, Session};
use stock_common::lock::lock;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::history::{Asked, AskedHold, History, Told, UNSERVED, told};
use super::world::PRODUCTS;
use crate::Failure;

/// Number of buyers; they are the users from 2 on.
pub const BUYERS: u64 = 1_000;
/// How many of them ask at the same time.
const AT_ONCE: usize = 48;
/// Time to live of a hold, in seconds: the shortest one, so that unended holds expire while the
/// checks look.
const HOLD_SECONDS: u64 = 30;
/// The product in a sale with a limit. Its first buyers ask for more than the limit, all at once.
pub const LIMITED: u64 = 2;
const GREEDY: u64 = 20;
const ASKS: u64 = 5;
/// The product that tills sell.
pub const TILL_PRODUCT: u64 = 4;
/// The stores where tills sell it: one with its own stock, and one that shares the online stock;
/// each with its path.
pub const STORES: [(u64, &str); 2] = [(1, "/api/stores/1/orders"), (3, "/api/stores/3/orders")];
/// How often, and after which pause, a buyer who is told to come again does so.
const TRIES: u32 = 200;
const AGAIN: Duration = Duration::from_millis(100);
/// Number of sales of each till.
const TILL_SALES: usize = 100;

/// The crowd's history so far.
pub type Shared = Arc<Mutex<History>>;

/// Locks the history; a buyer that panicked leaves it usable.
pub fn locked(history: &Shared) -> MutexGuard<'_, History> {
    lock(history)
}

/// Starts all buyers, spread over the clients; returns when all have asked.
///
/// # Errors
/// When a buyer could not even build a request.
pub async fn rush(
    clients: &[Client],
    coupon: u64,
    seed: u64,
    history: &Shared,
) -> Result<(), Failure> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut crowd: JoinSet<Result<(), Failure>> = JoinSet::new();
    let client = |number: usize| {
        let found = clients.iter().cycle().nth(number % clients.len().max(1));
        found.cloned().ok_or("no service runs")
    };
    let one = |user: u64, turn: u64, client: Client| One {
        session: Session::new(&client.address),
        client,
        user,
        rng: StdRng::seed_from_u64(seed.wrapping_add(user).wrapping_add(turn << 32)),
        history: Arc::clone(history),
    };
    for (number, turn) in (0..GREEDY * ASKS).enumerate() {
        let mut one = one(2 + turn / ASKS, 1 + turn % ASKS, client(number)?);
        crowd.spawn(async move {
            let lines = [(LIMITED, 1)];
            one.order("/api/redis/orders", &lines, None, None).await?;
            Ok(())
        });
    }
    for (number, user) in (2..2 + BUYERS).enumerate() {
        let (one, room) = (one(user, 0, client(number)?), Arc::clone(&room));
        crowd.spawn(async move {
            let _place = room.acquire().await?;
            one.shop(coupon).await
        });
    }
    for (number, (_, path)) in STORES.into_iter().enumerate() {
        let (client, history) = (client(number)?, Arc::clone(history));
        crowd.spawn(async move {
            for _ in 0..TILL_SALES {
                let mut asked = asked(1, path, vec![(TILL_PRODUCT, 1)]);
                let call = client.post(path).admin().json(&asked.body());
                asked.told = told(call.try_send().await);
                locked(&history).orders.push(asked);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
    }
    while let Some(done) = crowd.join_next().await {
        done??;
    }
    Ok(())
}

/// An order that is about to be asked for.
pub fn asked(user: u64, path: &'static str, lines: Vec<(u64, i64)>) -> Asked {
    Asked {
        user,
        path,
        key: None,
        lines,
        benefits: None,
        reservation: None,
        told: Told::Unknown,
        cancelled: None,
        sent: Instant::now(),
        took: Duration::ZERO,
    }
}

/// A buyer.
struct One {
    client: Client,
    session: Session,
    user: u64,
    rng: StdRng,
    history: Shared,
}

impl One {
    async fn shop(mut self, coupon: u64) -> Result<(), Failure> {
        let code = match self.rng.random_bool(0.3) {
            true => self.draw(coupon).await?,
            false => None,
        };
        let mut benefits = code.map(|code| (code, 0));
        let mut products: Vec<u64> = (1..=PRODUCTS).collect();
        products.shuffle(&mut self.rng);
        for (number, product) in products.iter().enumerate() {
            match self.rng.random_range(0..100) {
                0..30 => self.hold(*product).await?,
                30..45 => {
                    let other = products.get((number + 1) % products.len()).copied();
                    let lines = [(*product, 1), (other.unwrap_or_default(), 1)];
                    self.order("/api/redis/orders", &lines, benefits.take(), None)
                        .await?;
                }
                45..55 => {
                    let lines = [(*product, self.rng.random_range(1..=2))];
                    self.order("/api/orders", &lines, benefits.take(), None)
                        .await?;
                }
                _ => {
                    let lines = [(*product, self.rng.random_range(1..=2))];
                    self.order("/api/redis/orders", &lines, benefits.take(), None)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Draws one code of the scarce coupon.
    async fn draw(&mut self, coupon: u64) -> Result<Option<String>, Failure> {
        let path = format!("/api/coupons/{coupon}/issue");
        let call = self.client.post(&path).user(self.user).json(&json!({}));
        let answer = self.session.send(call.request()?).await;
        let code = answer
            .as_ref()
            .ok()
            .map(|answer| answer.member("code").to_owned());
        let told = told(answer);
        let is_drawn = matches!(told, Told::Accepted(_));
        locked(&self.history).drawn.push(told);
        Ok(code.filter(|_| is_drawn))
    }

    /// Reserves a unit or two; then confirms, cancels or orders them, or lets them expire.
    async fn hold(&mut self, product: u64) -> Result<(), Failure> {
        let quantity = self.rng.random_range(1..=2);
        let body =
            json!({ "productId": product, "quantity": quantity, "ttlSeconds": HOLD_SECONDS });
        let call = self
            .client
            .post("/api/products/stock/reserve")
            .user(self.user);
        let made = told(self.session.send(call.json(&body).request()?).await);
        let mut ended = None;
        if let Told::Accepted(id) = &made {
            let how = match self.rng.random_range(0..10) {
                0..3 => Some("confirm"),
                3..5 => Some("cancel"),
                5..7 => Some("order"),
                _ => None,
            };
            if let Some("order") = how {
                let lines = [(product, quantity)];
                ended = Some((
                    "order",
                    self.order("/api/redis/orders", &lines, None, Some(id.clone()))
                        .await?,
                ));
            } else if let Some(how) = how {
                let path = format!("/api/reservations/{id}/{how}");
                let call = self.client.post(&path).admin().json(&json!({}));
                ended = Some((how, told(self.session.send(call.request()?).await)));
            }
        }
        let hold = AskedHold { told: made, ended };
        locked(&self.history).holds.push(hold);
        Ok(())
    }

    /// Orders, with a key or without one, and sometimes cancels.
    async fn order(
        &mut self,
        path: &'static str,
        lines: &[(u64, i64)],
        benefits: Option<(String, i64)>,
        reservation: Option<String>,
    ) -> Result<Told, Failure> {
        let mut order = Asked {
            benefits,
            reservation,
            ..asked(self.user, path, lines.to_vec())
        };
        let is_keyed = self.rng.random_bool(0.5);
        order.key = is_keyed.then(|| format!("crowd-{}-{:x}", self.user, self.rng.random::<u64>()));
        for _ in 0..TRIES {
            let mut call = self.client.post(path).user(self.user).json(&order.body());
            if let Some(key) = &order.key {
                call = call.header("idempotency-key", key);
            }
            order.told = told(self.session.send(call.request()?).await);
            // A buyer who is told to come again later does so.
            let is_later =
                matches!(&order.told, Told::Refused(code) if UNSERVED.contains(&code.as_str()));
            if !is_later {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let code = match &order.told {
            Told::Accepted(_) => "accepted",
            Told::Refused(code) => code,
            Told::Unknown => "unknown",
        };
        let (code, outcome, user) = (code.to_owned(), order.told.clone(), self.user);
        let at = {
            let mut history = locked(&self.history);
            *history.codes.entry(code).or_default() += 1;
            history.orders.push(order);
            history.orders.len() - 1
        };
        if let Told::Accepted(id) = &outcome
            && self.rng.random_bool(0.15)
        {
            // Noted before it is asked for: from here on it is unknown whether the units are sold.
            note_cancel(&self.history, at, Told::Unknown);
            let path = format!("/api/redis/orders/{id}/cancel");
            let call = self.client.patch(&path).user(user).json(&json!({}));
            let cancelled = told(self.session.send(call.request()?).await);
            note_cancel(&self.history, at, cancelled);
        }
        Ok(outcome)
    }
}

fn note_cancel(history: &Shared, at: usize, told: Told) {
    if let Some(asked) = locked(history).orders.get_mut(at) {
        asked.cancelled = Some(told);
    }
}
