//! A night in fast motion: single and double faults one after the other under load, and what an operator would have been
//! told of each.
//!
//! Two hours of a night hold about as many faults as ten minutes here. Each lasts for some seconds; meanwhile both instances
//! are asked for `/readyz` and `/metrics` as a probe and Prometheus would, and the rules of `alerts.yml` are applied to the
//! answer. The table at the end says, of each fault, what was said, after how many seconds, and how many orders were served
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use stock_common::config::Durability::Always;
use stock_online::cli::output::say;

use super::alarms::firing;
use super::checker::Allowed;
use super::random::draw;
use super::singles::Single;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::client::{Answer, Client};

/// The night.
const NIGHT: Duration = Duration::from_secs(600);
/// A fault lasts so long: longer than it may take to be named.
const LASTS: Duration = Duration::from_secs(11);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A probe waits so long.
const PROBE_MAX: Duration = Duration::from_millis(500);
/// Orders between two faults.
const BETWEEN: usize = 100;

/// The words that were heard while a fault lasted.
#[derive(Debug, Default)]
struct Said {
    readyz: BTreeSet<String>,
    alerts: BTreeSet<String>,
    first: Option<Duration>,
}

/// All nights of one fault.
#[derive(Debug, Default)]
struct Row {
    times: u32,
    readyz: BTreeSet<String>,
    alerts: BTreeSet<String>,
    latest: Option<Duration>,
    unsaid: u32,
    served: Vec<f64>,
}

async fn probe(client: &Client, path: &str) -> Option<Answer> {
    let asked = tokio::time::timeout(PROBE_MAX, client.get(path).try_send());
    asked.await.ok()?.ok()
}

/// The checks of `/readyz` that are not well.
fn complaints(answer: &Answer) -> BTreeSet<String> {
    let checks = answer.body.get("checks").and_then(Value::as_object);
    let checks = checks.into_iter().flatten();
    let wrong = checks.filter_map(|(name, value)| {
        let value = value.as_str()?;
        let is_well = ["ok", "current", "ahead", "open"].contains(&value);
        (!is_well).then(|| format!("{name} {value}"))
    });
    wrong.collect()
}

/// The complaints and alerts of both instances at this moment.
async fn listen(clients: &[Client]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut readyz, mut alerts) = (BTreeSet::new(), BTreeSet::new());
    for client in clients {
        let (ready, metrics) = tokio::join!(probe(client, "/readyz"), probe(client, "/metrics"));
        match ready {
            Some(ready) => readyz.extend(complaints(&ready)),
            None => drop(readyz.insert("no answer".to_owned())),
        }
        match metrics {
            Some(metrics) => alerts.extend(firing(&metrics.text).map(str::to_owned)),
            None => drop(alerts.insert("StockFlowInstanceDown".to_owned())),
        }
    }
    (readyz, alerts)
}

/// Listens for as long as a fault lasts; what was said before it began is not about it.
async fn hear(clients: &[Client], before: &(BTreeSet<String>, BTreeSet<String>)) -> Said {
    let (began, mut said) = (Instant::now(), Said::default());
    while began.elapsed() < LASTS {
        let (readyz, alerts) = listen(clients).await;
        said.readyz.extend(readyz.difference(&before.0).cloned());
        said.alerts.extend(alerts.difference(&before.1).cloned());
        if said.first.is_none() && !(said.readyz.is_empty() && said.alerts.is_empty()) {
            said.first = Some(began.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    said
}

fn note(rows: &mut BTreeMap<String, Row>, name: String, said: Said, served: f64) {
    let row = rows.entry(name).or_default();
    row.times += 1;
    row.readyz.extend(said.readyz);
    row.alerts.extend(said.alerts);
    row.latest = row.latest.max(said.first);
    row.unsaid += u32::from(said.first.is_none());
    row.served.push(served);
}

fn tell(rows: &BTreeMap<String, Row>) {
    let list = |of: &BTreeSet<String>| of.iter().cloned().collect::<Vec<_>>().join(", ");
    say("| fault | times | /readyz | alerts | said after at most | unsaid | least served |");
    say("|---|---|---|---|---|---|---|");
    for (name, row) in rows {
        let latest = row
            .latest
            .map_or("–".to_owned(), |at| format!("{:.1} s", at.as_secs_f64()));
        let least = row.served.iter().copied().fold(f64::INFINITY, f64::min);
        let (readyz, alerts) = (list(&row.readyz), list(&row.alerts));
        say(&format!(
            "| {name} | {} | {readyz} | {alerts} | {latest} | {} | {least:.2} |",
            row.times, row.unsaid
        ));
    }
}

/// The whole night; every invariant is checked at its end.
///
/// # Errors
/// When something does not hold.
pub async fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let buyers = world.buyers(12);
    let (began, mut rows, mut faults) = (Instant::now(), BTreeMap::new(), 0_u32);
    while began.elapsed() < NIGHT {
        world.accept(&buyers, BETWEEN).await?;
        let (one, other) = draw(&mut rng)?;
        let other: Option<Single> = rng.random_bool(0.5).then_some(other);
        let name = match other {
            Some(other) => format!("{one:?} and {other:?}"),
            None => format!("{one:?}"),
        };
        let clients: Vec<Client> = world.services.iter().map(|of| of.client.clone()).collect();
        let before = listen(&clients).await;
        let first = buyers.asked();
        let begun = one.begin(&mut world).await?;
        let second = match other {
            Some(other) => Some((other, other.begin(&mut world).await?)),
            None => None,
        };
        let said = hear(&clients, &before).await;
        if let Some((other, begun)) = second {
            other.end(begun, &mut world).await?;
        }
        one.end(begun, &mut world).await?;
        let served = buyers.served_since(first, |_| false);
        say(&format!(
            "  {name}: {} after {:.1?}, {served:.2} served",
            said.alerts.iter().cloned().collect::<Vec<_>>().join(", "),
            said.first
        ));
        note(&mut rows, name, said, served);
        faults += 1;
    }
    tell(&rows);
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(Outcome::PassedWith(format!("{faults} faults in one night")))
}
