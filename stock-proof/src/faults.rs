//! Faults: real servers, buyers with a recorded seed and history, and something that breaks. When
//! it is over, every invariant is checked from outside.
//!
//! | file | breaks |
//! |---|---|
//! | [`processes`] | F1–F3, F16, F17, F20: kill, pause, terminate |
//! | [`storage`] | F4–F6, F14, F15: files, memory, Redis' role, room |
//! | [`network`] | F7–F11, F30: links, latency, locks, messages |
//! | [`operations`] | F12, F13, F18, F19, F21, F22: poison, clocks, starts, passwords, overload |
//! | [`silence`] | F23, F29: servers and links that do not answer |
//! | [`pairs`] | F24: two at once |
//! | [`keys`] | F25: one key of Redis |
//! | [`settings`] | F26: settings of both servers |
//! | [`narrow`] | F31: a MySQL that takes less than the service sends |
//! | [`spoilt`] | F32: rows that are refused, or changed by hand |
//! | [`planted`] | F33: differences that must be found |
//! | [`strangers`] | F34: slow and greedy clients |
//! | [`failover`] | F35: a master of a cluster |
//! | [`scarce`] | F36: everything runs out, under a [`crowd`] |
//! | [`random`] | pairs of [`singles`], by seed |
//! | [`night`] | the same for ten minutes, and the alerts that an operator would get |
//!
//! [`world`] owns the servers and the way back to health, [`buyers`] the load, and [`history`] the
//! answers that buyers got. [`alarms`] checks that a fault harms its victims only and is named.
//! [`checker`] checks all the other invariants of `docs/faults.md`.

pub mod alarms;
pub mod buyers;
pub mod checker;
pub mod crowd;
pub mod failover;
pub mod history;
pub mod keys;
pub mod narrow;
pub mod network;
pub mod night;
pub mod operations;
pub mod pairs;
pub mod planted;
pub mod processes;
mod prometheus;
pub mod random;
pub mod scarce;
pub mod settings;
pub mod silence;
pub mod singles;
pub mod spoilt;
pub mod storage;
pub mod strangers;
pub mod world;

use std::pin::Pin;
use std::time::Instant;

use clap::Parser;
use stock_online::cli::output::say;

use self::history::History;
use crate::Failure;

/// The options of the faults.
#[derive(Debug, Parser)]
#[command(about = "Break it, then prove that nothing was lost or sold twice")]
pub struct Faults {
    /// Only these, such as F2,F7; without it all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Decides the buyers' actions and the pairs that are drawn; printed, so that a run can be
    /// repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Rounds of random pairs, after the named faults
    #[arg(long, default_value_t = 0)]
    rounds: u32,
    /// Longer variants: 30 s of overload and of silence, 200 runs of verify
    #[arg(long)]
    long: bool,
    /// Ten minutes of single and double faults, and a table of the alerts for each; nothing else
    #[arg(long)]
    night: bool,
}

/// The options that each fault receives.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The seed on which the buyers' actions depend.
    pub seed: u64,
    /// Whether the longer variants run.
    pub is_long: bool,
}

/// How a fault ended, if nothing was wrong.
#[derive(Debug)]
pub enum Outcome {
    /// Everything holds.
    Passed,
    /// Everything holds, and these figures were measured.
    PassedWith(String),
    /// The fault cannot be made here, for this reason.
    Skipped(String),
}

type Run<'a> = Pin<Box<dyn Future<Output = Result<Outcome, Failure>> + 'a>>;

/// A fault's name, and the function that runs it.
type Fault = (&'static str, for<'a> fn(&'a Plan) -> Run<'a>);

/// Every fault, in the order of `docs/faults.md`.
const FAULTS: [Fault; 34] = [
    ("F1", |plan| {
        Box::pin(processes::f01_kill_9_of_the_service_loses_no_accepted_order(plan))
    }),
    ("F2", |plan| {
        Box::pin(processes::f02_kill_9_of_redis_loses_nothing_that_is_not_listed(plan))
    }),
    ("F3", |plan| {
        Box::pin(processes::f03_kill_9_of_mysql_stops_selling_at_the_backlog_limit_only(plan))
    }),
    ("F4", |plan| {
        Box::pin(storage::f04_a_cut_or_damaged_file_sells_nothing_twice(plan))
    }),
    ("F5", |plan| {
        Box::pin(storage::f05_an_emptied_redis_is_fenced_and_rebuilt(plan))
    }),
    ("F6", |plan| {
        Box::pin(storage::f06_a_failover_to_a_lagging_replica_lists_what_is_lost(plan))
    }),
    ("F7", |plan| {
        Box::pin(network::f07_a_cut_link_to_redis_decides_an_order_once(plan))
    }),
    ("F8", |plan| {
        Box::pin(network::f08_half_open_and_slow_links_are_answered_in_time(
            plan,
        ))
    }),
    ("F9", |plan| {
        Box::pin(network::f09_a_slow_mysql_does_not_slow_sales(plan))
    }),
    ("F10", |plan| {
        Box::pin(network::f10_killed_pubsub_connections_delay_nothing(plan))
    }),
    ("F11", |plan| {
        Box::pin(network::f11_three_subscribers_settle_each_entry_once(plan))
    }),
    ("F12", |plan| {
        Box::pin(operations::f12_orders_that_a_table_refuses_become_dead_letters(plan))
    }),
    ("F13", |plan| {
        Box::pin(operations::f13_a_jumping_clock_changes_no_verdict(plan))
    }),
    ("F14", |plan| {
        Box::pin(storage::f14_a_full_redis_refuses_whole_orders(plan))
    }),
    ("F15", |plan| {
        Box::pin(storage::f15_a_full_disk_loses_nothing(plan))
    }),
    ("F16", |plan| {
        Box::pin(processes::f16_many_connections_do_not_exhaust_memory(plan))
    }),
    ("F17", |plan| {
        Box::pin(processes::f17_a_stopped_process_does_no_harm_when_it_wakes(
            plan,
        ))
    }),
    ("F18", |plan| {
        Box::pin(operations::f18_services_start_in_any_order(plan))
    }),
    ("F19", |plan| {
        Box::pin(operations::f19_reconcile_and_verify_change_nothing_in_a_storm(plan))
    }),
    ("F20", |plan| {
        Box::pin(processes::f20_sigterm_under_load_ends_in_time(plan))
    }),
    ("F21", |plan| {
        Box::pin(operations::f21_changed_credentials_are_survived(plan))
    }),
    ("F22", |plan| {
        Box::pin(operations::f22_an_overload_is_refused_quickly(plan))
    }),
    ("F23", |plan| {
        Box::pin(silence::f23_silent_servers_silence_nothing_else(plan))
    }),
    ("F24", |plan| {
        Box::pin(pairs::f24_two_faults_at_once_harm_no_more_than_each(plan))
    }),
    ("F25", |plan| {
        Box::pin(keys::f25_a_lost_key_harms_its_owners_only(plan))
    }),
    ("F26", |plan| {
        Box::pin(settings::f26_unsafe_settings_are_named_and_stop_selling(
            plan,
        ))
    }),
    ("F29", |plan| {
        Box::pin(silence::f29_idle_and_lost_links_cost_no_request(plan))
    }),
    ("F30", |plan| {
        Box::pin(network::f30_messages_of_strangers_mislead_nobody(plan))
    }),
    ("F31", |plan| {
        Box::pin(narrow::f31_statements_fit_a_narrow_mysql(plan))
    }),
    ("F32", |plan| {
        Box::pin(spoilt::f32_spoilt_rows_stop_their_owners_only(plan))
    }),
    ("F33", |plan| {
        Box::pin(planted::f33_verify_names_each_planted_difference(plan))
    }),
    ("F34", |plan| {
        Box::pin(strangers::f34_slow_and_greedy_clients_harm_nobody(plan))
    }),
    ("F35", |plan| {
        Box::pin(failover::f35_a_lost_master_loses_no_replicated_order(plan))
    }),
    ("F36", |plan| {
        Box::pin(scarce::f36_scarce_goods_are_sold_once_and_wholly(plan))
    }),
];

fn passed(checked: Result<History, Failure>) -> Result<Outcome, Failure> {
    checked.map(|_| Outcome::Passed)
}

/// Runs the faults that the options ask for. Returns whether everything held.
///
/// # Errors
/// When the options name a fault that does not exist.
pub async fn run(options: &Faults) -> Result<bool, Failure> {
    let unknown = |name: &&String| !FAULTS.iter().any(|(known, _)| known == *name);
    if let Some(name) = options.only.iter().find(unknown) {
        return Err(format!("there is no fault {name}; see docs/faults.md").into());
    }
    let plan = Plan {
        seed: options.seed.unwrap_or_else(rand::random),
        is_long: options.long,
    };
    say(&format!("seed {}", plan.seed));
    if options.night {
        return Ok(report("night", Box::pin(night::run(&plan))).await);
    }
    let mut all_held = true;
    for (name, fault) in FAULTS {
        if options.only.is_empty() && options.rounds == 0
            || options.only.iter().any(|wanted| wanted == name)
        {
            all_held &= report(name, fault(&plan)).await;
        }
    }
    for round in 0..options.rounds {
        let plan = Plan {
            seed: plan.seed.wrapping_add(round.into()),
            ..plan
        };
        let name = format!("random pairs, seed {}", plan.seed);
        all_held &= report(&name, Box::pin(random::run(&plan))).await;
    }
    Ok(all_held)
}

async fn report(name: &str, run: Run<'_>) -> bool {
    let began = Instant::now();
    let ended = run.await;
    let seconds = began.elapsed().as_secs();
    match ended {
        Ok(Outcome::Passed) => say(&format!("{name} passed ({seconds} s)")),
        Ok(Outcome::PassedWith(figures)) => {
            say(&format!("{name} passed ({seconds} s): {figures}"));
        }
        Ok(Outcome::Skipped(why)) => say(&format!("{name} skipped: {why}")),
        Err(error) => {
            say(&format!("{name} FAILED ({seconds} s): {error}"));
            return false;
        }
    }
    true
}
