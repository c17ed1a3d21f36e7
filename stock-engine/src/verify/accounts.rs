//! Verifies the accounts: the postings of each chain without a gap, from what was archived up to
//! its level.
//!
//! Accounts that moved little since they were verified share a query; a busy account is read in
//! slices.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySqlPool};
use stock_domain::account::{Account, AccountKind, Level};
use stock_mysql::archives::{self, ArchivedLevel};
use stock_mysql::rows::{MultiRow, padded};
use stock_mysql::{accounts, archived_allowances};

use super::proofs::{Verified, remember, verified};
use super::round::Due;
use super::{Difference, Progress, Report, VerifyError, level_text};

const PAGE: u32 = 1_000;
/// Postings of one account read at once.
const SLICE: u64 = 10_000;
/// An account with at most this many new postings shares a query with others.
const FEW: u64 = 64;
/// Accounts in one query.
const TOGETHER: usize = 256;

static POSTINGS: MultiRow = MultiRow::new(
    "SELECT CAST(kind AS CHAR), owner_id, place_id, seq, delta, balance_after FROM postings \
     FORCE INDEX (PRIMARY) WHERE",
    "(kind = ? AND owner_id = ? AND place_id = ? AND seq > ? AND seq <= ?)",
    "ORDER BY kind, owner_id, place_id, seq",
);

/// A posting without its account: sequence number, change, balance afterwards.
type Step = (u64, i64, i64);

/// An account whose postings are being followed up to its level.
#[derive(Debug, Clone, Copy)]
struct Walk {
    account: Account,
    level: Level,
    at: Verified,
}

impl Walk {
    const fn missing(&self) -> u64 {
        self.level.seq.saturating_sub(self.at.upto)
    }

    /// Follows the next postings.
    fn follow(&mut self, steps: &[Step]) -> Result<(), Difference> {
        for &(seq, delta, after) in steps {
            let expected = self.at.upto + 1;
            if seq != expected {
                return Err(self.differs(format!("posting {expected} is missing")));
            }
            let before = self.at.balance;
            if before.checked_add(delta) != Some(after) || after < 0 {
                let text = format!("posting {seq} moves {before} by {delta:+} to {after}");
                return Err(self.differs(text));
            }
            self.at = Verified {
                upto: seq,
                balance: after,
            };
        }
        Ok(())
    }

    /// Checks that the account's row equals its last posting.
    fn arrive(&self) -> Result<(), Difference> {
        let (Verified { upto, balance }, level) = (self.at, self.level);
        if level.seq == 0 {
            return Err(self.differs("has no posting that opened it".to_owned()));
        }
        if upto < level.seq {
            return Err(self.differs(format!("posting {} is missing", upto + 1)));
        }
        if (upto, balance) == (level.seq, level.balance) {
            return Ok(());
        }
        let last = Level {
            seq: upto,
            balance,
            closed: level.closed,
            ..Level::default()
        };
        let text = format!(
            "is {}, its postings say {}",
            level_text(level),
            level_text(last)
        );
        Err(self.differs(text))
    }

    fn differs(&self, text: String) -> Difference {
        Difference::new("accounts", self.account, text)
    }
}

/// The accounts of `names` that MySQL has neither as accounts nor archived with their sale.
pub(super) async fn missing(
    pool: &MySqlPool,
    names: &[Account],
) -> Result<Vec<Account>, sqlx::Error> {
    let known = accounts::levels(pool, names).await?;
    let mut missing: Vec<Account> = Vec::new();
    for account in names.iter().filter(|name| !known.contains_key(name)) {
        let is_archived = account.kind == AccountKind::Allowance
            && archived_allowances::find(pool, *account).await?.is_some();
        if !is_archived {
            missing.push(*account);
        }
    }
    Ok(missing)
}

/// Walks over all accounts, those that were archived with their sales included.
pub(super) async fn verify(
    pool: &MySqlPool,
    due: Due,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), VerifyError> {
    let (all,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM accounts")
        .fetch_one(pool)
        .await?;
    let all = u64::try_from(all).unwrap_or_default();
    let mut after = None;
    loop {
        let page = accounts::page(&mut *pool.acquire().await?, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            break;
        };
        after = Some(*last);
        report.accounts += page.len() as u64;
        prove(pool, &page, due, report).await?;
        progress(report.accounts, all);
    }
    let mut after = None;
    loop {
        let page = archived_allowances::page(pool, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        report.accounts += page.len() as u64;
        prove(pool, &page, due, report).await?;
    }
}

async fn prove(
    pool: &MySqlPool,
    page: &[(Account, Level)],
    due: Due,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let subjects: Vec<String> = page
        .iter()
        .map(|(account, _)| account.to_string())
        .collect();
    // An account that is due is walked again from its first posting.
    let wanted: Vec<String> = subjects.iter().filter(|of| !due.has(of)).cloned().collect();
    let known = verified(pool, &wanted).await?;
    let archived = archived(pool, page, due, report).await?;
    let walks = page.iter().zip(&subjects).map(|(&(account, level), name)| {
        let verified = known.get(name).copied().unwrap_or_default();
        let archived = archived.get(&account).copied().unwrap_or_default();
        let at = match archived.seq > verified.upto {
            true => Verified {
                upto: archived.seq,
                balance: archived.balance,
            },
            false => verified,
        };
        Walk { account, level, at }
    });
    let (mut few, many): (Vec<Walk>, Vec<Walk>) = walks.partition(|walk| walk.missing() <= FEW);
    let mut arrived = Vec::new();
    let mut note = |walk: Walk, found: Result<(), Difference>, report: &mut Report| match found {
        Err(difference) => report.add([difference]),
        Ok(()) => arrived.push((walk.account.to_string(), walk.at)),
    };
    // An account that has not moved is compared without a query, and nothing new is remembered of
    // it.
    few.retain(|walk| {
        let found = walk.arrive();
        let is_moving = walk.missing() > 0;
        if !is_moving {
            report.add(found.err());
        }
        is_moving
    });
    for part in few.chunks(TOGETHER) {
        let steps = steps_of(pool, part).await?;
        for mut walk in part.iter().copied() {
            let own = steps.get(&walk.account).map_or(&[][..], Vec::as_slice);
            let found = walk.follow(own).and_then(|()| walk.arrive());
            note(walk, found, report);
        }
    }
    for mut walk in many {
        let found = slices(pool, &mut walk).await?;
        note(walk, found, report);
    }
    remember(pool, &arrived).await?;
    Ok(())
}

/// The archived levels, where the postings of accounts begin. For accounts that are due, it also
/// checks that no archived posting is left.
async fn archived(
    pool: &MySqlPool,
    page: &[(Account, Level)],
    due: Due,
    report: &mut Report,
) -> Result<HashMap<Account, ArchivedLevel>, sqlx::Error> {
    let names: Vec<Account> = page.iter().map(|(account, _)| *account).collect();
    let mut connection = pool.acquire().await?;
    let levels = archives::levels(&mut connection, &names).await?;
    let begun = levels.iter().map(|(name, level)| (*name, *level));
    let begun: Vec<_> = begun
        .filter(|(name, _)| due.has(&name.to_string()))
        .collect();
    if !begun.is_empty() {
        let left = archives::postings_left_behind(&mut connection, &begun).await?;
        report.add(left.into_iter().map(|(account, seq)| {
            let text = format!("posting {seq} was archived, and is still there");
            Difference::new("accounts", account, text)
        }));
    }
    Ok(levels)
}

/// The new postings of several accounts.
async fn steps_of(
    pool: &MySqlPool,
    walks: &[Walk],
) -> Result<HashMap<Account, Vec<Step>>, sqlx::Error> {
    let asked = padded(walks);
    let mut query = sqlx::query_as(AssertSqlSafe(POSTINGS.alternatives(asked.len())));
    for walk in &asked {
        query = query
            .bind(walk.account.kind.as_str())
            .bind(walk.account.owner)
            .bind(walk.account.location)
            .bind(walk.at.upto)
            .bind(walk.level.seq);
    }
    let rows: Vec<(String, u64, u64, u64, i64, i64)> = query.fetch_all(pool).await?;
    let mut steps: HashMap<Account, Vec<Step>> = HashMap::with_capacity(walks.len());
    for (kind, owner, location, seq, delta, after) in rows {
        if let Some(kind) = AccountKind::parse(&kind) {
            let account = Account {
                kind,
                owner,
                location,
            };
            steps.entry(account).or_default().push((seq, delta, after));
        }
    }
    Ok(steps)
}

/// Follows an account with many new postings, slice by slice.
async fn slices(pool: &MySqlPool, walk: &mut Walk) -> Result<Result<(), Difference>, sqlx::Error> {
    while walk.missing() > 0 {
        let end = walk.level.seq.min(walk.at.upto + SLICE);
        let steps: Vec<Step> = sqlx::query_as(
            "SELECT seq, delta, balance_after FROM postings WHERE kind = ? AND owner_id = ? \
             AND place_id = ? AND seq > ? AND seq <= ? ORDER BY seq",
        )
        .bind(walk.account.kind.as_str())
        .bind(walk.account.owner)
        .bind(walk.account.location)
        .bind(walk.at.upto)
        .bind(end)
        .fetch_all(pool)
        .await?;
        if let Err(difference) = walk.follow(&steps) {
            return Ok(Err(difference));
        }
        if walk.at.upto < end {
            return Ok(walk.arrive());
        }
    }
    Ok(walk.arrive())
}
