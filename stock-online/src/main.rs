//! The program `stock-online`: see [`stock_online::cli`] for its commands.

use std::process::ExitCode;

/// Memory that was used last is used first, also after a flood; measured in docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    stock_online::cli::main()
}
