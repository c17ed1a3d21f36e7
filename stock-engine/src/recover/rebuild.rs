//! Rebuilds a shard's keys in Redis from MySQL: accounts, states, holds, branches, idempotency
//! keys.

mod states;

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, cmd, pipe};
use sqlx::{MySql, Transaction};
use stock_common::config::Config;
use stock_common::id::{Position, ProductId, SaleId, UserId};
use stock_domain::account::{Account, Book, Level};
use stock_domain::branch::{ABORTED, Branch, COMMITTED, CrossShardId, RELEASED};
use stock_domain::coupon::CodeState;
use stock_domain::shard_map::ShardMap;
use stock_mysql::holds::{self, LiveHold};
use stock_mysql::{accounts, branches, quarantine};
use stock_redis::epoch;
use stock_redis::keys::{Keys, Records, SENTINEL};
use stock_redis::mend::Mend;
use stock_redis::records::RecordName;
use stock_redis::scan::Scan;
use stock_redis::units::count_held;

use super::RecoverError;
use crate::verify::Progress;

/// Rows read at once.
const PAGE: u32 = 1_000;
/// The age up to which the states of a till's sales and of branches are written again.
const DAY_MS: u64 = 24 * 3_600_000;
/// Deletes every key of the shard, its epoch's hash included; the epoch itself is already removed.
pub(super) async fn clear(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<(), RedisError> {
    let everything = keys.everything();
    let mut scan = Scan::keys(&everything);
    while let Some(found) = scan.page::<Vec<Vec<u8>>>(redis).await? {
        if !found.is_empty() {
            let _gone: i64 = cmd("UNLINK").arg(&found).query_async(redis).await?;
        }
    }
    Ok(())
}

/// How the fields of a book are written.
pub(crate) enum Filling<'a> {
    /// Directly: nobody decides on this Redis, or with these keys, meanwhile.
    Directly,
    /// Into a lost book of a Redis that is in use.
    Mend(&'a Mend),
}

/// Writes MySQL's data of a shard into its Redis.
pub(crate) struct Rebuild<'a> {
    pub(crate) redis: &'a mut MultiplexedConnection,
    pub(crate) keys: &'a Keys,
    /// The shard map after the rebuild.
    pub(crate) map: ShardMap,
    pub(crate) filling: Filling<'a>,
}

impl Rebuild<'_> {
    fn has_state(&self, id: &str, state: &str) -> bool {
        let shard = self.map.of_state_id(id, CodeState::parse(state));
        shard == Some(self.keys.shard())
    }

    fn has_position(&self, position: Position) -> bool {
        self.map.of_position(position) == self.keys.shard()
    }

    fn has_product(&self, product: ProductId) -> bool {
        self.map.of_product(product) == self.keys.shard()
    }

    pub(crate) async fn set_levels(&mut self, page: &[(Account, Level)]) -> Result<(), RedisError> {
        if page.is_empty() {
            return Ok(());
        }
        let mut levels = cmd("MSET");
        let mut books: BTreeMap<Book, Cmd> = BTreeMap::new();
        let (mut commands, mut has_own) = (pipe(), false);
        for (account, level) in page {
            match account.book() {
                None => {
                    has_own = true;
                    levels
                        .arg(self.keys.account(*account))
                        .arg(level.to_string());
                }
                Some(book) => {
                    let fields = books.entry(book).or_insert_with(|| {
                        let mut set = cmd("HSET");
                        set.arg(self.keys.book(book));
                        set
                    });
                    fields.arg(book.field(*account)).arg(level.in_book());
                }
            }
        }
        if has_own {
            commands.add_command(levels);
        }
        for (_, set) in books {
            commands.add_command(set);
        }
        commands.ignore().query_async(self.redis).await
    }

    /// Begins the books of sales whose allowances are still kept. `epoch::begin` begins the shard's
    /// own books.
    pub(crate) async fn begin_sales(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
        epoch: &str,
    ) -> Result<(), RecoverError> {
        let sales: Vec<(u64, u64)> =
            sqlx::query_as("SELECT id, product_id FROM sales WHERE forgotten_at IS NULL")
                .fetch_all(&mut **transaction)
                .await?;
        let mut commands = pipe();
        for (sale, product) in sales {
            if self.has_product(ProductId(product)) {
                commands
                    .cmd("HSET")
                    .arg(self.keys.book(Book::Allowances(SaleId(sale))))
                    .arg(SENTINEL)
                    .arg(epoch)
                    .ignore();
            }
        }
        if !commands.is_empty() {
            let _: () = commands.query_async(self.redis).await?;
        }
        Ok(())
    }

    /// Writes every account of the shard.
    pub(crate) async fn write_accounts(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
        progress: Progress<'_>,
    ) -> Result<u64, RecoverError> {
        let shard = self.keys.shard();
        let (all,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM accounts WHERE shard = ?")
            .bind(shard)
            .fetch_one(&mut **transaction)
            .await?;
        let all = u64::try_from(all).unwrap_or_default();
        let (mut after, mut written) = (None, 0);
        loop {
            let mut page = accounts::page_of(transaction, Some(shard), after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(written);
            };
            after = Some(*last);
            quarantine::add_kept(transaction, shard, &mut page).await?;
            self.set_levels(&page).await?;
            written += page.len() as u64;
            progress(written, all);
        }
    }

    /// Writes fields of a book.
    async fn fill(&mut self, key: &str, fields: &[(Vec<u8>, Vec<u8>)]) -> Result<(), RedisError> {
        if let Filling::Mend(mend) = self.filling {
            return mend.fill(self.redis, fields).await;
        }
        for part in fields.chunks(1_000) {
            let mut set = cmd("HSET");
            set.arg(key);
            for (field, value) in part {
                set.arg(field).arg(value);
            }
            let _: i64 = set.query_async(self.redis).await?;
        }
        Ok(())
    }

    /// Writes the live holds. The next sweep releases those that expired meanwhile.
    pub(crate) async fn write_holds(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
    ) -> Result<(), RecoverError> {
        let mut after = Position::ZERO;
        loop {
            let page = holds::live(transaction, after, PAGE).await?;
            let Some(last) = page.last() else {
                count_held(self.redis, self.keys).await?;
                return Ok(());
            };
            after = last.held.id;
            let is_own = |of: &&LiveHold| self.has_position(of.held.id);
            let own: Vec<_> = page.iter().filter(is_own).collect();
            if own.is_empty() {
                continue;
            }
            let mut add = cmd("ZADD");
            add.arg(self.keys.deadlines());
            for of in own {
                add.arg(of.expires_ms).arg(of.held.member());
            }
            let _: i64 = add.query_async(self.redis).await?;
        }
    }

    /// Writes the records of accepted requests that are still remembered, because a retry after a
    /// loss must find them.
    pub(crate) async fn write_keys(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
        config: &Config,
    ) -> Result<u64, RecoverError> {
        type Row = (u64, u64, Vec<u8>, Vec<u8>);
        let now = epoch::time_ms(self.redis).await?;
        let from = now.saturating_sub(config.decide.idempotency_accepted_ms);
        // The younger generation. There is none while the epoch has yet to begin.
        let young: Option<u64> = cmd("HGET")
            .arg(self.keys.epoch())
            .arg(Records::Accepted.as_str())
            .query_async(self.redis)
            .await?;
        let young = young.unwrap_or(epoch::FIRST_GENERATION);
        let book = self.keys.records(Records::Accepted, young);
        let (mut after, mut written) = (Position::from_parts(from, 0).unwrap_or_default(), 0);
        loop {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT id, actor_id, key_hash, fingerprint FROM journal \
                 WHERE id > ? AND key_hash IS NOT NULL AND fingerprint IS NOT NULL \
                 ORDER BY id LIMIT ?",
            )
            .bind(after.get())
            .bind(PAGE)
            .fetch_all(&mut **transaction)
            .await?;
            let Some(last) = rows.last() else {
                return Ok(written);
            };
            after = Position::new(last.0);
            let mut records = Vec::with_capacity(rows.len());
            for (id, actor, key, fingerprint) in &rows {
                let (position, user) = (Position::new(*id), UserId(*actor));
                let (Ok(key), Ok(fingerprint)) = (
                    <[u8; 16]>::try_from(&**key),
                    <[u8; 16]>::try_from(&**fingerprint),
                ) else {
                    continue;
                };
                let name = RecordName::from_bytes(key, fingerprint);
                let record = if self.has_position(position) {
                    name.accepted(position)
                } else if self.has_key_of(user) {
                    name.claimed(position.unix_ms(), self.map.of_position(position))
                } else {
                    continue;
                };
                records.push((name.key.to_vec(), record));
            }
            written += records.len() as u64;
            self.fill(&book, &records).await?;
        }
    }

    /// Whether this shard keeps the claims of a user's keys, for requests that another shard
    /// decided.
    fn has_key_of(&self, user: UserId) -> bool {
        self.map.of_user(user) == self.keys.shard()
    }

    /// Writes the states of branches, and of the entries that they are held for.
    pub(crate) async fn write_branch_states(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
    ) -> Result<(), RecoverError> {
        let now = epoch::time_ms(self.redis).await?;
        let yesterday = Position::from_parts(now.saturating_sub(DAY_MS), 0).unwrap_or_default();
        let committed = branches::committed(transaction, yesterday).await?;
        let committed: BTreeSet<String> = committed
            .iter()
            .filter_map(|cross_shard| Some(cross_shard.parse::<CrossShardId>().ok()?.state_id()))
            .collect();
        let states = committed
            .iter()
            .map(|id| (id.clone(), COMMITTED.to_owned()));
        self.set_states(&states.collect::<Vec<_>>(), now).await?;
        let mut after = Position::ZERO;
        loop {
            let page = branches::recent(transaction, after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            let mut states = Vec::new();
            for branch in page {
                let Ok(cross_shard) = branch.cross_shard.parse::<CrossShardId>() else {
                    continue;
                };
                let id = cross_shard.state_id();
                // A branch is released only when its entry will never be written.
                if branch.state == RELEASED && !committed.contains(&id) {
                    states.push((id, ABORTED.to_owned()));
                }
                states.push((cross_shard.branch_state_id(branch.id.shard()), branch.state));
            }
            self.set_states(&states, now).await?;
        }
    }

    /// Writes the branches that are held for entries on other shards. The next sweep looks at each
    /// of them.
    pub(crate) async fn write_branch_holds(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
    ) -> Result<(), RecoverError> {
        let now = epoch::time_ms(self.redis).await?;
        let mut after = Position::ZERO;
        loop {
            let page = branches::recent(transaction, after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            for branch in page {
                if branch.state == "HELD" && self.has_position(branch.id) {
                    let _: i64 = cmd("ZADD")
                        .arg(self.keys.deadlines())
                        .arg(now)
                        .arg(Branch::member(branch.id))
                        .query_async(self.redis)
                        .await?;
                }
            }
        }
    }
}
