//! `buckets`: a hot product's stock on several shards, or which products have it so.

use clap::Args;
use serde::Serialize;
use stock_common::config::Config;
use stock_common::id::ProductId;
use stock_domain::account::{Account, AccountKind};
use stock_domain::bucket::divide;
use stock_domain::ledger::Ledger;

use super::{Common, Failure, connect, output};

#[derive(Debug, Args)]
pub(super) struct BucketsArgs {
    /// The product whose stock is to be divided; without it those that are divided are listed
    #[arg(long, value_name = "ID", requires = "count")]
    product: Option<u64>,
    /// Into how many shares, each on a shard of its own; 1 is undivided
    #[arg(long, value_name = "NUMBER", requires = "product")]
    count: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Share {
    account: String,
    shard: u64,
    balance: i64,
    is_open: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Divided {
    product_id: u64,
    stock: i64,
    shares: Vec<Share>,
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &BucketsArgs,
) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    if let (Some(product), Some(count)) = (args.product, args.count) {
        divide(config, (&pool, &ledger), ProductId(product), count).await?;
    }
    let layout = ledger.layout().ok_or("mysql does not answer")?;
    let mut all = Vec::new();
    for product in layout.buckets.products() {
        if args.product.is_none_or(|of| of == product.0) {
            all.push(divided(&ledger, product).await?);
        }
    }
    if common.json {
        output::document(&all)?;
    } else if all.is_empty() {
        output::say("no product's stock is divided");
    } else {
        for of in all {
            output::say(&text(&of));
        }
    }
    Ok(true)
}

async fn divided(ledger: &Ledger, product: ProductId) -> Result<Divided, Failure> {
    let layout = ledger.layout().ok_or("mysql does not answer")?;
    let accounts = layout.buckets.accounts(product);
    let levels = ledger.own_levels(&accounts).await?;
    let share = |account: &Account| Share {
        account: account.to_string(),
        shard: stock_domain::layout::account_slot(*account).map_or(0, |slot| layout.owner(slot)),
        balance: levels.get(account).map_or(0, |level| level.balance),
        is_open: account.kind == AccountKind::Available
            || u16::try_from(account.place).is_ok_and(|slot| layout.buckets.has(product, slot)),
    };
    let shares: Vec<Share> = accounts.iter().map(share).collect();
    Ok(Divided {
        product_id: product.0,
        stock: shares.iter().map(|share| share.balance).sum(),
        shares,
    })
}

fn text(of: &Divided) -> String {
    let shares = of.shares.iter().map(|share| {
        let closed = if share.is_open { "" } else { ", being emptied" };
        format!(
            "\n  shard {}: {} in {}{closed}",
            share.shard, share.balance, share.account
        )
    });
    format!(
        "product {}: {} units{}",
        of.product_id,
        of.stock,
        shares.collect::<String>()
    )
}
