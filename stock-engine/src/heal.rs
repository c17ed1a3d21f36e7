//! Heal: restores what a shard's Redis has lost, while everything else goes on.
//!
//! A request that needs a lost key is refused, so nothing that the key held can change. When MySQL
//! has settled everything accepted until then, its rows say what the key held. They are written,
//! and a book's sentinel last. An instance whose request is refused starts this at once
//! ([`stock_redis::lost`]). A lost record of a refusal is not restored, because MySQL does not keep
//! refusals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use sqlx::{MySql, MySqlPool, Transaction};
use stock_common::supervise::supervise;
use stock_domain::account::{Account, Book, Level};
use stock_domain::verdict::LostKey;
use stock_mysql::{accounts, quarantine, sales, shards};
use stock_redis::fence::{Fence, FenceState, Link};
use stock_redis::keys::{Keys, Records, SENTINEL, SENTINEL_SCORE};
use stock_redis::lost::{Lost, LostThing};
use stock_redis::mend::Mend;
use stock_redis::units::count_held;
use stock_redis::{ReadError, Shard, epoch, levels};
use tokio::time::{Instant, sleep};

use crate::recover::{Filling, Rebuild, RecoverError};

/// How long to wait before a failed repair is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often MySQL's progress is checked, and how long at most before the repair is tried anew.
const POLL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: u32 = 2_000;

/// Why something was not restored yet.
#[derive(Debug, thiserror::Error)]
enum HealError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Rebuild(#[from] RecoverError),
    #[error("mysql has not settled yet what was accepted before")]
    Behind,
    #[error("redis holds another epoch by now")]
    OtherEpoch,
}

/// Starts the task that restores what is noted as lost, until the shard is closed.
pub(crate) fn start(shard: &Shard, pool: &MySqlPool) {
    let (fence, lost) = (Arc::clone(shard.fence()), Arc::clone(shard.lost()));
    let (name, pool) = (fence.keys.epoch(), pool.clone());
    tokio::spawn(supervise("heal", name, move || {
        let healer = Healer {
            fence: Arc::clone(&fence),
            pool: pool.clone(),
        };
        run(healer, Arc::clone(&lost))
    }));
}

async fn run(healer: Healer, lost: Arc<Lost>) {
    while let Some(things) = lost.take().await {
        let Err(error) = healer.heal(&things).await else {
            continue;
        };
        let shard = healer.keys().shard();
        tracing::warn!(shard, ?things, %error, "what was lost in redis is not brought back yet");
        sleep(RETRY).await;
        for thing in things {
            lost.note_thing(thing);
        }
    }
}

/// Restores the lost keys of a shard.
struct Healer {
    fence: Arc<Fence>,
    pool: MySqlPool,
}

impl Healer {
    fn keys(&self) -> &Keys {
        &self.fence.keys
    }

    fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    fn link(&self) -> Result<Link, ReadError> {
        match self.fence.state() {
            FenceState::Open(link) => Ok(link),
            FenceState::Mending(reason) | FenceState::Fenced(reason) => {
                Err(ReadError::Fenced(reason))
            }
        }
    }

    async fn heal(&self, things: &BTreeSet<LostThing>) -> Result<(), HealError> {
        let mut link = self.link()?;
        for thing in things {
            match *thing {
                LostThing::Account(account) => self.heal_account(&mut link, account).await?,
                LostThing::Book(book) => self.heal_book(&mut link, book).await?,
                LostThing::Key(LostKey::Records) => self.heal_records(&mut link).await?,
                LostThing::Key(LostKey::States) => self.heal_states(&mut link).await?,
                LostThing::Key(LostKey::Deadlines) => self.heal_deadlines(&mut link).await?,
            }
        }
        Ok(())
    }

    /// Waits until MySQL has settled everything that is accepted now. That includes every entry
    /// that touches the lost keys, because nothing that needs them was accepted after they were
    /// lost. The wait begins after a book is begun, or after a placeholder stands in place of a
    /// level: before that, the key may have been restored, used and lost again since it was missed.
    async fn await_settled(&self, link: &mut Link) -> Result<(), HealError> {
        let head = epoch::head(&mut link.read, self.keys()).await?;
        let head = head.filter(|head| *head.epoch == *link.epoch);
        let number = head.ok_or(HealError::OtherEpoch)?.number;
        let until = Instant::now() + PATIENCE;
        loop {
            let state = shards::load(self.pool(), self.keys().shard()).await?;
            let state = state.filter(|state| *state.epoch == *link.epoch);
            match state {
                None => return Err(HealError::OtherEpoch),
                Some(state) if state.number >= number => return Ok(()),
                Some(_) if Instant::now() > until => return Err(HealError::Behind),
                Some(_) => sleep(POLL).await,
            }
        }
    }

    /// Writes a placeholder in place of the level before it waits for MySQL. If the account is
    /// restored, used and lost again meanwhile, the placeholder is lost too, and the request that
    /// misses the account then has it restored.
    async fn heal_account(&self, link: &mut Link, account: Account) -> Result<(), HealError> {
        if accounts::levels(self.pool(), &[account]).await?.is_empty() {
            // Nobody has opened the account: the request came too early, or there is no such
            // account.
            return Ok(());
        }
        let found: Option<String> = cmd("GET")
            .arg(self.keys().account(account))
            .query_async(&mut link.read)
            .await
            // A key of another type holds no level.
            .unwrap_or(None);
        if found.as_deref().and_then(Level::parse).is_some() {
            return Ok(());
        }
        let lost = format!("lost {:016x}", rand::random::<u64>());
        if !self.replace(link, account, found, &lost).await? {
            return Ok(());
        }
        self.await_settled(link).await?;
        let mut connection = self.pool().acquire().await?;
        let levels = accounts::read(&mut connection, &[account]).await?;
        let mut levels: Vec<(Account, Level)> = levels.into_iter().collect();
        quarantine::add_kept(&mut connection, self.keys().shard(), &mut levels).await?;
        let Some((_, level)) = levels.first() else {
            return Ok(());
        };
        if self
            .replace(link, account, Some(lost), &level.to_string())
            .await?
        {
            tracing::warn!(%account, ?level, "an account that redis had lost is brought back");
        }
        Ok(())
    }

    /// Sets an account's value, if it is still the one that was found.
    async fn replace(
        &self,
        link: &mut Link,
        account: Account,
        found: Option<String>,
        value: &str,
    ) -> Result<bool, HealError> {
        let (keys, epoch) = (self.keys(), &*link.epoch);
        let found = found.unwrap_or_default();
        Ok(levels::correct(&mut link.read, keys, epoch, account, &found, value).await?)
    }

    async fn heal_book(&self, link: &mut Link, book: Book) -> Result<(), HealError> {
        if let Book::Allowances(sale) = book
            && !sales::is_kept(self.pool(), sale).await?
        {
            return Ok(());
        }
        let mend = Mend::of_book(self.keys(), book, &link.epoch);
        if !mend.begin(&mut link.read).await? {
            return Ok(());
        }
        self.await_settled(link).await?;
        let (mut after, mut count) = (None, 0);
        let mut connection = self.pool().acquire().await?;
        loop {
            let shard = self.keys().shard();
            let mut page =
                accounts::page_of_book(&mut connection, book, shard, after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(*last);
            quarantine::add_kept(&mut connection, shard, &mut page).await?;
            count += page.len();
            let fields = page.iter().map(|(account, level)| {
                let text = level.in_book();
                (book.field(*account).into_bytes(), text.into_bytes())
            });
            mend.fill(&mut link.read, &fields.collect::<Vec<_>>())
                .await?;
        }
        mend.end(&mut link.read).await?;
        tracing::warn!(%book, accounts = count, "a book that redis had lost is brought back");
        Ok(())
    }

    async fn heal_records(&self, link: &mut Link) -> Result<(), HealError> {
        let now_ms = epoch::time_ms(&mut link.read).await?;
        for records in Records::ALL {
            // A Redis of an earlier release lacks these fields.
            for (field, value) in [(records.as_str(), 1), (records.began(), now_ms)] {
                let _set: i64 = cmd("HSETNX")
                    .arg(self.keys().epoch())
                    .arg(field)
                    .arg(value)
                    .query_async(&mut link.read)
                    .await?;
            }
            let young: u64 = cmd("HGET")
                .arg(self.keys().epoch())
                .arg(records.as_str())
                .query_async(&mut link.read)
                .await?;
            for number in [young.saturating_sub(1), young] {
                let key = self.keys().records(records, number);
                let mend = Mend::new(self.keys(), key, &link.epoch, number.to_string());
                if !mend.begin(&mut link.read).await? {
                    continue;
                }
                self.await_settled(link).await?;
                if records == Records::Accepted {
                    let mut transaction = self.pool().begin().await?;
                    let mut rebuild = self.rebuild(&mut link.read, Filling::Mend(&mend));
                    let config = &self.fence.config;
                    rebuild.write_keys(&mut transaction, config).await?;
                }
                mend.end(&mut link.read).await?;
                let records = records.as_str();
                tracing::warn!(
                    records,
                    "idempotency records that redis had lost are brought back"
                );
            }
        }
        Ok(())
    }

    async fn heal_states(&self, link: &mut Link) -> Result<(), HealError> {
        let mend = Mend::new(
            self.keys(),
            self.keys().states(),
            &link.epoch,
            link.epoch.to_string(),
        );
        if !mend.begin(&mut link.read).await? {
            return Ok(());
        }
        self.await_settled(link).await?;
        let mut transaction = self.pool().begin().await?;
        let keep_ms = self.fence.config.decide.marks_keep_ms;
        let mut rebuild = self.rebuild(&mut link.read, Filling::Mend(&mend));
        rebuild.write_states(&mut transaction, keep_ms).await?;
        rebuild.write_branch_states(&mut transaction).await?;
        mend.end(&mut link.read).await?;
        tracing::warn!("the states that redis had lost are brought back");
        Ok(())
    }

    /// A member may be written after its hold has ended; its expiry then removes it.
    async fn heal_deadlines(&self, link: &mut Link) -> Result<(), HealError> {
        let key = self.keys().deadlines();
        let score = cmd("ZSCORE")
            .arg(&key)
            .arg(SENTINEL)
            .query_async::<Option<String>>(&mut link.read)
            .await;
        match score {
            // The deadlines are there. Only the units that are counted from them were lost.
            Ok(Some(_)) => {
                count_held(&mut link.read, self.keys()).await?;
                return Ok(());
            }
            Ok(None) => {}
            Err(_of_another_type) => {
                let _: i64 = cmd("UNLINK").arg(&key).query_async(&mut link.read).await?;
            }
        }
        self.await_settled(link).await?;
        let mut transaction: Transaction<'static, MySql> = self.pool().begin().await?;
        let mut rebuild = self.rebuild(&mut link.read, Filling::Directly);
        rebuild.write_holds(&mut transaction).await?;
        rebuild.write_branch_holds(&mut transaction).await?;
        let _: i64 = cmd("ZADD")
            .arg(&key)
            .arg(SENTINEL_SCORE)
            .arg(SENTINEL)
            .query_async(&mut link.read)
            .await?;
        tracing::warn!("the live holds that redis had lost are brought back");
        Ok(())
    }

    fn rebuild<'a>(
        &'a self,
        redis: &'a mut MultiplexedConnection,
        filling: Filling<'a>,
    ) -> Rebuild<'a> {
        Rebuild {
            redis,
            keys: self.keys(),
            map: self.fence.map,
            filling,
        }
    }
}
