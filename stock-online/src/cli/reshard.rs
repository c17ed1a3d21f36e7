//! `reshard`: another number of shards, while the shop is open; proved before and after.

use clap::Args;
use stock_common::config::Config;
use stock_domain::reshard::reshard;
use stock_domain::verify::verify;

use super::{Common, Failure, connect, meet, open_database, output};

#[derive(Debug, Args)]
pub(super) struct ReshardArgs {
    /// How many shards there are to be, 1..=64
    #[arg(long, value_name = "NUMBER")]
    shards: u64,
    /// Do not prove the ledger before and after
    #[arg(long)]
    unproved: bool,
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &ReshardArgs,
) -> Result<bool, Failure> {
    // The rebuilt Redis would miss what this program does not know.
    let pool = open_database(config, true).await?;
    if !args.unproved && !is_proved(config).await? {
        return Err(
            "the ledger does not agree: nothing was moved; see `stock-online verify`".into(),
        );
    }
    let _ledger = meet(config, &pool).await?;
    let bar = output::progress("moving slots");
    let mut progress = |done, all| output::advance(&bar, done, all);
    let done = reshard(config, &pool, args.shards, &mut progress).await?;
    bar.finish_and_clear();
    if common.json {
        output::document(&done)?;
    } else {
        output::say(&format!(
            "{} shards: {} slots with {} accounts have moved, none waited for more than {} ms; set \
             STOCK_SHARDS={} for new databases",
            done.shards, done.slots, done.accounts, done.longest_pause_ms, done.shards
        ));
    }
    Ok(args.unproved || is_proved(config).await?)
}

/// Proves the ledger from where the last proof ended.
async fn is_proved(config: &Config) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    let bar = output::progress("verifying");
    let mut progress = |done, all| output::advance(&bar, done, all);
    let report = verify(&pool, &ledger, false, &mut progress).await?;
    bar.finish_and_clear();
    if !report.ok {
        output::say(&format!(
            "NOT PROVED: {} differences",
            report.differences.len()
        ));
    }
    Ok(report.ok)
}
