//! Scale: several instances behind nginx on a Redis Cluster, under load, while one part after the
//! other is killed, replaced or moved.
//!
//! | file | content |
//! |---|---|
//! | [`world`] | servers, instances, the way back to rest, every check |
//! | [`nginx`] | the nginx in front, with the project's own configuration |
//! | [`load`] | buyers of each shard and of all shards, and their figures |
//! | [`lag`] | how long MySQL stood still |
//! | [`phases`] | the events under load |
//!
//! [`crate::faults`] asks whether anything is lost when a part breaks. This module also measures
//! how much a shop of several instances and shards notices: orders a second, refusals, and how long
//! anything was away.

pub mod lag;
pub mod load;
pub mod nginx;
pub mod phases;
pub mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use stock_online::cli::output::{complain, say};

use self::lag::Watch;
use self::load::{Figures, Load};
use self::phases::{PHASES, Phase};
use self::world::World;
use crate::Failure;
use crate::faults::history::History;

/// The options of the scale run.
#[derive(Debug, Parser)]
#[command(
    about = "Kill, replace and move parts of a shop under load, then prove that nothing was lost"
)]
pub struct Scale {
    /// Shards of the ledger
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=62))]
    shards: u64,
    /// Connections that buy
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds of load in each phase, at least; the event of the phase may take longer
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
    seconds: u64,
    /// Only these phases, such as a,e; without it all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seed of the buyers' actions; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the logs of the instances in this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl Scale {
    /// A quarter of the load's time: before the event of a phase, and after it.
    fn quarter(&self) -> Duration {
        Duration::from_millis(self.seconds * 250)
    }
}

/// Runs the phases that the options ask for. Returns whether everything held.
///
/// # Errors
/// When the options name a phase that does not exist, or the shop cannot be opened.
pub async fn run(options: &Scale) -> Result<bool, Failure> {
    let unknown = |name: &&String| !PHASES.iter().any(|phase| phase.name == *name);
    if let Some(name) = options.only.iter().find(unknown) {
        return Err(format!("there is no phase {name}; there are a to f").into());
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut world = World::open(options.shards, options.log.as_deref()).await?;
    say(&format!(
        "seed {seed}: {} shards on 3 masters, {} instances behind nginx, {} clients",
        options.shards,
        world.services.len(),
        options.clients
    ));
    let (mut history, mut all, mut failed) = (History::default(), Vec::new(), Vec::new());
    for (phase, number) in PHASES.iter().zip(0..) {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == phase.name) {
            continue;
        }
        let load = Load::start(&world, options.clients, seed.wrapping_add(number << 32));
        match Box::pin(play(phase, &mut world, options, load, &mut history)).await {
            Ok(figures) => {
                say(&format!("{} {}: {figures}", phase.name, phase.what));
                all.push(figures);
            }
            Err(error) => {
                say(&format!("{} {} FAILED: {error}", phase.name, phase.what));
                failed.push(phase.name);
            }
        }
    }
    world.close().await?;
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&all)?)?;
    }
    let (orders, unknown) = (history.accepted(), history.unknown());
    if failed.is_empty() {
        say(&format!(
            "{orders} orders were accepted and each is stored once, {unknown} have no definite answer, every \
             ledger is proved"
        ));
    } else {
        complain(&format!("FAILED: {}", failed.join(", ")));
    }
    Ok(failed.is_empty())
}

/// Runs a phase under load, waits until everything is at rest, and checks all answers so far.
async fn play(
    phase: &Phase,
    world: &mut World,
    options: &Scale,
    load: Load,
    history: &mut History,
) -> Result<Figures, Failure> {
    let (began, watch) = (Instant::now(), Watch::start(world));
    tokio::time::sleep(options.quarter()).await;
    let note = (phase.happen)(world, options.quarter()).await;
    let whole = Duration::from_secs(options.seconds);
    let rest = whole.saturating_sub(began.elapsed()).max(options.quarter());
    tokio::time::sleep(rest).await;
    let (told, mut figures) = load.stop().await?;
    figures.still = watch.stop().await?;
    history.append(told);
    figures.note = note?;
    figures.rest_ms = world.rest().await?.as_millis();
    let mut complaints = world.check(history).await?;
    complaints.extend(figures.complaint(phase));
    if complaints.is_empty() {
        return Ok(figures);
    }
    let count = complaints.len();
    complaints.truncate(10);
    Err(format!(
        "{figures}\n  {count} complaints:\n  {}",
        complaints.join("\n  ")
    )
    .into())
}
