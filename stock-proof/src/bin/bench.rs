//! `make bench`: each figure beside its ceiling, in one run, into `docs/performance.md`.

use std::process::ExitCode;

use clap::Parser;
use stock_online::cli::output::complain;
use stock_proof::bench::{Bench, echo, run};
use stock_proof::interrupted;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Bench::parse();
    let running = async {
        match options.echo_port {
            Some(port) => echo::serve(port).await,
            None => run(&options).await,
        }
    };
    // An interruption drops the run, which ends its servers.
    let done = tokio::select! {
        done = running => done,
        error = interrupted() => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}
