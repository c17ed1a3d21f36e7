//! The units of a product that each user holds: derived from the live holds, and kept by the script
//! that decides.
//!
//! The hash `held_units` stands beside `deadlines`, from which it can be counted anew at any time
//! ([`count_held`]). A user's field is there while the user holds something. Both keys are lost
//! together and come back together (`stock-engine` (`heal`)).

use std::collections::{BTreeMap, HashSet};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use stock_common::id::{ProductId, UserId};
use stock_domain::branch::Branch;
use stock_domain::hold::Held;
use stock_domain::request::HeldUnits;

use super::keys::{Keys, SENTINEL};
use super::scan::Scan;
use super::scripts::SCRIPTS;
use super::{Ledger, ReadError, Shard};

/// Units by `product:user`, and the number of held branches.
pub type Units = BTreeMap<String, u64>;

/// Counts anew on a shard, in one step. Redis needs about a microsecond for each live hold.
///
/// # Errors
/// When Redis does not answer.
pub async fn count_held(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<u64, RedisError> {
    // A Redis that is being filled may not have the scripts yet.
    let script = &SCRIPTS.count_held;
    let _sha: String = cmd("SCRIPT")
        .arg("LOAD")
        .arg(script.text)
        .query_async(connection)
        .await?;
    cmd("EVALSHA")
        .arg(&script.sha)
        .arg(2)
        .arg(keys.deadlines())
        .arg(keys.held_units())
        .query_async(connection)
        .await
}

/// Whether a user holds units of a product, by a reservation or a checkout.
///
/// # Errors
/// [`ReadError`] when Redis does not answer.
pub async fn is_holding(
    ledger: &Ledger,
    user: UserId,
    product: ProductId,
) -> Result<bool, ReadError> {
    // A hold counts on the shard of its first product.
    for shard in ledger.shards() {
        let mut link = shard.link()?;
        let held: Option<u64> = cmd("HGET")
            .arg(shard.keys().held_units())
            .arg(format!("{product}:{user}"))
            .query_async(&mut link.read)
            .await?;
        if held.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The units that the live holds add up to, and the units in the hash. Both may change meanwhile.
///
/// # Errors
/// [`ReadError`] when Redis does not answer.
pub async fn read(shard: &Shard) -> Result<(Units, Units), ReadError> {
    let (mut held, mut seen) = (Units::new(), HashSet::new());
    let deadlines = shard.keys().deadlines();
    let mut scan = Scan::sorted_set(&deadlines);
    while let Some(members) = scan.page_on::<Vec<(String, u64)>>(shard).await? {
        for (member, _) in members {
            // A scan may name a member twice.
            if let Some(hold) = Held::parse(&member)
                && seen.insert(hold.id)
            {
                for of in hold.units() {
                    *held.entry(of.field).or_insert(0) += u64::from(of.units);
                }
            }
            if let Some(at) = Branch::parse_member(&member)
                && seen.insert(at)
            {
                *held.entry(HeldUnits::branch().field).or_insert(0) += 1;
            }
        }
    }
    let mut kept = Units::new();
    let held_units = shard.keys().held_units();
    let mut scan = Scan::hash(&held_units);
    while let Some(fields) = scan.page_on::<Vec<(String, u64)>>(shard).await? {
        kept.extend(fields.into_iter().filter(|(field, _)| field != SENTINEL));
    }
    Ok((held, kept))
}
