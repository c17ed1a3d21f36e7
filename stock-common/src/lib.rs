//! Code that every crate of Stock Flow shares: ids, money, time, texts, settings, logs, locks,
//! supervised tasks.
//!
//! Nothing here knows Redis, SQL or HTTP. Every other crate depends on this one, and this one on
//! none of them.

pub mod clock;
pub mod config;
pub mod id;
pub mod lock;
pub mod money;
pub mod spent;
pub mod supervise;
pub mod telemetry;
pub mod text;
