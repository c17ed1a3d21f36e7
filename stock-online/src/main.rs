//! The program `stock-online`: see [`stock_online::cli`] for its commands.

use std::process::ExitCode;

/// Requests allocate and free small pieces on two threads at once; measured in docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    stock_online::cli::main()
}
