//! The events under load: an instance or a master is killed, replaced, paused; a shard is moved;
//! the shop is rehomed.

use std::pin::Pin;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stock_engine::rehome::rehome;

use super::world::World;
use crate::Failure;
use crate::shop::until;

/// How long an instance sleeps in [`paused`].
const ASLEEP: Duration = Duration::from_secs(3);
/// Pause after an instance was replaced. nginx leaves an instance that failed alone for the 5 s of
/// `fail_timeout`. If the next instances are replaced before that is over, nginx knows none and
/// answers 502 by itself.
const NOTICED: Duration = Duration::from_secs(6);
/// MySQL ends a transaction that sleeps with a shard's row after 1 s; then another instance takes
/// the shard over.
const TAKEN_OVER: Duration = Duration::from_secs(2);
/// Any other event may stop MySQL for as long as shards may be away.
const STILL_MAX: Duration = Duration::from_secs(10);

type Happening<'a> = Pin<Box<dyn Future<Output = Result<String, Failure>> + 'a>>;

/// A phase.
pub struct Phase {
    /// Its letter.
    pub name: &'static str,
    /// The event, in words.
    pub what: &'static str,
    /// The longest time that MySQL may stand still with a shard.
    pub still_max: Duration,
    /// Makes the event happen, with so long a pause between two steps. Returns a note for the
    /// report.
    pub happen: for<'a> fn(&'a mut World, Duration) -> Happening<'a>,
}

/// Every phase, in order.
pub const PHASES: [Phase; 7] = [
    Phase {
        name: "a",
        what: "plain",
        still_max: TAKEN_OVER,
        happen: |_, wait| Box::pin(plain(wait)),
    },
    Phase {
        name: "b",
        what: "an instance is killed and started again",
        still_max: TAKEN_OVER,
        happen: |world, wait| Box::pin(killed(world, wait)),
    },
    Phase {
        name: "c",
        what: "every instance is replaced in turn",
        still_max: TAKEN_OVER,
        happen: |world, _| Box::pin(rolled(world)),
    },
    Phase {
        name: "d",
        what: "an instance sleeps for 3 s",
        still_max: TAKEN_OVER,
        happen: |world, _| Box::pin(paused(world)),
    },
    Phase {
        name: "e",
        what: "a master of Redis is killed",
        still_max: STILL_MAX,
        happen: |world, _| Box::pin(failed_over(world)),
    },
    Phase {
        name: "f",
        what: "a shard moves to another master, and back",
        still_max: STILL_MAX,
        happen: |world, wait| Box::pin(moved(world, wait)),
    },
    Phase {
        name: "g",
        what: "two shards more, and back, while nothing is sold",
        still_max: STILL_MAX,
        happen: |world, wait| Box::pin(rehomed(world, wait)),
    },
];

async fn plain(wait: Duration) -> Result<String, Failure> {
    tokio::time::sleep(wait).await;
    Ok(String::new())
}

async fn killed(world: &mut World, wait: Duration) -> Result<String, Failure> {
    world.first()?.child.kill().await?;
    tokio::time::sleep(wait).await;
    let began = Instant::now();
    world.start_again(0).await?;
    Ok(format!(
        "ready again {} ms after its start",
        began.elapsed().as_millis()
    ))
}

async fn rolled(world: &mut World) -> Result<String, Failure> {
    let mut longest = Duration::ZERO;
    for number in 0..world.services.len() {
        let service = world.services.get_mut(number).ok_or("no such instance")?;
        let began = Instant::now();
        if !service.stop().await? {
            return Err(format!("instance {number} did not end with 0").into());
        }
        longest = longest.max(began.elapsed());
        world.start_again(number).await?;
        tokio::time::sleep(NOTICED).await;
    }
    Ok(format!("each ended within {} ms", longest.as_millis()))
}

async fn paused(world: &mut World) -> Result<String, Failure> {
    world.first()?.signal(Signal::STOP)?;
    tokio::time::sleep(ASLEEP).await;
    world.first()?.signal(Signal::CONT)?;
    Ok(String::new())
}

async fn failed_over(world: &mut World) -> Result<String, Failure> {
    let mut masters = Vec::new();
    for shard in world.ledger.shards() {
        let master = world.cluster.master_of(&shard.keys().epoch()).await;
        masters.push(master.ok_or("a shard has no master")?);
    }
    let key = world.ledger.shard(0)?.keys().epoch();
    let lost = *masters.first().ok_or("there are no shards")?;
    let shards: Vec<String> = (0..masters.len())
        .filter(|shard| masters.get(*shard) == Some(&lost))
        .map(|shard| shard.to_string())
        .collect();
    let began = Instant::now();
    let node = world.cluster.nodes.get_mut(lost).ok_or("no such node")?;
    node.kill().await;
    until("another master", || async {
        let now = world.cluster.master_of(&key).await;
        now.is_some_and(|now| now != lost)
    })
    .await?;
    let promoted = began.elapsed();
    let node = world.cluster.nodes.get_mut(lost).ok_or("no such node")?;
    node.restart().await?;
    Ok(format!(
        "its replica was promoted after {} ms, and had shards {}",
        promoted.as_millis(),
        shards.join(", ")
    ))
}

async fn moved(world: &mut World, wait: Duration) -> Result<String, Failure> {
    let key = world.ledger.shard(0)?.keys().epoch();
    let home = world.cluster.master_of(&key).await;
    let home = home.ok_or("the shard has no master")?;
    let mut masters = Vec::new();
    for shard in world.ledger.shards() {
        masters.extend(world.cluster.master_of(&shard.keys().epoch()).await);
    }
    let other = masters.into_iter().find(|master| *master != home);
    let mut notes = Vec::new();
    for target in [other.ok_or("there is one master")?, home] {
        let began = Instant::now();
        world.cluster.move_slot_of(&key, target).await?;
        notes.push(format!("{} ms", began.elapsed().as_millis()));
        tokio::time::sleep(wait).await;
    }
    Ok(format!("its slot moved within {}", notes.join(" and ")))
}

async fn rehomed(world: &mut World, wait: Duration) -> Result<String, Failure> {
    let before = world.config.shards();
    let mut notes = Vec::new();
    for target in [before + 2, before] {
        let mut quiet = |_, _| {};
        let done = rehome(
            &world.config,
            &world.config,
            &world.pool,
            target,
            &mut quiet,
        )
        .await?;
        notes.push(format!(
            "to {target} shards with {} accounts in {} ms (settle {}, verify {})",
            done.accounts, done.pause_ms, done.settle_ms, done.verify_ms
        ));
        tokio::time::sleep(wait).await;
    }
    Ok(notes.join("; "))
}
