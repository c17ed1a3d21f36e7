//! Verifies Redis' counts of the units that users hold: each equals the sum of the live holds.

use std::collections::BTreeMap;

use stock_redis::units::{self, Units};
use stock_redis::{Ledger, ReadError, Shard};

use super::Difference;

/// How often counts that differ are read again: a hold that comes or goes meanwhile is no
/// difference.
const LOOKS: usize = 3;

/// A wrong count of held units on a shard.
#[derive(Debug, Clone)]
pub struct UnitDrift {
    /// The shard.
    pub shard: u64,
    /// The difference, as a text for people.
    pub difference: Difference,
}

/// Compares the counts of every shard.
///
/// # Errors
/// [`ReadError`] when Redis does not answer.
pub async fn compare(ledger: &Ledger) -> Result<Vec<UnitDrift>, ReadError> {
    let mut found = Vec::new();
    for shard in ledger.shards() {
        for (field, (held, kept)) in wrong(&shard).await? {
            let text = format!("redis keeps {kept:?} units as held, its live holds have {held:?}");
            found.push(UnitDrift {
                shard: shard.keys().shard(),
                difference: Difference::new("held_units", field, text),
            });
        }
    }
    Ok(found)
}

type Wrong = BTreeMap<String, (Option<u64>, Option<u64>)>;

/// Finds the fields that differ in the same way at each look.
async fn wrong(shard: &Shard) -> Result<Wrong, ReadError> {
    let mut wrong = differing(&units::read(shard).await?);
    for _ in 1..LOOKS {
        if wrong.is_empty() {
            break;
        }
        let again = differing(&units::read(shard).await?);
        wrong.retain(|field, both| again.get(field) == Some(both));
    }
    Ok(wrong)
}

fn differing((held, kept): &(Units, Units)) -> Wrong {
    let fields = held.keys().chain(kept.keys());
    let both = fields.map(|field| {
        let both = (held.get(field).copied(), kept.get(field).copied());
        (field.clone(), both)
    });
    both.filter(|(_, (held, kept))| held != kept).collect()
}
