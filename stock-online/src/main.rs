//! The program `stock-online`: see [`stock_online::cli`] for its commands.

use std::process::ExitCode;

/// jemalloc reuses the memory that was freed last, also after a flood of requests. The measurement
/// stands in docs/performance.md.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    stock_online::cli::main()
}
