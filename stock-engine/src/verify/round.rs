//! Compares again what was verified before, a part in each run, so that all of it is compared
//! within a day.
//!
//! A round covers everything that was settled when the round began. The part that is due is the
//! share of a day that has passed since the last run. A run compares at most [`ENTRIES_MAX`]
//! entries of it; the rest stays due. The ends that rows and entries state are counted over the
//! whole round ([`super::tally`]).
//!
//! Accounts are walked again from their first posting, and reports are summed again, by the same
//! measure. Each belongs to one of [`PARTS`] parts by its name, and the share of the parts that is
//! due is the share of a day that has passed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::MySqlPool;
use stock_common::clock;
use stock_common::id::{Position, Span};
use stock_domain::shard_state::ShardState;
use stock_mysql::{archives, journal};
use stock_redis::Ledger;

use super::again::{self, Look};
use super::journal::{States, archived_position, end_of};
use super::pass::{Pass, courses};
use super::proofs::{Verified, remember, verified};
use super::tally::Tally;
use super::{Report, VerifyError};

/// Most earlier entries that a run compares again.
const ENTRIES_MAX: u64 = 2_000_000;
/// Number of parts into which names are divided.
const PARTS: u64 = 1_024;
/// Most parts that a run compares again.
const PARTS_MAX: u64 = PARTS / 4;
const DAY_MS: u64 = 24 * 3_600_000;

const ROUND: &str = "round";
const NAMES: &str = "round:names";

fn of_shard(shard: u64) -> String {
    format!("{ROUND}:{shard}")
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or_default()
}

/// How much of a whole is due after a time, at most all of it.
fn due(whole: u64, passed_ms: u64) -> u64 {
    let due = u128::from(whole) * u128::from(passed_ms.min(DAY_MS)) / u128::from(DAY_MS);
    u64::try_from(due).unwrap_or(whole)
}

/// Compares again what is due.
pub(super) async fn verify(
    pool: &MySqlPool,
    ledger: &Ledger,
    states: &States,
    start: Position,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let now = ledger.redis_now_ms();
    let subjects: Vec<String> = std::iter::once(ROUND.to_owned())
        .chain(states.iter().map(|(state, _)| of_shard(state.shard)))
        .collect();
    let known = verified(pool, &subjects).await?;
    let Some(Verified { upto, balance }) = known.get(ROUND).copied() else {
        return begin(pool, states, now).await;
    };
    let then = then(pool, states, &known).await?;
    let (at, end) = (Position::new(upto), end_of(&then));
    let begin_at = archived_position(pool, states).await?;
    let whole = end.get().saturating_sub(begin_at.get());
    let passed = now.saturating_sub(unsigned(balance));
    let target = at
        .get()
        .max(begin_at.get())
        .saturating_add(due(whole, passed));
    let target = Position::new(target).min(end).min(start.max(at));
    let mut pass = Pass {
        pool,
        ledger,
        courses: courses(pool, &then, at).await?,
        tally: Some(load(pool).await?),
        rowless: HashMap::new(),
    };
    let mut reached = at.max(begin_at);
    while reached < target && report.reproved_entries < ENTRIES_MAX {
        let step = pass
            .step(
                Span {
                    after: reached,
                    upto: target,
                },
                report,
            )
            .await?;
        reached = step.at;
        report.reproved_entries += step.entries;
    }
    let tally = pass.tally.unwrap_or_else(Tally::new);
    if reached >= end {
        let left = tally.left();
        report.add(again::twice(pool, ledger, Look::Ends(&left)).await?);
        return begin(pool, states, now).await;
    }
    let until = match reached >= target {
        true => now,
        // The part that this run did not reach stays due.
        false => {
            let done = reached.get().saturating_sub(at.get());
            let share = u128::from(done) * u128::from(DAY_MS) / u128::from(whole.max(1));
            unsigned(balance).saturating_add(u64::try_from(share).unwrap_or_default())
        }
    };
    store(pool, &tally).await?;
    let upto = Verified {
        upto: reached.get(),
        balance: signed(until),
    };
    Ok(remember(pool, &[(ROUND.to_owned(), upto)]).await?)
}

/// The shards as they were when the round began.
async fn then(
    pool: &MySqlPool,
    states: &States,
    known: &HashMap<String, Verified>,
) -> Result<Vec<(ShardState, String)>, sqlx::Error> {
    let mut then = Vec::new();
    for (state, _) in states {
        // A shard that was opened since had settled nothing when the round began.
        let of = known.get(&of_shard(state.shard)).copied();
        let of = of.unwrap_or_default();
        let watermark = Position::new(of.upto);
        let next = Position::new(of.upto.saturating_add(1));
        let last = journal::last_before(pool, state.shard, next).await?;
        let archived = archives::reached(pool, state.shard).await?;
        let number = last.unwrap_or(archived).number;
        let since = clock::datetime(unsigned(of.balance));
        let then_state = ShardState {
            watermark,
            number,
            ..state.clone()
        };
        then.push((
            then_state,
            since.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        ));
    }
    Ok(then)
}

/// Begins a round over what is settled now.
async fn begin(pool: &MySqlPool, states: &States, now: u64) -> Result<(), VerifyError> {
    let mut subjects = vec![(
        ROUND.to_owned(),
        Verified {
            upto: 0,
            balance: signed(now),
        },
    )];
    for (state, since) in states {
        let since = chrono::NaiveDateTime::parse_from_str(since, "%Y-%m-%d %H:%M:%S%.f");
        let of = Verified {
            upto: state.watermark.get(),
            balance: since.map_or(signed(now), clock::unix_ms),
        };
        subjects.push((of_shard(state.shard), of));
    }
    store(pool, &Tally::new()).await?;
    Ok(remember(pool, &subjects).await?)
}

fn tally_of(bucket: usize) -> String {
    format!("tally:{bucket}")
}

async fn load(pool: &MySqlPool) -> Result<Tally, sqlx::Error> {
    let mut tally = Tally::new();
    let subjects: Vec<String> = (0..super::tally::BUCKETS).map(tally_of).collect();
    let known = verified(pool, &subjects).await?;
    for (bucket, subject) in subjects.iter().enumerate() {
        if let Some(of) = known.get(subject) {
            tally.set(bucket, of.upto);
        }
    }
    Ok(tally)
}

/// Stores the sums that are not zero.
async fn store(pool: &MySqlPool, tally: &Tally) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM proofs WHERE subject LIKE 'tally:%'")
        .execute(pool)
        .await?;
    let sums = tally.left().into_iter().map(|bucket| {
        let sum = Verified {
            upto: tally.sum(bucket),
            balance: 0,
        };
        (tally_of(bucket), sum)
    });
    remember(pool, &sums.collect::<Vec<_>>()).await
}

/// The parts of the names that a run compares again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    first: u64,
    count: u64,
}

impl Due {
    /// All parts.
    pub(super) const ALL: Self = Self {
        first: 0,
        count: PARTS,
    };

    /// No part.
    pub(super) const NONE: Self = Self { first: 0, count: 0 };

    /// Takes the parts that are due now; they count as done.
    pub(super) async fn take(pool: &MySqlPool, now: u64) -> Result<Self, sqlx::Error> {
        let subjects = [NAMES.to_owned()];
        let known = verified(pool, &subjects).await?;
        let of = known.get(NAMES).copied().unwrap_or(Verified {
            upto: 0,
            balance: signed(now),
        });
        let until = unsigned(of.balance);
        let count = due(PARTS, now.saturating_sub(until)).min(PARTS_MAX);
        let next = Verified {
            upto: (of.upto + count) % PARTS,
            // Only the time of whole parts counts as passed. If a run takes fewer parts than are
            // due, the rest stays due, for at most a day.
            balance: signed((until + count * DAY_MS / PARTS).max(now.saturating_sub(DAY_MS))),
        };
        let [subject] = subjects;
        remember(pool, &[(subject, next)]).await?;
        Ok(Self {
            first: of.upto,
            count,
        })
    }

    /// Whether all parts are compared.
    pub(super) const fn is_all(self) -> bool {
        self.count == PARTS
    }

    /// Whether the thing of this name is compared again.
    pub(super) fn has(self, name: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let part = hasher.finish() % PARTS;
        (part + PARTS - self.first % PARTS) % PARTS < self.count
    }
}

#[cfg(test)]
mod tests {
    use super::{DAY_MS, Due, PARTS, due};

    #[test]
    fn what_is_due_is_the_share_of_a_day_that_has_passed() {
        assert_eq!(due(2_400, DAY_MS / 24), 100);
        assert_eq!(due(7, 3 * DAY_MS), 7);
        assert_eq!(due(u64::MAX, DAY_MS), u64::MAX);
    }

    #[test]
    fn every_name_belongs_to_one_part() {
        let names: Vec<String> = (0..100).map(|name| format!("AVAILABLE:{name}:0")).collect();
        for name in &names {
            let parts = (0..PARTS).map(|first| Due { first, count: 1 });
            assert_eq!(parts.filter(|part| part.has(name)).count(), 1);
            assert!(Due::ALL.has(name));
        }
    }
}
