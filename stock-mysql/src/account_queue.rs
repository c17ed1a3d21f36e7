//! Account queues: the transactions of a process wait here for account rows, so that only one of
//! them at a time waits in MySQL.
//!
//! MySQL gives a row to the next waiting transaction even when the process of that transaction is
//! paused. The paused transaction then keeps the row until MySQL ends it as idle. Without the
//! queues this would happen once for each of the process's waiting transactions; with them it
//! happens once. A transaction that waits here holds no connection and no row.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};

use stock_common::lock::lock;
use stock_domain::account::Account;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

/// Number of queues below which unused ones are not dropped.
const KEEP: usize = 1_024;

#[derive(Debug, Default)]
struct Rows {
    queues: HashMap<Account, Weak<Queue<()>>>,
    /// Number of queues at which unused ones are dropped next.
    look_at: usize,
}

/// The account queues of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct AccountQueue(Arc<Mutex<Rows>>);

/// The right to lock the rows of some accounts in MySQL. Dropping it lets the next transaction in.
#[derive(Debug, Default)]
pub struct Ticket(HashMap<Account, OwnedMutexGuard<()>>);

impl Ticket {
    /// Whether the ticket is for all of these accounts.
    #[must_use]
    pub fn covers(&self, accounts: &[Account]) -> bool {
        accounts.iter().all(|account| self.has(*account))
    }

    /// Whether the ticket is for this account.
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

    /// Waits for a ticket for all of these accounts: first come, first served in each queue.
    pub async fn ticket(&self, accounts: &[Account]) -> Ticket {
        let mut ticket = Ticket::default();
        // Every waiter enters the queues in this order, so that two waiters cannot deadlock.
        for account in accounts.iter().copied().collect::<BTreeSet<_>>() {
            ticket
                .0
                .insert(account, self.of(account).lock_owned().await);
        }
        ticket
    }

    /// Adds to a ticket those accounts whose queues are free, without waiting.
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
        // The task has row 1 and waits for row 2.
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
