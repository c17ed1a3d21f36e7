//! `dead-letters`: what could not be stored, and another try at it.

use clap::{Args, Subcommand};
use sqlx::{Connection, MySqlPool};
use stock_common::config::Config;
use stock_common::id::Position;
use stock_domain::database::{
    self, Role, coupon_issues, dead_letters, journal, orders, point_transactions, record,
};
use stock_domain::order::OrderStatus;

use super::{Common, Failure, output};

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
    let pool = database::pool(config, Role::Tool)?;
    let letters = dead_letters::list(&pool, None).await?;
    let (mut rows, mut all_done) = (Vec::new(), true);
    for letter in letters {
        let mut outcome = letter.state.clone();
        if let Action::Retry { position } = args.action {
            if position.is_some_and(|wanted| wanted != letter.position) {
                continue;
            }
            outcome = match retry(&pool, letter.position, &letter.state).await {
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

/// Writes an entry's own tables again. An order that was taken back meanwhile is stored as such.
async fn retry(pool: &MySqlPool, position: Position, state: &str) -> Result<(), Failure> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let entry = journal::find(&mut transaction, position).await?;
    let entry = entry.ok_or("its entry is not in the journal")??;
    // Points have moved and are noted already; the entry's own rows bring them again.
    point_transactions::delete(&mut transaction, position).await?;
    record::record_own(&mut transaction, &[&entry]).await?;
    let status = match state {
        "COMPENSATED" => Some(OrderStatus::Fail),
        "CANCELLED" => Some(OrderStatus::Cancel),
        _ => None,
    };
    if let Some(status) = status {
        orders::set_status(&mut transaction, &[position], status).await?;
        coupon_issues::set_free(&mut transaction, &[position]).await?;
    }
    transaction.commit().await?;
    dead_letters::set_state(pool, position, "RESOLVED").await?;
    Ok(())
}
