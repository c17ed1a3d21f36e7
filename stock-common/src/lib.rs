//! What every part of Stock Flow shares: ids, money, time, error codes, configuration, telemetry.
//!
//! Nothing here knows Redis, SQL or HTTP; `stock-domain` and `stock-online` build on it, never the
//! other way round.

pub mod clock;
pub mod config;
pub mod error;
pub mod id;
pub mod money;
pub mod telemetry;
pub mod text;
