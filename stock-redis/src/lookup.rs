//! Reads from Redis what lies on any shard: entries by their position, states, levels.

use std::collections::HashMap;

use stock_common::id::{Position, ProductId};
use stock_common::spent;
use stock_domain::account::{Account, Book, Level};
use stock_domain::coupon::CODE_STATE;
use stock_domain::journal::Entry;
use stock_domain::transition::Transition;

use super::{Ledger, ReadError};

impl Ledger {
    /// Finds an entry in its journal; `None` when it is not there (any more).
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer or the entry cannot be read.
    pub async fn find(&self, position: Position) -> Result<Option<Entry>, ReadError> {
        let _waiting = spent::redis();
        if position.shard() >= self.known_shard_map()?.shards() {
            return Ok(None);
        }
        self.shard_of(position)?.find(position).await
    }

    /// The state under an id. A coupon's code, whose id does not name the coupon, is asked for on
    /// every shard.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn state(&self, id: &str) -> Result<Option<String>, ReadError> {
        let _waiting = spent::redis();
        let map = self.known_shard_map()?;
        if map.shards() > 1 && id.starts_with(CODE_STATE) {
            for shard in self.shards() {
                if let Some(state) = shard.state(id).await? {
                    return Ok(Some(state));
                }
            }
            return Ok(None);
        }
        let shard = map.of_state_id(id, None).unwrap_or(0);
        self.shard(shard)?.state(id).await
    }

    /// Whether Redis has a book of a product, and the book is whole.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn has_book(&self, book: Book, product: ProductId) -> Result<bool, ReadError> {
        let shard = self.known_shard_map()?.of_product(product);
        self.shard(shard)?.has_book(book).await
    }

    /// Begins a new book of a product.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer. The first request that needs the book then has to
    /// wait for it.
    pub async fn begin_book(&self, book: Book, product: ProductId) -> Result<(), ReadError> {
        let shard = self.known_shard_map()?.of_product(product);
        self.shard(shard)?.begin_book(book).await
    }

    /// The state that a transition changes, read where a request would look for it.
    pub(super) async fn state_of(
        &self,
        transition: &Transition,
    ) -> Result<Option<String>, ReadError> {
        let shard = self
            .known_shard_map()?
            .of_transition(transition)
            .unwrap_or(0);
        self.shard(shard)?.state(&transition.id).await
    }

    /// The levels of accounts, as Redis has them now; accounts that it lacks are absent.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn levels(&self, accounts: &[Account]) -> Result<HashMap<Account, Level>, ReadError> {
        let _waiting = spent::redis();
        let map = self.known_shard_map()?;
        if map.shards() == 1 {
            return self.shard(0)?.levels(accounts).await;
        }
        let mut by_shard: HashMap<u64, Vec<Account>> = HashMap::new();
        for account in accounts {
            match map.of_account(*account, None) {
                Some(shard) => by_shard.entry(shard).or_default().push(*account),
                // The product of the limit is not known, so every shard is asked.
                None => {
                    for shard in 0..map.shards() {
                        by_shard.entry(shard).or_default().push(*account);
                    }
                }
            }
        }
        let mut levels: HashMap<Account, Level> = HashMap::with_capacity(accounts.len());
        for (shard, names) in by_shard {
            for (account, level) in self.shard(shard)?.levels(&names).await? {
                let known = levels.entry(account).or_insert(level);
                if known.seq < level.seq {
                    *known = level;
                }
            }
        }
        Ok(levels)
    }
}
