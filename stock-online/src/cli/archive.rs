//! `archive`: moves months of the journal from MySQL into files.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_engine::archive::{self, Held, Month, cut_off_ms};

use super::{Common, Failure, open_database, output};

#[derive(Debug, Args)]
pub(super) struct ArchiveArgs {
    /// The first month that stays, as 2026-01 (UTC); it began at least seven days ago
    #[arg(long, value_name = "MONTH")]
    before: Month,
    /// Where the files go; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &ArchiveArgs,
) -> Result<bool, Failure> {
    let cut_off = cut_off_ms(args.before, Clock::system().now_ms().unsigned_abs(), config)?;
    // A newer schema is refused: a column that this program does not know would be missing in the
    // files.
    let pool = open_database(config, true).await?;
    if args.dry_run {
        let plan = archive::plan(&pool, cut_off).await?;
        if common.json {
            output::document(
                &json!({ "dryRun": true, "files": plan.stretches, "held": plan.held }),
            )?;
        } else {
            for of in &plan.stretches {
                output::say(&format!(
                    "shard {} {}: entries {} to {} would go",
                    of.shard, of.month, of.first_number, of.last_number
                ));
            }
            say_held(&plan.held);
            output::say("nothing was written");
        }
        return Ok(true);
    }
    let bar = output::progress("archiving");
    let mut progress = |done, all| output::advance(&bar, done, all);
    let done = archive::archive(&pool, &args.to, cut_off, &mut progress).await?;
    bar.finish_and_clear();
    if common.json {
        output::document(&done)?;
        return Ok(true);
    }
    for of in &done.files {
        output::say(&format!(
            "{}: {} entries, sha256 {}",
            of.file, of.entries, of.checksum
        ));
    }
    say_held(&done.held);
    output::say(&format!(
        "{} files in {}",
        done.files.len(),
        args.to.display()
    ));
    Ok(true)
}

fn say_held(held: &[Held]) {
    for of in held {
        output::say(&format!(
            "shard {}: entries {} to {} stay: {}",
            of.shard, of.first_number, of.last_number, of.reason
        ));
    }
}
