//! `points-report`: writes a day's reports of points now.

use chrono::NaiveDate;
use clap::Args;
use serde_json::json;
use stock_common::config::Config;
use stock_engine::points_report;

use super::{Common, Failure, connect, output};

#[derive(Debug, Args)]
pub(super) struct PointsReportArgs {
    /// The day, as 2026-11-20, of the configured time zone; it must be over
    #[arg(long)]
    date: NaiveDate,
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &PointsReportArgs,
) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    let (zone, date) = (config.tz(), args.date);
    let Some(users) = points_report::write(&pool, &ledger, zone, date).await? else {
        return Err("another instance is writing reports at the moment".into());
    };
    if common.json {
        output::document(&json!({ "reportDate": date, "timeZone": zone.name(), "users": users }))?;
    } else {
        output::say(&format!("{date} in {zone}: {users} users' reports written"));
    }
    Ok(true)
}
