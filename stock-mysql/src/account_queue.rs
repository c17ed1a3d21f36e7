//! One transaction of a process at a time for an account's row; the others wait here, not in MySQL.
//!
//! What waits in MySQL is given the row even to a process that sleeps, which then keeps it until MySQL ends the idle
//! transaction: as often as there are transactions waiting. With one in the queue it is once. Nobody who waits here
//! holds a connection, or a row.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};

use stock_common::lock::lock;
use stock_domain::account::Account;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

/// Accounts from which those that nobody wants any more are dropped.
const KEEP: usize = 1_024;

#[derive(Debug, Default)]
struct Rows {
    queues: HashMap<Account, Weak<Queue<()>>>,
    /// As many accounts as make another look worth it.
    look_at: usize,
}

/// The queues of a process for rows of accounts. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct AccountQueue(Arc<Mutex<Rows>>);

/// The right to lock some rows in MySQL; dropping it lets the next in.
#[derive(Debug, Default)]
pub struct Ticket(HashMap<Account, OwnedMutexGuard<()>>);

impl Ticket {
    /// Whether it is for all of them.
    #[must_use]
    pub fn covers(&self, accounts: &[Account]) -> bool {
        accounts.iter().all(|account| self.has(*account))
    }

    /// Whether it is for this one.
    #[must_use]
    pub fn has(&self, account: Account) -> bool {
        self.0.contains_key(&account)
    }
}

impl AccountQueue {
    fn of(&self, account: Account) -> Arc<Queue<()>> {
        let mut rows = lock(&self.0);
        if let Some(queue) = rows.queues.get(&account).and_then(Weak::upgrade) {
            return queue;
        }
        if rows.queues.len() >= rows.look_at {
            rows.queues.retain(|_, queue| queue.strong_count() > 0);
            rows.look_at = (rows.queues.len() * 2).max(KEEP);
        }
        let queue = Arc::new(Queue::default());
        rows.queues.insert(account, Arc::downgrade(&queue));
        queue
    }

    /// Waits for the ticket, account after account in the order of their keys: first come, first served.
    pub async fn ticket(&self, accounts: &[Account]) -> Ticket {
        let mut ticket = Ticket::default();
        // Everybody takes them in this order, or does not wait.
        for account in accounts.iter().copied().collect::<BTreeSet<_>>() {
            ticket
                .0
                .insert(account, self.of(account).lock_owned().await);
        }
        ticket
    }

    /// Adds to a ticket what nobody has, without waiting.
    pub fn extend(&self, ticket: &mut Ticket, accounts: &[Account]) {
        for &account in accounts {
            if let Entry::Vacant(missing) = ticket.0.entry(account)
                && let Ok(guard) = self.of(account).try_lock_owned()
            {
                missing.insert(guard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AccountQueue, KEEP, Ticket};
    use stock_domain::account::Account;

    fn row(product: u64) -> Account {
        Account::parse(&format!("AVAILABLE:{product}:0")).unwrap()
    }

    #[tokio::test]
    async fn one_has_the_turn_and_the_next_gets_it() {
        let rows = AccountQueue::default();
        let first = rows.ticket(&[row(2), row(1), row(2)]).await;
        assert!(first.covers(&[row(1), row(2)]) && !first.covers(&[row(3)]));
        let mut other = Ticket::default();
        rows.extend(&mut other, &[row(1), row(3)]);
        assert!(other.has(row(3)) && !other.has(row(1)));
        let waiting = {
            let rows = rows.clone();
            tokio::spawn(async move { rows.ticket(&[row(1)]).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        let second = waiting.await.unwrap();
        rows.extend(&mut other, &[row(1), row(2)]);
        assert!(other.has(row(2)) && !other.has(row(1)));
        drop(second);
        rows.extend(&mut other, &[row(1)]);
        assert!(other.covers(&[row(1), row(2), row(3)]));
    }

    #[tokio::test]
    async fn who_leaves_the_queue_holds_up_nobody() {
        let rows = AccountQueue::default();
        let first = rows.ticket(&[row(2)]).await;
        // It has the one and waits for the other.
        let both = [row(1), row(2)];
        let impatient = tokio::time::timeout(Duration::ZERO, rows.ticket(&both));
        assert!(impatient.await.is_err());
        assert!(rows.ticket(&[row(1)]).await.covers(&[row(1)]));
        drop(first);
        assert!(rows.ticket(&[row(2)]).await.covers(&[row(2)]));
    }

    #[tokio::test]
    async fn queues_that_nobody_stands_in_are_forgotten() {
        let rows = AccountQueue::default();
        let held = rows.ticket(&[row(1)]).await;
        for product in 2..10 * KEEP as u64 {
            rows.ticket(&[row(product)]).await;
        }
        assert!(rows.0.lock().unwrap().queues.len() <= KEEP);
        let mut other = Ticket::default();
        rows.extend(&mut other, &[row(1)]);
        assert!(!other.has(row(1)));
        drop(held);
    }
}
