//! The script against a plain in-memory model: random orders, reservations, their ends, receipts,
//! switches and keys, sent together so that they meet in one batch, and replayed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stock_common::id::{LocationId, Position, ProductId, UserId};
use stock_domain::order::{self, Order, Terms};
use stock_domain::quantity::Quantity;
use stock_domain::request::Request;
use stock_domain::reservation::{self, Reservation};
use stock_domain::stock::{self, StockChanged};
use stock_domain::verdict::{Refusal, Replay, Verdict, Why};
use stock_domain::{hold, product, selling};
use stock_engine::ledger;
use stock_redis::Ledger;

use super::verdicts::{key, order, reversed};
use crate::support::Shop;

const PRODUCTS: u64 = 3;

#[derive(Debug, Clone)]
enum Op {
    /// Quantities of the three products; a key and fingerprint, if any.
    Place([u32; 3], Option<(u8, u8)>),
    /// Index of an accepted order.
    Cancel(usize),
    Receive(u64, i64),
    Close(u64, bool),
    Selling(bool),
    /// Reserves units of a product.
    Reserve(u64, u32),
    /// Confirms or cancels a reservation, given by its index.
    End(usize, bool),
}

fn ops() -> impl Strategy<Value = Vec<Vec<Op>>> {
    let quantities =
        prop::array::uniform3(0u32..4).prop_filter("something", |q| q.iter().any(|n| *n > 0));
    let op = prop_oneof![
        6 => (quantities, prop::option::weighted(0.4, (0u8..6, 0u8..2)))
            .prop_map(|(quantities, key)| Op::Place(quantities, key)),
        3 => (0usize..12).prop_map(Op::Cancel),
        1 => (0..PRODUCTS, 1i64..6).prop_map(|(product, quantity)| Op::Receive(product, quantity)),
        1 => (0..PRODUCTS, any::<bool>()).prop_map(|(product, closed)| Op::Close(product, closed)),
        1 => any::<bool>().prop_map(Op::Selling),
        3 => (0..PRODUCTS, 1u32..4).prop_map(|(product, quantity)| Op::Reserve(product, quantity)),
        3 => (0usize..6, any::<bool>()).prop_map(|(index, confirm)| Op::End(index, confirm)),
    ];
    prop::collection::vec(prop::collection::vec(op, 1..12), 1..5)
}

/// A verdict without its position, which only the script chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Accepted(Vec<i64>),
    Replayed(Box<Outcome>),
    Refused(u8, Option<(usize, i64)>),
}

#[derive(Default)]
struct Model {
    levels: HashMap<u64, i64>,
    closed: HashMap<u64, bool>,
    selling: bool,
    /// Accepted orders: quantities, and whether the order was cancelled.
    orders: Vec<([u32; 3], bool)>,
    keys: HashMap<u8, (u8, Outcome)>,
    /// Reserved units of each product.
    reserved: HashMap<u64, i64>,
    /// Accepted reservations: product, quantity, and whether it has ended.
    holds: Vec<(u64, u32, bool)>,
}

impl Model {
    fn take(&mut self, quantities: [u32; 3]) -> Outcome {
        if !self.selling {
            return Outcome::Refused(51, None);
        }
        let mut levels = self.levels.clone();
        let wanted = (0u64..)
            .zip(quantities)
            .filter(|(_, quantity)| *quantity > 0);
        let mut after = Vec::new();
        for (posting, (product, quantity)) in wanted.enumerate() {
            let level = levels.get_mut(&product).unwrap();
            if self.closed.get(&product).copied().unwrap_or(false) {
                return Outcome::Refused(61, Some((posting, 0)));
            }
            if *level < i64::from(quantity) {
                return Outcome::Refused(63, Some((posting, *level)));
            }
            *level -= i64::from(quantity);
            after.push(*level);
        }
        self.levels = levels;
        self.orders.push((quantities, false));
        Outcome::Accepted(after)
    }

    fn reserve(&mut self, product: u64, quantity: u32) -> Outcome {
        if !self.selling {
            return Outcome::Refused(51, None);
        }
        if self.closed.get(&product).copied().unwrap_or(false) {
            return Outcome::Refused(61, Some((0, 0)));
        }
        let level = self.levels.get_mut(&product).unwrap();
        if *level < i64::from(quantity) {
            return Outcome::Refused(63, Some((0, *level)));
        }
        *level -= i64::from(quantity);
        let reserved = self.reserved.entry(product).or_default();
        *reserved += i64::from(quantity);
        self.holds.push((product, quantity, false));
        Outcome::Accepted(vec![*level, *reserved])
    }

    fn end(&mut self, index: usize, confirm: bool) -> Option<Outcome> {
        let (product, quantity, is_over) = self.holds.get_mut(index)?;
        if *is_over {
            return Some(Outcome::Refused(50, None));
        }
        *is_over = true;
        let reserved = self.reserved.get_mut(product).unwrap();
        *reserved -= i64::from(*quantity);
        let mut after = vec![*reserved];
        if !confirm {
            let level = self.levels.get_mut(product).unwrap();
            *level += i64::from(*quantity);
            after.push(*level);
        }
        Some(Outcome::Accepted(after))
    }

    fn place(&mut self, quantities: [u32; 3], key: Option<(u8, u8)>) -> Outcome {
        let Some((key, fingerprint)) = key else {
            return self.take(quantities);
        };
        match self.keys.get(&key) {
            Some((known, _)) if *known != fingerprint => Outcome::Refused(20, None),
            Some((_, Outcome::Accepted(_))) => {
                Outcome::Replayed(Box::new(Outcome::Accepted(vec![])))
            }
            Some((_, outcome)) => Outcome::Replayed(Box::new(outcome.clone())),
            None => {
                let outcome = self.take(quantities);
                // A stop of all selling passes, so its answer is not remembered.
                if outcome != Outcome::Refused(51, None) {
                    self.keys.insert(key, (fingerprint, outcome.clone()));
                }
                outcome
            }
        }
    }

    /// Applies an operation; `None` when there is no such order or reservation.
    fn apply(&mut self, op: &Op) -> Option<Outcome> {
        Some(match op {
            Op::Place(quantities, key) => self.place(*quantities, *key),
            Op::Cancel(index) => {
                let (quantities, is_cancelled) = self.orders.get_mut(*index)?;
                if *is_cancelled {
                    return Some(Outcome::Refused(50, None));
                }
                *is_cancelled = true;
                let mut after = Vec::new();
                for (product, quantity) in (0u64..).zip(*quantities).filter(|(_, q)| *q > 0) {
                    let level = self.levels.get_mut(&product).unwrap();
                    *level += i64::from(quantity);
                    after.push(*level);
                }
                Outcome::Accepted(after)
            }
            Op::Receive(product, quantity) => {
                let level = self.levels.get_mut(product).unwrap();
                *level += quantity;
                Outcome::Accepted(vec![*level])
            }
            Op::Close(product, closed) => {
                self.closed.insert(*product, *closed);
                Outcome::Accepted(vec![])
            }
            Op::Selling(open) => {
                self.selling = *open;
                Outcome::Accepted(vec![])
            }
            Op::Reserve(product, quantity) => self.reserve(*product, *quantity),
            Op::End(index, confirm) => return self.end(*index, *confirm),
        })
    }
}

fn outcome(verdict: &Verdict) -> Outcome {
    let refused = |refusal: &Refusal| {
        let place = match refusal {
            Refusal::Posting { posting, why, .. } => match why {
                Why::Insufficient { balance, .. } => Some((*posting, *balance)),
                Why::Closed => Some((*posting, 0)),
                _ => None,
            },
            _ => None,
        };
        Outcome::Refused(refusal.code(), place)
    };
    match verdict {
        Verdict::Accepted(a) => {
            Outcome::Accepted(a.postings.iter().map(|p| p.balance_after).collect())
        }
        Verdict::Replayed(Replay::Accepted(_)) => {
            Outcome::Replayed(Box::new(Outcome::Accepted(vec![])))
        }
        Verdict::Replayed(Replay::Refused(refusal)) => {
            Outcome::Replayed(Box::new(refused(refusal)))
        }
        Verdict::Refused(refusal) => refused(refusal),
    }
}

/// One run on products of its own: `base`, `base + 1`, `base + 2`.
struct Run<'a> {
    shop: &'a Shop,
    ledger: &'a Ledger,
    base: u64,
    placed: Vec<(Position, Order)>,
    held: Vec<(Position, Reservation)>,
}

/// The thing that an accepted operation makes.
enum Made {
    Nothing,
    Order(Box<Order>),
    Reservation(Reservation),
}

impl Run<'_> {
    fn order(&self, quantities: [u32; 3]) -> Order {
        let wanted = (0u64..)
            .zip(quantities)
            .filter(|(_, quantity)| *quantity > 0);
        let mut parts = wanted.map(|(product, quantity)| order(self.base + product, quantity));
        let mut all = parts.next().unwrap();
        all.lines.extend(parts.flat_map(|part| part.lines));
        all
    }

    /// The request of an operation, and the thing that it would make.
    fn request(&self, op: &Op) -> (Request, Made) {
        match op {
            Op::Place(quantities, with_key) => {
                let order = self.order(*quantities);
                // Each run has keys of its own, like its products.
                let idempotency = with_key.and_then(|(name, fingerprint)| {
                    let mut known = key(name, fingerprint)?;
                    known.key = format!("{:016x}{}", self.base, &known.key[..16]);
                    Some(known)
                });
                (
                    order::place(&order, Terms::default(), idempotency).unwrap(),
                    Made::Order(Box::new(order)),
                )
            }
            Op::Cancel(index) => {
                let (id, order) = &self.placed[*index];
                let of = reversed(*id, order);
                (order::cancel(of, UserId(2), None).unwrap(), Made::Nothing)
            }
            Op::Receive(product, quantity) => {
                let change = StockChanged {
                    product_id: ProductId(self.base + product),
                    location_id: LocationId::ONLINE,
                    quantity: *quantity,
                    reason: String::new(),
                };
                (
                    stock::receive(&change, &stock::Terms::default(), UserId(1), None).unwrap(),
                    Made::Nothing,
                )
            }
            Op::Close(product, closed) => {
                let id = ProductId(self.base + product);
                let online = [LocationId::ONLINE];
                (
                    product::switch(id, *closed, &online, UserId(1)).unwrap(),
                    Made::Nothing,
                )
            }
            Op::Selling(open) => (selling::switch(*open, UserId(1)).unwrap(), Made::Nothing),
            Op::Reserve(product, quantity) => {
                let reservation = Reservation {
                    user_id: UserId(2),
                    product_id: ProductId(self.base + product),
                    location_id: LocationId::ONLINE,
                    quantity: Quantity::new(*quantity).unwrap(),
                    ttl_ms: 3_600_000,
                    allowance: None,
                    hold_limit: 0,
                    frozen: None,
                };
                let request = reservation::reserve(&reservation, None, 0, None).unwrap();
                (request, Made::Reservation(reservation))
            }
            Op::End(index, confirm) => {
                let (id, reservation) = &self.held[*index];
                let end = if *confirm {
                    reservation::confirm
                } else {
                    hold::cancel
                };
                let (held, expires_ms) = (reservation.held(*id), reservation.expires_ms(*id));
                let request = end(&held, expires_ms, UserId(1), None).unwrap();
                (request, Made::Nothing)
            }
        }
    }

    async fn run(&mut self, groups: &[Vec<Op>]) -> Result<(), TestCaseError> {
        let mut model = Model {
            selling: true,
            ..Model::default()
        };
        for product in 0..PRODUCTS {
            model.levels.insert(product, 5);
            let id = ProductId(self.base + product);
            sqlx::query("INSERT INTO products (id, name, price) VALUES (?, 'of a model', 1000)")
                .bind(id.0)
                .execute(&self.shop.pool)
                .await
                .unwrap();
            self.ledger
                .decide(product::open(id, UserId(1)).unwrap())
                .await
                .unwrap();
            let (receive, _) = self.request(&Op::Receive(product, 5));
            self.ledger.decide(receive).await.unwrap();
        }
        for group in groups {
            // A cancel or an end may only name an order or hold of an earlier group, whose id is
            // known.
            let (orders, holds) = (self.placed.len(), self.held.len());
            let group: Vec<&Op> = group
                .iter()
                .filter(|op| !matches!(op, Op::Cancel(index) if *index >= orders))
                .filter(|op| !matches!(op, Op::End(index, _) if *index >= holds))
                .collect();
            let requests: Vec<_> = group.iter().map(|op| self.request(op)).collect();
            // All are queued before the batcher runs: they meet in one batch, in this order.
            let running: Vec<_> = requests
                .into_iter()
                .map(|(request, made)| {
                    let ledger = self.ledger.clone();
                    (
                        tokio::spawn(async move { ledger.decide(request).await.unwrap() }),
                        made,
                    )
                })
                .collect();
            for (op, (verdict, made)) in group.iter().zip(running) {
                let verdict = verdict.await.unwrap();
                let expected = model.apply(op).unwrap();
                prop_assert_eq!(outcome(&verdict), expected, "{:?}", op);
                match (&verdict, made) {
                    (Verdict::Accepted(accepted), Made::Order(order)) => {
                        self.placed.push((accepted.position, *order));
                    }
                    (Verdict::Accepted(accepted), Made::Reservation(reservation)) => {
                        self.held.push((accepted.position, reservation));
                    }
                    _ => {}
                }
            }
        }
        let (resume, _) = self.request(&Op::Selling(true));
        self.ledger.decide(resume).await.unwrap();
        Ok(())
    }
}

#[test]
fn the_script_decides_as_a_plain_model_does() {
    static CASE: AtomicU64 = AtomicU64::new(1);
    // One thread: spawned requests are queued in their order.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut shop = runtime.block_on(Shop::open_undivided(1, 1));
    // Only one call is under way, so batches are decided in the order in which they were sent.
    shop.config.decide.batches_in_flight_max = 1;
    // The sold-out flag may refuse for a moment what a reversal in the same batch has just made
    // possible.
    shop.config.decide.sold_out_flag_ms = 0;
    let ledger = runtime.block_on(async {
        let ledger = ledger::start(&shop.config, shop.pool.clone(), shop.clock.clone()).unwrap();
        assert!(ledger.wait_open(std::time::Duration::from_secs(10)).await);
        ledger
    });
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&ops(), |groups| {
        let base = 1_000 * CASE.fetch_add(1, Ordering::Relaxed);
        let mut run = Run {
            shop: &shop,
            ledger: &ledger,
            base,
            placed: Vec::new(),
            held: Vec::new(),
        };
        runtime.block_on(run.run(&groups))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    runtime.block_on(async {
        let service = shop.serve().await;
        shop.drained().await;
        shop.verify().await;
        service.stop().await;
    });
}
