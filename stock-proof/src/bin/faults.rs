//! `make faults`: breaks everything that can break, one line for each fault.

use std::process::ExitCode;

use clap::Parser;
use stock_online::cli::output::complain;
use stock_proof::faults::{Faults, run};
use stock_proof::interrupted;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Faults::parse();
    // An interruption drops the run, which ends its servers.
    let done = tokio::select! {
        done = run(&options) => done,
        error = interrupted() => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("faults: {error}"));
            ExitCode::FAILURE
        }
    }
}
