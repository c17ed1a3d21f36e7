//! Buyers in memory: whose first sight is on record.
//!
//! A buyer's number follows from the name, so an order of a known buyer asks no server. Of each
//! buyer the memory keeps 16 bytes. While it is being filled, MySQL is asked.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::MySqlPool;
use stock_common::id::UserId;
use stock_common::lock::{read, write};
use stock_domain::buyer::{self, Buyer, NoName};
use stock_domain::journal::DraftError;
use stock_domain::verdict::{Refusal, Verdict};
use stock_mysql::buyers as table;
use stock_redis::{DecideError, Ledger};

/// Buyers that are read from MySQL at once.
const PAGE: u32 = 50_000;
/// Numbers that a buyer may find taken. Two names have one number once in 10^15 pairs.
const TAKEN_MAX: u8 = 8;

/// Why a buyer has no number.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// Redis gave no verdict.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// Redis refused the entry.
    #[error("the buyer was not noted: {0:?}")]
    Refused(Box<Refusal>),
    /// The entry cannot be written.
    #[error(transparent)]
    Draft(#[from] DraftError),
}

/// The buyers that this process knows.
#[derive(Default)]
pub struct Buyers {
    /// The second hash of the name, by number.
    known: RwLock<HashMap<u64, u64>>,
    /// Whether all buyers of MySQL are known.
    is_complete: AtomicBool,
    /// The position up to which MySQL was read.
    upto: tokio::sync::Mutex<u64>,
}

impl Buyers {
    /// The number of a buyer, whose first sight is on record from now on.
    ///
    /// # Errors
    /// [`Unseen`] when a new buyer cannot be noted.
    pub async fn number(
        &self,
        pool: &MySqlPool,
        ledger: &Ledger,
        name: &Buyer,
    ) -> Result<UserId, Unseen> {
        let mut number = name.number(0);
        for taken in 1..=TAKEN_MAX {
            if !self.knows(number.user_id) && !self.is_complete.load(Ordering::Relaxed) {
                self.ask(pool, number.user_id).await;
            }
            let print = read(&self.known).get(&number.user_id.0).copied();
            match print {
                None => break,
                Some(print) if print == number.print => return Ok(number.user_id),
                Some(_) => number = name.number(taken),
            }
        }
        match ledger
            .decide(buyer::see(name.clone(), number.user_id)?)
            .await?
        {
            Verdict::Accepted(_) | Verdict::Replayed(_) => {
                write(&self.known).insert(number.user_id.0, number.print);
                Ok(number.user_id)
            }
            Verdict::Refused(refusal) => Err(Unseen::Refused(Box::new(refusal))),
        }
    }

    /// The number of a buyer, seen before or not.
    #[must_use]
    pub fn number_of(&self, name: &Buyer) -> UserId {
        let known = read(&self.known);
        let is_anothers = |of: &buyer::Number| {
            let print = known.get(&of.user_id.0);
            print.is_some_and(|print| *print != of.print)
        };
        let mut numbers = (0..TAKEN_MAX).map(|taken| name.number(taken));
        let number = numbers.find(|of| !is_anothers(of));
        number.unwrap_or_else(|| name.number(0)).user_id
    }

    fn knows(&self, user: UserId) -> bool {
        read(&self.known).contains_key(&user.0)
    }

    /// Asks MySQL for one buyer. Without an answer the buyer counts as new, which does no harm: a
    /// second entry says the same.
    async fn ask(&self, pool: &MySqlPool, user: UserId) {
        match table::names(pool, &[user]).await {
            Ok(names) => {
                for (user, name) in names {
                    self.note(user.0, name);
                }
            }
            Err(error) => tracing::debug!(%error, "mysql did not say whether a buyer is known"),
        }
    }

    fn note(&self, user: u64, name: String) {
        let Ok(name) = Buyer::try_from(name) else {
            return;
        };
        let numbers = (0..=TAKEN_MAX).map(|taken| name.number(taken));
        if let Some(number) = numbers.into_iter().find(|of| of.user_id.0 == user) {
            write(&self.known).insert(user, number.print);
        }
    }

    /// Reads the buyers that MySQL has and this process does not know yet.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn refresh(&self, pool: &MySqlPool) -> Result<(), sqlx::Error> {
        let mut upto = self.upto.lock().await;
        loop {
            let page = table::seen_after(pool, *upto, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            for of in page {
                *upto = of.id;
                self.note(of.user_id, of.name);
            }
            if is_last {
                self.is_complete.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
    }
}

/// Reads a buyer's name.
///
/// # Errors
/// [`NoName`] when the text is none.
pub fn parse(name: &[u8]) -> Result<Buyer, NoName> {
    let name = std::str::from_utf8(name).map_err(|_not_text| NoName)?;
    Buyer::try_from(name.to_owned())
}
