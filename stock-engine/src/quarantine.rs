//! Quarantine: nothing is taken from an account whose postings do not chain, until the evidence
//! says what it holds.
//!
//! [`crate::apply`] keeps the postings of such an account aside. [`flag`] makes Redis refuse
//! requests that take from it; requests that give to it are still accepted. [`release`] ends the
//! quarantine: it appends the kept postings to the level on which two of three copies agree
//! ([`crate::evidence`]), in MySQL and in Redis. No accepted entry is dropped. Evidence that
//! contradicts itself is reported and not acted on.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_domain::account::{Account, Level};
use stock_domain::posting::Posted;
use stock_mysql::quarantine::{self as table, Quarantined};
use stock_mysql::{accounts, journal, shards};
use stock_redis::{Ledger, ReadError, Shard};

use crate::evidence::{Contradiction, Evidence, EvidenceError, Seen};

/// How often the change of a moving level is tried, and how often a busy account is looked at
/// again.
const ATTEMPTS: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Why a quarantine goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// Redis did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The account is not under quarantine.
    #[error("the account is not under quarantine")]
    Missing,
    /// Entries that touch the account are not settled yet, or another process holds the shard.
    #[error("entries of the account are not settled yet: try again")]
    Busy,
    /// The copies do not agree on what the account holds.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// More was taken from the account than it had.
    #[error(
        "{0} units more were taken from the account than it had: receive them, or cancel orders, and try again"
    )]
    Short(i64),
}

impl From<EvidenceError> for ReleaseError {
    fn from(error: EvidenceError) -> Self {
        match error {
            EvidenceError::Database(error) => Self::Database(error),
            EvidenceError::Read(error) => Self::Read(error),
        }
    }
}

/// Makes Redis refuse requests that take from a shard's accounts under quarantine. Running it again
/// is right.
///
/// # Errors
/// [`ReleaseError`] when a server does not answer.
pub async fn flag(pool: &MySqlPool, shard: &Shard) -> Result<(), ReleaseError> {
    let number = shard.keys().shard();
    let mut connection = pool.acquire().await?;
    let names = table::of_shard(&mut connection, number).await?;
    drop(connection);
    if unflagged(shard, names).await?.is_empty() {
        return Ok(());
    }
    // Under the shard's lock nobody can end a quarantine meanwhile.
    let mut transaction = pool.begin().await?;
    if shards::try_lock(&mut transaction, number).await?.is_none() {
        return Ok(());
    }
    let names = table::of_shard(&mut transaction, number).await?;
    for (account, mut level) in unflagged(shard, names).await? {
        for _ in 0..ATTEMPTS {
            let flagged = Level {
                quarantined: true,
                ..level
            };
            let found = level.value_of(account);
            if shard.correct(account, &found, flagged).await? {
                break;
            }
            match shard.levels(&[account]).await?.remove(&account) {
                Some(now) if !now.quarantined => level = now,
                _ => break,
            }
        }
    }
    transaction.rollback().await?;
    Ok(())
}

async fn unflagged(
    shard: &Shard,
    names: impl IntoIterator<Item = Account>,
) -> Result<HashMap<Account, Level>, ReadError> {
    let names: Vec<Account> = names.into_iter().collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let mut levels = shard.levels(&names).await?;
    levels.retain(|_, level| !level.quarantined);
    Ok(levels)
}

/// Ends a quarantine; returns the account's level. With `force`, MySQL is believed where the
/// evidence contradicts itself: the chain of postings if it holds, otherwise the account's row.
///
/// # Errors
/// [`ReleaseError`]; the quarantine goes on.
pub async fn release(
    pool: &MySqlPool,
    ledger: &Ledger,
    account: Account,
    force: bool,
) -> Result<Level, ReleaseError> {
    // Follow a long chain before the shard is locked, so that little is left to follow under the
    // lock.
    let seen = Seen::read(&mut *pool.acquire().await?, account).await?;
    for _ in 0..ATTEMPTS {
        match try_release(pool, ledger, account, &seen, force).await {
            Err(ReleaseError::Busy) => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
    Err(ReleaseError::Busy)
}

async fn try_release(
    pool: &MySqlPool,
    ledger: &Ledger,
    account: Account,
    seen: &Seen,
    force: bool,
) -> Result<Level, ReleaseError> {
    let mut transaction = pool.begin().await?;
    let found = table::find(&mut transaction, account).await?;
    let Quarantined { shard, .. } = found.ok_or(ReleaseError::Missing)?;
    let state = shards::try_lock(&mut transaction, shard).await?;
    let state = state.ok_or(ReleaseError::Busy)?;
    let shard = ledger.shard(shard)?;
    let evidence = Evidence::gather(&mut transaction, &shard, &state, account, seen).await?;
    if !evidence.unsettled.is_empty() {
        return Err(ReleaseError::Busy);
    }
    let kept = table::kept(&mut transaction, account).await?;
    let base = match evidence.agreed(kept.iter().map(|(_, posted)| posted)) {
        Err(_contradiction) if force => evidence.believed(),
        agreed => agreed?,
    };
    let postings = rechain(base, &kept)?;
    let last = postings.last().map_or(base, |(_, posted)| Level {
        balance: posted.balance_after,
        seq: posted.seq,
        ..base
    });
    // Redis first: when MySQL does not commit, the quarantine goes on with the same evidence.
    let is_untouched = last.seq == 0 && evidence.in_redis.is_empty();
    if !is_untouched && !shard.correct(account, &evidence.in_redis, last).await? {
        return Err(ReleaseError::Busy);
    }
    table::remove_behind(&mut transaction, account, base.seq, state.watermark).await?;
    journal::insert_postings(&mut transaction, &postings).await?;
    if last.seq > 0 {
        accounts::write(&mut transaction, state.shard, &[(account, last)]).await?;
    }
    table::end(&mut transaction, account, state.watermark).await?;
    transaction.commit().await?;
    tracing::warn!(%account, ?last, kept = kept.len(), "a quarantine is ended");
    Ok(last)
}

/// Numbers the kept postings on from a level. They keep their order unless a balance would fall
/// below zero; then those that give come first.
fn rechain(
    base: Level,
    kept: &[(Position, Posted)],
) -> Result<Vec<(Position, Posted)>, ReleaseError> {
    let total: i64 = kept.iter().map(|(_, posted)| posted.delta).sum();
    if base.balance + total < 0 {
        return Err(ReleaseError::Short(-(base.balance + total)));
    }
    let mut ordered = kept.to_vec();
    for gives_first in [false, true] {
        if gives_first {
            ordered.sort_by_key(|(_, posted)| posted.delta < 0);
        }
        let mut level = base;
        let numbered = ordered.iter().map(|(position, posted)| {
            level.balance += posted.delta;
            level.seq += 1;
            let posted = Posted {
                seq: level.seq,
                balance_after: level.balance,
                ..*posted
            };
            (*position, posted)
        });
        let numbered: Vec<(Position, Posted)> = numbered.collect();
        if numbered.iter().all(|(_, posted)| posted.balance_after >= 0) {
            return Ok(numbered);
        }
    }
    Err(ReleaseError::Short(0))
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, Position, ProductId};

    use super::{ReleaseError, rechain};
    use stock_domain::account::{Account, Level};
    use stock_domain::posting::Posted;

    fn level(balance: i64, seq: u64) -> Level {
        Level {
            balance,
            seq,
            ..Level::default()
        }
    }

    fn account() -> Account {
        Account::available(ProductId(1), LocationId::ONLINE)
    }

    fn kept(deltas: &[i64]) -> Vec<(Position, Posted)> {
        let posted = |(at, delta): (usize, &i64)| {
            let posted = Posted {
                account: account(),
                seq: 70 + at as u64,
                delta: *delta,
                balance_after: 900,
            };
            (Position::new(at as u64), posted)
        };
        deltas.iter().enumerate().map(posted).collect()
    }

    fn balances(base: Level, deltas: &[i64]) -> Option<Vec<(u64, i64)>> {
        let numbered = rechain(base, &kept(deltas)).ok()?;
        let of = numbered
            .iter()
            .map(|(_, posted)| (posted.seq, posted.balance_after));
        Some(of.collect())
    }

    #[test]
    fn kept_postings_follow_the_level_and_never_fall_below_zero() {
        assert_eq!(balances(level(5, 3), &[]), Some(vec![]));
        assert_eq!(balances(level(5, 3), &[-2, -3]), Some(vec![(4, 3), (5, 0)]));
        assert_eq!(balances(level(5, 3), &[-6, 2]), Some(vec![(4, 7), (5, 1)]));
        assert_eq!(balances(level(5, 3), &[-6]), None);
        assert!(matches!(
            rechain(level(5, 3), &kept(&[-4, -4])),
            Err(ReleaseError::Short(3))
        ));
    }
}
