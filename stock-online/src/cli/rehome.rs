//! `rehome`: changes the number of shards while nothing is sold.

use clap::Args;
use stock_common::config::Config;
use stock_engine::rehome::rehome;

use super::{Common, Failure, open_database, output};

#[derive(Debug, Args)]
pub(super) struct RehomeArgs {
    /// The new number of shards, 1..=64
    #[arg(long, value_name = "NUMBER")]
    shards: u64,
    /// The Redis that the shop is on now, when the settings name another one already
    #[arg(long, value_name = "URL")]
    from: Option<String>,
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &RehomeArgs,
) -> Result<bool, Failure> {
    // A newer schema is refused: the rebuilt Redis would lack data that this program does not know.
    let pool = open_database(config, true).await?;
    let bar = output::progress("rebuilding");
    let mut progress = |done, all| output::advance(&bar, done, all);
    let from = config.clone().with(|config| {
        config.redis.redis_url = args
            .from
            .as_ref()
            .unwrap_or(&config.redis.redis_url)
            .clone();
    });
    let done = rehome(&from, config, &pool, args.shards, &mut progress).await?;
    bar.finish_and_clear();
    if common.json {
        output::document(&done)?;
    } else if done.pause_ms == 0 {
        output::say(&format!("there are {} shards already", done.shards));
    } else {
        output::say(&format!(
            "{} shards: {} accounts were written; nothing was sold for {} ms",
            done.shards, done.accounts, done.pause_ms
        ));
    }
    Ok(true)
}
