//! The bench: each figure beside its ceiling, in one run, on one machine.
//!
//! | section | measures |
//! |---|---|
//! | `orders` | closed loop by `wrk`: echo, Redis first in its variants, row lock ([`orders`]) |
//! | `reads` | one product, a list, the shop's page, an answer that the client has ([`reads`]) |
//! | `engine` | no HTTP: the ledger in this process beside bare script calls ([`engine`]) |
//! | `drain` | the subscriber alone beside bare multi-row inserts ([`drain`]) |
//! | `reservations` | holds beside orders, and how late they expire ([`reservations`]) |
//! | `coupons` | draws of a coupon beside orders ([`coupons`]) |
//! | `rows` | row-locked orders beside a queue for other rows ([`rows`]) |
//! | `sustained` | a minute with MySQL keeping up, memory and start-up time ([`sustained`]); open loop, free of coordinated omission ([`latency`]) |
//! | `growth` | more products, connections, lines, backlog ([`growth`]) |
//!
//! Each section has its own servers. All but `reads` and `engine` end with `verify`. [`report`]
//! writes the results into `docs/`.

pub mod coupons;
pub mod drain;
pub mod echo;
pub mod engine;
pub mod growth;
pub mod latency;
pub mod orders;
pub mod plots;
pub mod pure_sql;
pub mod reads;
pub mod report;
pub mod reservations;
pub mod rows;
pub mod sustained;
pub mod watch;
pub mod wrk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use clap::{Parser, ValueEnum};
use stock_common::config::Durability;
use stock_online::cli::output::say;

use self::report::{Figure, Report};
use crate::Failure;
use crate::shop::Servers;

/// A section of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// Orders in a closed loop.
    Orders,
    /// Product reads and pages.
    Reads,
    /// The engine without HTTP.
    Engine,
    /// The subscriber alone.
    Drain,
    /// Holds beside orders, and how late they expire.
    Reservations,
    /// Draws of a coupon beside orders.
    Coupons,
    /// Row-locked orders beside a queue for other rows.
    Rows,
    /// The rate over a minute while MySQL keeps up; latency, memory and start-up.
    Sustained,
    /// More products, connections, lines and entries, in the first mode only.
    Growth,
}

/// The options of the bench.
#[derive(Debug, Parser)]
#[command(about = "Each figure beside its ceiling, in one run")]
pub struct Bench {
    /// Sections to run
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["orders", "reads", "engine", "drain", "reservations", "coupons", "rows", "sustained", "growth"])]
    sections: Vec<Section>,
    /// How Redis syncs: everysec, always
    #[arg(long, value_delimiter = ',', default_values = ["everysec", "always"])]
    modes: Vec<String>,
    /// Seconds of each closed-loop figure
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// Rounds of the closed-loop figures, of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of the sustained load
    #[arg(long, default_value_t = 60)]
    sustained_seconds: u32,
    /// Write docs/performance.md and its plots; without it the table is only printed
    #[arg(long)]
    docs: Option<PathBuf>,
    /// Serve the bare echo and nothing else
    #[arg(long, hide = true)]
    pub echo_port: Option<u16>,
}

/// The environment of a section.
pub struct Run<'a> {
    /// The servers of this mode.
    pub servers: &'a Servers,
    /// How Redis syncs.
    pub durability: Durability,
    /// The options of the run.
    pub options: &'a Bench,
    /// Receives the figures.
    pub report: &'a mut Report,
}

impl Run<'_> {
    /// Adds a rate, with its share of a ceiling.
    pub fn note(&mut self, what: &str, value: f64, of: Option<(&str, f64)>, goal: &str) {
        self.add(what, value, "/s", of, goal);
    }

    /// Adds a figure that is no rate and has no ceiling.
    pub fn note_unit(&mut self, what: &str, value: f64, unit: &'static str, goal: &str) {
        self.add(what, value, unit, None, goal);
    }

    fn add(
        &mut self,
        what: &str,
        value: f64,
        unit: &'static str,
        of: Option<(&str, f64)>,
        goal: &str,
    ) {
        self.report.add(Figure {
            mode: self.durability.as_str().to_owned(),
            what: what.to_owned(),
            value,
            unit,
            of: of.map(|(name, ratio)| (name.to_owned(), ratio)),
            goal: Some(goal.to_owned()).filter(|goal| !goal.is_empty()),
        });
    }
}

/// Runs the sections of the options, in each mode.
///
/// # Errors
/// When a server does not answer, an order is not accepted, or `verify` fails.
pub async fn run(options: &Bench) -> Result<(), Failure> {
    let mut report = Report {
        machine: machine(),
        ..Report::default()
    };
    for mode in &options.modes {
        let durability = match mode.as_str() {
            "always" => Durability::Always,
            "everysec" => Durability::Everysec,
            other => return Err(format!("{other} is neither everysec nor always").into()),
        };
        let mut peak = None;
        for section in &options.sections {
            // Growth does not depend on how Redis syncs: one mode is enough.
            let is_once = *section == Section::Growth;
            if is_once && options.modes.first() != Some(mode) {
                continue;
            }
            // A section has its own servers: a Redis with millions of another section's entries
            // would rewrite its file in the middle of this one.
            let servers = Servers::start(durability).await?;
            let mut run = Run {
                servers: &servers,
                durability,
                options,
                report: &mut report,
            };
            match section {
                Section::Orders => peak = Some(orders::run(&mut run).await?),
                Section::Reads => reads::run(&mut run).await?,
                Section::Engine => engine_figures(&mut run).await?,
                Section::Drain => drain::measure(&mut run).await?,
                Section::Reservations => reservations::run(&mut run).await?,
                Section::Coupons => coupons::run(&mut run).await?,
                Section::Rows => rows::run(&mut run).await?,
                Section::Sustained => sustained::run(&mut run, peak).await?,
                Section::Growth => growth::run(&mut run).await?,
            }
            servers.redis.stop().await;
            servers.mysql.stop().await;
        }
    }
    if let Some(docs) = &options.docs {
        report.write(docs)?;
        say(&format!("written to {}", docs.display()));
    }
    Ok(())
}

async fn engine_figures(run: &mut Run<'_>) -> Result<(), Failure> {
    let rates = engine::run(run.servers, run.durability, run.options.seconds).await?;
    let goal = match run.durability {
        Durability::Everysec => "≥ 170,000",
        Durability::Always => "",
    };
    let of = Some(("bare script calls", rates.engine / rates.raw));
    run.note("bare script calls, 256 orders each", rates.raw, None, "");
    run.note("engine only, one hot product", rates.engine, of, goal);
    let of = Some(("engine only", rates.limited / rates.engine));
    let what = "engine only, sale with window and limit per buyer";
    run.note(what, rates.limited, of, "");
    let of = Some(("engine only", rates.keyed / rates.engine));
    run.note(
        "engine only, each with an Idempotency-Key",
        rates.keyed,
        of,
        "",
    );
    let what = "Redis' memory of an Idempotency-Key";
    run.note_unit(what, rates.bytes_per_key, "bytes", "≤ 100");
    Ok(())
}

/// The machine and the programs on it.
fn machine() -> BTreeMap<String, String> {
    let line = |program: &str, argument: &str| {
        let out = Command::new(program).arg(argument).output().ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        text.lines().next().map(str::to_owned)
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let facts = [
        (
            "processor",
            cpu.map(|name| format!("{cores} cores, {name}")),
        ),
        ("redis", line("redis-server", "--version")),
        (
            "database",
            line("mariadbd", "--version").or_else(|| line("mysqld", "--version")),
        ),
        ("rust", line("rustc", "--version")),
    ];
    facts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// The middle one of some numbers; 0 of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}
