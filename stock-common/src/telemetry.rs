//! Logs: JSON lines on stderr, so that stdout stays free for what a command reports.

use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is a `tracing` filter such as `info` or `stock_online=debug,info`. A
/// filter that cannot be parsed falls back to `info`. A second call changes nothing.
pub fn init(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    if subscriber.try_init().is_err() {
        tracing_init_was_done();
    }
}

/// Does nothing: tests start many services in one process, and the first one's logger serves all.
const fn tracing_init_was_done() {}
