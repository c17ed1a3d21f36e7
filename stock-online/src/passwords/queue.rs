//! The queue for password hashes. Known devices come first, then networks from which no login has
//! failed, then the rest. Within each class the queue is round-robin by network.
//!
//! A network's second request waits behind the first request of every other network, so a network
//! that sends many requests delays only its own.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use stock_common::lock::lock;
use tokio::sync::oneshot;

/// Maximum number of waiting requests; further ones are refused at once.
const WAITING_MAX: usize = 10_000;

/// The class of a request; an earlier one is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// From a device on which the account's owner has logged in before.
    Known,
    /// From a network from which no login has failed lately.
    Clean,
    /// From any other.
    Doubtful,
}

/// The class and the network by which a request waits.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// Its class.
    pub urgency: Urgency,
    /// Its network.
    pub network: IpAddr,
}

impl Ticket {
    /// The ticket of a command, which waits for nobody.
    pub const OWN: Self = Self {
        urgency: Urgency::Known,
        network: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
}

/// Class, number of the network's requests already waiting, order of arrival.
type Order = (Urgency, usize, u64);

#[derive(Debug, Default)]
struct State {
    free: usize,
    arrived: u64,
    waiting: BTreeMap<Order, (IpAddr, oneshot::Sender<Slot>)>,
    of_network: HashMap<IpAddr, usize>,
}

impl State {
    fn remove(&mut self, order: &Order) -> Option<oneshot::Sender<Slot>> {
        let (network, sender) = self.waiting.remove(order)?;
        if let Some(count) = self.of_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.of_network.remove(&network);
            }
        }
        Some(sender)
    }
}

/// Grants a fixed number of slots; further requests wait in order.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Mutex<State>>);

/// The right to compute one hash, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Option<Queue>);

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.pass_on();
        }
    }
}

impl Queue {
    pub(super) fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: slots,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Waits for a slot; `None` when none is free in time, or too many requests wait.
    pub(super) async fn wait(&self, ticket: Ticket, limit: Duration) -> Option<Slot> {
        let (order, granted) = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Some(Slot(Some(self.clone())));
            }
            if state.waiting.len() >= WAITING_MAX {
                return None;
            }
            let count = state.of_network.entry(ticket.network).or_default();
            let rank = *count;
            *count += 1;
            state.arrived += 1;
            let order = (ticket.urgency, rank, state.arrived);
            let (grant, granted) = oneshot::channel();
            state.waiting.insert(order, (ticket.network, grant));
            (order, granted)
        };
        let slot = tokio::time::timeout(limit, granted).await;
        if slot.is_err() {
            // A slot granted at this very moment is passed on when its message is dropped.
            drop(self.state().remove(&order));
        }
        slot.ok()?.ok()
    }

    /// Gives a freed slot to the next waiting request.
    fn pass_on(&self) {
        loop {
            let next = {
                let mut state = self.state();
                let first = state.waiting.keys().next().copied();
                let next = first.and_then(|order| state.remove(&order));
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Slot(Some(self.clone()))) {
                Ok(()) => return,
                // That request has gone; the slot is still to be passed on.
                Err(mut slot) => slot.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{Queue, Ticket, Urgency};

    const LONG: Duration = Duration::from_secs(60);

    fn ticket(urgency: Urgency, network: u8) -> Ticket {
        Ticket {
            urgency,
            network: IpAddr::V4(Ipv4Addr::new(192, 0, 2, network)),
        }
    }

    #[tokio::test]
    async fn networks_take_turns_and_known_devices_go_first() {
        let queue = Queue::new(1);
        let first = queue.wait(Ticket::OWN, LONG).await.unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, ticket) in [
            ("flood 1", ticket(Urgency::Doubtful, 1)),
            ("flood 2", ticket(Urgency::Doubtful, 1)),
            ("flood 3", ticket(Urgency::Doubtful, 1)),
            ("failed once", ticket(Urgency::Doubtful, 2)),
            ("new", ticket(Urgency::Clean, 3)),
            ("known", ticket(Urgency::Known, 1)),
        ] {
            let (queue, own) = (queue.clone(), Arc::clone(&served));
            tasks.push(tokio::spawn(async move {
                let slot = queue.wait(ticket, LONG).await;
                own.lock().unwrap().push(name);
                drop(slot);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        let served = served.lock().unwrap().clone();
        assert_eq!(
            served,
            [
                "known",
                "new",
                "flood 1",
                "failed once",
                "flood 2",
                "flood 3"
            ]
        );
        let state = queue.state();
        assert_eq!((state.free, state.waiting.len()), (1, 0));
        assert!(state.of_network.is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_nobody_waits_for_any_more_is_not_lost() {
        let queue = Queue::new(1);
        let first = queue.wait(Ticket::OWN, LONG).await.unwrap();
        let short = Duration::from_millis(1);
        let late = queue.wait(ticket(Urgency::Clean, 1), short).await;
        assert!(late.is_none());
        let left = tokio::spawn({
            let queue = queue.clone();
            async move { queue.wait(ticket(Urgency::Clean, 2), LONG).await.is_some() }
        });
        tokio::task::yield_now().await;
        left.abort();
        assert!(left.await.is_err());
        drop(first);
        assert!(
            queue
                .wait(ticket(Urgency::Doubtful, 3), short)
                .await
                .is_some()
        );
        assert_eq!(queue.state().free, 1);
    }
}
