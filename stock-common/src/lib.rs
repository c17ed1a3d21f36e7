//! The parts that every crate of Stock Flow shares: ids, money, time, error codes, settings, telemetry, supervised tasks.
//!
//! Nothing here knows Redis, SQL or HTTP; every other crate builds on it, never the other way round.

pub mod clock;
pub mod config;
pub mod id;
pub mod lock;
pub mod money;
pub mod supervise;
pub mod telemetry;
pub mod text;
