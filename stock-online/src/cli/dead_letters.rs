//! `dead-letters`: lists entries that could not be stored, and tries to store them again.

use clap::{Args, Subcommand};
use stock_common::config::Config;
use stock_common::id::Position;
use stock_mysql::dead_letters;

use super::{Common, Failure, open_database, output};

#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List those that are not resolved
    List,
    /// Write the tables of all of them, or of one, again; this never sells again
    Retry {
        /// The entry's position
        position: Option<Position>,
    },
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &DeadLettersArgs,
) -> Result<bool, Failure> {
    let pool = open_database(config, false).await?;
    let letters = dead_letters::list(&pool, None).await?;
    let (mut rows, mut all_done) = (Vec::new(), true);
    for letter in letters {
        let mut outcome = letter.state.clone();
        if let Action::Retry { position } = args.action {
            if position.is_some_and(|wanted| wanted != letter.position) {
                continue;
            }
            outcome = match dead_letters::retry(&pool, letter.position).await {
                Ok(()) => "RESOLVED".to_owned(),
                Err(error) => {
                    all_done = false;
                    format!("{}, still: {error}", letter.state)
                }
            };
        }
        rows.push(serde_json::json!({
            "position": letter.position, "kind": letter.kind, "reason": letter.reason,
            "attempts": letter.attempts, "state": outcome,
        }));
        if !common.json {
            output::say(&format!(
                "{} {} {} ({} attempts): {}",
                letter.position, letter.kind, outcome, letter.attempts, letter.reason
            ));
        }
    }
    if common.json {
        output::document(&rows)?;
    } else if rows.is_empty() {
        output::say("no dead letters");
    }
    Ok(all_done)
}
