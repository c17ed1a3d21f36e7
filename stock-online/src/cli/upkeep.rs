//! `verify`, `reconcile` and `recover`: check, correct, rebuild.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use stock_common::config::Config;
use stock_engine::recover::{Allowed, Plan, Recovered};
use stock_engine::verify::Difference;
use stock_engine::{reconcile as reconciling, recover as recovering, verify as verifying};
use stock_mysql::shard_map;

use super::{Common, Failure, connect, open_database, output};

/// How long to wait for another instance that reconciles, for instance by its schedule.
const TURN_MAX: Duration = Duration::from_secs(60);
const TURN_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Begin at zero instead of where the last verification ended
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// Correct what differs
    #[arg(long)]
    apply: bool,
}

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// Append entries that cannot be applied to this file as JSON lines; without it they stop the
    /// run
    #[arg(long, value_name = "FILE")]
    discard: Option<PathBuf>,
    /// Rebuild one shard only; the others sell on
    #[arg(long, value_name = "NUMBER")]
    shard: Option<u64>,
    /// Rebuild a Redis that serves
    #[arg(long)]
    force: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
}

fn list(differences: &[Difference]) {
    for found in differences {
        output::say(&format!(
            "{} {}: {}",
            found.check, found.subject, found.detail
        ));
    }
}

pub(super) async fn verify(
    config: &Config,
    common: &Common,
    args: &VerifyArgs,
) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    let bar = output::progress("verifying");
    let mut progress = |done, all| output::advance(&bar, done, all);
    let report = verifying::verify(&pool, &ledger, args.full, &mut progress).await?;
    bar.finish_and_clear();
    if common.json {
        output::document(&report)?;
    } else {
        list(&report.differences);
        let verdict = if report.ok {
            "nothing is missing"
        } else {
            "NOT VERIFIED"
        };
        output::say(&format!(
            "{verdict}: {} entries ({} more again) and {} accounts compared, {} entries not settled \
             yet, {} dead letters, {} lost entries listed",
            report.entries,
            report.reproved_entries,
            report.accounts,
            report.lag_entries,
            report.dead_letters,
            report.lost_entries,
        ));
    }
    Ok(report.ok)
}

pub(super) async fn reconcile(
    config: &Config,
    common: &Common,
    args: &ReconcileArgs,
) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    let until = Instant::now() + TURN_MAX;
    let done = loop {
        match reconciling::reconcile(&pool, &ledger, args.apply).await? {
            Some(done) => break done,
            None if Instant::now() < until => tokio::time::sleep(TURN_EVERY).await,
            None => return Err("another instance is reconciling and does not end".into()),
        }
    };
    if common.json {
        output::document(&done)?;
    } else {
        list(&done.differences);
        output::say(&format!(
            "{} differences, {} corrected",
            done.differences.len(),
            done.corrected
        ));
    }
    Ok(done.differences.len() == done.corrected)
}

pub(super) async fn recover(
    config: &Config,
    common: &Common,
    args: &RecoverArgs,
) -> Result<bool, Failure> {
    let pool = open_database(config, false).await?;
    let shards = match args.shard {
        Some(shard) => shard..shard + 1,
        None => {
            let map = shard_map::load(&pool).await?;
            0..map.ok_or(recovering::RecoverError::NoShardMap)?.shards()
        }
    };
    let plans = recovering::plan(config, &pool, shards).await?;
    if args.dry_run {
        if common.json {
            output::document(&plans)?;
        } else {
            plans.iter().for_each(say_plan);
        }
        return Ok(true);
    }
    if !common.json {
        plans.iter().for_each(say_plan);
    }
    let bar = output::progress("rebuilding accounts");
    let mut progress = |done, all| output::advance(&bar, done, all);
    let allowed = Allowed {
        discard: args.discard.as_deref(),
        force: args.force,
    };
    let done = match args.shard {
        Some(shard) => {
            recovering::recover_shard(config, &pool, shard, allowed, &mut progress).await?
        }
        None => recovering::recover(config, &pool, allowed, &mut progress).await?,
    };
    bar.finish_and_clear();
    if common.json {
        output::document(&Done { plan: &plans, done })?;
    } else {
        output::say(&format!(
            "recovered: {} accounts and {} keys rebuilt, {} entries applied, {} discarded; epoch {}",
            done.accounts, done.keys, done.applied, done.discarded, done.epoch
        ));
        if done.serving > 0 {
            output::say(&format!(
                "{} shards serve, and were left as they are",
                done.serving
            ));
        }
    }
    Ok(true)
}

/// The result of a run, and its plan.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    done: Recovered,
    plan: &'a [Plan],
}

/// Says what a run is about to do with a shard, and each accepted entry that it would drop.
fn say_plan(plan: &Plan) {
    let state = if plan.serving {
        "its redis serves"
    } else {
        "its redis does not serve"
    };
    output::say(&format!(
        "shard {}: {state}; {} accounts to rebuild, {} entries to apply, {} accepted entries to drop",
        plan.shard,
        plan.accounts,
        plan.apply,
        plan.left.len()
    ));
    for left in &plan.left {
        let amount = left.total_amount;
        let amount = amount.map_or(String::new(), |amount| format!(", total {amount}"));
        output::say(&format!(
            "  {} {} of user {}{amount}",
            left.kind, left.position, left.user_id
        ));
    }
}
