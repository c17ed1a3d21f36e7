//! Verifies each level in Redis against MySQL's level and the postings that are not settled.

use std::collections::HashMap;

use sqlx::MySqlPool;
use stock_domain::account::{Account, Level};
use stock_domain::posting::Posted;
use stock_domain::shard_state::ShardState;
use stock_mysql::{accounts, quarantine, shards};
use stock_redis::{Ledger, ReadError, Shard, epoch};

use super::tail::Unsettled;
use super::{Difference, VerifyError, level_text};

const PAGE: u32 = 2_000;
/// How often a page is read again when the watermark's entry left the journal meanwhile, and how
/// often an account that moved to another shard is looked for.
const ATTEMPTS: usize = 5;

/// An account whose level in Redis is not what its postings say.
#[derive(Debug, Clone)]
pub struct Drift {
    /// The shard of the account.
    pub shard: u64,
    /// The account.
    pub account: Account,
    /// The level in Redis; `None` when Redis lacks the account or the level cannot be read.
    pub found: Option<Level>,
    /// The level that its postings say, settled or not.
    pub truth: Level,
    /// The difference, as a text for people.
    pub difference: Difference,
}

/// The findings of a comparison.
#[derive(Debug, Default)]
pub struct Compared {
    /// Accepted entries that MySQL had not settled.
    pub lag_entries: u64,
    /// The accounts whose levels differ.
    pub drifts: Vec<Drift>,
}

/// Compares the level of every account that MySQL knows with Redis.
///
/// # Errors
/// [`VerifyError`] when one of the two does not answer.
pub async fn compare(pool: &MySqlPool, ledger: &Ledger) -> Result<Compared, VerifyError> {
    Ok(compare_all(pool, ledger).await?.0)
}

/// Like [`compare`], with the differences that a corrected level cannot repair: flags, and the
/// shards of accounts.
pub(super) async fn compare_all(
    pool: &MySqlPool,
    ledger: &Ledger,
) -> Result<(Compared, Vec<Difference>), VerifyError> {
    let (mut compared, mut others) = (Compared::default(), Vec::new());
    for shard in ledger.shards() {
        compared.lag_entries += lag(pool, &shard).await?;
    }
    let mut after = None;
    loop {
        let page = accounts::page(&mut *pool.acquire().await?, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok((compared, others));
        };
        after = Some(*last);
        let names: Vec<Account> = page.into_iter().map(|(account, _)| account).collect();
        compare_names(pool, ledger, &names, &mut compared.drifts, &mut others).await?;
    }
}

/// Compares accounts where they lie. An account that moved to another shard meanwhile is looked for
/// again.
async fn compare_names(
    pool: &MySqlPool,
    ledger: &Ledger,
    names: &[Account],
    found: &mut Vec<Drift>,
    others: &mut Vec<Difference>,
) -> Result<(), VerifyError> {
    let mut names = names.to_vec();
    for _ in 0..ATTEMPTS {
        let lie = accounts::shards_of(pool, &names).await?;
        let shards = ledger.shards();
        let (mut drifts, mut flags) = (Vec::new(), Vec::new());
        for shard in &shards {
            let is_here = |name: &&Account| lie.get(name) == Some(&shard.keys().shard());
            let own: Vec<Account> = names.iter().filter(is_here).copied().collect();
            if !own.is_empty() {
                let (own, differing) = compare_page(pool, shard, &own).await?;
                drifts.extend(own);
                flags.extend(differing);
            }
        }
        others.extend(flags);
        let is_nowhere = |(_, shard): &(&Account, &u64)| **shard >= shards.len() as u64;
        let nowhere = lie.iter().filter(is_nowhere).map(|(account, shard)| {
            let text = format!("is said to lie on shard {shard}, which there is not");
            Difference::new("redis", account, text)
        });
        others.extend(nowhere);
        let suspects: Vec<Account> = drifts.iter().map(|drift| drift.account).collect();
        let lie_now = accounts::shards_of(pool, &suspects).await?;
        let has_moved = |drift: &Drift| lie.get(&drift.account) != lie_now.get(&drift.account);
        let (moved, stay): (Vec<Drift>, Vec<Drift>) = drifts.into_iter().partition(has_moved);
        found.extend(stay);
        names = moved.into_iter().map(|drift| drift.account).collect();
        if names.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn lag(pool: &MySqlPool, ledger: &Shard) -> Result<u64, VerifyError> {
    let state = load(pool, ledger).await?;
    let mut link = ledger.link()?;
    let head = epoch::head(&mut link.read, ledger.keys())
        .await
        .map_err(ReadError::from)?;
    Ok(head.map_or(0, |head| head.number.saturating_sub(state.number)))
}

async fn load(pool: &MySqlPool, ledger: &Shard) -> Result<ShardState, VerifyError> {
    shards::load(pool, ledger.keys().shard())
        .await?
        .ok_or(VerifyError::NoEpoch)
}

async fn compare_page(
    pool: &MySqlPool,
    ledger: &Shard,
    names: &[Account],
) -> Result<(Vec<Drift>, Vec<Difference>), VerifyError> {
    for _ in 0..ATTEMPTS {
        let first = ledger.levels(names).await?;
        let state = load(pool, ledger).await?;
        let settled = settled(pool, &state, names).await?;
        // An account that stands still, as most accounts do, equals MySQL's.
        let still = |name: &Account| {
            let (found, stored) = (first.get(name), settled.get(name));
            found.map(Level::to_string) == stored.map(Level::to_string)
        };
        let names: Vec<Account> = names.iter().copied().filter(|name| !still(name)).collect();
        let names = &*names;
        if names.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let Some(unsettled) = Unsettled::read(ledger, &state).await? else {
            continue;
        };
        let again = ledger.levels(names).await?;
        let drift = |&account: &Account| {
            let stored = settled.get(&account).copied()?;
            let postings = unsettled
                .postings
                .get(&account)
                .map_or(&[][..], Vec::as_slice);
            let (found, later) = (first.get(&account).copied(), again.get(&account).copied());
            let drift = drift_of(account, stored, postings, found, later)?;
            Some(Drift {
                shard: ledger.keys().shard(),
                ..drift
            })
        };
        let flag = |account: &Account| {
            let stored = settled.get(account)?.closed;
            let expected = unsettled.closed.get(account).copied().unwrap_or(stored);
            let (found, later) = (first.get(account)?.closed, again.get(account)?.closed);
            let text = format!("closed is {found} in redis, and should be {expected}");
            // A level under quarantine shows the quarantine instead of the flag.
            let is_shown = !first.get(account)?.quarantined;
            let differs = is_shown && found == later && found != expected;
            differs.then(|| Difference::new("redis", account, text))
        };
        let flags = names.iter().filter_map(flag).collect();
        return Ok((names.iter().filter_map(drift).collect(), flags));
    }
    Err(ReadError::Fenced("the journal was trimmed while it was read".into()).into())
}

/// MySQL's levels. For accounts under quarantine, the postings that are kept aside are added.
async fn settled(
    pool: &MySqlPool,
    state: &ShardState,
    names: &[Account],
) -> Result<HashMap<Account, Level>, sqlx::Error> {
    let levels = accounts::levels(pool, names).await?;
    if !state.has_quarantine {
        return Ok(levels);
    }
    let mut levels: Vec<(Account, Level)> = levels.into_iter().collect();
    quarantine::add_kept(&mut *pool.acquire().await?, state.shard, &mut levels).await?;
    Ok(levels.into_iter().collect())
}

/// `stored` is MySQL's level, at the watermark or later. `unsettled` are the postings after the
/// watermark. `(found, later)` are the levels in Redis before and after both were read.
fn drift_of(
    account: Account,
    stored: Level,
    unsettled: &[Posted],
    found: Option<Level>,
    later: Option<Level>,
) -> Option<Drift> {
    let mut truth = stored;
    let mut at_found = (found.map(|level| level.seq) == Some(stored.seq)).then_some(stored.balance);
    let mut chains = true;
    for posted in unsettled {
        // The level that Redis showed first may be older than postings that MySQL has settled
        // since.
        if found.is_some_and(|level| level.seq == posted.seq) {
            at_found = Some(posted.balance_after);
        }
        if posted.seq <= truth.seq {
            continue;
        }
        chains &= posted.seq == truth.seq + 1
            && truth.balance.checked_add(posted.delta) == Some(posted.balance_after);
        truth = Level {
            balance: posted.balance_after,
            seq: posted.seq,
            closed: truth.closed,
            ..Level::default()
        };
    }
    let detail = match (found, later) {
        (None, _) | (_, None) => format!("is missing in redis, should be {}", level_text(truth)),
        (Some(_), Some(later)) if later.seq < stored.seq => {
            format!(
                "redis has {}, mysql already {}",
                level_text(later),
                level_text(stored)
            )
        }
        _ if !chains => format!(
            "the journal does not chain from mysql's {}",
            level_text(stored)
        ),
        (Some(found), _) if found.seq > truth.seq => {
            format!("redis has {}, no such posting", level_text(found))
        }
        // Between the two reads MySQL settled past the first level, so its postings are no longer
        // unsettled.
        (Some(found), Some(later)) if at_found.is_none() && later.seq > found.seq => return None,
        (Some(found), _) if at_found != Some(found.balance) => {
            format!(
                "redis has {}, its postings say {}",
                level_text(found),
                level_text(truth)
            )
        }
        _ => return None,
    };
    Some(Drift {
        shard: 0,
        account,
        found,
        truth,
        difference: Difference::new("redis", account, detail),
    })
}

#[cfg(test)]
mod tests {
    use stock_common::id::{LocationId, ProductId};

    use super::drift_of;
    use stock_domain::account::{Account, Level};
    use stock_domain::posting::Posted;

    const fn level(balance: i64, seq: u64) -> Level {
        Level {
            balance,
            seq,
            closed: false,
            quarantined: false,
        }
    }

    /// Redis before and after, MySQL, and what is unsettled as (seq, delta, balance after).
    fn check(redis: (Level, Level), mysql: Level, unsettled: &[(u64, i64, i64)], drifts: bool) {
        let account = Account::available(ProductId(1), LocationId::ONLINE);
        let postings: Vec<Posted> = unsettled
            .iter()
            .map(|&(seq, delta, balance_after)| Posted {
                account,
                seq,
                delta,
                balance_after,
            })
            .collect();
        let found = drift_of(account, mysql, &postings, Some(redis.0), Some(redis.1));
        assert_eq!(found.is_some(), drifts, "{found:?}");
    }

    #[test]
    fn a_level_of_any_posting_is_right_and_any_other_level_is_a_drift() {
        let same = |at: Level| (at, at);
        check(same(level(10, 3)), level(10, 3), &[], false);
        check(
            same(level(8, 5)),
            level(10, 3),
            &[(4, -1, 9), (5, -1, 8)],
            false,
        );
        check(
            (level(9, 4), level(8, 5)),
            level(10, 3),
            &[(4, -1, 9), (5, -1, 8)],
            false,
        );
        check((level(9, 4), level(8, 5)), level(8, 5), &[], false);
        check(
            (level(9, 4), level(8, 5)),
            level(8, 5),
            &[(4, -1, 9), (5, -1, 8)],
            false,
        );
        check(same(level(11, 3)), level(10, 3), &[], true);
        check(same(level(10, 2)), level(10, 3), &[], true);
        check(same(level(8, 5)), level(10, 3), &[(4, -1, 9)], true);
        check(
            same(level(8, 5)),
            level(11, 3),
            &[(4, -1, 9), (5, -1, 8)],
            true,
        );
    }
}
