//! What differs only because it moved meanwhile is no difference: a look is taken again when MySQL has followed.

use std::time::Duration;

use sqlx::MySqlPool;

use super::{Difference, VerifyError};
use crate::ledger::Ledger;
use crate::lookup;

/// How often something is looked at at most.
pub(super) const LOOKS: usize = 3;
/// How long a look waits for MySQL to follow what Redis had accepted.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two looks.
const BETWEEN: Duration = Duration::from_millis(200);

/// Waits until what was accepted before is settled, or will not be.
pub(super) async fn settle(pool: &MySqlPool, ledger: &Ledger) {
    lookup::catch_up(pool, ledger, PATIENCE).await;
    tokio::time::sleep(BETWEEN).await;
}

/// Keeps what is found again.
pub(super) fn keep(found: &mut Vec<Difference>, again: &[Difference]) {
    let is_there = |of: &Difference| {
        let is_same = |other: &Difference| (other.check, &other.subject) == (of.check, &of.subject);
        again.iter().any(is_same)
    };
    found.retain(is_there);
}

/// What a look finds each time that it is taken.
pub(super) async fn twice(
    pool: &MySqlPool,
    ledger: &Ledger,
    mut look: impl AsyncFnMut() -> Result<Vec<Difference>, VerifyError>,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = look().await?;
    for _ in 1..LOOKS {
        if found.is_empty() {
            break;
        }
        settle(pool, ledger).await;
        keep(&mut found, &look().await?);
    }
    Ok(found)
}
