//! Logs: JSON lines on stderr, so that stdout stays free for what a command reports.

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

use crate::spent::{STATEMENTS, StatementTimes};

/// Starts logging.
///
/// `filter` is a `tracing` filter such as `info` or `stock_online=debug,info`. A filter that cannot
/// be parsed falls back to `info`. With `times_statements`, the time of each
/// statement is counted for the request that sent it. A second call changes nothing.
pub fn init(filter: &str, times_statements: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_filter(filter);
    let begun = match times_statements {
        true => {
            let only = Targets::new().with_target(STATEMENTS, LevelFilter::DEBUG);
            let times = StatementTimes.with_filter(only);
            registry().with(log).with(times).try_init()
        }
        false => registry().with(log).try_init(),
    };
    if begun.is_err() {
        tracing_init_was_done();
    }
}

/// Does nothing: tests start many services in one process, and the first one's logger serves all.
const fn tracing_init_was_done() {}
