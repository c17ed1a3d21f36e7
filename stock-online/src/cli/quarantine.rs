//! `quarantine`: lists accounts whose postings do not chain, and releases them.

use clap::{Args, Subcommand};
use stock_common::config::Config;
use stock_domain::account::Account;
use stock_engine::quarantine::release;
use stock_mysql::quarantine;

use super::{Common, Failure, connect, output};

#[derive(Debug, Args)]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the accounts from which nothing may be taken
    List,
    /// Append the postings that were kept aside to the level that two of three copies agree on, and
    /// open the account
    Release {
        /// The account, such as AVAILABLE:7:0
        account: String,
        /// Believe MySQL where the copies contradict each other
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &QuarantineArgs,
) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    if let Action::Release { account, force } = &args.action {
        let name = Account::parse(account);
        let name = name.ok_or_else(|| format!("{account} is no account; one is AVAILABLE:7:0"))?;
        let level = release(&pool, &ledger, name, *force).await?;
        if common.json {
            output::document(&serde_json::json!({
                "account": account, "balance": level.balance, "seq": level.seq,
            }))?;
        } else {
            output::say(&format!(
                "{account} is released: balance {} at posting {}",
                level.balance, level.seq
            ));
        }
        return Ok(true);
    }
    let all = quarantine::list(&pool).await?;
    if common.json {
        let rows: Vec<_> = all
            .iter()
            .map(|of| {
                serde_json::json!({
                    "account": of.broken.account.to_string(), "shard": of.shard,
                    "position": of.broken.position, "reason": of.broken.reason, "kept": of.kept,
                })
            })
            .collect();
        output::document(&rows)?;
        return Ok(true);
    }
    for of in &all {
        output::say(&format!(
            "{} since entry {}, {} postings kept aside: {}",
            of.broken.account, of.broken.position, of.kept, of.broken.reason
        ));
    }
    if all.is_empty() {
        output::say("no account is under quarantine");
    }
    Ok(true)
}
