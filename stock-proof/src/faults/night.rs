//! A night in ten minutes: single and double faults one after the other under load, and the signals
//! that an operator would get of each.
//!
//! Two hours of a night hold about as many faults as ten minutes here. Each fault lasts for some
//! seconds. Meanwhile both instances are asked for `/readyz` and `/metrics`, as a probe would, and
//! a real Prometheus evaluates the rules of `alerts.yml`. The table at the end lists for each fault
//! the signals, after how many seconds each came, and the share of the orders that were served
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use stock_client::{Answer, Client};
use stock_common::config::Durability::Always;
use stock_online::cli::output::say;

use super::checker::Allowed;
use super::prometheus::Prometheus;
use super::random::draw;
use super::singles::{Begun, Single};
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;

/// Length of the night.
const NIGHT: Duration = Duration::from_secs(600);
/// How long a fault lasts: longer than it may take to be named.
const LASTS: Duration = Duration::from_secs(11);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a probe waits for an answer.
const PROBE_MAX: Duration = Duration::from_millis(500);
/// The alerts of the fault before end within this time, except those that look back for minutes.
const CALM_MAX: Duration = Duration::from_secs(8);
/// Orders between two faults.
const BETWEEN: usize = 100;

/// The gauges that show a fault at once.
const GAUGES: [&str; 9] = [
    "stock_ready",
    "stock_dependency_up",
    "stock_fenced",
    "stock_schema",
    "stock_pubsub_up",
    "stock_server_setting",
    "stock_apply_stopped",
    "stock_quarantined_accounts",
    "stock_new_dead_letters",
];

/// The sources of signals for an operator.
const SOURCES: [&str; 3] = ["/readyz", "metrics", "alerts"];

/// The signals of each source at a moment, in the order of [`SOURCES`].
type Words = [BTreeSet<String>; 3];

/// The signals while a fault lasted, in the order of [`SOURCES`], each with the time when it first
/// came.
type Said = [BTreeMap<String, Duration>; 3];

/// Every occurrence of one fault.
#[derive(Debug, Default)]
struct Row {
    times: u32,
    said: Vec<Said>,
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
        let said = match name.as_str() {
            // The value of this check is a reason in words.
            "apply" => name.clone(),
            _ => format!("{name} {value}"),
        };
        (!is_well).then_some(said)
    });
    wrong.collect()
}

/// The gauges of an instance, each with its value.
fn gauges(metrics: &Answer) -> impl Iterator<Item = String> + '_ {
    let is_told = |line: &&str| {
        let name = line.split(['{', ' ']).next();
        name.is_some_and(|name| GAUGES.contains(&name))
    };
    metrics.text.lines().filter(is_told).map(str::to_owned)
}

/// The signals of both instances and of Prometheus at this moment.
async fn listen(clients: &[Client], prometheus: &Prometheus) -> Result<Words, Failure> {
    let (mut readyz, mut metrics) = (BTreeSet::new(), BTreeSet::new());
    for client in clients {
        let (ready, told) = tokio::join!(probe(client, "/readyz"), probe(client, "/metrics"));
        match ready {
            Some(ready) => readyz.extend(complaints(&ready)),
            None => drop(readyz.insert("no answer".to_owned())),
        }
        match told {
            Some(told) => metrics.extend(gauges(&told)),
            None => drop(metrics.insert("no answer".to_owned())),
        }
    }
    Ok([readyz, metrics, prometheus.firing().await?])
}

/// Waits until no alert fires any more, and returns the remaining signals.
async fn calm(clients: &[Client], prometheus: &Prometheus) -> Result<Words, Failure> {
    let began = Instant::now();
    while began.elapsed() < CALM_MAX && !prometheus.firing().await?.is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    listen(clients, prometheus).await
}

/// Listens for as long as a fault lasts. Signals from before it began do not count.
async fn hear(
    clients: &[Client],
    prometheus: &Prometheus,
    before: &Words,
) -> Result<Said, Failure> {
    let (began, mut said) = (Instant::now(), Said::default());
    while began.elapsed() < LASTS {
        let now = listen(clients, prometheus).await?;
        for ((said, now), before) in said.iter_mut().zip(&now).zip(before) {
            for word in now.difference(before) {
                said.entry(word.clone()).or_insert_with(|| began.elapsed());
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(said)
}

fn note(rows: &mut BTreeMap<String, Row>, name: String, said: Said, served: f64) {
    let row = rows.entry(name).or_default();
    row.times += 1;
    row.said.push(said);
    row.served.push(served);
}

/// The signals of a source, each with the longest time that it took in seconds, and with its number
/// of occurrences if it did not always come.
fn cell(row: &Row, source: usize) -> String {
    let mut words: BTreeMap<&str, (Duration, u32)> = BTreeMap::new();
    for (word, after) in row
        .said
        .iter()
        .filter_map(|said| said.get(source))
        .flatten()
    {
        let (latest, times) = words.entry(word).or_default();
        *latest = (*latest).max(*after);
        *times += 1;
    }
    if words.is_empty() {
        return "–".to_owned();
    }
    let words = words.into_iter().map(|(word, (latest, times))| {
        let latest = latest.as_secs_f64();
        match times == row.times {
            true => format!("`{word}` {latest:.1}"),
            false => format!("`{word}` {latest:.1} ({times} of {})", row.times),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

fn tell(rows: &BTreeMap<String, Row>) {
    say(&format!(
        "| fault | times | {} | served at least |",
        SOURCES.join(" | ")
    ));
    say("|---|---|---|---|---|---|");
    for (name, row) in rows {
        let cells: Vec<String> = (0..SOURCES.len()).map(|source| cell(row, source)).collect();
        let least = row.served.iter().copied().fold(f64::INFINITY, f64::min);
        say(&format!(
            "| {name} | {} | {} | {least:.2} |",
            row.times,
            cells.join(" | ")
        ));
    }
}

/// Runs the whole night; every invariant is checked at its end.
///
/// # Errors
/// When something does not hold.
pub async fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let prometheus = Prometheus::start(&world).await?;
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
        let before = calm(&clients, &prometheus).await?;
        let first = buyers.asked();
        let begun = one.begin(&mut world).await?;
        let second = match other {
            Some(other) => Some((other, other.begin(&mut world).await?)),
            None => None,
        };
        let said = hear(&clients, &prometheus, &before).await?;
        // A task that runs beside a fault ends after that fault.
        match second {
            Some((other, task @ Begun::Task(_))) => {
                one.end(begun, &mut world).await?;
                other.end(task, &mut world).await?;
            }
            Some((other, second)) => {
                other.end(second, &mut world).await?;
                one.end(begun, &mut world).await?;
            }
            None => one.end(begun, &mut world).await?,
        }
        let served = buyers.served_since(first, |_| false);
        let [.., alerts] = &said;
        let alerts: Vec<&str> = alerts.keys().map(String::as_str).collect();
        say(&format!(
            "  {name}: {}, {served:.2} served",
            alerts.join(", ")
        ));
        note(&mut rows, name, said, served);
        faults += 1;
    }
    tell(&rows);
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(Outcome::PassedWith(format!("{faults} faults in one night")))
}
