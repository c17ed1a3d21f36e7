//! Reading from Redis what lies on any shard: entries by their position, marks, levels.

use std::collections::HashMap;

use stock_common::id::{Position, ProductId};

use super::{Ledger, ReadError};
use crate::account::{Account, Book, Level};
use crate::bucket;
use crate::coupon::CODE_MARK;
use crate::journal::{Entry, Mark};
use crate::layout::{self, Place};

impl Ledger {
    /// Finds an entry in its journal; `None` when it is not there (any more).
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer or the entry cannot be read.
    pub async fn find(&self, position: Position) -> Result<Option<Entry>, ReadError> {
        if position.shard() >= self.known_layout()?.shards {
            return Ok(None);
        }
        self.shard_of(position)?.find(position).await
    }

    /// The state of a mark. A coupon's code, which does not name its coupon, is asked for everywhere.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn mark(&self, id: &str) -> Result<Option<String>, ReadError> {
        let layout = self.known_layout()?;
        if layout.shards > 1 && id.starts_with(CODE_MARK) {
            for shard in self.shards() {
                if let Some(state) = shard.mark(id).await? {
                    return Ok(Some(state));
                }
            }
            return Ok(None);
        }
        match layout.of_mark_id(id, None).unwrap_or(Place::Shard(0)) {
            Place::Shard(shard) => self.shard(shard)?.mark(id).await,
            Place::Moving => Err(moving()),
        }
    }

    /// Whether Redis has a book of a product, and it is whole.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn has_book(&self, book: Book, product: ProductId) -> Result<bool, ReadError> {
        let slot = layout::product_slot(product);
        let Place::Shard(shard) = self.known_layout()?.of_slot(slot) else {
            return Err(moving());
        };
        self.shard(shard)?.has_book(book).await
    }

    /// Begins a book of a product that is new.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer; the first request that needs it then has to wait for it.
    pub async fn begin_book(&self, book: Book, product: ProductId) -> Result<(), ReadError> {
        let slot = layout::product_slot(product);
        let Place::Shard(shard) = self.known_layout()?.of_slot(slot) else {
            return Err(moving());
        };
        self.shard(shard)?.begin_book(book).await
    }

    /// The state of a mark where a request would look for it.
    pub(super) async fn state_of(&self, mark: &Mark) -> Result<Option<String>, ReadError> {
        match self
            .known_layout()?
            .of_mark(mark)
            .unwrap_or(Place::Shard(0))
        {
            Place::Shard(shard) => self.shard(shard)?.mark(&mark.id).await,
            Place::Moving => Err(moving()),
        }
    }

    /// The levels of accounts, as Redis has them now; accounts that it lacks are absent. A product's stock is what all
    /// its shares hold.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn levels(&self, accounts: &[Account]) -> Result<HashMap<Account, Level>, ReadError> {
        let layout = self.known_layout()?;
        if layout.buckets.is_empty() {
            return self.own_levels(accounts).await;
        }
        let shares = |account: &Account| layout.buckets.shares(*account);
        let all: Vec<Account> = accounts.iter().flat_map(shares).collect();
        let levels = self.own_levels(&all).await?;
        let level = |account: &Account| Some((*account, bucket::sum(&levels, &shares(account))?));
        Ok(accounts.iter().filter_map(level).collect())
    }

    /// The same, where a product's stock is only what its own account holds.
    ///
    /// # Errors
    /// [`ReadError`] when Redis does not answer.
    pub async fn own_levels(
        &self,
        accounts: &[Account],
    ) -> Result<HashMap<Account, Level>, ReadError> {
        let layout = self.known_layout()?;
        if layout.shards == 1 {
            return self.shard(0)?.levels(accounts).await;
        }
        let mut by_shard: HashMap<u64, Vec<Account>> = HashMap::new();
        for account in accounts {
            match layout.of_account(*account, None) {
                Some(Place::Shard(shard)) => by_shard.entry(shard).or_default().push(*account),
                // For the moment of a move the shard that had it knows it still.
                Some(Place::Moving) | None => {
                    for shard in 0..layout.shards {
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

fn moving() -> ReadError {
    ReadError::Fenced("what it is about is moving to another shard".into())
}
