//! Verifies the holds: each live reservation and each open checkout stands in Redis' `deadlines`,
//! and no other one does.
//!
//! A hold that is missing there would keep its stock for ever. A surplus one is only looked at in
//! vain. Redis is read first, then MySQL, then Redis again for what differs.

use std::collections::{BTreeMap, HashSet};

use redis::cmd;
use sqlx::MySqlPool;
use stock_common::id::Position;
use stock_domain::branch::Branch;
use stock_domain::checkout::{Extended, extended_state_id};
use stock_domain::hold::{Held, HoldKind, state_id};
use stock_mysql::holds::{self, LiveHold};
use stock_mysql::{dead_letters, shards};
use stock_redis::keys::SENTINEL;
use stock_redis::scan::Scan;
use stock_redis::{Ledger, ReadError, Shard};

use super::{Difference, VerifyError};

const PAGE: u32 = 1_000;

/// A member of `deadlines` that is missing or surplus.
#[derive(Debug, Clone)]
pub struct HoldDrift {
    /// The shard.
    pub shard: u64,
    /// The member.
    pub member: String,
    /// When the hold expires; `None` for a surplus member.
    pub expires_ms: Option<u64>,
    /// The difference, as a text for people.
    pub difference: Difference,
}

/// Compares every live hold with Redis.
///
/// # Errors
/// [`VerifyError`] when one of the two does not answer.
pub async fn compare(pool: &MySqlPool, ledger: &Ledger) -> Result<Vec<HoldDrift>, VerifyError> {
    let mut found = Vec::new();
    for shard in ledger.shards() {
        let state = shards::load(pool, shard.keys().shard())
            .await?
            .ok_or(VerifyError::NoEpoch)?;
        found.extend(surplus(pool, &shard, state.watermark).await?);
    }
    let mut after = Position::ZERO;
    loop {
        let page = holds::live(&mut *pool.acquire().await?, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = last.held.id;
        let mut by_shard: BTreeMap<u64, Vec<LiveHold>> = BTreeMap::new();
        for of in page {
            let shard = ledger.shard_of(of.held.id)?.keys().shard();
            by_shard.entry(shard).or_default().push(of);
        }
        for own in by_shard.values() {
            found.extend(missing(pool, ledger, own).await?);
        }
    }
}

/// The table of the holds of a kind.
const fn table(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Reservation => "reservations",
        HoldKind::Checkout => "checkouts",
    }
}

async fn scores(shard: &Shard, members: &[String]) -> Result<Vec<Option<u64>>, ReadError> {
    let mut link = shard.link()?;
    if members.is_empty() {
        return Ok(Vec::new());
    }
    Ok(cmd("ZMSCORE")
        .arg(shard.keys().deadlines())
        .arg(members)
        .query_async(&mut link.read)
        .await?)
}

/// Live holds of one shard whose member or deadline Redis lacks.
async fn missing(
    pool: &MySqlPool,
    ledger: &Ledger,
    page: &[LiveHold],
) -> Result<Vec<HoldDrift>, VerifyError> {
    let members: Vec<String> = page.iter().map(|of| of.held.member()).collect();
    let mut found = Vec::new();
    let Some(first) = page.first() else {
        return Ok(found);
    };
    let shard = ledger.shard_of(first.held.id)?;
    for (of, score) in page.iter().zip(scores(&shard, &members).await?) {
        let (id, expires_ms) = (of.held.id, of.expires_ms);
        if score == Some(expires_ms) {
            continue;
        }
        // The hold has ended or was extended, and MySQL does not know it yet or has learned it
        // since the page was read.
        if ledger.state(&state_id(id)).await?.is_some() {
            continue;
        }
        let moved = ledger.state(&extended_state_id(id)).await?;
        let moved = moved.as_deref().and_then(Extended::parse);
        if score.is_some() && moved.map(|moved| moved.until_ms) == score {
            continue;
        }
        if holds::find_live(pool, id).await?.as_ref() != Some(of) {
            continue;
        }
        let text =
            format!("is live, its deadline in redis is {score:?} and should be {expires_ms}");
        found.push(HoldDrift {
            shard: shard.keys().shard(),
            member: of.held.member(),
            expires_ms: Some(expires_ms),
            difference: Difference::new(table(of.held.kind), id, text),
        });
    }
    Ok(found)
}

/// Members of `deadlines` whose hold is settled, and is over or was never made.
async fn surplus(
    pool: &MySqlPool,
    shard: &Shard,
    watermark: Position,
) -> Result<Vec<HoldDrift>, VerifyError> {
    let deadlines = shard.keys().deadlines();
    let (mut found, mut scan) = (Vec::new(), Scan::sorted_set(&deadlines));
    while let Some(members) = scan.page_on::<Vec<(String, u64)>>(shard).await? {
        let settled: Vec<(String, Option<Held>)> = members
            .into_iter()
            // Branches have a check of their own.
            .filter(|(member, _)| member != SENTINEL && Branch::parse_member(member).is_none())
            .map(|(member, _)| (Held::parse(&member), member))
            .filter(|(held, _)| held.as_ref().is_none_or(|held| held.id <= watermark))
            .map(|(held, member)| (member, held))
            .collect();
        let ids: Vec<Position> = settled
            .iter()
            .filter_map(|(_, held)| Some(held.as_ref()?.id))
            .collect();
        let live: HashSet<Position> = holds::live_of(pool, &ids).await?;
        for (member, held) in settled {
            let is_live = held.as_ref().is_some_and(|held| live.contains(&held.id));
            let is_dead_letter = match &held {
                Some(held) if !is_live => dead_letters::state(pool, held.id).await?.is_some(),
                _ => false,
            };
            if is_live || is_dead_letter {
                continue;
            }
            // The hold ended meanwhile, and its member went with it.
            if scores(shard, std::slice::from_ref(&member)).await? == [None] {
                continue;
            }
            let difference = Difference::new(
                held.map_or("deadlines", |held| table(held.kind)),
                &member,
                "stands in redis' deadlines and is over".to_owned(),
            );
            found.push(HoldDrift {
                shard: shard.keys().shard(),
                member,
                expires_ms: None,
                difference,
            });
        }
    }
    Ok(found)
}
