//! Verifies that every key of a shard is one of the ledger's, and holds no account that MySQL does
//! not know.

use std::collections::HashSet;

use redis::cmd;
use sqlx::MySqlPool;
use stock_domain::account::{Account, Level};
use stock_mysql::shards;
use stock_redis::keys::{Kind, SENTINEL, SENTINEL_SCORE, Shape};
use stock_redis::scan::Scan;
use stock_redis::{ReadError, Shard};

use super::round::Due;
use super::tail::Unsettled;
use super::{Difference, VerifyError, accounts};

/// Looks at all keys of a shard.
pub(super) async fn differing(
    pool: &MySqlPool,
    shard: &Shard,
    due: Due,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = Vec::new();
    let state = shards::load(pool, shard.keys().shard()).await?;
    let epoch = state.ok_or(VerifyError::NoEpoch)?.epoch;
    let mut own: Vec<Account> = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    let everything = shard.keys().everything();
    let mut scan = Scan::keys(&everything);
    while let Some(names) = scan.page_on::<Vec<Vec<u8>>>(shard).await? {
        for name in names {
            let name = String::from_utf8_lossy(&name).into_owned();
            match shard.keys().shape(&name) {
                None => {
                    let text = "is no key of the ledger".to_owned();
                    found.push(Difference::new("keys", name, text));
                }
                Some(Shape::Account(account)) => own.push(account),
                Some(Shape::Book(_)) if seen.insert(name.clone()) => {
                    found.extend(book(pool, shard, &name, &epoch, due).await?);
                }
                Some(shape) => found.extend(sentinel(shard, shape.kind(), &name, &epoch).await?),
            }
        }
        found.extend(surplus(pool, shard, std::mem::take(&mut own), due).await?);
    }
    Ok(found)
}

/// Checks the sentinel of a key, which says that the key was not lost.
async fn sentinel(
    shard: &Shard,
    kind: Kind,
    name: &str,
    epoch: &str,
) -> Result<Option<Difference>, VerifyError> {
    let mut link = shard.link()?;
    let (command, expected) = match kind {
        Kind::States => ("HMGET", epoch.to_owned()),
        Kind::HeldUnits => ("HMGET", "0".to_owned()),
        Kind::Deadlines => ("ZMSCORE", SENTINEL_SCORE.to_string()),
        Kind::Head | Kind::Journal | Kind::Account | Kind::Book | Kind::Records => {
            return Ok(None);
        }
    };
    let mut read = cmd(command);
    let is: Vec<Option<String>> = read
        .arg(name)
        .arg(SENTINEL)
        .query_async(&mut link.read)
        .await
        .map_err(ReadError::from)?;
    // A missing sentinel is no difference: an earlier release left none, and the first request that
    // needs the key has it restored.
    let wrong = is.into_iter().flatten().find(|is| *is != expected);
    Ok(wrong.map(|is| {
        let text = format!("its sentinel is {is}, should be {expected}");
        Difference::new("keys", name, text)
    }))
}

/// Checks a book's sentinel, and its accounts.
async fn book(
    pool: &MySqlPool,
    shard: &Shard,
    name: &str,
    epoch: &str,
    due: Due,
) -> Result<Vec<Difference>, VerifyError> {
    let wrong = |text: String| Difference::new("keys", name, text);
    let label = name.rsplit_once(":b:").map_or("", |(_, label)| label);
    let (mut found, mut scan) = (Vec::new(), Scan::hash(name));
    while let Some(fields) = scan.page_on::<Vec<(String, String)>>(shard).await? {
        let mut own = Vec::with_capacity(fields.len());
        for (field, value) in fields {
            if field == SENTINEL {
                if value != epoch {
                    found.push(wrong(format!("its sentinel is {value}, should be {epoch}")));
                }
                continue;
            }
            match Account::parse(&format!("{label}:{field}")) {
                Some(account) if Level::parse(&value).is_some() => own.push(account),
                _ => found.push(wrong(format!("field {field} is {value:?}"))),
            }
        }
        found.extend(surplus(pool, shard, own, due).await?);
    }
    Ok(found)
}

/// Accounts that MySQL does not know and that no unsettled entry has opened.
async fn surplus(
    pool: &MySqlPool,
    shard: &Shard,
    mut own: Vec<Account>,
    due: Due,
) -> Result<Vec<Difference>, VerifyError> {
    own.retain(|account| due.has(&account.to_string()));
    let missing = accounts::missing(pool, &own).await?;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let state = shards::load(pool, shard.keys().shard()).await?;
    let state = state.ok_or(VerifyError::NoEpoch)?;
    let unsettled = Unsettled::read(shard, &state).await?.unwrap_or_default();
    let missing = missing.into_iter();
    let surplus = missing.filter(|account| !unsettled.postings.contains_key(account));
    Ok(surplus
        .map(|account| {
            let text = "is in redis, and mysql does not know it".to_owned();
            Difference::new("redis", account, text)
        })
        .collect())
}
