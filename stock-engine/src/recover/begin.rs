//! Epochs: the first one of a shard, and the next one after a loss.

use redis::aio::MultiplexedConnection;
use sqlx::{MySql, MySqlPool, Transaction};
use stock_common::config::Config;
use stock_common::id::{Position, UserId};
use stock_domain::journal::{Draft, Entry, VERSION};
use stock_domain::selling;
use stock_domain::shard_map::ShardMap;
use stock_domain::shard_state::ShardState;
use stock_mysql::shard_map;
use stock_redis::epoch::{self, Beginning, Head};
use stock_redis::keys::Keys;

use super::{RecoverError, connect};
use crate::apply;

/// Writes the first epoch of each shard of a new database, and skips shards that have one. Returns
/// whether it wrote any.
///
/// # Errors
/// [`RecoverError`]. The call may be repeated.
pub async fn begin_first(config: &Config, pool: &MySqlPool) -> Result<bool, RecoverError> {
    let map = shard_map::write_down(pool, config.shards()).await?;
    let mut has_begun = false;
    for shard in 0..map.map_or(0, ShardMap::shards) {
        has_begun |= begin_shard(config, pool, shard).await?;
    }
    Ok(has_begun)
}

/// Writes the first epoch of a shard; does nothing when there is one.
///
/// # Errors
/// [`RecoverError`]. The call may be repeated.
pub async fn begin_shard(
    config: &Config,
    pool: &MySqlPool,
    shard: u64,
) -> Result<bool, RecoverError> {
    let keys = Keys::new(config, shard);
    let mut redis = connect(config, &keys).await?;
    let mut transaction = pool.begin().await?;
    // One of several processes inserts this row; the others wait for its commit.
    let inserted =
        sqlx::query("INSERT IGNORE INTO shards (shard, watermark, number) VALUES (?, 0, 0)")
            .bind(shard)
            .execute(&mut *transaction)
            .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    let old = epoch::head(&mut redis, &keys).await?;
    // Entries beyond the first are a history that this empty database does not know.
    if old.as_ref().is_some_and(|old| old.number > 1) {
        return Err(RecoverError::Foreign);
    }
    // A new shard sells if shard 0 does.
    let selling: Option<bool> = sqlx::query_scalar("SELECT selling FROM shards WHERE shard = 0")
        .fetch_optional(&mut *transaction)
        .await?;
    let mut state = ShardState {
        shard,
        watermark: Position::ZERO,
        number: 0,
        selling: selling.unwrap_or(true),
        epoch: String::new(),
        has_quarantine: false,
    };
    let beginning = next_epoch(&mut redis, &mut transaction, &state, old).await?;
    begin(&mut transaction, &mut state, &beginning).await?;
    epoch::begin(&mut redis, &keys, &beginning).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Chooses an epoch, and a position above every known one: of MySQL's journal, of the old journal,
/// and of the entries that are listed as lost.
pub(super) async fn next_epoch(
    redis: &mut MultiplexedConnection,
    transaction: &mut Transaction<'static, MySql>,
    state: &ShardState,
    old: Option<Head>,
) -> Result<Beginning, RecoverError> {
    let known: Option<u64> = sqlx::query_scalar(
        "SELECT MAX(id) FROM (SELECT MAX(id) AS id FROM journal UNION ALL \
         SELECT MAX(journal_id) FROM lost_entries) known",
    )
    .fetch_one(&mut **transaction)
    .await?;
    let highest = Position::new(known.unwrap_or(0))
        .max(old.map_or(Position::ZERO, |old| old.position))
        .max(state.watermark);
    let now = epoch::time_ms(redis).await?;
    let ms = now.max(if highest == Position::ZERO {
        0
    } else {
        highest.unix_ms() + 1
    });
    let position = Position::from_parts(ms, state.shard << 16).unwrap_or(highest.plus(1));
    let epoch = format!("{:032x}", rand::random::<u128>());
    let payload = selling::epoch_begun(&epoch)?.payload(None)?;
    let number = state.number + 1;
    Ok(Beginning {
        epoch,
        position,
        number,
        selling: state.selling,
        payload,
    })
}

/// Writes the epoch's first entry to MySQL, settled.
pub(super) async fn begin(
    transaction: &mut Transaction<'static, MySql>,
    state: &mut ShardState,
    beginning: &Beginning,
) -> Result<(), RecoverError> {
    let draft: Draft = selling::epoch_begun(&beginning.epoch)?;
    let entry = Entry {
        position: beginning.position,
        number: beginning.number,
        kind: draft.kind,
        version: VERSION,
        actor: UserId::ENGINE,
        reference: None,
        idempotency: None,
        postings: Vec::new(),
        transitions: Vec::new(),
        closings: Vec::new(),
        selling: None,
        branches: Vec::new(),
        body: draft.body,
        payload: beginning.payload.clone(),
    };
    apply::write(transaction, state, &[entry]).await?;
    sqlx::query(
        "INSERT INTO epochs (shard, epoch) VALUES (?, ?) \
         ON DUPLICATE KEY UPDATE epoch = VALUES(epoch)",
    )
    .bind(state.shard)
    .bind(&beginning.epoch)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
