//! Reshard: another number of shards, while the shop is open.
//!
//! Slots move a few at a time. What is in them waits for that moment, everything else goes on:
//! 1. MySQL says that the slots are moving, and gives their shard a new version;
//! 2. that version is written to the shard's Redis: from then on every batch routed before is refused, without
//!    anything being changed, and routed again; what is in the slots waits;
//! 3. when MySQL has settled all that the shard accepted, it knows all there is: accounts and marks are
//!    written to the new shard from there;
//! 4. MySQL says that the slots are on the new shard.
//!
//! Killed anywhere, running it again goes on: until the fourth step nothing is decided on the new shard.
//! A shard that is given up hands the marks, holds and keys that name it to the first one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd, pipe};
use serde::Serialize;
use sqlx::{MySql, MySqlPool, QueryBuilder, Transaction};
use stock_common::config::Config;

use crate::account::{Account, AccountKind};
use crate::database::rows::push_list;
use crate::database::{accounts, is_passing, jobs, layouts, shards};
use crate::layout::{Layout, SHARDS_MAX, SLOTS, jump};
use crate::ledger::epoch;
use crate::ledger::keys::{Address, Keys};
use crate::ledger::scripts::SCRIPTS;
use crate::recover::{self, Filling, Rebuild, RecoverError, Scope};
use crate::verify::Progress;

/// The name of the job, whose row lets one instance do it.
pub const JOB: &str = "reshard";
/// Slots that move together: what is in them waits together.
const TOGETHER: usize = 8;
/// How long to wait for MySQL to settle what a shard accepted.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// A version of the layout that is never reached.
const NOBODYS_VERSION: u64 = 1 << 52;
const SETTLE_EVERY: Duration = Duration::from_millis(2);
/// How often a step is tried whose rows subscribers and orders hold for longer than a lock wait.
const ATTEMPTS: usize = 10;

/// What a run did.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resharded {
    /// How many shards there are now.
    pub shards: u64,
    /// Slots that moved.
    pub slots: usize,
    /// Accounts that moved with them.
    pub accounts: usize,
    /// The longest that anything had to wait, in ms.
    pub longest_pause_ms: u64,
}

/// Why it did not end; running it again is right.
#[derive(Debug, thiserror::Error)]
pub enum ReshardError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// A shard could not be begun, or rebuilt.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Somebody else is at it.
    #[error("another process is changing the number of shards")]
    Busy,
    /// It makes no sense.
    #[error("there are 1 to 64 shards")]
    Number,
    /// A shard's Redis holds another epoch.
    #[error("shard {0} is fenced: recover it first")]
    Fenced(u64),
    /// MySQL does not follow.
    #[error("mysql has not settled what shard {0} accepted: is a subscriber running?")]
    Unsettled(u64),
}

/// Divides the ledger into another number of shards.
///
/// # Errors
/// [`ReshardError`]; what was not moved stays where it is, and running it again goes on.
pub async fn reshard(
    config: &Config,
    pool: &MySqlPool,
    target: u64,
    progress: Progress<'_>,
) -> Result<Resharded, ReshardError> {
    if !(1..=SHARDS_MAX).contains(&target) {
        return Err(ReshardError::Number);
    }
    let claim = jobs::claim(pool, JOB).await?.ok_or(ReshardError::Busy)?;
    let mover = Mover { config, pool };
    let before = layouts::load(pool).await?.shards;
    mover.mend(before).await?;
    if target > before {
        mover.grow(before, target).await?;
    } else {
        layouts::set_shards(pool, before).await?;
    }
    let mut done = Resharded {
        shards: target,
        ..Resharded::default()
    };
    let layout = layouts::load(pool).await?;
    layouts::stay(pool, &layout.halfway(|slot| jump(slot, target))).await?;
    let moves = moves(&layout, target);
    let all = moves.iter().map(|(_, slots)| slots.len()).sum::<usize>();
    for (way, slots) in moves {
        let started = Instant::now();
        match mover.move_for_certain(way, &slots).await {
            Ok(accounts) => done.accounts += accounts,
            Err(error) => {
                // They stay where they were; nothing of them was decided anywhere else.
                layouts::stay(pool, &slots).await?;
                return Err(error);
            }
        }
        let pause = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        done.longest_pause_ms = done.longest_pause_ms.max(pause);
        done.slots += slots.len();
        progress(done.slots as u64, all as u64);
    }
    if target < before {
        mover.shrink(before, target).await?;
    }
    claim.succeed().await?;
    Ok(done)
}

/// Makes every instance read the layout again before it decides anything more on a shard.
///
/// # Errors
/// [`ReshardError`] when Redis or MySQL does not answer; doing it again is right.
pub async fn tell(config: &Config, pool: &MySqlPool, shard: u64) -> Result<(), ReshardError> {
    let mover = Mover { config, pool };
    let version = mover.begin_move(&[], (shard, shard)).await?;
    mover.raise(shard, version).await?;
    Ok(())
}

/// Which slots move from where to where, a few at a time.
fn moves(layout: &Layout, target: u64) -> Vec<((u64, u64), Vec<u16>)> {
    let mut ways = std::collections::BTreeMap::<(u64, u64), Vec<u16>>::new();
    for slot in 0..SLOTS {
        let (from, to) = (layout.owner(slot), jump(slot, target));
        if from != to {
            ways.entry((from, to)).or_default().push(slot);
        }
    }
    ways.into_iter()
        .flat_map(|(way, slots)| {
            let parts: Vec<Vec<u16>> = slots.chunks(TOGETHER).map(<[u16]>::to_vec).collect();
            parts.into_iter().map(move |part| (way, part))
        })
        .collect()
}

struct Mover<'a> {
    config: &'a Config,
    pool: &'a MySqlPool,
}

impl Mover<'_> {
    fn keys(&self, shard: u64) -> Keys {
        Keys::new(&self.config, shard)
    }

    async fn connect(&self, shard: u64) -> Result<MultiplexedConnection, RedisError> {
        recover::connect(self.config, &self.keys(shard)).await
    }

    /// Begins new shards. One whose number was in use before takes back what names it from the first.
    async fn grow(&self, before: u64, target: u64) -> Result<(), ReshardError> {
        let mut back = Vec::new();
        for shard in before..target {
            if !recover::begin_shard(self.config, self.pool, shard).await? {
                back.push(shard);
            }
        }
        layouts::set_shards(self.pool, target).await?;
        if !back.is_empty() {
            // What names them is theirs now: the first one must not decide it any more.
            let version = self.begin_move(&[], (0, 0)).await?;
            self.freeze(0, version).await?;
        }
        self.mend(target).await
    }

    /// Rebuilds shards that are in use and were given up, wholly or by a run that was cut off on the way to it, and
    /// tells Redis the versions that a run which was cut off told only MySQL.
    async fn mend(&self, shards: u64) -> Result<(), ReshardError> {
        let layout = layouts::load(self.pool).await?.at_rest();
        for shard in 0..shards {
            let mut redis = self.connect(shard).await?;
            let head = epoch::head(&mut redis, &self.keys(shard)).await?;
            if head.is_none_or(|head| head.epoch.is_empty() || head.layout == NOBODYS_VERSION) {
                shards::follow_switch(self.pool, shard).await?;
                recover::recover_as(self.config, self.pool, (shard, &layout)).await?;
            } else {
                self.raise(shard, layout.version(shard)).await?;
            }
        }
        Ok(())
    }

    /// Refuses what was routed by an earlier layout; returns the number of the last entry before.
    async fn raise(&self, shard: u64, version: u64) -> Result<u64, ReshardError> {
        let mut redis = self.connect(shard).await?;
        let state = shards::load(self.pool, shard).await?;
        let epoch = state.map(|state| state.epoch).unwrap_or_default();
        let number: i64 = cmd("EVAL")
            .arg(SCRIPTS.relayout.text)
            .arg(1)
            .arg(self.keys(shard).epoch())
            .arg(epoch)
            .arg(version)
            .query_async(&mut redis)
            .await?;
        let number = u64::try_from(number).or(Err(ReshardError::Fenced(shard)))?;
        replicated(&mut redis).await?;
        Ok(number)
    }

    /// The same, and waits until MySQL has all that was accepted before.
    async fn freeze(&self, shard: u64, version: u64) -> Result<(), ReshardError> {
        let number = self.raise(shard, version).await?;
        let started = Instant::now();
        loop {
            let state = shards::load(self.pool, shard).await?;
            if state.is_some_and(|state| state.number >= number) {
                return Ok(());
            }
            if started.elapsed() > SETTLE_MAX {
                return Err(ReshardError::Unsettled(shard));
            }
            tokio::time::sleep(SETTLE_EVERY).await;
        }
    }

    async fn begin_move(&self, slots: &[u16], way: (u64, u64)) -> Result<u64, sqlx::Error> {
        for _ in 1..ATTEMPTS {
            match layouts::begin_move(self.pool, slots, way).await {
                Err(error) if is_passing(&error) => again(&error),
                begun => return begun,
            }
        }
        layouts::begin_move(self.pool, slots, way).await
    }

    /// Moves slots, from the first step on when MySQL rolled the last one back: given up now, they would wait until
    /// somebody runs it again.
    async fn move_for_certain(
        &self,
        way: (u64, u64),
        slots: &[u16],
    ) -> Result<usize, ReshardError> {
        for _ in 1..ATTEMPTS {
            match self.move_slots(way, slots).await {
                Err(ReshardError::Database(error)) if is_passing(&error) => again(&error),
                moved => return moved,
            }
        }
        self.move_slots(way, slots).await
    }

    async fn move_slots(
        &self,
        (from, to): (u64, u64),
        slots: &[u16],
    ) -> Result<usize, ReshardError> {
        let version = self.begin_move(slots, (from, to)).await?;
        self.freeze(from, version).await?;
        let mut redis = self.connect(to).await?;
        let (keys, layout) = (self.keys(to), layouts::load(self.pool).await?);
        let scope = Scope::Slots(slots.iter().copied().collect::<BTreeSet<u16>>());
        let mut rebuild = Rebuild {
            redis: &mut redis,
            keys: &keys,
            layout: &layout,
            scope: &scope,
            filling: Filling::Directly,
        };
        let mut transaction = self.pool.begin().await?;
        let names = accounts_in(&mut transaction, from, slots).await?;
        let levels = accounts::read(&mut transaction, &names).await?;
        let levels: Vec<_> = levels.into_iter().collect();
        for part in levels.chunks(1_000) {
            rebuild.set_levels(part).await?;
        }
        let epoch = shards::load(self.pool, to).await?.map(|state| state.epoch);
        let epoch = epoch.ok_or(ReshardError::Fenced(to))?;
        rebuild.begin_sales(&mut transaction, &epoch).await?;
        rebuild.write_slot_marks(&mut transaction).await?;
        replicated(&mut redis).await?;
        for part in names.chunks(256) {
            accounts::set_shard(&mut transaction, part, to).await?;
        }
        layouts::end_move(&mut transaction, slots, (from, to)).await?;
        transaction.commit().await?;
        self.forget(from, &names).await?;
        Ok(names.len())
    }

    /// What has moved away is of no use where it was.
    async fn forget(&self, from: u64, names: &[Account]) -> Result<(), ReshardError> {
        let (mut redis, keys) = (self.connect(from).await?, self.keys(from));
        for part in names.chunks(500) {
            let mut gone = pipe();
            for name in part {
                let Address { key, field } = keys.address(*name);
                match field {
                    None => gone.cmd("UNLINK").arg(key),
                    Some(field) => gone.cmd("HDEL").arg(key).arg(field),
                };
            }
            let _: () = gone.ignore().query_async(&mut redis).await?;
        }
        Ok(())
    }

    /// Gives up the last shards, on which nothing lies any more but what names them.
    async fn shrink(&self, before: u64, target: u64) -> Result<(), ReshardError> {
        for shard in target..before {
            // Nobody can name this version: from here on nothing is decided there.
            self.freeze(shard, NOBODYS_VERSION).await?;
        }
        let mut redis = self.connect(0).await?;
        let (keys, mut layout) = (self.keys(0), layouts::load(self.pool).await?);
        layout.shards = target;
        for shard in target..before {
            let scope = Scope::Number(shard);
            let mut rebuild = Rebuild {
                redis: &mut redis,
                keys: &keys,
                layout: &layout,
                scope: &scope,
                filling: Filling::Directly,
            };
            let mut transaction = self.pool.begin().await?;
            let keep_ms = self.config.marks_keep_ms;
            rebuild.write_marks(&mut transaction, keep_ms).await?;
            rebuild.write_holds(&mut transaction).await?;
            rebuild.write_branch_marks(&mut transaction).await?;
            rebuild.write_branch_holds(&mut transaction).await?;
            rebuild.write_keys(&mut transaction, self.config).await?;
            transaction.commit().await?;
        }
        layouts::set_shards(self.pool, target).await?;
        for shard in target..before {
            let mut redis = self.connect(shard).await?;
            let _: i64 = cmd("HDEL")
                .arg(self.keys(shard).epoch())
                .arg("epoch")
                .query_async(&mut redis)
                .await?;
        }
        Ok(())
    }
}

/// Waits until the replicas have what was written: no entry of the journal would tell that it is missing.
async fn replicated(redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
    const TIMEOUT_MS: u64 = 2_000;
    let info: String = cmd("INFO").arg("replication").query_async(redis).await?;
    let replicas = info
        .lines()
        .find_map(|line| line.strip_prefix("connected_slaves:"));
    let replicas: u64 = replicas
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0);
    if replicas > 0 {
        let wait = cmd("WAIT").arg(replicas).arg(TIMEOUT_MS).to_owned();
        let _have: u64 = wait.query_async(redis).await?;
    }
    Ok(())
}

fn again(error: &sqlx::Error) {
    tracing::info!(%error, "a step is done again");
}

/// The accounts of a shard that are in some slots, by the same hash as [`crate::layout::slot`].
async fn accounts_in(
    transaction: &mut Transaction<'static, MySql>,
    shard: u64,
    slots: &[u16],
) -> Result<Vec<Account>, sqlx::Error> {
    const KINDS: [(AccountKind, &str); 6] = [
        (
            AccountKind::Available,
            "CRC32(CONCAT('product:', owner_id))",
        ),
        (AccountKind::Reserved, "CRC32(CONCAT('product:', owner_id))"),
        (AccountKind::Coupon, "CRC32(CONCAT('coupon:', owner_id))"),
        (AccountKind::Points, "CRC32(CONCAT('user:', owner_id))"),
        (AccountKind::Hold, "CRC32(CONCAT('user:', owner_id))"),
        (AccountKind::Bucket, "place_id"),
    ];
    let mut found = Vec::new();
    let of_kind = |kind| move |(owner, place)| Account { kind, owner, place };
    for (kind, hash) in KINDS {
        let mut query: QueryBuilder<MySql> =
            QueryBuilder::new("SELECT owner_id, place_id FROM accounts WHERE kind = ");
        query.push_bind(kind.as_str()).push(" AND shard = ");
        query.push_bind(shard);
        query.push(format!(" AND {hash} MOD {SLOTS} IN "));
        push_list(&mut query, slots);
        let rows: Vec<(u64, u64)> = query.build_query_as().fetch_all(&mut **transaction).await?;
        found.extend(rows.into_iter().map(of_kind(kind)));
    }
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(format!(
        "SELECT a.owner_id, a.place_id FROM sales s JOIN accounts a ON a.kind = 'ALLOWANCE' AND \
         a.owner_id = s.id WHERE CRC32(CONCAT('product:', s.product_id)) MOD {SLOTS} IN "
    ));
    push_list(&mut query, slots);
    query.push(" AND a.shard = ").push_bind(shard);
    let rows: Vec<(u64, u64)> = query.build_query_as().fetch_all(&mut **transaction).await?;
    found.extend(rows.into_iter().map(of_kind(AccountKind::Allowance)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::moves;
    use crate::layout::Layout;

    #[test]
    fn only_what_has_another_place_moves() {
        let growing = moves(&Layout::new(3), 4);
        assert!(growing.iter().all(|&((_, to), _)| to == 3));
        assert!(
            growing
                .iter()
                .all(|(_, slots)| slots.len() <= super::TOGETHER)
        );
        let shrinking = moves(&Layout::new(4), 3);
        assert!(shrinking.iter().all(|&((from, to), _)| from == 3 && to < 3));
        assert!(moves(&Layout::new(5), 5).is_empty());
    }
}
