//! `make scale`: several instances behind nginx on a Redis Cluster, replaced, killed and divided
//! anew under load.

use std::process::ExitCode;

use clap::Parser;
use stock_online::cli::output::complain;
use stock_proof::interrupted;
use stock_proof::scale::{Scale, run};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Scale::parse();
    // An interruption drops the run, which ends its servers.
    let done = tokio::select! {
        done = run(&options) => done,
        error = interrupted() => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("scale: {error}"));
            ExitCode::FAILURE
        }
    }
}
