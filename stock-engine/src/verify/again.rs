//! Repeated looks. A value that differs only because it moved meanwhile is no difference, so a look
//! is repeated when MySQL has followed.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_redis::Ledger;

use super::pass::Courses;
use super::round::Due;
use super::{Difference, VerifyError, ends, journal, memory, strays};
use crate::lookup;

/// Most looks at one thing.
pub(super) const LOOKS: usize = 3;
/// How long a look waits for MySQL to settle what Redis had accepted.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two looks.
const BETWEEN: Duration = Duration::from_millis(200);

/// Waits until MySQL has settled what was accepted before, at most for [`PATIENCE`].
pub(super) async fn settle(pool: &MySqlPool, ledger: &Ledger) {
    lookup::catch_up(pool, ledger, PATIENCE).await;
    tokio::time::sleep(BETWEEN).await;
}

/// Keeps only the differences that are found again.
pub(super) fn keep(found: &mut Vec<Difference>, again: &[Difference]) {
    let is_there = |of: &Difference| {
        let is_same = |other: &Difference| (other.check, &other.subject) == (of.check, &of.subject);
        again.iter().any(is_same)
    };
    found.retain(is_there);
}

/// Something that is looked at as a whole.
pub(super) enum Look<'a> {
    /// Things that ended, in these buckets.
    Ends(&'a [usize]),
    /// Dead letters, against the orders without a row that were taken back.
    Letters(&'a Courses, &'a HashMap<Position, &'static str>),
    /// Rows that no position leads to.
    Strays {
        /// Whether the slow checks are included.
        full: bool,
    },
    /// Redis' data besides levels and holds; only the parts that are due.
    Memory(Due),
}

impl Look<'_> {
    async fn take(
        &self,
        pool: &MySqlPool,
        ledger: &Ledger,
    ) -> Result<Vec<Difference>, VerifyError> {
        match self {
            Self::Ends(left) => ends::differing(pool, left).await,
            Self::Letters(courses, rowless) => journal::letters(pool, courses, rowless).await,
            Self::Strays { full } => strays::differing(pool, *full).await,
            Self::Memory(due) => memory(pool, ledger, *due).await,
        }
    }
}

/// The differences that every look finds.
pub(super) async fn twice(
    pool: &MySqlPool,
    ledger: &Ledger,
    look: Look<'_>,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = look.take(pool, ledger).await?;
    for _ in 1..LOOKS {
        if found.is_empty() {
            break;
        }
        settle(pool, ledger).await;
        keep(&mut found, &look.take(pool, ledger).await?);
    }
    Ok(found)
}
