//! `make faults`: breaks everything that can break, one line for each fault.

use std::process::ExitCode;

use clap::Parser;
use stock_online::cli::output::complain;
use stock_proof::faults::{Faults, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Faults::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("faults: {error}"));
            ExitCode::FAILURE
        }
    }
}
