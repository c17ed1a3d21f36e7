//! The tasks of a service that run beside its requests. Each runs until the shutdown, and is
//! started again when it panics.
//!
//! | file | what it keeps up to date |
//! |---|---|
//! | [`catalog`] | products and coupons in memory |
//! | [`health`] | the last look at MySQL |
//! | [`issuer`] | the keys of the tokens' issuer |
//! | [`limits`] | the counts of requests that instances share |
//! | [`monitor`] | measurements and metrics |
//! | [`pubsub`] | what other instances and the script announce |
//! | [`replicas`] | how far MySQL's replicas follow |
//! | [`tokens`] | whose tokens were ended |

pub mod catalog;
pub mod health;
pub mod issuer;
pub mod limits;
pub mod monitor;
pub mod pubsub;
pub mod replicas;
pub mod tokens;
